"""`flowvane triage`: capture files in, EVE alerts and a short table out."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from features.flows import FlowBatch
from sensor.ahead import Ahead
from sensor.captures import Capture, CaptureSpool, Chain, chain, shown
from sensor.errors import ExitCode, InputError
from sensor.feed import AlertFeed, Decided, EventWriter, Places
from sensor.meter.base import Meter, MeterCounters, packets_of
from sensor.meter.choice import open_meter
from sensor.outputs.base import Output
from sensor.pipeline import Measured, ScoresRows, measure, score
from sensor.report import AlertGroups, Console
from sensor.verdict import Explains

if TYPE_CHECKING:  # metering begins before JAX is loaded
    from features.schema import EarlyReports, Schema
    from models.manifest import Stored

_SWITCH_S = 0.001
"""How long a thread waits for another that runs Python; 5 ms unless told."""
_AHEAD_BATCHES = 8
"""Batches of measured flows that may wait for the model to be loaded and to score."""


class Loaded(ScoresRows, Explains, Protocol):
    """A model that scores and explains."""


class Triaging(Protocol):
    """A model for a triage: what is known of it before it is loaded."""

    @property
    def name(self) -> str:
        """As events give it."""

    @property
    def schema(self) -> Schema:
        """Of the rows that it scores."""

    @property
    def clock_us(self) -> int:
        """Resolution of their times."""

    @property
    def early(self) -> EarlyReports:
        """When flows that go on are reported, too."""

    def load(self) -> Loaded:
        """The model itself."""

    def marked(self, measured: Iterator[Measured]) -> Iterator[Measured]:
        """Measured flows, with what the model wants to know of them beside their features."""


Ready = Callable[[], tuple[Loaded, AlertFeed]]
"""Gives the model, loaded, and what decides on its alerts."""


@dataclass
class TriageSummary:
    """What a triage did; `problems` are lines about inputs, each told already.

    `forgotten` counts the hosts, pairs and the like whose context had to make room for others.
    """

    captures: int = 0
    packets: int = 0
    alerts: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    meter: MeterCounters = field(default_factory=MeterCounters)
    problems: list[str] = field(default_factory=list)
    groups: AlertGroups = field(default_factory=AlertGroups)
    forgotten: Counter[str] = field(default_factory=Counter)

    @property
    def told(self) -> str:
        """What there was, as a part of a line."""
        meter = self.meter
        early = f" ({meter.evicted} ended early: the flow table was full)" if meter.evicted else ""
        return (
            f"{meter.flows} flows{early}, {self.packets} packets ({meter.not_metered} not "
            f"metered, {meter.lost} lost), {self.captures} captures"
        )

    @property
    def exit_code(self) -> ExitCode:
        """INTERRUPTED, else INPUT if any input was not read in full, else OK."""
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.INPUT if self.problems or self.meter.problems else ExitCode.OK


def open_captures(
    paths: Sequence[Path], spool: CaptureSpool, console: Console
) -> tuple[list[Capture], list[str]]:
    """Look the files through; tell of each that is not read in full, and go on with the rest.

    A file named twice, or by two names, is read once.
    """
    captures: list[Capture] = []
    problems: list[str] = []
    seen: set[str] = set()
    for path in console.track(paths, "reading captures"):
        real = os.path.realpath(path)
        if real in seen:
            console.warn(f"{path}: named before; read once")
            continue
        seen.add(real)
        try:
            capture = spool.open(path)
        except InputError as error:
            problems.append(str(error))
            console.error(str(error))
            continue
        captures.append(capture)
        if capture.problem:
            problems.append(f"{path}: {capture.problem}")
            console.error(problems[-1])
    return captures, problems


def make_meter(
    captures: Sequence[Capture], model: Stored | Triaging, wanted: str, console: Console
) -> tuple[list[Chain], Meter]:
    """The chains of the captures, and the meter that measures them as for the model's training."""
    settings = model.schema.meter
    chains = chain(captures, settings.idle_timeout_s * 1_000_000)
    meter = open_meter(
        chains, settings, model.clock_us, early=model.early, wanted=wanted, warn=console.warn
    )
    return chains, meter


def triage(
    paths: Sequence[Path],
    model: Triaging,
    ready: Ready,
    output: Output,
    console: Console,
    meter_wanted: str = "compiled",
) -> TriageSummary:
    """Score all flows of the captures as one triage and write the alerts.

    Every input problem is told on the console in one line; whatever can be read is scored.

    Args:
        paths: the captures.
        model: what the model says of itself; metering begins with that.
        ready: called once, meanwhile: the model, loaded, and what decides on its alerts.
        output: where alerts go.
        console: where all else is told.
        meter_wanted: one of :data:`sensor.meter.choice.METERS`.

    Raises:
        ModelError: the model cannot be used.
        UsageError: the alerts that are wanted cannot be had of this model.
        OutputError: the alerts cannot be written.
    """
    summary = TriageSummary()
    begun = time.monotonic()
    make_ready()
    with CaptureSpool() as spool:
        captures, summary.problems = open_captures(paths, spool, console)
        chains, meter = make_meter(captures, model, meter_wanted, console)
        summary.captures = sum(1 for each in captures if each.packets or not each.problem)
        summary.packets = sum(each.packets for each in chains)
        summary.meter = meter.counters
        score_all(
            score_chains(chains, meter, model, ready, output, summary), summary.packets, summary,
            console,
        )  # fmt: skip
        if not summary.interrupted:
            _tell_empty(captures, chains, meter.counters.empty_origins, console)
    summary.seconds = time.monotonic() - begun
    return summary


def make_ready() -> None:
    """Settings of the process in which much is scored at once."""
    # What was imported stays: looking it through for garbage, again and again, is for nothing.
    gc.freeze()
    # The meter's thread needs the interpreter's lock for a moment only, a batch at a time.
    sys.setswitchinterval(_SWITCH_S)


def score_all(
    scoring: Generator[int, None, None], total: int, summary: TriageSummary, console: Console
) -> None:
    """Let a generator of progress come to its end, or to an interruption, and tell of it.

    Args:
        scoring: gives how much of `total` was done since the last time.
        total: see above.
        summary: of what it scores.
        console: is told.
    """
    try:
        with console.progress("scoring", total) as advance, closing(scoring):
            for done in scoring:
                advance(done)
    except KeyboardInterrupt:
        summary.interrupted = True
    for line in summary.meter.problems:
        console.error(line)
    tell_forgotten(summary.forgotten, console)


def score_chains(
    chains: Sequence[Chain],
    meter: Meter,
    model: Triaging,
    ready: Ready,
    output: Output,
    summary: TriageSummary,
) -> Generator[int, None, None]:
    """Score all flows that `meter` makes of `chains`: :func:`score_flows`."""
    places = partial(places_of, chains=chains)
    yield from score_flows(meter, places, model, ready, output, summary)


def score_flows(
    meter: Meter,
    places: Places,
    model: Triaging,
    ready: Ready,
    output: Output,
    summary: TriageSummary,
) -> Generator[int, None, None]:
    """Score all flows of a meter, write the alerts, and count them.

    The other arguments are those of :func:`triage`; `places` says where flows were seen.

    Yields:
        Packets of the flows that were scored, a batch at a time.
    """
    measuring = model.marked(measure(meter, model.schema, model.clock_us, summary.forgotten))
    with closing(Ahead(measuring, _AHEAD_BATCHES)) as measured:
        detector, feed = ready()
        writer = EventWriter(output, detector.name, places)
        gc.freeze()  # what that has loaded stays, too
        try:
            for scored in score(measured, detector, summary.forgotten):
                _tell(feed.push(scored), writer, summary)
                summary.alerts = feed.counters.alerts
                yield packets_of(scored.flows)
        except (KeyboardInterrupt, GeneratorExit):
            _tell(feed.end(), writer, summary)
            raise
        _tell(feed.end(), writer, summary)


def _tell(decided: Decided, writer: EventWriter, summary: TriageSummary) -> None:
    writer.write(decided)
    summary.groups.add(decided.alerts)


def files_of(flows: FlowBatch, chains: Sequence[Chain]) -> list[str]:
    """The name of the file in which each of ``[B]`` flows ended."""
    ends = zip(flows["origin"].tolist(), flows["last_us"].tolist(), strict=True)
    return [shown(chains[origin].file_at(last_us)) for origin, last_us in ends]


def places_of(flows: FlowBatch, chains: Sequence[Chain]) -> list[dict[str, str]]:
    """What the event of each of ``[B]`` flows says of where it was seen."""
    return [{"pcap_filename": name} for name in files_of(flows, chains)]


def tell_forgotten(forgotten: Mapping[str, int], console: Console) -> None:
    """Say how much context had to make room for other, if any."""
    if forgotten:
        what = ", ".join(f"{number:,} {table}" for table, number in forgotten.items())
        console.warn(f"context of the hosts was full; forgotten, the oldest first: {what}")


def _tell_empty(
    captures: Sequence[Capture], chains: Sequence[Chain], empty: Set[int], console: Console
) -> None:
    """Name the captures in which nothing was IP: not an error, but nobody should wonder."""
    idle: set[Path] = set()
    busy: set[Path] = set()
    for number, each in enumerate(chains):
        (idle if number in empty else busy).update(each.captures)
    for capture in captures:
        if not capture.packets and not capture.problem:
            console.warn(f"{capture.path}: has no packets: nothing to score")
        elif capture.path in idle - busy:
            console.warn(
                f"{capture.path}: has no IP traffic in its {capture.packets} packets: "
                "nothing to score"
            )
