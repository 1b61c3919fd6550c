"""Which meter meters: the compiled one, or stock NFStreamer where the engine is not known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from features.schema import MeterSettings
from sensor.captures import Chain
from sensor.meter.base import Meter

METERS = ("compiled", "stock")


def open_meter(
    chains: Sequence[Chain], settings: MeterSettings, clock_us: int, *,
    wanted: str = "compiled", warn: Callable[[str], None],
) -> Meter:  # fmt: skip
    """The meter for chains of capture files, on a clock of `clock_us` where it can.

    Args:
        wanted: one of :data:`METERS`.
        warn: told in one line if the compiled meter cannot be had and stock NFStreamer serves.
    """
    from sensor.meter.stock import StockMeter

    if wanted == "stock":
        return StockMeter(chains, settings)
    from sensor.meter.compiled.engine import UnknownEngine
    from sensor.meter.compiled.meter import CompiledMeter

    try:
        return CompiledMeter(chains, settings, clock_us)
    except UnknownEngine as error:
        warn(
            f"this NFStream is not one that the compiled meter knows ({error}); stock NFStreamer "
            "meters instead: slower, times to the millisecond, wrong fragments not seen"
        )
        return StockMeter(chains, settings)
