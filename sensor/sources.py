"""What `flowvane run` takes flows from: interfaces, or a log of Zeek's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sensor.config.command import taps
from sensor.config.keys import Config
from sensor.daemon import places
from sensor.errors import ModelError
from sensor.feed import Places, nowhere
from sensor.meter.base import LiveSource
from sensor.pipeline import check_clock
from sensor.report import Console
from sensor.zeek.follow import LogFollower

if TYPE_CHECKING:
    from models.detector import Detector


class Source(Protocol):
    """Something that flows come from, not opened yet.

    Attributes:
        told: what is done with it, in words.
        places: where its flows were seen.
    """

    told: str
    places: Places

    def check(self) -> None:
        """See, before anything that takes long, that it can be opened.

        Raises:
            InputError: it cannot.
        """

    def open(self, detector: Detector, console: Console) -> LiveSource:
        """Open it for a model.

        Raises:
            InputError: it cannot be opened.
            ModelError: its times are too coarse for the model.
        """


class Interfaces:
    """Packets of interfaces."""

    def __init__(self, config: Config) -> None:
        self._config = config
        names = [tap.name for tap in taps(config)]
        self.told, self.places = f"capturing on {', '.join(names)}", places(names)

    def check(self) -> None:
        """See :class:`Source`."""
        from sensor.meter.compiled.interface import check

        check(taps(self._config))

    def open(self, detector: Detector, console: Console) -> LiveSource:
        """See :class:`Source`."""
        from sensor.meter.choice import open_live_meter
        from sensor.meter.compiled.core import Options

        config = self._config
        meter = open_live_meter(
            taps(config), detector.schema.meter, detector.clock_us,
            Options(most_flows=config.most_flows, linger_s=config.linger, early=detector.early),
            stop_within_s=config.stop_within, wanted=config.meter, warn=console.warn,
        )  # fmt: skip
        try:
            check_clock(meter, detector.clock_us)
        except ModelError:
            meter.close()
            raise
        return meter


class ZeekLog:
    """Connections of Zeek's conn.log."""

    def __init__(self, path: Path, *, from_start: bool, stop_within_s: float) -> None:
        self.places: Places = nowhere
        self._path, self._from_start, self._stop_within_s = path, from_start, stop_within_s
        self.told = f"following {path}"

    def check(self) -> None:
        """See :class:`Source`."""
        self._follow(from_start=True).close()

    def open(self, detector: Detector, console: Console) -> LiveSource:
        """See :class:`Source`."""
        return self._follow(from_start=self._from_start)

    def _follow(self, *, from_start: bool) -> LogFollower:
        return LogFollower(
            self._path, from_start=from_start, stop_within_s=self._stop_within_s
        )  # fmt: skip


def source_of(config: Config) -> Source:
    """The source that a configuration names."""
    log = config.zeek_conn
    if log.filename is None:
        return Interfaces(config)
    return ZeekLog(Path(log.filename), from_start=log.from_start, stop_within_s=config.stop_within)
