"""What the `flow` schema keeps of a flow's packets: sizes and directions, never content.

One :class:`Early` travels with each flow, beside what the other schemas need
(:mod:`sensor.meter.stock_plugin`).
"""

from __future__ import annotations

from typing import Any

from features.flows import EARLY_PACKETS


class Early:
    """The first payload sizes of a flow, and how many packets had a payload."""

    __slots__ = ("dst_payload_packets", "sizes", "src_payload_packets")

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.src_payload_packets = 0
        self.dst_payload_packets = 0

    def update(self, packet: Any, flow: Any) -> None:
        """Take the flow's next packet, an NFPacket."""
        size = packet.payload_size
        if size <= 0:
            return
        if packet.direction:
            self.dst_payload_packets += 1
            size = -size
        else:
            self.src_payload_packets += 1
        if len(self.sizes) < EARLY_PACKETS:
            self.sizes.append(size)

    def fill(self, row: Any, flow: Any) -> None:
        """Write this, and what the finished NFlow has for the schema, into a FlowBatch row."""
        row["src_payload_packets"] = self.src_payload_packets
        row["dst_payload_packets"] = self.dst_payload_packets
        row["early_payload"][: len(self.sizes)] = self.sizes
        for side, way in (("src", "src2dst"), ("dst", "dst2src")):
            row[f"{side}_push_packets"] = getattr(flow, f"{way}_psh_packets")
            row[f"{side}_size_max"] = getattr(flow, f"{way}_max_ps")
            row[f"{side}_size_stddev"] = getattr(flow, f"{way}_stddev_ps")
        row["category"] = flow.application_category_name.encode()
        row["client_fingerprint"] = flow.client_fingerprint.encode()
