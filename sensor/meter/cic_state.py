"""What CICFlowMeter's columns need of each packet, beside what NFStream keeps itself.

Runs in NFStream's meter process, packet by packet, so state is plain numbers. The rules are
those of features/cic.py; times are NFStream's milliseconds until :meth:`CicState.fill`.
"""

from __future__ import annotations

import math
from typing import Any

BULK_PACKETS = 4
"""Packets with payload in a row, of one direction, that make a bulk."""
BULK_GAP_MS = 1000
SUBFLOW_GAP_MS = 1000
IDLE_GAP_MS = 5000
"""Gaps longer than these end a bulk, a subflow, a stretch of activity."""

_TCP, _UDP = 6, 17
_US = 1000.0


class CicWay:
    """State of one direction: payload and header sizes, PSH, and the run that may be a bulk."""

    __slots__ = (
        "bulk_bytes", "bulk_ms", "bulk_packets", "bulks", "data_packets", "header_bytes",
        "header_min", "packets", "payload_max", "payload_min", "push", "run", "run_begin_ms",
        "run_bytes", "run_last_ms", "squares",
    )  # fmt: skip

    def __init__(self) -> None:
        self.packets = 0
        self.payload_min = 0
        self.payload_max = 0
        self.squares = 0
        self.data_packets = 0
        self.header_bytes = 0
        self.header_min = 0
        self.push = 0
        self.run = 0
        self.run_bytes = 0
        self.run_begin_ms = 0
        self.run_last_ms = 0
        self.bulks = 0
        self.bulk_packets = 0
        self.bulk_bytes = 0
        self.bulk_ms = 0

    def add(self, size: int, header: int) -> None:
        """Count a packet of `size` payload and `header` transport header bytes."""
        if not self.packets or size < self.payload_min:
            self.payload_min = size
        if not self.packets or header < self.header_min:
            self.header_min = header
        self.packets += 1
        self.payload_max = max(self.payload_max, size)
        self.squares += size * size
        self.header_bytes += header

    def add_data(self, size: int, time_ms: int) -> None:
        """Count a packet with payload towards a bulk."""
        self.data_packets += 1
        if not self.run or time_ms - self.run_last_ms > BULK_GAP_MS:
            self.run, self.run_bytes, self.run_begin_ms = 1, size, time_ms
        else:
            self.run += 1
            self.run_bytes += size
            if self.run == BULK_PACKETS:
                self.bulks += 1
                self.bulk_packets += BULK_PACKETS
                self.bulk_bytes += self.run_bytes
                self.bulk_ms += time_ms - self.run_begin_ms
            elif self.run > BULK_PACKETS:
                self.bulk_packets += 1
                self.bulk_bytes += size
                self.bulk_ms += time_ms - self.run_last_ms
        self.run_last_ms = time_ms


class Spans:
    """Count, sum, extremes and sum of squares of spans of time, in milliseconds."""

    __slots__ = ("count", "longest", "shortest", "squares", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.squares = 0
        self.longest = 0
        self.shortest = 0

    def add(self, span_ms: int) -> None:
        """Take in one more."""
        if not self.count or span_ms < self.shortest:
            self.shortest = span_ms
        self.longest = max(self.longest, span_ms)
        self.count += 1
        self.total += span_ms
        self.squares += span_ms * span_ms

    def fill(self, row: Any, name: str) -> None:
        """Write mean, sample standard deviation and extremes in microseconds, 0 if none."""
        count, total = self.count, self.total
        row[f"{name}_mean"] = total / count * _US if count else 0.0
        if count > 1:  # whole numbers until the division, so nothing cancels
            spread = (count * self.squares - total * total) / (count * (count - 1))
            row[f"{name}_stddev"] = math.sqrt(spread) * _US
        row[f"{name}_max"], row[f"{name}_min"] = self.longest * _US, self.shortest * _US


class CicState:
    """State of one flow; both directions together where NFStream has no statistic."""

    __slots__ = (
        "ack", "active", "active_begin_ms", "cwr", "dst", "ece", "fin", "idle", "last_ms", "rst",
        "src", "subflows", "syn",
    )  # fmt: skip

    def __init__(self) -> None:
        self.src = CicWay()
        self.dst = CicWay()
        self.active = Spans()
        self.idle = Spans()
        self.active_begin_ms = 0
        self.last_ms = 0
        self.subflows = 0
        self.fin = 0
        self.syn = 0
        self.rst = 0
        self.ack = 0
        self.cwr = 0
        self.ece = 0

    def update(self, packet: Any) -> None:
        """Take in a packet (NFStream's NFPacket), the first one included."""
        self._time(packet.time)
        if packet.protocol not in (_TCP, _UDP):
            return
        way, other = (self.dst, self.src) if packet.direction else (self.src, self.dst)
        size = packet.payload_size
        way.add(size, max(packet.transport_size - size, 0))
        if size:
            way.add_data(size, packet.time)
            other.run = 0
        if packet.protocol == _TCP:
            way.push += packet.psh
            self.fin += packet.fin
            self.syn += packet.syn
            self.rst += packet.rst
            self.ack += packet.ack
            self.cwr += packet.cwr
            self.ece += packet.ece

    def _time(self, time_ms: int) -> None:
        if not self.subflows:
            self.subflows = 1
            self.active_begin_ms = time_ms
        else:
            gap = time_ms - self.last_ms
            if gap > SUBFLOW_GAP_MS:
                self.subflows += 1
            if gap > IDLE_GAP_MS:
                if self.last_ms > self.active_begin_ms:
                    self.active.add(self.last_ms - self.active_begin_ms)
                self.idle.add(gap)
                self.active_begin_ms = time_ms
        self.last_ms = time_ms

    def fill(self, row: Any, flow: Any) -> None:
        """Write the fields of one row of a FlowBatch; `flow` is the NFlow that expired."""
        for side, prefix, way in (("src", "src2dst", self.src), ("dst", "dst2src", self.dst)):
            row[f"{side}_payload_min"] = way.payload_min
            row[f"{side}_payload_max"] = way.payload_max
            row[f"{side}_payload_squares"] = way.squares
            row[f"{side}_data_packets"] = way.data_packets
            row[f"{side}_header_bytes"] = way.header_bytes
            row[f"{side}_header_min"] = way.header_min
            row[f"{side}_push"] = way.push
            row[f"{side}_piat_max_us"] = getattr(flow, f"{prefix}_max_piat_ms") * _US
            row[f"{side}_piat_min_us"] = getattr(flow, f"{prefix}_min_piat_ms") * _US
            row[f"{side}_bulks"] = way.bulks
            row[f"{side}_bulk_packets"] = way.bulk_packets
            row[f"{side}_bulk_bytes"] = way.bulk_bytes
            row[f"{side}_bulk_span"] = max(way.bulk_ms, 0) * _US
        row["piat_stddev_us"] = flow.bidirectional_stddev_piat_ms * _US
        row["piat_max_us"] = flow.bidirectional_max_piat_ms * _US
        row["piat_min_us"] = flow.bidirectional_min_piat_ms * _US
        row["fin_packets"], row["syn_packets"] = self.fin, self.syn
        row["rst_packets"], row["ack_packets"] = self.rst, self.ack
        row["cwr_packets"], row["ece_packets"] = self.cwr, self.ece
        row["subflows"] = self.subflows
        self.active.fill(row, "active")
        self.idle.fill(row, "idle")
