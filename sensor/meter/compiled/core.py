"""One flow table driven by compiled code: what file meters and live meters are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.flows import FLOW_DTYPE, NEVER, Ending, FlowBatch, copy_flows
from features.schema import NEVER_EARLY, EarlyReports, MeterSettings
from sensor.meter.compiled import engine
from sensor.meter.compiled.layout import (
    CONNECTION,
    CONTROL,
    DATAGRAM,
    NONE,
    PEEK,
    PEEKS_FULL,
    REMEMBERED,
    ROWS_FULL,
    STATE,
    TABLE_FULL,
    WAY,
)  # fmt: skip
from sensor.meter.compiled.record import without_odd_text
from sensor.meter.content import CONTENT_FIELDS, Content, Protocol

BATCH_FLOWS = 1024
"""Flows that are handed on together at most, unless told."""
_PEEKS, _PEEK_OCTETS = 8192, 1 << 22
_ETHERNET = 14
"""Where IP begins in a frame, until a packet shows it."""
_DATAGRAMS = 1024
_FIRST_SLOTS = 4096
_PACKETS_AT_ONCE = 65_536
"""Packets in one call of the compiled loop at most, so that signals are heard in between."""

_SHOWN = attrgetter(*CONTENT_FIELDS)

_NOTHING_COMPILED = frozenset({
    "choice.py", "interface.py", "live.py", "stock.py", "stock_live.py", "stock_live_worker.py",
    "stock_worker.py",
})  # fmt: skip
"""Sources that no machine code is made from."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a meter may do beside its schema's settings.

    Attributes:
        most_flows: flows in the table at once; when it is full the least recently seen one is
            pushed out. One costs 3.5 kB, 2.7 of them the engine's and nDPI's; what triage keeps
            beside the table is bounded by other numbers. With so many as the default a triage in
            a flood takes 0.9 GiB (``benchmarks/flood.py``).
        linger_s: a TCP flow that said goodbye (a RST, or a FIN from both sides), or whose source
            has sent nothing but SYNs, ends after so long without a packet; 0: it ends as others
            do. Off for schemas whose data sets know no such end.
        early: when flows that go on are reported, too.
    """

    most_flows: int = 1 << 16
    linger_s: float = 0.0
    early: EarlyReports = NEVER_EARLY


@cache
def _sources_digest() -> str:
    """A digest of the sources that the machine code on disk was made from.

    Numba looks at the file of the outermost function only, to see whether the code that it
    kept is stale. The digest is part of the name of a field of CONTROL, so of the types that the
    functions are compiled for: code of other sources is code for other types.
    """
    here = Path(__file__).parent
    sources = [*sorted(here.glob("*.py")), *sorted(here.parent.glob("*.py"))]
    sources = [source for source in sources if source.name not in _NOTHING_COMPILED]
    sources.append(Path(__file__).parents[3] / "features" / "flows.py")
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def control_dtype() -> np.dtype[np.void]:
    """:data:`CONTROL`, marked with the sources' digest."""
    fields = [(name, *_described(CONTROL, name)) for name in CONTROL.names or ()]
    return np.dtype([*fields, (f"sources_{_sources_digest()}", "u1")], align=True)


def _described(record: np.dtype[np.void], name: str) -> tuple[Any, ...]:
    kind = record[name]
    return (kind.base, kind.shape) if kind.shape else (kind,)


class FlowTable:
    """Flows under way, and the machinery that packets of one capture after the other go through.

    Not for use from several threads at once.
    """

    def __init__(
        self, settings: MeterSettings, clock_us: int, options: Options, *,
        shards: int = 1, shard: int = 0, batch: int = BATCH_FLOWS,
    ) -> None:  # fmt: skip
        """An empty table; finished flows come in batches of `batch` at most.

        Raises:
            UnknownEngine: NFStream's engine cannot be driven.
        """
        engine.register()
        from sensor.meter.compiled import loop

        self._loop = loop
        self._options = options
        self._offsets = engine.handle_offsets()
        self._dissector = engine.new_dissector()
        slots = min(_FIRST_SLOTS, options.most_flows)
        self._table = (
            np.zeros(slots, STATE), np.zeros(2 * slots, WAY),
            np.zeros(_power_of_two(2 * slots), np.uint64), np.zeros(_DATAGRAMS, DATAGRAM),
            (np.zeros(REMEMBERED, np.uint64), np.zeros(2 * REMEMBERED, CONNECTION)),
        )  # fmt: skip
        self._done = (
            np.zeros(batch, np.int64), np.zeros(batch * FLOW_DTYPE.itemsize, np.uint8),
            np.zeros(batch, np.uint8), np.zeros(1, engine.flow_dtype()),
        )  # fmt: skip
        blank = np.zeros(1, STATE)
        blank["syn_us"] = blank["synack_us"] = blank["ack_us"] = NEVER
        blank_way = np.zeros(1, WAY)
        blank_way["before_us"] = NEVER
        self._fresh = (engine.packet_buffer(), np.zeros(6, np.uint64), blank, blank_way)
        self._text = (np.zeros(_PEEKS, PEEK), np.zeros(_PEEK_OCTETS, np.uint8))
        self._control = np.zeros(1, control_dtype())
        control = self._control[0]
        control["dissector"], control["dissections"] = self._dissector, engine.DISSECTED_PACKETS
        control["idle_ms"] = settings.idle_timeout_s * 1000
        control["active_ms"] = settings.active_timeout_s * 1000
        control["linger_ms"] = round(options.linger_s * 1000)
        early = options.early
        control["early_by_age"], control["early_by_count"] = len(early.ages_s), len(early.packets)
        control["early_ages_us"][: len(early.ages_s)] = [round(s * 1e6) for s in early.ages_s]
        control["early_counts"][: len(early.packets)] = early.packets
        control["clock_us"], control["shards"], control["shard"] = clock_us, shards, shard
        control["packets_at_once"] = _PACKETS_AT_ONCE
        control["oldest"] = control["latest"] = NONE
        control["free"] = NONE
        control["may_grow"] = slots < options.most_flows
        self._loop.reindex(self._control, self._table, 0)
        self._contents: dict[int, Content] = {}
        self._handle = 0

    @property
    def control(self) -> Any:
        """Settings, state and counters: a record of :data:`layout.CONTROL`."""
        return self._control[0]

    @property
    def progress_us(self) -> int:
        """No flow is still to come that ended an idle timeout before this time."""
        control, states = self._control[0], self._table[0]
        idle_us = int(control["idle_ms"]) * 1000
        oldest = [int(slot) for slot in control["oldest"] if slot != NONE]
        due = [int(states[slot]["last_us"]) + idle_us for slot in oldest]
        return min([int(control["now_us"]), *due])

    def open(self, path: str) -> None:
        """Go on with a capture file; the one before is closed.

        Raises:
            OSError: it cannot be opened.
        """
        self.close_capture()
        self._handle = engine.open_capture(path)
        engine.clear_buffer(self._handle)
        self._read_from(self._handle, engine.FILE)

    def listen(self, handle: int) -> None:
        """Go on with an open interface, libpcap's handle, which stays its owner's to close."""
        self.close_capture()
        self._read_from(handle, engine.LIVE)

    def _read_from(self, handle: int, mode: int) -> None:
        control = self._control[0]
        header, buffer = self._offsets
        control["capture"], control["header"] = handle, handle + header
        control["buffer"] = handle + buffer if mode == engine.FILE else 0
        control["mode"] = mode
        control["ip_at"] = _ETHERNET if mode == engine.FILE else 0

    def warm(self) -> None:
        """Have all code compiled that :meth:`read`, :meth:`clock` and :meth:`end` call."""
        control = self._control[0]
        most, control["packets_at_once"] = int(control["packets_at_once"]), 0
        self.read()
        control["packets_at_once"] = most
        for _ in (*self.clock(0), *self.end(Ending.SHUTDOWN)):
            pass

    def close_capture(self) -> None:
        """Close the capture, if one is open; its flows stay."""
        if self._handle:
            engine.close_capture(self._handle)
            self._handle = 0

    def read(self) -> tuple[int, FlowBatch | None]:
        """Read packets; return why that ended, and flows if any have finished.

        The reason is END_OF_FILE, NOTHING_NOW, READ_ERROR or, when there may be more, ENOUGH.
        """
        while True:
            why = self._loop.run(self._control, self._table, self._done, self._text, self._fresh)
            self._read_peeks()
            if why == TABLE_FULL:
                self._grow()
            elif why != PEEKS_FULL:
                return (why if why != ROWS_FULL else -1), self._taken()

    def clock(self, now_us: int) -> Iterator[FlowBatch]:
        """Move the time without a packet; the flows that it ends."""
        yield from self._batches(
            lambda: self._loop.run_clock(self._control, self._table, self._done, now_us)
        )

    def end(self, ending: Ending) -> Iterator[FlowBatch]:
        """End every flow."""
        yield from self._batches(
            lambda: self._loop.run_out(self._control, self._table, self._done, int(ending))
        )

    def discard(self) -> tuple[int, int]:
        """End every flow without a record of it; how many there were, and their packets."""
        flows = packets = 0
        more = True
        while more:
            ending = int(Ending.SHUTDOWN)
            more = self._loop.run_out(self._control, self._table, self._done, ending) == ROWS_FULL
            count = int(self._control[0]["rows"])
            flows += count
            rows = self._written(count)
            packets += int((rows["src_packets"] + rows["dst_packets"]).sum())
            self._control[0]["rows"] = 0
        self._contents.clear()
        return flows, packets

    def free(self) -> None:
        """Give everything back; flows that are still in the table are dropped."""
        self.close_capture()
        if self._dissector:
            self.discard()
            engine.free_dissector(self._dissector)
            self._dissector = 0

    def _batches(self, step: Any) -> Iterator[FlowBatch]:
        more = True
        while more:
            more = step() == ROWS_FULL
            if (batch := self._taken()) is not None:
                yield batch

    def _taken(self) -> FlowBatch | None:
        """The finished flows as a FlowBatch, and room for more."""
        count = int(self._control[0]["rows"])
        if not count:
            return None
        serials, _, odd, _ = self._done
        rows = copy_flows(self._written(count))
        for place in np.flatnonzero(odd[:count]):
            without_odd_text(rows[place : place + 1])
        self._add_contents(rows, serials[:count])
        self._control[0]["rows"] = 0
        return rows

    def _written(self, count: int) -> FlowBatch:
        """The rows that compiled code has written, where it will write again."""
        octets: NDArray[np.uint8] = self._done[1]
        return octets[: count * FLOW_DTYPE.itemsize].view(FLOW_DTYPE)

    def _add_contents(self, rows: FlowBatch, serials: NDArray[np.int64]) -> None:
        """Put what Python has read of the flows' texts into ``[B]`` rows."""
        places = np.flatnonzero(serials != NONE)
        if not len(places):
            return
        shown = []
        early = (rows["ending"][places] == Ending.EARLY).tolist()
        for serial, goes_on in zip(serials[places].tolist(), early, strict=True):
            content = self._contents[serial] if goes_on else self._contents.pop(serial)
            shown.append(_SHOWN(content))
        for name, column in zip(CONTENT_FIELDS, np.array(shown).T, strict=True):
            # What the loop saw of HTTP by itself is in the row already.
            rows[name][places] = np.maximum(rows[name][places], column)

    def _read_peeks(self) -> None:
        """Let Python read the text that the loop has kept for it."""
        control = self._control[0]
        count = int(control["peeks"])
        if not count:
            return
        peeks, octets_kept = self._text
        octets = octets_kept[: int(control["peek_bytes"])].tobytes()
        for serial, begin, captured, size, seq, from_dst, text in peeks[:count].tolist():
            content = self._contents.get(serial)
            if content is None:
                content = self._contents[serial] = Content(Protocol(text))
            content.peek(from_dst, seq, octets[begin : begin + captured], size)
        control["peeks"] = control["peek_bytes"] = 0

    def _grow(self) -> None:
        """Twice the slots, up to the most that the options allow.

        Without memory for that the table stays as it is, and flows make room for each other.
        """
        states, ways, _, datagrams, remembered = self._table
        before = len(states)
        slots = min(2 * before, self._options.most_flows)
        try:
            index = np.zeros(_power_of_two(2 * slots), np.uint64)
            states, ways = _longer(states, slots), _longer(ways, 2 * slots)
        except MemoryError:
            self._control[0]["may_grow"] = False
            return
        self._table = states, ways, index, datagrams, remembered
        self._control[0]["may_grow"] = slots < self._options.most_flows
        self._loop.reindex(self._control, self._table, before)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _longer(array: NDArray[np.void], length: int) -> NDArray[np.void]:
    longer = np.zeros(length, array.dtype)
    longer[: len(array)] = array
    return longer
