"""Captures and logs measured into a feature file: what `features` does, and `learn` begins with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from features.flows import FlowBatch
from features.measurement import Measurement
from features.schema import NEVER_EARLY, EarlyReports, Schema
from sensor.captures import CaptureSpool, chain
from sensor.errors import ExitCode, OutputError
from sensor.featurefile import FeatureWriter, feature_columns, open_writer
from sensor.meter.base import Meter, packets_of
from sensor.meter.choice import open_meter
from sensor.pipeline import measure
from sensor.report import Console
from sensor.triage import files_of, open_captures, tell_forgotten
from sensor.zeek.files import ConnLogMeter, open_logs


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
    with _writing(output, schema) as writer, CaptureSpool() as spool:
        captures, problems = open_captures(paths, spool, console)
        chains = chain(captures, schema.meter.idle_timeout_s * 1_000_000)
        meter = open_meter(
            chains, schema.meter, wanted.clock_us, early=wanted.early, wanted=wanted.meter,
            warn=console.warn,
        )  # fmt: skip
        clock_us = max(meter.clock_us, wanted.clock_us)
        total = sum(each.packets for each in chains)
        _write(meter, schema, clock_us, writer, partial(files_of, chains=chains), total, console)
        writer.close(Measurement.of(schema, clock_us, meter.early))
    whole = not (problems or meter.counters.problems)
    return Written(meter.counters.flows, len(captures), whole)


def write_logs(
    paths: Sequence[Path], schema: Schema, clock_us: int, output: Path, console: Console
) -> ExitCode:
    """Write a row for each connection of conn.log files.

    Raises:
        OutputError: the file cannot be written.
    """
    with _writing(output, schema) as writer:
        files, problems = open_logs(paths, console)
        meter = ConnLogMeter(files)
        _write(meter, schema, clock_us, writer, _uids, 0, console)
        writer.close(Measurement.of(schema, clock_us, NEVER_EARLY))
    counters = meter.counters
    console.say(
        f"{counters.flows} connections, {counters.lines_told}, {len(files)} logs in {output}"
    )
    return ExitCode.INPUT if problems or counters.problems else ExitCode.OK


def _uids(flows: FlowBatch) -> list[str]:
    return [uid.decode("utf-8", "replace") for uid in flows["uid"].tolist()]


def _write(
    meter: Meter, schema: Schema, clock_us: int, writer: FeatureWriter,
    seen_in: Callable[[FlowBatch], list[str]], total: int, console: Console,
) -> None:  # fmt: skip
    forgotten: Counter[str] = Counter()
    with console.progress("measuring", total) as advance:
        for measured in measure(meter, schema, clock_us, forgotten):
            writer.write(feature_columns(measured, schema, seen_in(measured.flows)))
            advance(packets_of(measured.flows))
    for line in meter.counters.problems:
        console.error(line)
    tell_forgotten(forgotten, console)


@contextmanager
def _writing(output: Path, schema: Schema) -> Iterator[FeatureWriter]:
    writer = open_writer(output, schema)
    try:
        yield writer
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"{output}: cannot be written: {reason}") from error
