"""How the C library hands out memory to a process of several threads that runs for long."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
"""Parameter of mallopt(3)."""


def one_heap() -> None:
    """Have one heap for all threads.

    With one for each thread glibc keeps 70 MiB more in a flood, which nobody uses; time it does
    not cost, as few threads want memory often. Other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
