"""What the service manager is told, and what signals make happen between two batches."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sensor.destinations import Destinations
from sensor.feed import AlertFeed
from sensor.lifecycle import Lifecycle
from sensor.notify import Notifier
from sensor.outputs.queued import Queued
from sensor.signals import Requests
from sensor.verdict import Verdict
from tests.helpers import until
from tests.sensor.test_daemon import DETECTOR, Acts, stages_of
from tests.sensor.test_feed import Kept
from tests.sensor.test_outputs_queued import AT_ONCE, Scripted

SIGNALS = (signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


class Manager:
    """A service manager that listens."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)

    def heard(self) -> list[dict[str, str]]:
        """The messages since the last time."""
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                lines = self._socket.recv(4096).decode().split("\n")
                messages.append(dict(line.split("=", 1) for line in lines))
        return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(str(tmp_path / "notify"))
    yield listening
    listening.close()


def refuse(line: str) -> None:
    pytest.fail(line)


# sd_notify


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told_wherever_it_listens(tmp_path: Path, abstract: bool) -> None:
    path = f"{tmp_path}/notify"
    manager = Manager("\0" + path if abstract else path)
    told = Notifier({"NOTIFY_SOCKET": "@" + path if abstract else path}, refuse)
    told.tell(READY=1, STATUS="on eth0 – ready")
    told.tell(STOPPING=1)
    assert manager.heard() == [{"READY": "1", "STATUS": "on eth0 – ready"}, {"STOPPING": "1"}]
    manager.close()


def test_without_a_manager_nobody_is_told() -> None:
    told = Notifier({}, refuse)
    told.tell(READY=1)
    assert told.watchdog_s is None


def test_a_manager_that_does_not_listen_holds_nobody_up_and_is_told_of_once(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    path = str(tmp_path / "notify")
    told = Notifier({"NOTIFY_SOCKET": path}, said.append)
    told.tell(READY=1)
    told.tell(READY=1)
    assert said == ["the service manager cannot be told: no such file or directory"]
    manager = Manager(path)
    told = Notifier({"NOTIFY_SOCKET": path}, said.append)
    for _ in range(100_000):  # more than any queue of a socket holds
        told.tell(WATCHDOG=1)
        if len(said) > 1:
            break
    assert said[1:] == ["the service manager cannot be told: the reader takes nothing"]
    manager.close()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
    ],
)
def test_the_watchdogs_interval_is_that_of_this_process(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert Notifier(environ, refuse).watchdog_s == seconds


# What happens between two batches


class Reload:
    """A reload that is under way as long as a test says."""

    under_way = False

    def turn(self) -> None:
        """Nothing."""


class Sensor:
    """A lifecycle whose clock and parts a test moves."""

    def __init__(self, tmp_path: Path, queue: Queued | None = None) -> None:
        self.now = 1000.0
        self.requests, self.reloader = Requests(), Reload()
        self.meter = Acts()
        stages = stages_of(self.meter, AlertFeed(Verdict(DETECTOR, 0.5)), Kept())
        if queue is not None:
            stages.outputs = Destinations(queues=[queue])
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "9000000"}
        reloader: Any = self.reloader
        self.lifecycle = Lifecycle(
            stages, self.requests, reloader, Notifier(environ, refuse), lambda: self.now
        )

    def turn(self, after_s: float = 0.0) -> None:
        self.now += after_s
        self.lifecycle.turn()


def test_the_manager_knows_how_far_the_sensor_is(tmp_path: Path, manager: Manager) -> None:
    sensor = Sensor(tmp_path)
    sensor.turn()
    status = (
        "model untrained-gaussian: 0 alerts in 7 flows; 9 packets, 2 lost; 0 events written, 0 lost"
    )
    first = manager.heard()
    assert first[0] == {"READY": "1"}
    assert "STATUS" in first[1]
    sensor.meter.counters.flows, sensor.meter.counters.received = 7, 9
    sensor.meter.counters.kernel_drops = sensor.meter.counters.late_packets = 1
    sensor.turn(1.0)
    assert not manager.heard()
    sensor.turn(9.0)
    assert {"STATUS": status} in manager.heard()
    sensor.requests.stopped_at = sensor.now
    sensor.turn()
    sensor.turn(100.0)
    stopping, watchdog = manager.heard()
    assert stopping["STOPPING"] == "1"
    assert watchdog == {"WATCHDOG": "1"}


def test_a_reload_begins_and_ends_for_the_manager_too(tmp_path: Path, manager: Manager) -> None:
    sensor = Sensor(tmp_path)
    sensor.turn()
    manager.heard()
    sensor.reloader.under_way = True
    sensor.turn()
    sensor.turn()
    (message,) = manager.heard()
    assert message["RELOADING"] == "1"
    assert int(message["MONOTONIC_USEC"]) > 0
    sensor.reloader.under_way = False
    sensor.turn()
    sensor.turn()
    assert manager.heard() == [{"READY": "1"}]


def fed(manager: Manager) -> int:
    return manager.heard().count({"WATCHDOG": "1"})


def test_the_watchdog_is_fed_while_all_goes_on(tmp_path: Path, manager: Manager) -> None:
    sensor = Sensor(tmp_path)
    for _ in range(100):
        sensor.turn(0.09)
    assert 3 <= fed(manager) <= 4  # in its nine seconds
    sensor.meter.stalled_s = 5.0
    for _ in range(10):
        sensor.turn(3.0)
    assert not fed(manager)
    sensor.meter.stalled_s = 0.1
    sensor.turn(3.0)
    assert fed(manager) == 1


def test_the_watchdog_is_not_fed_when_an_output_has_lost_its_thread(
    tmp_path: Path, manager: Manager
) -> None:
    class Broken(Scripted):
        def write(self, lines: Any) -> None:
            assert self.go.wait(20)
            raise ZeroDivisionError

    sink = Broken()
    sink.go.clear()
    queue = Queued(sink, backoff=AT_ONCE)
    sensor = Sensor(tmp_path, queue)
    sensor.turn()
    assert fed(manager) == 1
    sink.go.set()
    until(lambda: not queue.alive)
    sensor.turn(3.0)
    assert not fed(manager)
    with pytest.raises(ZeroDivisionError):
        queue.close()


# Signals


@pytest.fixture
def _handlers() -> Iterator[None]:
    """What signals do is as it was, afterwards."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
def test_signals_are_noted_and_done_once(tmp_path: Path, manager: Manager) -> None:
    sink = Scripted()
    queue = Queued(sink)
    sensor = Sensor(tmp_path, queue)
    stops: list[int] = []
    with sensor.requests.noted():
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGUSR2)
        assert sensor.requests.reload
        sensor.turn()
        assert not sensor.requests.reopen
        sensor.requests.stop = lambda: stops.append(1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        assert stops == [1]
        assert sensor.requests.stopped_at is not None
    for number in SIGNALS:  # to the end of the process
        signal.raise_signal(number)
    assert stops == [1]
    until(lambda: sink.reopened == 1)
    queue.close()


@pytest.mark.usefixtures("_handlers")
def test_a_signal_before_there_is_anything_to_stop_interrupts() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(KeyboardInterrupt), Requests().noted():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in SIGNALS] == before
