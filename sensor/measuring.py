"""Capture files measured into a feature file: what `features` does, and `learn` begins with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from features.measurement import Measurement
from features.schema import EarlyReports, Schema
from sensor.captures import CaptureSpool, chain
from sensor.errors import OutputError
from sensor.featurefile import feature_columns, open_writer
from sensor.meter.base import packets_of
from sensor.meter.choice import open_meter
from sensor.pipeline import measure
from sensor.report import Console
from sensor.triage import files_of, open_captures, tell_forgotten


@dataclass(frozen=True)
class Wanted:
    """How flows are to be measured.

    Attributes:
        schema: the features.
        clock_us: resolution of times.
        early: when flows that go on are reported, too.
        meter: one of :data:`sensor.meter.choice.METERS`.
    """

    schema: Schema
    clock_us: int
    early: EarlyReports
    meter: str


@dataclass(frozen=True)
class Written:
    """What was measured.

    Attributes:
        flows, captures: how many.
        whole: whether every capture was read in full.
    """

    flows: int
    captures: int
    whole: bool


def measure_captures(
    paths: Sequence[Path], wanted: Wanted, output: Path, console: Console
) -> Written:
    """Write the features of all flows of capture files.

    Every problem of an input is told on the console in one line; whatever can be read is measured.

    Raises:
        UsageError: `output` is no name of a feature file, or pyarrow is missing.
        OutputError: it cannot be written.
    """
    schema = wanted.schema
    writer = open_writer(output, schema)
    forgotten: Counter[str] = Counter()
    try:
        with CaptureSpool() as spool:
            captures, problems = open_captures(paths, spool, console)
            chains = chain(captures, schema.meter.idle_timeout_s * 1_000_000)
            meter = open_meter(
                chains, schema.meter, wanted.clock_us, early=wanted.early, wanted=wanted.meter,
                warn=console.warn,
            )  # fmt: skip
            clock_us = max(meter.clock_us, wanted.clock_us)
            total = sum(each.packets for each in chains)
            with console.progress("measuring", total) as advance:
                for measured in measure(meter, schema, clock_us, forgotten):
                    seen_in = files_of(measured.flows, chains)
                    writer.write(feature_columns(measured, schema, seen_in))
                    advance(packets_of(measured.flows))
            for line in meter.counters.problems:
                console.error(line)
            tell_forgotten(forgotten, console)
        writer.close(Measurement.of(schema, clock_us, meter.early))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"{output}: cannot be written: {reason}") from error
    whole = not (problems or meter.counters.problems)
    return Written(meter.counters.flows, len(captures), whole)
