"""A flowvane command that ends with the process that began it: ``python -m sensor.tied PID …``."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""prctl(2): send this signal when the parent's thread that began us ends."""


def main() -> None:
    """Run the command, unless its parent has gone by now."""
    parent = int(sys.argv.pop(1))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)
    from sensor.cli import program

    program()


if __name__ == "__main__":
    main()
