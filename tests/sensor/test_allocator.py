"""One heap for all threads."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from sensor import allocator
from tests.helpers import ROOT

THREADS_WITH_MEMORY = """
import ctypes, threading
from sensor.allocator import one_heap
if {wanted}: one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def use():
    libc.malloc(5000)
threads = [threading.Thread(target=use) for _ in range(3)]
for each in threads: each.start()
for each in threads: each.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps for threads are glibc's")
def test_threads_share_a_heap() -> None:
    def heaps(wanted: bool) -> int:
        program = THREADS_WITH_MEMORY.format(wanted=wanted)
        ran = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return ran.stdout.count("<heap nr=")

    assert heaps(True) == 1 < heaps(False)


def test_a_c_library_without_the_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        pass

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Other())
    allocator.one_heap()
