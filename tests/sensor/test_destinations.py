"""All outputs of a configuration together: what goes where, and how they end."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sensor.destinations import Destinations, Wanted, open_destinations, told, total
from sensor.errors import OutputError
from sensor.eve import Style
from sensor.meter.compiled.live import LiveCounters
from sensor.outputs.base import Loss
from sensor.outputs.queued import OutputCounters, Queued
from sensor.outputs.spec import OutputSpec
from sensor.stats import Statistics
from tests.helpers import until
from tests.sensor.test_feed import batch, feed_of, places
from tests.sensor.test_outputs_queued import AT_ONCE, Scripted, numbered


def wanted(name: str, *types: str, **more: Any) -> Wanted:
    return Wanted(OutputSpec(filename=name), frozenset(types), **more)


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_output_has_its_types_in_its_style(tmp_path: Path) -> None:
    feed = feed_of()
    outputs = open_destinations(
        [
            wanted("alerts.json", "alert"),
            wanted("same.json", "alert"),
            wanted("flows.json", "flow", style=Style(host="probe", community_id=False)),
            wanted("stats.json", stats_every_s=3600.0),
        ],
        tmp_path, "m", places,
    )  # fmt: skip
    outputs.write(feed.push(batch([0.5, 0.0001, 0.002])))
    outputs.use_model("other")
    outputs.write(feed.push(batch([0.0001])))
    outputs.write_stats(Statistics(LiveCounters(), feed, outputs.total))  # not due
    outputs.write_stats(Statistics(LiveCounters(), feed, outputs.total), last=True)
    outputs.close()
    alerts, flows = written(tmp_path / "alerts.json"), written(tmp_path / "flows.json")
    assert written(tmp_path / "same.json") == alerts
    assert [each["alert"]["metadata"]["model"] for each in alerts][-1] == ["other"]
    assert {each["event_type"] for each in alerts} == {"alert"}
    assert len(flows) == 4
    assert {each["host"] for each in flows} == {"probe"}
    assert not any("community_id" in each for each in flows)
    (stats,) = written(tmp_path / "stats.json")
    assert stats["metadata"]["flowints"]["flowvane_lines_lost_disk_full"] == 0
    events = [len(alerts), len(alerts), 4, 1]
    assert [each.written for _, each in outputs.counters()] == events
    assert outputs.total().written == sum(events)


def test_where_one_cannot_be_opened_none_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = threading.active_count()
    with pytest.raises(OutputError, match="not a directory"):
        open_destinations(
            [wanted("a.json", "alert"), wanted("file/b.json", "alert")], tmp_path, "m", places
        )
    assert threading.active_count() == before


def test_files_are_begun_anew(tmp_path: Path) -> None:
    outputs = open_destinations([wanted("a"), wanted("b")], tmp_path, "m", places)
    for name in ("a", "b"):
        (tmp_path / name).rename(tmp_path / f"{name}.1")
    outputs.reopen()
    until(lambda: all((tmp_path / name).exists() for name in ("a", "b")))
    outputs.close()


def test_outputs_are_closed_together_and_once() -> None:
    together = threading.Barrier(20)

    class Meeting(Queued):
        """Closes once as many others are being closed."""

        def close(self, within_s: float = 0.0, grace_s: float = 0.0) -> None:
            together.wait(20)
            super().close(within_s, grace_s)

    sinks = [Scripted() for _ in range(20)]
    outputs = Destinations(queues=[Meeting(sink) for sink in sinks])
    outputs.close()
    outputs.close()  # nobody to meet any more
    assert all(sink.closed for sink in sinks)


def test_what_a_reader_does_not_take_in_time_is_lost_and_told() -> None:
    sink = Scripted()
    queue = Queued(sink)
    until(lambda: sink.writes == 1)
    sink.go.clear()
    queue.write(numbered(3))
    outputs = Destinations(queues=[queue])
    outputs.close(0.0)
    assert outputs.total().dropped == {Loss.STOPPED: 3}
    assert outputs.notices() == ["scripted: 3 lines are lost, queued at the end"]
    sink.go.set()


def test_an_output_whose_thread_has_ended_is_seen() -> None:
    class Broken(Scripted):
        def write(self, lines: Any) -> None:
            raise ZeroDivisionError

    fine, broken = Queued(Scripted()), Queued(Broken(), backoff=AT_ONCE)
    outputs = Destinations(queues=[fine, broken])
    until(lambda: not outputs.alive)
    assert Destinations(queues=[fine]).alive
    with pytest.raises(ZeroDivisionError):
        outputs.close()
    assert not fine.alive  # closed all the same


def test_counters_are_added_and_told() -> None:
    some = OutputCounters(10, 5, Counter({Loss.STOPPED: 2, Loss.DISK_FULL: 1}), 1, 2)
    whole = total([some, some, OutputCounters(1, 1)])
    assert whole == OutputCounters(21, 11, Counter({Loss.STOPPED: 4, Loss.DISK_FULL: 2}), 2, 4)
    assert told(whole) == "11 events written, 6 lost (2 disk_full, 4 stopped)"
    assert told(OutputCounters(1000, 1000)) == "1,000 events written, 0 lost"
