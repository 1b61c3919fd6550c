"""Which meter meters: the compiled one, or stock NFStreamer where the engine is not known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from features.schema import NEVER_EARLY, EarlyReports, MeterSettings
from sensor.captures import Chain
from sensor.meter.base import Meter

METERS = ("compiled", "stock")


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
            warn("stock NFStreamer meters: flows are reported when they end, never before")
        return StockMeter(chains, settings)
    from sensor.meter.compiled.core import Options
    from sensor.meter.compiled.engine import UnknownEngine
    from sensor.meter.compiled.meter import CompiledMeter

    try:
        return CompiledMeter(chains, settings, clock_us, Options(early=early))
    except UnknownEngine as error:
        warn(
            f"this NFStream is not one that the compiled meter knows ({error}); stock NFStreamer "
            "meters instead: slower, times to the millisecond, wrong fragments not seen, no flow "
            "reported before its end"
        )
        return StockMeter(chains, settings)
