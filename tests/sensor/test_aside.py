"""A signal while something takes long: who waits is interrupted, the work is not."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from sensor.aside import aside
from sensor.errors import ExitCode
from tests.helpers import need_tools, run


def test_it_gives_what_the_work_gives():
    assert aside(lambda: threading.current_thread() is threading.main_thread()) is False
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 / 0)


def test_a_signal_ends_a_start_at_once_whatever_the_compilers_make_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    need_tools("ip")
    released, ended = threading.Event(), threading.Event()

    def compile_for_long(detector: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            released.wait(20)
        finally:
            ended.set()

    monkeypatch.setattr("sensor.service.warm_up", compile_for_long)
    ran = run("run", "-i", "lo", "-l", tmp_path, "--pidfile", tmp_path / "pid")
    assert not ended.is_set()
    released.set()
    assert ran.code == ExitCode.INTERRUPTED
    assert ran.lines == ["flowvane: warning: stopped by a signal before the capture began"]
    assert not any(tmp_path.iterdir())
