"""Event lines in a regular file: appended, whole, and refused with a name."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.errors import ExitCode, OutputError
from sensor.outputs.base import Loss, Undelivered
from sensor.outputs.queued import Backoff, Queued
from sensor.outputs.regular import RegularFile
from sensor.outputs.rotation import Rotation
from tests.helpers import until


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


# A full disk, and what is written in part


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b'{"number":%d}\n' % number for number in range(first, first + count)]


class FailingDisk:
    """`os.write` by a script: each step is how many bytes fit; then the disk is full once."""

    def __init__(self, steps: list[int]) -> None:
        self.steps = steps
        self._write = os.write

    def __call__(self, fd: int, data: bytes | memoryview) -> int:
        if not self.steps:
            return self._write(fd, data)
        fits = self.steps[0]
        self.steps[0] = 0
        if not fits:
            self.steps.pop(0)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(fd, bytes(data[:fits]))


@settings(deadline=None, database=None)
@given(
    sizes=st.lists(st.integers(0, 5), max_size=5),
    steps=st.lists(st.integers(0, 40), max_size=6),
    gives_up=st.sets(st.integers(0, 6)),
    closes=st.booleans(),
)
def test_a_disk_that_fills_up_anywhere_tears_no_line(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    steps: list[int],
    gives_up: set[int],
    closes: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "filling.json"
    path.unlink(missing_ok=True)
    output, out, failures = RegularFile(path), [], 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", FailingDisk(steps))
        for number, size in enumerate(sizes):
            rest = numbered(size, 100 * number)
            while rest:
                try:
                    output.write(rest)
                    out, rest = out + rest, []
                except Undelivered as failure:
                    assert failure.cause is Loss.DISK_FULL
                    assert path.read_bytes().startswith(b"".join(out + rest[: failure.written]))
                    out += rest[: failure.written]
                    # The first of the rest may be there in part: it is finished, or cut off
                    # when it is lost.
                    rest = rest[failure.written + (failures in gives_up) :]
                    failures += 1
        if closes:
            output.close()
    if not closes:
        output.write([b"end\n"])
        output.close()
        out.append(b"end\n")
    assert path.read_bytes() == b"".join(out)


def test_a_limit_on_file_sizes_is_a_full_disk_that_is_resumed_from(tmp_path: Path) -> None:
    path, lines = tmp_path / "eve.json", numbered(20)
    output = RegularFile(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(Undelivered) as caught:
            output.write(lines)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.cause is Loss.DISK_FULL
    assert caught.value.written == 7  # of 13 or 14 bytes
    assert path.stat().st_size == 100
    output.write(lines[7:])
    output.close()
    assert path.read_bytes() == b"".join(lines)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # also where a test failed


def test_a_full_disk_is_resumed_from_and_its_losses_counted(small_disk: Path) -> None:
    ballast, path = small_disk / "ballast", small_disk / "eve.json"
    ballast.write_bytes(bytes(48 * 1024))
    lines = [b'{"number":%d,"filler":"%s"}\n' % (number, b"x" * 100) for number in range(300)]
    backoff = Backoff(first_s=0.001, most_s=0.002)
    output = Queued(RegularFile(path), most_lines=100, backoff=backoff)
    for start in range(0, 300, 50):
        output.write(lines[start : start + 50])
        until(lambda: output.counters.queued == 0 or path.stat().st_size >= 16 * 1024)
    until(lambda: output.counters.dropped[Loss.DISK_FULL] > 0)
    ballast.unlink()
    until(lambda: output.counters.queued == 0)
    output.write([b"last\n"])
    output.close()
    counters = output.counters
    assert counters.written + counters.dropped[Loss.DISK_FULL] == counters.given == 301
    assert counters.reconnects == 1
    got = path.read_bytes().splitlines(keepends=True)
    assert len(got) == counters.written
    assert got == [*lines[: len(got) - 1], b"last\n"]
    told = output.notices()
    assert "no space left on device; it is tried again" in told[0]
    assert "more are lost (disk_full)" in told[1]
    assert sorted(notice.removeprefix(f"{path}: ") for notice in told[2:]) == [
        f"{counters.lost} lines were lost",
        "works again",
    ]


# Reopened, rotated, killed


def test_reopened_after_logrotate_moved_it(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    output = RegularFile(path)
    output.write([b"1\n"])
    path.rename(tmp_path / "eve.json.1")
    output.write([b"2\n"])
    output.reopen()
    output.write([b"3\n"])
    output.close()
    assert (tmp_path / "eve.json.1").read_bytes() == b"1\n2\n"
    assert path.read_bytes() == b"3\n"


def test_what_cannot_be_reopened_stays_in_use(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    output = RegularFile(path)
    path.rename(tmp_path / "moved")
    path.mkdir()
    with pytest.raises(OutputError, match="is a directory"):
        output.reopen()
    output.write([b"1\n"])
    output.close()
    assert (tmp_path / "moved").read_bytes() == b"1\n"


def test_begun_anew_by_size(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    output = RegularFile(path, rotation=Rotation(size=4, count=2))
    for number in range(7):
        output.write([b"%d\n" % number])
    output.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "eve.json", "eve.json.1", "eve.json.2",
    ]  # fmt: skip
    assert path.read_bytes() == b"6\n"
    assert path.with_name("eve.json.1").read_bytes() == b"4\n5\n"
    assert path.with_name("eve.json.2").read_bytes() == b"2\n3\n"


def test_begun_anew_by_time(tmp_path: Path) -> None:
    now = [1_768_467_655.0]  # 09:00:55 UTC; whole minutes are the same everywhere
    rotation = Rotation(interval="minute")
    named = RegularFile(tmp_path / "eve-%s.json", rotation=rotation, clock=lambda: now[0])
    plain = RegularFile(tmp_path / "eve.json", rotation=rotation, clock=lambda: now[0])
    for seconds in (0, 4, 1, 60):  # 09:00:55, 59, 09:01:00, 09:02:00
        now[0] += seconds
        named.write([b"%d\n" % now[0]])
        plain.write([b"%d\n" % now[0]])
    named.close()
    plain.close()
    got = {file.name: file.read_text().split() for file in tmp_path.iterdir()}
    assert got == {
        "eve-1768467655.json": ["1768467655", "1768467659"],
        "eve-1768467660.json": ["1768467660"],
        "eve-1768467720.json": ["1768467720"],
        "eve.json.2": ["1768467655", "1768467659"],
        "eve.json.1": ["1768467660"],
        "eve.json": ["1768467720"],
    }


def test_a_percent_sign_is_a_letter_without_an_interval(tmp_path: Path) -> None:
    write(tmp_path / "eve%d.json", [b"1\n"])
    assert (tmp_path / "eve%d.json").read_bytes() == b"1\n"


@pytest.mark.parametrize(
    ("interval", "zone", "now", "then"),
    [
        ("hour", "UTC", "2026-01-15 09:20:31", "2026-01-15 10:00:00"),
        ("hour", "Asia/Kolkata", "2026-01-15 09:20:31", "2026-01-15 10:00:00"),
        ("day", "UTC", "2026-12-31 23:59:59.5", "2027-01-01 00:00:00.5"),
        ("day", "Europe/Berlin", "2026-03-29 00:30:00", "2026-03-30 00:00:00"),  # 23 hours
        ("day", "Europe/Berlin", "2026-10-25 00:30:00", "2026-10-26 00:00:00"),  # 25 hours
        ("90s", "UTC", "2026-01-15 09:20:31", "2026-01-15 09:22:01"),
        ("2h", "UTC", "2026-01-15 09:20:31", "2026-01-15 11:20:31"),
    ],
)
def test_the_next_turn(
    monkeypatch: pytest.MonkeyPatch, interval: str, zone: str, now: str, then: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        begun = datetime.fromisoformat(now).timestamp()
        assert datetime.fromtimestamp(Rotation(interval).next_time(begun)) == (
            datetime.fromisoformat(then)
        )
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_rotation_that_fails_is_said_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    (tmp_path / "eve.json.1").mkdir()
    (tmp_path / "eve.json.1" / "not empty").touch()
    output = RegularFile(path, rotation=Rotation(size=1, count=1))
    output.write([b"1\n"])
    with pytest.raises(Undelivered, match="cannot be rotated: ") as caught:
        output.write([b"2\n"])
    assert (caught.value.cause, caught.value.written) == (Loss.REFUSED, 0)
    output.write([b"2\n"])
    output.close()
    assert path.read_bytes() == b"1\n2\n"


KILLED = """
import sys
from pathlib import Path
from sensor.outputs.regular import RegularFile
output, line = RegularFile(Path(sys.argv[1])), b'{"filler":"%s"}\\n' % (b"x" * 50_000)
print(flush=True)
while True:
    output.write([line] * 20)
"""


def test_a_line_that_a_kill_tore_stands_alone(tmp_path: Path) -> None:
    path, line = tmp_path / "eve.json", b'{"filler":"%s"}' % (b"x" * 50_000)
    for moment in range(5):
        command = [sys.executable, "-c", KILLED, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            begun = path.stat().st_size
            until(lambda begun=begun, moment=moment: path.stat().st_size > begun + moment * 300_000)
            process.kill()
    write(path, [line + b"\n"])
    got = path.read_bytes().split(b"\n")
    assert got.pop() == b""
    torn = [other for other in got if other != line]
    assert len(torn) <= 5
    assert all(line.startswith(other) for other in torn)
    assert got[-1] == line
