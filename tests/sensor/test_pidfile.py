"""A file with the process id: held while the process runs, and only then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sensor.errors import ExitCode, OutputError
from sensor.pidfile import pidfile
from tests.helpers import ROOT, run

HOLDER = (
    "import sys; from pathlib import Path; from sensor.pidfile import pidfile\n"
    "with pidfile(Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `path`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], cwd=ROOT, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def refused(path: Path) -> str:
    """Why the file is refused; it is as it was."""
    before = path.read_text()
    with pytest.raises(OutputError) as caught, pidfile(path):
        pass
    assert path.read_text() == before
    return str(caught.value).removeprefix(f"{path}: ")


def test_the_file_has_the_process_id_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    with pidfile(path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()
    with pytest.raises(KeyboardInterrupt), pidfile(path):
        raise KeyboardInterrupt
    assert not path.exists()


def test_without_a_file_nothing_is_done() -> None:
    with pidfile(None):
        pass


def test_a_second_start_is_refused_while_the_first_one_runs(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    with held(path) as process:
        assert refused(path) == f"is held by process {process.pid}, which runs"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.read_text() == f"{process.pid}\n"
        with pidfile(path):
            assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_the_file_of_another_program_that_runs_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    path.write_text(f"{os.getppid()}\n")
    assert refused(path).startswith(f"process {os.getppid()} runs; ")


@pytest.mark.parametrize("content", ["root:x:0:0\n", "12\n13\n", "-5"])
def test_a_file_with_something_else_is_left_alone(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    path.write_text(content)
    assert refused(path) == "is not a file with a process id; it was left as it is"


def test_a_file_that_was_replaced_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    with pidfile(path):
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "no" / "x.pid"
    ran = run("run", "-i", "nowhere", "--pidfile", path)
    assert ran.code == ExitCode.OUTPUT
    assert ran.err == f"flowvane: error: {path}: cannot be written: no such file or directory\n"


def test_a_start_that_fails_leaves_no_file(tmp_path: Path) -> None:
    ran = run("run", "-i", "nowhere", "--pidfile", tmp_path / "x.pid")
    assert ran.code == ExitCode.INPUT
    assert not any(tmp_path.iterdir())
