"""The compiled meter for capture files, behind the interface of all meters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from features.flows import Ending, FlowBatch
from features.schema import MeterSettings
from sensor.captures import Chain
from sensor.meter.base import MeterCounters, idle_by
from sensor.meter.compiled.core import FlowTable, Options
from sensor.meter.compiled.layout import END_OF_FILE, READ_ERROR


class CompiledMeter:
    """Meters chains of capture files, one after the other; each chain is an origin.

    A file of a chain that cannot be read to its end is reported in the counters, what it had
    yet to give is counted as lost, and metering goes on with the next chain.
    """

    def __init__(
        self, chains: Sequence[Chain], settings: MeterSettings, clock_us: int = 1,
        options: Options | None = None,
    ) -> None:  # fmt: skip
        """Meter `chains`; times *between* packets are measured on a clock of `clock_us`.

        It is the model's: what is measured between two times cannot be brought to its clock
        later. Times themselves are always libpcap's microseconds.

        Raises:
            UnknownEngine: NFStream's engine cannot be driven.
        """
        self.clock_us = clock_us
        self.counters = MeterCounters()
        self._chains = chains
        self._settings = settings
        self._options = options or Options()
        # The first table also shows, before any flow is wanted, that the engine is known.
        self._table: FlowTable | None = self._new_table()

    def _new_table(self) -> FlowTable:
        return FlowTable(self._settings, self.clock_us, self._options)

    def flows(self) -> Iterator[FlowBatch]:
        """Batches of flows; the origin of a flow is the index of its chain."""
        for origin, chain in enumerate(self._chains):
            table, self._table = self._table or self._new_table(), None
            try:
                before = self.counters.flows
                for batch in self._chain(table, chain):
                    batch["origin"] = origin
                    packets = int((batch["src_packets"] + batch["dst_packets"]).sum())
                    self.counters.metered += packets
                    self.counters.flows += len(batch)
                    yield batch
                if self.counters.flows == before:
                    self.counters.empty_origins.add(origin)
            finally:
                table.free()

    def _chain(self, table: FlowTable, chain: Chain) -> Iterator[FlowBatch]:
        control = table.control
        for part, path in zip(chain.parts, chain.captures, strict=True):
            begun = int(control["read"])
            try:
                table.open(str(part.path.absolute()))
                why = -1
                while why not in (END_OF_FILE, READ_ERROR):
                    why, batch = table.read()
                    if batch is not None:
                        yield batch
                reason = "a packet cannot be read" if why == READ_ERROR else ""
            except OSError as error:
                reason = str(error)
            if reason:
                self.counters.lost += part.packets - (int(control["read"]) - begun)
                self.counters.problems.append(f"{path}: metering failed: {reason}")
        for batch in table.end(Ending.CAPTURE_END):
            yield idle_by(batch, chain.last_us, self._settings)
        self.counters.read += chain.packets
        self.counters.not_metered += int(control["ignored"])
        self.counters.lost += int(control["failed"])
        self.counters.evicted += int(control["evicted"])
