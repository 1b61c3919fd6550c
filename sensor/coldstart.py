"""`flowvane run` where there is no model yet: it is learnt from the interfaces first.

A process of its own learns (`flowvane learn`), while this one scores by another model or waits.
What it captured is kept beside the bundle, so that a restart goes on with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from models.manifest import MANIFEST, BundleError, read
from sensor.config.build import medium_of
from sensor.config.keys import Config, EveLog, Output
from sensor.config.write import as_yaml
from sensor.daemon import Turn
from sensor.durations import seconds_of
from sensor.errors import ExitCode, FlowvaneError, ModelError, OutputError, UsageError
from sensor.livefeatures import FlowFolder
from sensor.medium import check_medium
from sensor.notify import Notifier
from sensor.report import Console
from sensor.signals import Requests
from sensor.verdict import check_rate

_CONFIG = "capture.yaml"
"""In the folder of flows: what the process that learns captures by."""
_POLL_S = 0.2
_STATUS_S = 10.0
_TERM_S = 10.0
"""The process has so long to end after SIGTERM."""


def needed(config: Config) -> bool:
    """Whether a model is to be learnt before there can be alerts by it."""
    return config.learn.enabled and not (Path(config.model) / MANIFEST).is_file()


def meanwhile_of(config: Config) -> Config | None:
    """What holds until the model is learnt; None if nothing is scored till then."""
    model = config.learn.meanwhile
    return None if model is None else config.model_copy(update={"model": model})


def check_start(config: Config) -> None:
    """See, before anything that takes long, that a model can be learnt, and used until then.

    Raises:
        ModelError: there is something else in its place, or no model for the time being.
        UsageError: that one cannot keep the rate, or flows cannot be kept.
    """
    if find_spec("pyarrow") is None:
        raise UsageError("learn.enabled: needs pyarrow: pip install 'flowvane[parquet]'")
    place = Path(config.model)
    if place.exists():
        raise ModelError(f"{place}: exists and is no model bundle; name another folder to learn to")
    between = meanwhile_of(config)
    if between is not None:
        try:
            stored = read(between.model)
        except BundleError as error:
            raise ModelError(f"learn.meanwhile: {error}") from error
        check_medium(stored.name, stored.schema, medium_of(config))
        check_rate(config.rate, stored.name, stored.calibration)


class LearningFailed(FlowvaneError):
    """The process that learns ended without a model; why, it told itself."""

    def __init__(self, code: int) -> None:
        known = code in set(ExitCode) - {ExitCode.OK}
        self.exit_code = ExitCode(code) if known else ExitCode.INTERNAL
        super().__init__(f"learning ended with exit code {code}; no model is there")


class Learning:
    """The process that learns. Where there was too little traffic it begins again, for longer.

    Attributes:
        failed: why it was given up, or None.
    """

    def __init__(self, config: Config, console: Console) -> None:
        """Learn as a configuration says; `console` is told what the process has to say."""
        self._config, self._console = config, console
        self._folder = FlowFolder.beside(Path(config.model))
        self._lasting_s = float(seconds_of(config.learn.lasting) or 0)
        self._flows = config.learn.flows
        self._process: subprocess.Popen[str] | None = None
        self._stopping = False
        self.failed: LearningFailed | None = None

    def begin(self) -> None:
        """Begin, or go on with what an earlier start captured.

        The thread that calls this must live as long as the process: the kernel ends that with it.

        Raises:
            OutputError: nothing can be written where the model is to be.
        """
        config = self._folder / _CONFIG
        # Where events go is not for who learns to know, passwords least of all.
        plain = self._config.model_copy(update={"outputs": [Output(**{"eve-log": EveLog()})]})
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            config.write_text(as_yaml(plain), "utf-8")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"{config}: cannot be written: {reason}") from error
        process = subprocess.Popen(
            self.command(config),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="backslashreplace",
            # The service manager is told things by us alone.
            env={name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"},
        )  # fmt: skip
        self._process = process
        forward = threading.Thread(
            target=self._forward, args=(process.stdout,), name="learning", daemon=True
        )
        forward.start()

    def command(self, config: Path) -> list[str]:
        """What learns, by a file of configuration."""
        limits = ["--for", f"{max(round(self._lasting_s), 1)}s"]
        limits += [] if self._flows is None else ["--flows", str(self._flows)]
        return [
            sys.executable, "-P", "-m", "sensor.tied", str(os.getpid()), "learn", "--quiet",
            "--resume", "-c", str(config), "-o", self._config.model, *limits,
        ]  # fmt: skip

    def _forward(self, lines: IO[str]) -> None:
        with lines:
            for line in filter(None, map(str.strip, lines)):
                self._console.say(f"learning: {line.removeprefix('flowvane: ')}")

    def poll(self) -> bool:
        """Whether the model is there, without waiting.

        Where there was too little traffic, learning begins again; where there will be no model,
        :attr:`failed` says so.
        """
        code = None if self._process is None else self._process.poll()
        if code is None or self.failed is not None or self._stopping:
            return False
        if code == ExitCode.DATASET:
            self._longer()
        elif code != ExitCode.OK or needed(self._config):
            self.failed = LearningFailed(code)
        else:
            return True
        return False

    def _longer(self) -> None:
        """Capture as long again, by time alone."""
        more_s = float(seconds_of(self._config.learn.lasting) or 0)
        with suppress(OSError, TypeError, ValueError):  # then the process tells, as it reads it
            self._lasting_s = FlowFolder.progress_in(self._folder).seconds + more_s
        self._flows = None
        self._console.warn(
            "nothing can be learnt from what there is, as was told; capturing for "
            f"{timedelta(seconds=more_s)} (h:mm:ss) more"
        )
        self.begin()

    @property
    def status(self) -> str:
        """How far things are, in a few words."""
        with suppress(OSError, TypeError, ValueError):
            progress = FlowFolder.progress_in(self._folder)
            return (
                f"learning {self._config.model}: {progress.flows:,} flows in "
                f"{progress.seconds / 3600:.1f} of {self._lasting_s / 3600:.1f} h"
            )
        return f"learning {self._config.model}"

    def end(self) -> None:
        """End the process, if it runs; what it captured is kept."""
        self._stopping = True
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_TERM_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait(learning: Learning, notifier: Notifier, console: Console) -> bool:
    """Wait in silence until the model is there; False if a signal came first.

    Raises:
        LearningFailed: it will not be.
    """
    requests, over = Requests(), threading.Event()
    requests.stop = over.set
    notifier.tell(READY=1)
    told_at = fed_at = 0.0
    with requests.noted():
        while not learning.poll():
            if learning.failed is not None:
                raise learning.failed
            if over.wait(_POLL_S):
                notifier.tell(STOPPING=1, STATUS="ending: what was captured to learn from is kept")
                return False
            if requests.reload:
                requests.reload = False
                console.warn("reload: there is no model yet; what changed takes a restart")
            now = time.monotonic()
            if now - told_at >= _STATUS_S:
                told_at = now
                notifier.tell(STATUS=f"{learning.status}; no alerts until then")
            if notifier.watchdog_s is not None and now - fed_at >= notifier.watchdog_s / 3:
                fed_at = now
                notifier.tell(WATCHDOG=1)
    return True


def changeover(learning: Learning, stop: Callable[[], None], console: Console) -> Turn:
    """What is to be done between two batches of another model: `stop` once the learnt one is there.

    Where it will not be there, that is told, and the other one stays.
    """
    told = False

    def turn() -> None:
        nonlocal told
        if learning.poll():
            stop()
        elif learning.failed is not None and not told:
            told = True
            console.error(f"{learning.failed}; going on without, a restart tries again")

    return turn
