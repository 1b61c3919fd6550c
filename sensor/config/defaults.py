"""The defaults that the command line and the configuration have in common."""

from __future__ import annotations

from typing import Final

MODEL = "nsl-kdd"
FALSE_POSITIVE_RATE = 0.01
LOG_DIR = "."
THREADS = 1
"""For each interface."""
BUFFER_MIB = 64
"""For each thread."""
MOST_FLOWS = 1 << 16
"""For each thread."""
METER: Final = "compiled"
LINGER_S = 0.0
STOP_WITHIN_S = 3.5
LEARN_FOR = "24h"
"""Until every hour of a day was seen."""
