"""Event lines in a regular file: appended, whole, and refused with a name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.errors import ExitCode, OutputError
from sensor.outputs.regular import RegularFile


def write(path: Path, *batches: list[bytes]) -> None:
    output = RegularFile(path)
    for batch in batches:
        output.write(batch)
    output.close()


def test_lines_are_appended_in_order_run_after_run(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    write(path, [b"1\n", b"2\n"], [], [b"3\n"])
    assert path.read_bytes() == b"1\n2\n3\n"
    write(path, [b"4\n"])
    write(path)
    assert path.read_bytes() == b"1\n2\n3\n4\n"


def test_lines_are_there_when_write_returns(tmp_path: Path) -> None:
    output = RegularFile(tmp_path / "eve.json")
    output.write([b"1\n"])
    assert (tmp_path / "eve.json").read_bytes() == b"1\n"
    output.close()


def test_two_writers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    one, two = RegularFile(tmp_path / "eve.json"), RegularFile(tmp_path / "eve.json")
    one.write([b"1\n"])
    two.write([b"2\n"])
    one.write([b"3\n"])
    one.close()
    two.close()
    assert (tmp_path / "eve.json").read_bytes() == b"1\n2\n3\n"


@settings(deadline=None, database=None)
@given(before=st.binary(max_size=30))
def test_a_torn_last_line_is_closed(
    tmp_path_factory: pytest.TempPathFactory, before: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "torn.json"
    path.write_bytes(before)
    write(path, [b'{"a":1}\n'])
    whole = before + b"\n" if before and not before.endswith(b"\n") else before
    assert path.read_bytes() == whole + b'{"a":1}\n'


def test_folders_are_made_and_strangers_kept_out(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "eve.json"
    write(path, [b"1\n"])
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_a_short_write_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, bytes(data[:3])))
    write(tmp_path / "eve.json", [b"0123456789\n", b"abc\n"])
    assert (tmp_path / "eve.json").read_bytes() == b"0123456789\nabc\n"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file/eve.json", "not a directory"),
        ("file/below/eve.json", "not a directory"),
        ("folder", "is a directory"),
        ("/proc/flowvane-test/eve.json", ""),
        ("/proc/eve.json", ""),
    ],
)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path = tmp_path / place
    with pytest.raises(OutputError) as caught:
        RegularFile(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be opened for writing: ")
    assert reason in message
    assert "\n" not in message
    assert caught.value.exit_code is ExitCode.OUTPUT


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.symlink_to("/dev/full")
    output = RegularFile(path)
    with pytest.raises(OutputError, match=r"eve\.json: cannot be written: no space left on device"):
        output.write([b"1\n"])
    output.close()
