"""Flows of interfaces written to feature files, for a time or a number of flows.

A file is closed after :data:`PART_FLOWS` flows or :data:`PART_S` seconds, so that a capture of days
that is cut off in any way loses the last minutes of it, not all, and goes on later.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from features.measurement import Measurement
from sensor.errors import OutputError
from sensor.featurefile import FeatureWriter, feature_columns, open_writer
from sensor.live import measure_live
from sensor.measuring import Wanted
from sensor.meter.choice import open_live_meter
from sensor.meter.compiled.core import Options
from sensor.meter.compiled.interface import Tap, check
from sensor.meter.compiled.live import LiveMeter
from sensor.pipeline import Measured
from sensor.report import Console
from sensor.signals import Requests
from sensor.triage import tell_forgotten

PART_FLOWS = 1 << 16
PART_S = 300.0
_PROGRESS, _LOCK = "progress.json", ".lock"
STOP_WITHIN_S = 60.0
"""At the end flows that are under way are measured for so long at most."""


@dataclass(frozen=True)
class Capture:
    """What is captured: until `lasting_s` seconds or `flows` are reached, if they are given.

    Attributes:
        taps: interfaces, and how each is captured.
        options: of the meter; when it reports early is not taken from here.
        lasting_s, flows: of earlier calls, too; None for no such limit.
    """

    taps: Sequence[Tap]
    options: Options
    lasting_s: float | None
    flows: int | None

    def reached(self, seconds: float, flows: int) -> bool:
        """Whether so many seconds or flows are enough."""
        return (self.lasting_s is not None and seconds >= self.lasting_s) or (
            self.flows is not None and flows >= self.flows
        )


@dataclass
class Progress:
    """How much was captured so far, over all calls.

    Attributes:
        seconds: for how long.
        flows: how many ended.
        lost: packets that the kernel, the interface or a slow consumer cost.
        parts: files that were closed.
    """

    seconds: float = 0.0
    flows: int = 0
    lost: int = 0
    parts: int = 0


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from capturing to a folder, which is made if need be.

    Raises:
        OutputError: one does already, or the folder cannot be written.
    """
    with ExitStack() as opened:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = opened.enter_context((folder / _LOCK).open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"{folder}: another process captures to it; learn to another folder, or wait"
            ) from error
        except OSError as error:
            raise OutputError(f"{folder}: {(error.strerror or str(error)).lower()}") from error
        yield


class FlowFolder:
    """A folder of feature files, and how far a capture has come."""

    @staticmethod
    def beside(bundle: Path) -> Path:
        """Where the flows are kept that a bundle is learnt from."""
        return bundle.with_name(bundle.name + ".flows")

    @staticmethod
    def progress_in(path: Path) -> Progress:
        """How far a folder says that its capture is; nothing if there is none.

        Raises:
            OSError, TypeError, ValueError: it cannot be read.
        """
        told = path / _PROGRESS
        return Progress(**json.loads(told.read_text())) if told.exists() else Progress()

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Open a folder; unless it is to be gone on with, what another capture left is removed.

        Raises:
            OutputError: it cannot be written, or holds no capture to go on with.
        """
        self.path, self._told = path, path / _PROGRESS
        self.progress = Progress()
        try:
            path.mkdir(parents=True, exist_ok=True)
            if resume:
                self.progress = self.progress_in(path)
            for number, part in enumerate(self.files):
                if not resume or number >= self.progress.parts:
                    part.unlink()
        except OSError as error:
            raise OutputError(f"{path}: {(error.strerror or str(error)).lower()}") from error
        except (TypeError, ValueError) as error:
            raise OutputError(f"{self._told}: damaged: {error}; leave out --resume") from error

    @property
    def files(self) -> list[Path]:
        """The feature files, in the order in which they were written."""
        return sorted(self.path.glob("flows-*.parquet"))

    def enough(self, wanted: Capture) -> bool:
        """Whether as many seconds or flows were captured as are wanted."""
        return wanted.reached(self.progress.seconds, self.progress.flows)

    def next_file(self) -> Path:
        """Name of the next one."""
        return self.path / f"flows-{self.progress.parts + 1:05d}.parquet"

    def closed(self, progress: Progress) -> None:
        """A file is closed; note how far things are."""
        self.progress = progress
        self._told.write_text(json.dumps(asdict(progress)) + "\n")


class _Parts:
    """Writes measured flows, a file after the other."""

    def __init__(
        self, folder: FlowFolder, wanted: Wanted, meter: LiveMeter, names: Sequence[str],
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._folder, self._schema, self._meter, self._names = folder, wanted.schema, meter, names
        self._measurement = Measurement.of(wanted.schema, wanted.clock_us, meter.early)
        self._clock, self._before, self._begun = clock, folder.progress, clock()
        self._writer: FeatureWriter | None = None
        self._since, self._held = self._begun, 0
        self.flows = folder.progress.flows

    @property
    def seconds(self) -> float:
        """Captured so far."""
        return self._before.seconds + self._clock() - self._begun

    def add(self, measured: Measured) -> None:
        """Write flows; close the file if it is time."""
        if len(measured.flows):
            if self._writer is None:
                self._writer = open_writer(self._folder.next_file(), self._schema)
                self._since = self._clock()
            seen_in = [self._names[origin] for origin in measured.flows["origin"].tolist()]
            self._writer.write(feature_columns(measured, self._schema, seen_in))
            self.flows += len(measured.flows)
            self._held += len(measured.flows)
        if self._held >= PART_FLOWS or (
            self._writer is not None and self._clock() - self._since >= PART_S
        ):
            self.close()

    def close(self) -> None:
        """Close the file, and note how far things are."""
        more = self._writer is not None
        if self._writer is not None:
            self._writer.close(self._measurement)
        self._writer, self._held = None, 0
        counters = self._meter.counters
        lost = counters.kernel_drops + counters.interface_drops + counters.queue_full_packets
        before = self._before
        self._folder.closed(Progress(
            self.seconds, self.flows, before.lost + lost, self._folder.progress.parts + more
        ))  # fmt: skip


def capture_flows(
    capture: Capture, wanted: Wanted, folder: FlowFolder, console: Console,
    clock: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """Capture on interfaces until so many seconds or flows are reached, earlier calls included.

    Raises:
        InputError: an interface cannot be captured.
        OutputError: a file cannot be written.
        KeyboardInterrupt: SIGINT or SIGTERM came; all that had come in by then is written.
    """
    if folder.enough(capture):
        return
    taps, names = capture.taps, [tap.name for tap in capture.taps]
    check(taps)
    requests = Requests()
    with requests.noted():
        meter = open_live_meter(
            taps, wanted.schema.meter, wanted.clock_us,
            replace(capture.options, early=wanted.early),
            stop_within_s=STOP_WITHIN_S, wanted=wanted.meter, warn=console.warn,
        )  # fmt: skip
        requests.stop = meter.stop
        parts = _Parts(folder, wanted, meter, names, clock)
        forgotten: Counter[str] = Counter()
        measured = measure_live(meter, wanted.schema, wanted.clock_us, forgotten)
        total = capture.lasting_s if capture.lasting_s is not None else float(capture.flows or 0)
        try:
            with closing(meter), console.progress(f"capturing on {', '.join(names)}", total) as bar:
                _write_all(_until(measured, meter, parts, capture, bar), parts)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"{folder.path}: cannot be written: {reason}") from error
        for line in meter.notices():
            console.warn(line)
        tell_forgotten(forgotten, console)
    if requests.stopped_at is not None:
        raise KeyboardInterrupt


def _write_all(measured: Iterator[Measured], parts: _Parts) -> None:
    try:
        for item in measured:
            parts.add(item)
    finally:
        parts.close()


def _until(
    measured: Iterator[Measured], meter: LiveMeter, parts: _Parts, capture: Capture,
    advance: Callable[[float], None],
) -> Iterator[Measured]:  # fmt: skip
    """The same items; the meter is stopped when there is enough, and what it had comes still."""
    shown = 0.0
    for item in measured:
        yield item
        now = parts.seconds if capture.lasting_s is not None else float(parts.flows)
        advance(now - shown)
        shown = now
        if capture.reached(parts.seconds, parts.flows):
            meter.stop()
