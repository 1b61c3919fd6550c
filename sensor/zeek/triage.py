"""`flowvane triage --zeek-conn`: Zeek's conn.log in, EVE alerts and a short table out."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sensor.feed import nowhere
from sensor.outputs.base import Output
from sensor.report import Console
from sensor.triage import Ready, TriageSummary, Triaging, make_ready, score_all, score_flows
from sensor.zeek.files import ConnLogMeter, open_logs
from sensor.zeek.parser import LogCounters

if TYPE_CHECKING:
    pass


@dataclass
class LogSummary(TriageSummary):
    """What a triage of logs did; `captures` is the number of logs."""

    meter: LogCounters = field(default_factory=LogCounters)

    @property
    def told(self) -> str:
        """What there was, as a part of a line."""
        return f"{self.meter.flows} connections, {self.meter.lines_told}, {self.captures} logs"


def triage_logs(
    paths: Sequence[Path],
    model: Triaging,
    ready: Ready,
    output: Output,
    console: Console,
) -> LogSummary:
    """Score all connections of logs and write the alerts; arguments as of :func:`triage`.

    Raises:
        ModelError, UsageError, OutputError: as :func:`sensor.triage.triage`.
    """
    summary = LogSummary()
    begun = time.monotonic()
    make_ready()
    files, summary.problems = open_logs(paths, console)
    meter = ConnLogMeter(files)
    summary.captures, summary.meter = len(files), meter.counters
    scoring = score_flows(meter, nowhere, model, ready, output, summary)
    size = sum(file.size for file in files)
    score_all(_in_bytes(scoring, meter), size, summary, console)
    summary.packets = meter.counters.read
    if not (summary.interrupted or meter.counters.lines or summary.problems):
        console.warn("there are no connections in the logs: nothing to score")
    summary.seconds = time.monotonic() - begun
    return summary


def _in_bytes(
    scoring: Generator[int, None, None], meter: ConnLogMeter
) -> Generator[int, None, None]:
    """The progress of `scoring` in bytes of the files."""
    before = 0
    with closing(scoring):
        for _ in scoring:
            now = meter.read_bytes
            yield now - before
            before = now
