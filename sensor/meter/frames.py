"""The frames that a metering process writes: a kind, a 32-bit little-endian length, a body."""

from __future__ import annotations

import struct

FRAME = struct.Struct("<cI")

FLOWS = b"F"
"""Rows of FLOW_DTYPE."""
CHAIN_DONE = b"D"
"""A chain of captures was metered to its end."""
FAILED = b"E"
"""Metering failed; the body is JSON with a ``reason``."""
READY = b"R"
"""The worker for interfaces waits for packets."""
TICK = b"T"
"""A packet that only moves the time has come through. The body is JSON: ``seen``, the packets
before it that belong to a flow, and ``now_ms``, NFStream's time."""

TICK_PORT, LAST_TICK_PORT = 1, 2
"""Destination ports of ticks. Behind the last one come the flows that the end of the pipe ends."""
