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
