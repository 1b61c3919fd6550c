"""Which meter meters: the compiled one, or stock NFStreamer where the engine is not known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from features.schema import NEVER_EARLY, EarlyReports, MeterSettings
from sensor.captures import Chain
from sensor.errors import InputError
from sensor.meter.base import Meter

if TYPE_CHECKING:
    from sensor.meter.compiled.core import Options
    from sensor.meter.compiled.interface import Tap
    from sensor.meter.compiled.live import LiveMeter

METERS = ("compiled", "stock")
_NEVER_EARLY = "stock NFStreamer meters: flows are reported when they end, never before"


def open_meter(
    chains: Sequence[Chain], settings: MeterSettings, clock_us: int, *,
    early: EarlyReports = NEVER_EARLY, wanted: str = "compiled", warn: Callable[[str], None],
) -> Meter:  # fmt: skip
    """The meter for chains of capture files, on a clock of `clock_us` where it can.

    Args:
        early: when flows that go on are reported, too; stock NFStreamer does not.
        wanted: one of :data:`METERS`.
        warn: told in one line if the compiled meter cannot be had and stock NFStreamer serves.
    """
    from sensor.meter.stock import StockMeter

    if wanted == "stock":
        if early:
            warn(_NEVER_EARLY)
        return StockMeter(chains, settings)
    from sensor.meter.compiled.core import Options
    from sensor.meter.compiled.engine import UnknownEngine
    from sensor.meter.compiled.meter import CompiledMeter

    try:
        return CompiledMeter(chains, settings, clock_us, Options(early=early))
    except UnknownEngine as error:
        warn(_instead(error))
        return StockMeter(chains, settings)


def open_live_meter(
    interfaces: Sequence[str | Tap], settings: MeterSettings, clock_us: int, options: Options, *,
    stop_within_s: float,
    wanted: str = "compiled", warn: Callable[[str], None],
) -> LiveMeter:  # fmt: skip
    """The meter for interfaces; arguments as of :class:`LiveMeter` and :func:`open_meter`.

    Raises:
        InputError: an interface cannot be captured, or stock NFStreamer does not start.
    """
    from sensor.meter.compiled.engine import UnknownEngine
    from sensor.meter.compiled.live import LiveMeter
    from sensor.meter.stock import CLOCK_US
    from sensor.meter.stock_live import StockTable

    if wanted != "stock":
        try:
            return LiveMeter(interfaces, settings, clock_us, options, stop_within_s=stop_within_s)
        except UnknownEngine as error:
            warn(_instead(error))
    elif options.early:
        warn(_NEVER_EARLY)
    if options.linger_s:
        warn("stock NFStreamer ends TCP connections by their timeouts only; --linger is left aside")
    options = replace(options, early=NEVER_EARLY)
    try:
        return LiveMeter(
            interfaces, settings, CLOCK_US, options,
            stop_within_s=stop_within_s,
            new_table=lambda: StockTable(settings, options),
        )  # fmt: skip
    except UnknownEngine as error:
        raise InputError(f"nothing can be captured: {error}") from error


def _instead(error: Exception) -> str:
    return (
        f"this NFStream is not one that the compiled meter knows ({error}); stock NFStreamer "
        "meters instead: slower, times to the millisecond, wrong fragments not seen, no flow "
        "reported before its end"
    )
