"""The queue before an output: it never holds up who writes, and every line is counted."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.errors import OutputError
from sensor.outputs import queued
from sensor.outputs.base import Loss, Undelivered
from sensor.outputs.queued import Backoff, OutputCounters, Queued
from sensor.outputs.regular import RegularFile
from tests.helpers import need_tools, until

AT_ONCE = Backoff(first_s=1e-4, most_s=1e-3)


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b"%d\n" % number for number in range(first, first + count)]


class Scripted:
    """An output that does, write by write, what a script says, and then takes everything.

    A step is (how many lines it takes, the cause that stops it there, whether the line after
    them is lost).
    """

    name = "scripted"

    def __init__(self, *steps: tuple[int, Loss, bool]) -> None:
        self.steps = list(steps)
        self.out: list[bytes] = []
        self.writes = 0
        self.reopened = 0
        self.closed = False
        self.go = threading.Event()
        self.go.set()

    def write(self, lines: Sequence[bytes]) -> None:
        assert not self.closed
        assert self.go.wait(20)
        self.writes += 1
        if not lines or not self.steps:
            self.out += lines
            return
        takes, cause, lost = self.steps.pop(0)
        takes = min(takes, len(lines) - 1)
        self.out += lines[:takes]
        raise Undelivered(f"scripted: {cause}", cause, takes, int(lost))

    def reopen(self) -> None:
        self.reopened += 1

    def close(self) -> None:
        self.closed = True


def settled(output: Queued) -> OutputCounters:
    """The counters once nothing waits any more."""
    until(lambda: output.counters.queued == 0)
    return output.counters


STEPS = st.tuples(st.integers(0, 8), st.sampled_from(list(Loss)), st.booleans())


@settings(deadline=None, database=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 12), max_size=8),
    steps=st.lists(STEPS, max_size=12),
    most=st.integers(1, 20),
    patient=st.booleans(),
)
def test_written_and_dropped_are_what_was_given_and_the_order_is_kept(
    sizes: list[int], steps: list[tuple[int, Loss, bool]], most: int, patient: bool
) -> None:
    sink = Scripted(*steps)
    output = Queued(sink, most_lines=most, backoff=AT_ONCE)
    first = 0
    for size in sizes:
        output.write(numbered(size, first))
        first += size
        counters = output.counters
        assert counters.given == first == counters.written + counters.lost + counters.queued
        assert counters.queued <= most
    if patient:
        settled(output)
    output.close(within_s=20 if patient else 0)
    counters = output.counters
    assert counters.given == first == counters.written + counters.lost
    assert counters.queued == 0
    assert len(sink.out) == counters.written
    numbers = [int(line) for line in sink.out]
    assert numbers == sorted(set(numbers))
    assert sink.closed


@given(
    first_s=st.floats(0.001, 10),
    most_s=st.floats(0.001, 100),
    failures=st.integers(1, 10_000),
)
def test_pauses_grow_and_are_bounded(first_s: float, most_s: float, failures: int) -> None:
    wanted = min(first_s * 2.0 ** min(failures - 1, 60), most_s)
    assert wanted / 2 <= Backoff(first_s, most_s).delay(failures) <= wanted


def test_a_reader_that_takes_nothing_holds_nobody_up() -> None:
    sink = Scripted()
    sink.go.clear()
    output = Queued(sink, most_lines=100)
    for first in range(0, 10_000, 50):
        output.write(numbered(50, first))
    counters = output.counters
    assert (counters.given, counters.written, counters.queued) == (10_000, 0, 100)
    assert counters.dropped == {Loss.QUEUE_FULL: 9_900}
    sink.go.set()
    settled(output)
    output.close()
    assert sink.out == numbered(100)
    assert output.notices() == [
        "scripted: 100 lines wait, which is all there is room for; more are lost (queue_full)",
        "scripted: 9900 lines were lost",
    ]
    assert output.notices() == []


def test_lines_are_lost_for_the_cause_that_holds_them_up() -> None:
    sink = Scripted((0, Loss.READER_GONE, False))
    output = Queued(sink, most_lines=10, backoff=Backoff(first_s=1000, most_s=1000))
    output.write(numbered(10))
    until(lambda: not sink.steps)
    until(lambda: bool(output.notices()))
    output.write(numbered(5, 10))
    assert output.counters.dropped == {Loss.READER_GONE: 5}
    output.close()  # tries once more, at once
    assert output.counters.written == 10
    assert output.counters.reconnects == 1


def test_trouble_is_told_once_and_so_is_its_end() -> None:
    gone = (0, Loss.READER_GONE, False)
    sink = Scripted(*[gone] * 5)
    output = Queued(sink, backoff=AT_ONCE)
    output.write(numbered(3))
    settled(output)
    sink.steps = [gone] * 3
    output.write(numbered(3))
    counters = settled(output)
    output.close()
    assert counters.reconnects == 2
    assert output.notices() == [
        "scripted: reader_gone; it is tried again",
        "scripted: works again",
    ]


def test_a_line_that_is_too_long_is_lost_alone() -> None:
    output = Queued(sink := Scripted((2, Loss.TOO_LONG, True)))
    output.write(numbered(5))
    counters = settled(output)
    output.close()
    assert sink.out == [b"0\n", b"1\n", b"3\n", b"4\n"]
    assert counters.dropped == {Loss.TOO_LONG: 1}
    assert counters.reconnects == 0
    assert output.notices() == ["scripted: too_long; such lines are lost"]


@pytest.mark.parametrize("cause", [Loss.READER_GONE, Loss.QUEUE_FULL])
def test_what_cannot_be_delivered_at_the_end_is_counted(cause: Loss) -> None:
    sink = Scripted(*[(0, cause, False)] * 1_000_000)
    output = Queued(sink, backoff=AT_ONCE)
    output.write(numbered(7))
    until(lambda: sink.writes > 5)
    output.close(within_s=0.02)
    said = Loss.STOPPED if cause is Loss.QUEUE_FULL else cause
    assert output.counters.dropped == {said: 7}
    assert "scripted: 7 lines are lost, queued at the end" in output.notices()
    assert sink.closed
    with pytest.raises(OutputError, match="scripted: is closed"):
        output.write([b"1\n"])


def test_an_output_that_hangs_does_not_keep_the_end_from_coming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queued, "WAIT_S", 0.01)
    sink = Scripted()
    output = Queued(sink)
    until(lambda: sink.writes == 1)
    sink.go.clear()
    output.write(numbered(3))
    output.close(within_s=0.01)
    assert output.counters.dropped == {Loss.STOPPED: 3}
    sink.go.set()
    until(lambda: sink.closed)
    assert output.counters == OutputCounters(given=3, dropped=output.counters.dropped)


def test_a_defect_of_the_output_is_raised() -> None:
    class Broken(Scripted):
        def write(self, lines: Sequence[bytes]) -> None:
            raise ZeroDivisionError

    output = Queued(Broken())

    def raises() -> bool:
        try:
            output.write(numbered(1))
        except ZeroDivisionError:
            return True
        return False

    until(raises)
    output.close()
    output = Queued(Broken())
    with pytest.raises(ZeroDivisionError):
        output.close()


def test_reopened_between_lines_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued, "_REOPEN_AGAIN_S", 0.001)
    path, moved = tmp_path / "eve.json", tmp_path / "moved"
    output = Queued(RegularFile(path))
    output.write([b"1\n"])
    settled(output)
    path.rename(moved)
    path.mkdir()
    output.reopen()
    until(lambda: any("is a directory; the one before stays" in told for told in output.notices()))
    output.write([b"2\n"])
    settled(output)
    path.rmdir()
    until(path.exists)
    output.write([b"3\n"])
    output.close()
    assert moved.read_bytes() == b"1\n2\n"
    assert path.read_bytes() == b"3\n"


@pytest.fixture
def hangup() -> Iterator[list[Queued]]:
    """SIGHUP reopens the outputs that are put into the list."""
    outputs: list[Queued] = []
    before = signal.signal(signal.SIGHUP, lambda number, frame: [o.reopen() for o in outputs])
    yield outputs
    signal.signal(signal.SIGHUP, before)


LOGROTATE = """
{path} {{
    rotate 100
    nocreate
    postrotate
        kill -HUP {pid}
    endscript
}}
"""


def test_logrotate_under_load_loses_and_tears_no_line(tmp_path: Path, hangup: list[Queued]) -> None:
    need_tools("logrotate")
    path, lines = tmp_path / "eve.json", numbered(30_000)
    settings = tmp_path / "logrotate.conf"
    settings.write_text(LOGROTATE.format(path=path, pid=os.getpid()))
    settings.chmod(0o600)
    rotate = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(settings)]
    output = Queued(RegularFile(path), most_lines=len(lines))
    hangup.append(output)
    for start in range(0, len(lines), 10):
        output.write(lines[start : start + 10])
        if start % 3_000 == 0:
            until(path.exists)  # the output is done with the rotation before
            subprocess.run(rotate, check=True)
    output.close(within_s=20)
    assert output.counters.written == len(lines)
    files = [*(path.with_name(f"eve.json.{number}") for number in range(10, 0, -1)), path]
    got = [line for file in files for line in file.read_bytes().splitlines(keepends=True)]
    assert got == lines
    assert output.notices() == []
