"""SIGUSR2: the model and what decides on alerts are made anew while the capture goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from models.bundle import assemble
from models.detector import Detector
from models.manifest import BundleError, Stored, read
from sensor.config.build import deciders_of
from sensor.config.keys import Config, path_text, plain
from sensor.config.source import leaves
from sensor.daemon import Stages
from sensor.drift import Drift
from sensor.errors import FlowvaneError, ModelError
from sensor.feed import Deciders
from sensor.live import warm_up
from sensor.report import Console
from sensor.signals import Requests

ANEW = frozenset({
    "model", "false-positive-rate", "alert-budget", "suppress", "grouping", "recalibrate",
})  # fmt: skip
"""Keys that a reload looks at; the others take a restart."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """What takes the place of what is in use."""

    config: Config
    detector: Detector
    deciders: Deciders


class Reloader:
    """Makes things anew in a thread, and puts them in their places between two batches.

    Until all of it is there, and is known to fit, what is in use stays in use: a configuration,
    a model or a file of rules that is wrong changes nothing. No flow goes unscored, and none is
    scored twice. What waits in groups is told by the model that found it.

    Attributes:
        done, refused: how many reloads there were that changed things, and that did not.
    """

    def __init__(
        self, config: Config, reread: Callable[[], Config], stages: Stages, console: Console,
        requests: Requests,
    ) -> None:  # fmt: skip
        """Reload when `requests` say so.

        Args:
            config: what the sensor was started with.
            reread: gives the configuration as it is now.
            stages: where things are put.
            console: is told what became of it.
            requests: what signals ask for.
        """
        self._config, self._reread, self._stages = config, reread, stages
        self._console, self._requests = console, requests
        self._coming: Future[_Ready] | None = None
        self.done = self.refused = 0

    @property
    def under_way(self) -> bool:
        """Whether something is being made."""
        return self._coming is not None

    def results(self) -> dict[str, int]:
        """How many reloads there were, by result."""
        return {"done": self.done, "refused": self.refused}

    def turn(self) -> None:
        """Begin what was asked for, or end what is ready; called between two batches."""
        if self._coming is not None and self._coming.done():
            self._end(self._coming)
            self._coming = None
        elif self._coming is None and self._requests.reload:
            self._requests.reload = False
            self._coming = Future()
            work = threading.Thread(
                target=self._make, args=(self._coming,), name="reload", daemon=True
            )
            work.start()

    def _make(self, coming: Future[_Ready]) -> None:
        try:
            coming.set_result(self._ready())
        except Exception as error:  # noqa: BLE001 (told by _end: whatever it is, all stays)
            coming.set_exception(error)

    def _ready(self) -> _Ready:
        """All that is new, ready to be used.

        Raises:
            FlowvaneError: something is wrong with the configuration, the model or the rules.
        """
        config = self._reread()
        try:
            stored = read(config.model)
            check_fits(stored, self._stages.scorer.detector)
            detector = assemble(stored)
        except BundleError as error:
            raise ModelError(str(error)) from error
        deciders = deciders_of(config, detector)
        warm_up(detector)
        return _Ready(config, detector, deciders)

    def _end(self, coming: Future[_Ready]) -> None:
        error = coming.exception()
        if error is not None:
            self.refused += 1
            lines = [f"{type(error).__name__}: {error}"]
            if isinstance(error, FlowvaneError):
                lines = error.lines
            for line in lines:
                self._console.warn(f"reload refused, all stays as it was: {line}")
            return
        ready = coming.result()
        self._put(ready)
        self.done += 1
        self._console.say(f"reloaded; model {ready.detector.name}")
        for key in restarts(self._config, ready.config):
            self._console.warn(f"reload: {key} takes a restart, and stays as it was")

    def _put(self, ready: _Ready) -> None:
        """Let the next batch be scored by the new model, and decided on by its verdict."""
        stages = self._stages
        stages.outputs.write(stages.feed.use(ready.deciders))
        stages.outputs.use_model(ready.detector.name)
        stages.scorer.use(ready.detector)
        stages.statistics.drift = Drift(ready.detector)


def check_fits(new: Stored, used: Detector) -> None:
    """Refuse a model that needs other measurements than those that are being made.

    Raises:
        ModelError: it does.
    """
    for what, has, wants in (
        ("schema", used.schema.name, new.schema.name),
        ("a clock in microseconds of", used.clock_us, new.clock_us),
        ("early reports", used.early or "none", new.early or "none"),
    ):
        if has != wants:
            raise ModelError(
                f"{new.directory}: model {new.name} wants {what} {wants}, and flows are measured "
                f"for {has}; that takes a restart"
            )


def restarts(started: Config, now: Config) -> Iterator[str]:
    """The keys that changed, of those that take a restart."""
    before, after = dict(leaves(plain(started))), dict(leaves(plain(now)))
    for path in [*before, *(path for path in after if path not in before)]:
        if path[0] not in ANEW and before.get(path) != after.get(path):
            yield path_text(path)
