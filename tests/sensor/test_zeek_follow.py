"""A conn.log that is followed: nothing twice, and nothing lost, whatever is done to the file."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensor.errors import InputError
from sensor.zeek import follow
from sensor.zeek.columns import Fault
from sensor.zeek.follow import LogFollower
from tests.helpers import CONNECTION, conn_header, conn_line, read_events, run, until
from tests.sensor.test_zeek import model


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "TICK_S", 0.0)
    monkeypatch.setattr(follow, "LOOK_S", 0.0)
    monkeypatch.setattr(follow, "GRACE_S", 0.0)


def lines(*numbers: int, form: str = "tsv") -> str:
    return "".join(conn_line({**CONNECTION, "uid": f"C{number}"}, form) for number in numbers)


class Reader:
    """Takes what a follower gives."""

    def __init__(self, follower: LogFollower) -> None:
        self.follower = follower
        self._flows = follower.flows()

    def turn(self) -> list[int]:
        """The numbers of the connections that come until the file has been looked at twice."""
        found, empty = [], 0
        while empty < 2:
            batch = next(self._flows)
            found += [int(uid[1:]) for uid in batch["uid"].tolist()]
            empty += not len(batch)
        return found

    def end(self) -> list[int]:
        self.follower.stop()
        return [int(uid[1:]) for batch in self._flows for uid in batch["uid"].tolist()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "conn.log"
    path.write_text(conn_header() + lines(1, 2))
    return path


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def follower(path: Path, **more: bool) -> Iterator[Reader]:
    reader = Reader(LogFollower(path, **more))
    yield reader
    reader.follower.close()


@pytest.mark.parametrize("from_start", [False, True])
def test_it_begins_at_the_end_or_where_it_is_told_to(log: Path, from_start: bool) -> None:
    for reader in follower(log, from_start=from_start):
        assert reader.turn() == ([1, 2] if from_start else [])
        append(log, lines(3))
        assert reader.turn() == [3]
        append(log, lines(4))
        assert reader.end() == [4]
        assert reader.follower.counters.unread_bytes == 0
        assert reader.follower.notices() == []


def test_a_line_under_way_is_waited_for(log: Path) -> None:
    whole = lines(3)
    append(log, whole[:10])
    for reader in follower(log):
        assert reader.turn() == []
        append(log, whole[10:-1])
        assert reader.turn() == []
        append(log, "\n" + lines(4)[:20])
        assert reader.turn() == [3]
        assert reader.end() == []
        counters = reader.follower.counters
        assert (counters.lines, counters.broken) == (2, {Fault.CUT: 1})
        assert reader.follower.notices() == [
            f"{log}:12: is cut off: it has no line end; not read"
        ]  # fmt: skip


def test_no_line_is_lost_when_the_file_is_renamed(log: Path, tmp_path: Path) -> None:
    old = tmp_path / "conn.1.log"
    for reader in follower(log):
        append(log, lines(3))
        log.rename(old)
        append(old, lines(4))
        assert reader.turn() == [3, 4]
        # No file has the name for a while; whoever has the old one open may write on.
        append(old, lines(5))
        assert reader.turn() == [5]
        append(old, lines(6))
        log.write_text(conn_header() + lines(7))
        assert reader.turn() + reader.turn() == [6, 7]
        # And at once the next rotation, with lines in both files that were not read.
        append(log, lines(8))
        log.rename(old)
        log.write_text(lines(9, form="json"))
        assert reader.turn() + reader.turn() == [8, 9]
        old.unlink()
        append(log, lines(10, form="json"))
        assert reader.end() == [10]
        assert reader.follower.notices() == []
        assert reader.follower.counters.lines == 8


def test_the_end_takes_what_both_files_have(log: Path, tmp_path: Path) -> None:
    for reader in follower(log):
        assert reader.turn() == []
        append(log, lines(3))
        log.rename(tmp_path / "conn.1.log")
        log.write_text(conn_header() + lines(4))
        assert reader.end() == [3, 4]


def test_a_file_that_is_cut_to_nothing_begins_anew(log: Path) -> None:
    for reader in follower(log):
        append(log, lines(3))
        assert reader.turn() == [3]
        os.truncate(log, 0)
        assert reader.turn() == []
        append(log, conn_header() + lines(4))
        assert reader.turn() == [4]
        (notice,) = reader.follower.notices()
        assert notice.startswith(f"{log}: was cut to nothing, and is read from its beginning")


def test_a_file_that_is_not_there_is_waited_for_and_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "later" / "conn.log"
    for reader in follower(path):
        assert reader.turn() == []
        assert reader.follower.notices() == [f"{path}: is not there yet; waiting for it"]
        path.parent.mkdir()
        path.write_text(conn_header() + lines(1, 2))
        assert reader.turn() == [1, 2]
        assert reader.follower.notices() == []


def test_what_takes_the_name_and_cannot_be_read_is_told_once(log: Path, tmp_path: Path) -> None:
    for reader in follower(log):
        assert reader.turn() == []
        log.rename(tmp_path / "conn.1.log")
        log.mkdir()
        assert reader.turn() == []
        assert reader.follower.notices() == [
            f"{log}: is a directory: name the log in it; waiting for it to change"
        ]
        assert reader.turn() == []
        append(tmp_path / "conn.1.log", lines(3))
        log.rmdir()
        log.write_text(conn_header() + lines(4))
        assert reader.turn() + reader.turn() == [3, 4]
        assert reader.follower.notices() == []


def test_what_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        LogFollower(tmp_path)
    packed = tmp_path / "conn.log.gz"
    packed.write_bytes(b"\x1f\x8b and so on")
    with pytest.raises(InputError, match="is compressed"):
        LogFollower(packed)


def test_what_time_was_too_short_for_is_counted(log: Path) -> None:
    size = log.stat().st_size
    reader = Reader(LogFollower(log, from_start=True, stop_within_s=0.0))
    assert reader.end() == []
    assert reader.follower.counters.unread_bytes == size
    assert f"lost: {size:,} bytes of the log to lack of time" in reader.follower.counters.told


def test_broken_lines_are_told_and_counted(log: Path) -> None:
    for reader in follower(log):
        append(log, "broken\n" + lines(3))
        assert reader.turn() == [3]
        assert reader.follower.notices() == [
            f"{log}:11: has 1 fields, the header 21; not read"
        ]  # fmt: skip


def test_run_follows_a_log_until_a_signal(log: Path, tmp_path: Path) -> None:
    events = tmp_path / "eve.json"

    def written(count: int) -> bool:
        return events.is_file() and events.read_bytes().count(b"\n") >= count

    def operator() -> None:
        # The follower begins at the end: until it does, nothing that is appended is certain.
        until(lambda: written(2), 300)
        log.rename(tmp_path / "conn.1.log")
        log.write_text(conn_header() + lines(3) + "broken\n")
        until(lambda: written(3), 60)
        append(log, lines(4))
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=operator)
    thread.start()
    ran = run("run", "--zeek-conn", log, "--from-start", "-l", tmp_path, "--model", model(),
              "--fpr", "0.99", "--set", "outputs.0.eve-log.types=[flow, stats]")  # fmt: skip
    thread.join()
    assert ran.code == 0
    assert f"following {log}; model untrained-gaussian; events to" in ran.out
    assert "in 4 connections of 5 lines (1 not read: 1 with another number of fields" in ran.out
    assert "; lost: 0 bytes of the log" in ran.out
    (warning,) = ran.lines
    assert warning == f"flowvane: warning: {log}:10: has 1 fields, the header 21; not read"
    *flows, stats = read_events(tmp_path)
    own = [{each["key"]: each["value"] for each in event["metadata"]["flowvars"]}
           for event in flows]  # fmt: skip
    assert [each["flowvane_zeek_uid"] for each in own] == ["C1", "C2", "C3", "C4"]
    assert stats["stats"]["flow"]["total"] == 4
    assert "capture" not in stats["stats"]
