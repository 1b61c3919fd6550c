"""The compiled meter for capture files, behind the interface of all meters."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from features.flows import Ending, FlowBatch
from features.schema import MeterSettings
from sensor.ahead import Ahead
from sensor.captures import Chain
from sensor.meter.base import MeterCounters, idle_by, packets_of
from sensor.meter.compiled.core import FlowTable, Options
from sensor.meter.compiled.layout import END_OF_FILE, READ_ERROR

SHARDED_PACKETS = 100_000
"""A capture of fewer packets than this is metered by one thread: more would not be worth it."""
_MOST_THREADS = 4
BATCH_FLOWS = 4096
"""Flows handed on together: many, as each batch takes the interpreter's lock."""
_AHEAD_BATCHES = 4
"""Batches of flows that a thread may be ahead of the scoring."""
_LATER_US = (1 << 63) - 1

_Step = tuple[int, FlowBatch | None]
"""How far the time of a table has come, and flows that have finished, if any."""


@dataclass
class _Run:
    """A chain that is being metered: a thread and a table for each shard of its flows."""

    origin: int
    tables: list[FlowTable]
    shards: list[Ahead[_Step]]
    problems: list[str]

    def close(self) -> None:
        """Stop the threads and free the tables."""
        for shard in self.shards:
            shard.close()
        for table in self.tables:
            table.free()


class CompiledMeter:
    """Meters chains of capture files; each chain is an origin, and they come in order.

    Works on several threads: on several chains at once, and on a long one by sharing its flows
    out. What comes out is the same whatever their number, as long as the flow table is not full.
    A file of a chain that cannot be read to its end is reported in the counters, what it had yet
    to give is counted as lost, and metering goes on with the next one.
    """

    def __init__(
        self, chains: Sequence[Chain], settings: MeterSettings, clock_us: int = 1,
        options: Options | None = None, threads: int | None = None,
    ) -> None:  # fmt: skip
        """Meter `chains`; times *between* packets are measured on a clock of `clock_us`.

        It is the model's: what is measured between two times cannot be brought to its clock
        later. Times themselves are always libpcap's microseconds.

        Raises:
            UnknownEngine: NFStream's engine cannot be driven.
        """
        self.clock_us = clock_us
        self.counters = MeterCounters()
        self.progress_us: int | None = None
        self._chains = chains
        self._settings = settings
        self._options = options or Options()
        self.early = self._options.early
        # One processor is for the scoring.
        processors = len(os.sched_getaffinity(0))
        self._threads = threads or min(max(processors - 1, 1), _MOST_THREADS)
        # Whether the engine is known shows before any flow is wanted.
        FlowTable(settings, clock_us, self._options).free()

    def flows(self) -> Generator[FlowBatch, None, None]:
        """Batches of flows; the origin of a flow is the index of its chain."""
        running: deque[_Run] = deque()
        waiting = iter(range(len(self._chains)))
        try:
            while True:
                while len(running) < self._threads and (origin := next(waiting, None)) is not None:
                    running.append(self._start(origin))
                if not running:
                    return
                yield from self._hand_on(running[0])
                running.popleft().close()
        finally:
            for run in running:
                run.close()

    def _start(self, origin: int) -> _Run:
        chain = self._chains[origin]
        shards = self._threads if chain.packets >= SHARDED_PACKETS else 1
        problems: list[str] = []
        options = replace(self._options, most_flows=max(self._options.most_flows // shards, 1))
        tables = [
            FlowTable(
                self._settings,
                self.clock_us,
                options,
                shards=shards,
                shard=number,
                batch=BATCH_FLOWS,
            )
            for number in range(shards)
        ]
        return _Run(
            origin,
            tables,
            [Ahead(self._steps(table, chain, problems), _AHEAD_BATCHES) for table in tables],
            problems,
        )

    def _hand_on(self, run: _Run) -> Iterator[FlowBatch]:
        """The flows of a chain, from its shards in turns: the one least far on comes next."""
        chain, before = self._chains[run.origin], self.counters.flows
        reached = [-_LATER_US] * len(run.shards)
        while min(reached) < _LATER_US:
            number = reached.index(min(reached))
            reached[number], batch = next(run.shards[number], (_LATER_US, None))
            self.progress_us = min(reached)
            if batch is None:
                continue
            batch["origin"] = run.origin
            self.counters.metered += packets_of(batch)
            self.counters.early += int((batch["ending"] == Ending.EARLY).sum())
            self.counters.flows += len(batch)
            yield batch
        if self.counters.flows == before:
            self.counters.empty_origins.add(run.origin)
        self._account(run, chain)

    def _account(self, run: _Run, chain: Chain) -> None:
        """Say what became of the packets that are in no flow."""
        # Every shard reads every packet; only those of flows are shared out.
        first = run.tables[0].control
        self.counters.read += chain.packets
        self.counters.not_metered += int(first["ignored"])
        self.counters.lost += sum(int(table.control["failed"]) for table in run.tables)
        self.counters.lost += chain.packets - int(first["read"])
        self.counters.evicted += sum(int(table.control["evicted"]) for table in run.tables)
        self.counters.problems += dict.fromkeys(run.problems)

    def _steps(self, table: FlowTable, chain: Chain, problems: list[str]) -> Iterator[_Step]:
        for part, path in zip(chain.parts, chain.captures, strict=True):
            try:
                table.open(str(part.path.absolute()))
                why = -1
                while why not in (END_OF_FILE, READ_ERROR):
                    why, batch = table.read()
                    yield table.progress_us, batch
                if why == READ_ERROR:
                    problems.append(f"{path}: metering failed: a packet cannot be read")
            except OSError as error:
                problems.append(f"{path}: metering failed: {error}")
        for batch in table.end(Ending.CAPTURE_END):
            yield table.progress_us, idle_by(batch, chain.last_us, self._settings)
