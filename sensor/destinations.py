"""Where `flowvane run` writes: all outputs of a configuration, each with its types of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sensor.eve import PLAIN, Style
from sensor.feed import Decided, EventWriter, Places
from sensor.outputs.base import Loss, Output
from sensor.outputs.choice import open_output
from sensor.outputs.queued import CLOSE_WITHIN_S, OutputCounters, Queued
from sensor.outputs.spec import OutputSpec
from sensor.stats import Statistics, StatsWriter

_GRACE_S = 0.1
"""What a write that is under way when the time is over gets beside."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output, as a configuration has it.

    Attributes:
        spec: where events go.
        types: which events (:data:`sensor.feed.TYPES`).
        style: how they are written.
        stats_every_s: seconds from one `stats` event to the next; None for none.
    """

    spec: OutputSpec
    types: frozenset[str] = frozenset({"alert"})
    style: Style = PLAIN
    stats_every_s: float | None = None


class _Each:
    """Several outputs as one: what they have in common is encoded once."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = outputs

    def write(self, lines: Sequence[bytes]) -> None:
        for output in self._outputs:
            output.write(lines)

    def close(self) -> None:
        for output in self._outputs:
            output.close()


class Destinations:
    """Writes what is decided, and the counters, to wherever each is wanted.

    Writing returns at once: behind each output is a queue with a thread of its own
    (:class:`sensor.outputs.queued.Queued`).
    """

    def __init__(
        self, events: Sequence[EventWriter] = (), stats: Sequence[StatsWriter] = (),
        queues: Sequence[Queued] = (),
    ) -> None:  # fmt: skip
        """Take over writers, and the queues that they write to."""
        self._events, self._stats, self._queues = events, stats, queues
        self._closed = False

    @property
    def names(self) -> list[str]:
        """What messages call the outputs."""
        return [queue.name for queue in self._queues]

    @property
    def alive(self) -> bool:
        """Whether the threads of all outputs are there."""
        return all(queue.alive for queue in self._queues)

    def counters(self) -> list[tuple[str, OutputCounters]]:
        """Name and counters of each output, as they are now."""
        return [(queue.name, queue.counters) for queue in self._queues]

    def total(self) -> OutputCounters:
        """The counters of all outputs together."""
        return total(counters for _, counters in self.counters())

    def write(self, decided: Decided) -> None:
        """Write the events.

        Raises:
            BaseException: what a defect of an output raised in its thread.
        """
        for writer in self._events:
            writer.write(decided)

    def write_stats(self, statistics: Statistics, *, last: bool = False) -> None:
        """Write the `stats` events that are due, or all of them at the end."""
        for writer in self._stats:
            writer.write(statistics, last=last)

    def use_model(self, name: str) -> None:
        """Have events give this name of the model from now on."""
        for writer in self._events:
            writer.model = name

    def reopen(self) -> None:
        """Begin files anew under their names (logrotate)."""
        for queue in self._queues:
            queue.reopen()

    def notices(self) -> list[str]:
        """What there is to tell the operator since the last call: one line each."""
        return [line for queue in self._queues for line in queue.notices()]

    def close(self, within_s: float = CLOSE_WITHIN_S) -> None:
        """Deliver what is queued, all outputs at a time, and close them; what is left is lost.

        Nothing happens the second time.

        Raises:
            BaseException: what a defect of an output raised in its thread.
        """
        if self._closed or not self._queues:
            return
        self._closed = True
        with ThreadPoolExecutor(len(self._queues)) as pool:
            closing = [pool.submit(queue.close, within_s, _GRACE_S) for queue in self._queues]
        for each in closing:
            each.result()


def open_destinations(
    wanted: Sequence[Wanted], log_dir: Path, model: str, places: Places
) -> Destinations:
    """Open outputs.

    Args:
        wanted: the outputs.
        log_dir: folder of those whose file is not given from the root on.
        model: its name.
        places: where flows were seen.

    Raises:
        OutputError: one cannot be opened; none is left open.
    """
    queues: list[Queued] = []
    try:
        for each in wanted:
            queues.append(open_output(each.spec, log_dir))  # noqa: PERF401 (closed if one fails)
    except BaseException:
        Destinations(queues=queues).close(0.0)
        raise
    alike: dict[tuple[frozenset[str], Style], list[Output]] = {}
    for each, queue in zip(wanted, queues, strict=True):
        if each.types:
            alike.setdefault((each.types, each.style), []).append(queue)
    events = [
        EventWriter(_Each(outputs), model, places, types, style)
        for (types, style), outputs in alike.items()
    ]
    stats = [
        StatsWriter(queue, each.stats_every_s, each.style)
        for each, queue in zip(wanted, queues, strict=True)
        if each.stats_every_s is not None
    ]
    return Destinations(events, stats, queues)


def total(counters: Iterable[OutputCounters]) -> OutputCounters:
    """The counters of several outputs together."""
    whole = OutputCounters()
    for each in counters:
        whole.given += each.given
        whole.written += each.written
        whole.reconnects += each.reconnects
        whole.queued += each.queued
        whole.dropped.update(each.dropped)
    return whole


def told(counters: OutputCounters) -> str:
    """Counters as a part of a line: ``12 events written, 3 lost (2 disk_full, 1 stopped)``."""
    causes: Counter[Loss] = counters.dropped
    why = ", ".join(f"{count:,} {cause}" for cause, count in sorted(causes.items()) if count)
    return (
        f"{counters.written:,} events written, {counters.lost:,} lost{f' ({why})' if why else ''}"
    )
