"""The live meter and `flowvane run`, on a veth pair in a network namespace of their own."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import traffic
from features.flows import Ending, FlowBatch, empty_flows, unpack_address
from features.registry import SCHEMAS
from features.schema import EarlyReports, MeterSettings
from models.bundle import load, save
from sensor.captures import CaptureSpool, chain
from sensor.daemon import RunSummary
from sensor.errors import ExitCode, InputError
from sensor.feed import FeedCounters
from sensor.live import BLOCK_AGE_S, SCORING_AGE_S, measure_live, score_live
from sensor.meter.base import MeterCounters
from sensor.meter.compiled import interface
from sensor.meter.compiled.core import FlowTable, Options
from sensor.meter.compiled.interface import CaptureSettings, Interface, Tap
from sensor.meter.compiled.live import FlowQueue, LiveMeter
from sensor.meter.compiled.meter import CompiledMeter
from sensor.pipeline import Measured, Scorer
from tests.helpers import ANN, ARP, BOB, make_flow, need_tools, run, sample, syn, until, untrained
from tests.sensor.test_lifecycle import Manager
from tests.sensor.test_wire_kdd import WRONG_FRAGMENTS, fragments

PATIENCE_S = 20.0
"""A test that waits longer hangs."""
LONG = MeterSettings(60, 60)
SMALL_RING = CaptureSettings(buffer_bytes=1 << 20)
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET (sched.h)

libc = ctypes.CDLL(None, use_errno=True)


def shell(command: str) -> None:
    subprocess.run(command.split(), check=True, stdout=subprocess.DEVNULL)


def add_veth(ours: str = "fv0", theirs: str = "fv1") -> None:
    """A pair of interfaces that say nothing by themselves; what goes in at `theirs` is ours."""
    shell(f"ip link add {ours} type veth peer name {theirs}")
    for name in (theirs, ours):
        shell(f"ip link set {name} mtu 2000 addrgenmode none up")


@pytest.fixture
def link() -> Iterator[str]:
    """The interface to capture on, in a namespace that this thread is in while the test runs."""
    need_tools("ip", "tcpreplay")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(_NEW_NETWORK):
            reason = f"no network namespace to be had: {os.strerror(ctypes.get_errno())}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
        add_veth()
        try:
            yield "fv0"
        finally:
            assert libc.setns(before, _NEW_NETWORK) == 0
    finally:
        os.close(before)


def send(*frames: bytes, to: str = "fv1") -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((to, 0))
        for frame in frames:
            out.send(frame)


def replay(path: Path, *options: str) -> None:
    command = ["tcpreplay", "-q", "-K", "-i", "fv1", *options, str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Watch:
    """Takes a live meter's flows in a thread, as a consumer would."""

    def __init__(self, meter: LiveMeter) -> None:
        self.meter = meter
        self.flows = empty_flows()
        self.batches = 0
        self.notices: list[str] = []
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        for batch in self.meter.flows():
            self.batches += 1
            self.flows = np.concatenate([self.flows, batch])
            self.notices += self.meter.notices()

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < end, "waited in vain"
            assert self._thread.is_alive(), "the meter ended"
            time.sleep(0.01)

    def count(self, number: int) -> None:
        self.until(lambda: len(self.flows) >= number)

    def read(self, packets: int) -> None:
        """Wait until the meter has read so many packets."""
        workers = self.meter._workers
        self.until(lambda: sum(int(w._table.control["read"]) for w in workers) >= packets)

    def stop(self) -> FlowBatch:
        self.meter.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return self.flows

    def endings(self) -> list[Ending]:
        return [Ending(ending) for ending in self.flows["ending"]]


def balanced(meter: LiveMeter, received: int) -> None:
    """All packets are accounted for, each once."""
    counters = meter.counters
    assert counters.received == received
    assert counters.received == counters.read + counters.kernel_drops
    assert counters.unread == 0
    assert counters.read == counters.metered + counters.not_metered + counters.lost
    causes = (
        counters.queue_full_packets, counters.no_memory, counters.late_packets,
        counters.failed_packets,
    )  # fmt: skip
    assert counters.lost == sum(causes)


def packets(flows: FlowBatch) -> int:
    return int((flows["src_packets"] + flows["dst_packets"]).sum())


def udp(port: int) -> bytes:
    return traffic.udp_frame(ANN, BOB, port, 9, b"payload")


# Why flows end


def test_a_flow_ends_on_a_silent_link_and_nothing_else_is_needed(link: str) -> None:
    watch = Watch(LiveMeter([link], MeterSettings(1, 60)))
    send(udp(1), udp(1))
    watch.count(1)
    assert watch.endings() == [Ending.IDLE]
    assert len(watch.stop()) == 1
    balanced(watch.meter, 2)


def test_the_meter_comes_back_though_there_is_nothing(link: str) -> None:
    watch = Watch(LiveMeter([link], LONG))
    watch.until(lambda: watch.batches >= 3)
    assert not len(watch.stop())
    balanced(watch.meter, 0)


def test_the_active_timeout_ends_a_flow_that_goes_on(link: str) -> None:
    watch = Watch(LiveMeter([link], MeterSettings(60, 1)))
    while not len(watch.flows):
        send(udp(1))
        time.sleep(0.1)
    assert watch.endings() == [Ending.ACTIVE]
    sent = packets(watch.stop())
    assert watch.endings() == [Ending.ACTIVE, Ending.SHUTDOWN]
    balanced(watch.meter, sent)


def test_a_connection_that_said_goodbye_ends_after_the_linger_time(link: str) -> None:
    watch = Watch(LiveMeter([link], LONG, options=Options(linger_s=0.2)))
    send(
        syn(1000), traffic.tcp_frame(BOB, ANN, 80, 1000, "RA"),
        syn(1001), traffic.tcp_frame(BOB, ANN, 80, 1001, "SA"),
        traffic.tcp_frame(ANN, BOB, 1001, 80, "A"),
    )  # fmt: skip
    watch.count(1)
    assert watch.endings() == [Ending.FIN]
    assert watch.flows["src_port"].tolist() == [1000]
    watch.stop()
    assert watch.endings() == [Ending.FIN, Ending.SHUTDOWN]
    balanced(watch.meter, 5)


def test_a_full_table_ends_the_flow_seen_least_recently(link: str) -> None:
    watch = Watch(LiveMeter([link], LONG, options=Options(most_flows=4)))
    send(*(udp(port) for port in range(1, 11)))
    watch.count(6)
    assert watch.flows["src_port"].tolist() == [1, 2, 3, 4, 5, 6]
    watch.stop()
    assert Counter(watch.endings()) == {Ending.EVICTED: 6, Ending.SHUTDOWN: 4}
    assert watch.meter.counters.evicted == 6
    balanced(watch.meter, 10)


@pytest.mark.parametrize(
    "options",
    [Options(early=EarlyReports(packets=(3,))), Options(early=EarlyReports(ages_s=(0.2,)))],
    ids=str,
)
def test_an_early_report_comes_once_and_its_packets_count_once(link: str, options: Options) -> None:
    watch = Watch(LiveMeter([link], LONG, options=options))
    sent = 0
    while not len(watch.flows):
        send(udp(1))
        sent += 1
        time.sleep(0.1)
    send(udp(1))
    flows = watch.stop()
    assert watch.endings() == [Ending.EARLY, Ending.SHUTDOWN]
    assert packets(flows[:1]) < packets(flows[1:]) == sent + 1
    assert watch.meter.counters.early == 1
    balanced(watch.meter, sent + 1)


def test_drops_of_the_interface_are_told_apart(link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # No driver here drops packets; its count comes with pcap_stats, and begins anew at 2^32.
    told = itertools.chain([2**32 - 2], itertools.repeat(3))
    call = interface._call

    def counting(name: str, handle: int | None, *arguments: Any) -> int:
        status = call(name, handle, *arguments)
        if name == "pcap_stats":
            arguments[0]._obj.by_interface = next(told)
        return status

    monkeypatch.setattr(interface, "_call", counting)
    watch = Watch(LiveMeter([link], LONG))
    send(udp(1), udp(2))
    watch.read(2)
    watch.until(lambda: watch.meter._workers[0].counts.interface_drops == 2**32 + 3)
    watch.stop()
    balanced(watch.meter, 2)
    summary = RunSummary(watch.meter.counters, FeedCounters())
    assert "4,294,967,299 to the interface" in summary.line


def test_a_clock_that_was_set_back_ends_all_flows_and_time_goes_on(link: str) -> None:
    ahead_us = 3_600_000_000
    watch = Watch(
        LiveMeter([link], MeterSettings(1, 60), wall_us=lambda: time.time_ns() // 1000 + ahead_us)
    )
    table = watch.meter._workers[0]._table
    watch.until(lambda: int(table.control["now_us"]) > time.time_ns() // 1000)
    send(udp(1))
    watch.read(1)
    ahead_us = 0
    watch.count(1)
    assert watch.endings() in ([Ending.EVICTED], [Ending.IDLE])
    watch.until(lambda: bool(watch.notices))
    assert "the clock was set back by 3" in watch.notices[0]
    send(udp(2))
    watch.count(2)
    assert watch.endings()[1] == Ending.IDLE
    assert abs(int(watch.flows["last_us"][1]) - time.time_ns() // 1000) < 3_000_000_000
    watch.stop()
    balanced(watch.meter, 2)


def test_wrong_fragments_are_seen_on_a_link_too(link: str) -> None:
    watch = Watch(LiveMeter([link], LONG))
    send(*(frame for _, frame in fragments()))
    flows = watch.stop()
    found = {
        unpack_address(address, 4): int(wrong)
        for address, wrong in zip(flows["dst_ip"], flows["wrong_fragments"], strict=True)
    }
    assert found == {address: wrong for address, (wrong, _) in WRONG_FRAGMENTS.items()}


# What is lost, and what is not


def known_flows(path: Path) -> Counter[tuple[Any, ...]]:
    """The flows of a capture file."""
    with CaptureSpool() as spool:
        batches = list(CompiledMeter(chain([spool.open(path)], 60_000_000), LONG).flows())
    return described(np.concatenate(batches))


def described(flows: FlowBatch) -> Counter[tuple[Any, ...]]:
    """Flows by what does not depend on when their packets came."""
    names = ("src_port", "dst_port", "protocol", "src_packets", "dst_packets", "src_bytes")
    return Counter(zip(*(flows[name].tolist() for name in names), strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_each_packet_is_metered_once_whatever_the_threads(link: str, threads: int) -> None:
    path = sample().excerpt
    watch = Watch(LiveMeter([link], LONG, threads=threads))
    # At once, so that no flow of the file is cut by a timeout.
    replay(path, "--pps", "20000")
    flows = watch.stop()
    with CaptureSpool() as spool:
        in_file = spool.open(path).packets
    balanced(watch.meter, in_file)
    assert watch.meter.counters.kernel_drops == 0
    assert all(worker.counts.read for worker in watch.meter._workers)
    assert packets(flows) == watch.meter.counters.metered == in_file
    assert described(flows) == known_flows(path)


def test_what_is_not_ip_is_counted(link: str) -> None:
    watch = Watch(LiveMeter([link], LONG))
    send(ARP, udp(1), ARP)
    assert packets(watch.stop()) == 1
    assert watch.meter.counters.not_metered == 2
    balanced(watch.meter, 3)


def test_packets_that_the_kernel_drops_are_counted(link: str) -> None:
    meter = LiveMeter([link], LONG, capture=SMALL_RING)
    # Nobody reads yet.
    replay(sample().excerpt, "--topspeed", "--loop", "4")
    flows = Watch(meter).stop()
    with CaptureSpool() as spool:
        sent = 4 * spool.open(sample().excerpt).packets
    assert 0 < meter.counters.kernel_drops < sent
    assert packets(flows) == sent - meter.counters.kernel_drops
    balanced(meter, sent)


def test_a_consumer_that_does_not_come_costs_flows_and_stalls_nothing(link: str) -> None:
    meter = LiveMeter([link], LONG, options=Options(most_flows=4), queue_flows=8)
    flows = meter.flows()
    next(flows)
    send(*(udp(port) for port in range(1, 101)))
    table = meter._workers[0]._table
    end = time.monotonic() + PATIENCE_S
    while int(table.control["read"]) < 100 and time.monotonic() < end:
        time.sleep(0.01)
    # All is read and 96 flows have ended, of which 8 fit; the last 4 have to wait, and may.
    meter.stop()
    got = np.concatenate([batch for batch in flows if len(batch)])
    assert meter.counters.queue_full_flows == meter.counters.queue_full_packets == 88
    assert sorted(got["src_port"].tolist()) == [*range(1, 9), *range(97, 101)]
    balanced(meter, 100)


def test_a_queue_is_bounded_by_flows_unless_told() -> None:
    queue = FlowQueue(10)
    assert queue.put(empty_flows(7)) == 7
    assert queue.put(empty_flows(7)) == 3
    assert queue.put(empty_flows(1)) == 0
    assert queue.put(empty_flows(25), bounded=False) == 25
    assert queue.put(empty_flows(1)) == 0
    taken = 0
    while (batch := queue.get(0)) is not None:
        taken += len(batch)
    assert taken == 35
    assert queue.put(empty_flows(1)) == 1
    queue.close()
    assert queue.put(empty_flows(1)) == queue.put(empty_flows(1), bounded=False) == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_flows_for_which_there_is_no_time_at_the_end_are_counted(link: str, threads: int) -> None:
    watch = Watch(LiveMeter([link], LONG, threads=threads, stop_within_s=0.0))
    send(*(udp(port) for port in range(1, 101)), udp(1))
    watch.read(101)
    assert not len(watch.stop())
    assert watch.meter.counters.late_flows == 100
    assert watch.meter.counters.late_packets == 101
    balanced(watch.meter, 101)


def test_a_consumer_that_is_slow_at_the_end_gets_what_there_is_time_for(link: str) -> None:
    meter = LiveMeter([link], LONG, stop_within_s=0.5)
    flows = meter.flows()
    next(flows)
    send(*(udp(port) for port in range(1, 4001)))
    while int(meter._workers[0]._table.control["read"]) < 4000:
        time.sleep(0.01)
    meter.stop()
    got = 0
    for batch in flows:
        got += len(batch)
        time.sleep(1.0 if len(batch) else 0.0)
    assert got < 4000
    assert meter.counters.flows == meter.counters.metered == got
    assert meter.counters.late_flows == meter.counters.late_packets == 4000 - got
    balanced(meter, 4000)


# Interfaces that come and go


def test_an_interface_that_goes_down_is_waited_for(link: str) -> None:
    watch = Watch(LiveMeter([link], MeterSettings(1, 60)))
    send(udp(1))
    watch.read(1)
    shell(f"ip link set {link} down")
    watch.until(lambda: watch.notices == [f"{link}: is down; waiting for it"])
    watch.count(1)  # time goes on
    shell(f"ip link set {link} up")
    watch.until(lambda: watch.notices[1:] == [f"{link}: is back; capturing"])
    send(udp(2))
    assert watch.stop()["src_port"].tolist() == [1, 2]
    balanced(watch.meter, 2)


def test_an_interface_that_vanishes_is_waited_for(link: str) -> None:
    watch = Watch(LiveMeter([link], LONG))
    send(udp(1))
    shell(f"ip link del {link}")
    watch.until(lambda: watch.notices == [f"{link}: is gone; waiting for it"])
    add_veth()
    watch.until(lambda: watch.notices[1:] == [f"{link}: is back; capturing"])
    send(udp(2))
    assert watch.stop()["src_port"].tolist() == [1, 2]
    balanced(watch.meter, 2)


def test_an_interface_that_is_down_at_first_is_waited_for(link: str) -> None:
    shell(f"ip link set {link} down")
    watch = Watch(LiveMeter([link], LONG))
    watch.until(lambda: watch.notices == [f"{link}: is down; waiting for it"])
    shell(f"ip link set {link} up")
    watch.until(lambda: len(watch.notices) == 2)
    send(udp(2))
    assert watch.stop()["src_port"].tolist() == [2]


def test_several_interfaces_are_told_apart(link: str) -> None:
    add_veth("fv2", "fv3")
    watch = Watch(LiveMeter([link, "fv2"], LONG))
    send(udp(1))
    send(udp(2), udp(2), to="fv3")
    flows = watch.stop()
    assert dict(zip(flows["origin"].tolist(), flows["src_port"].tolist(), strict=True)) == {
        0: 1,
        1: 2,
    }
    balanced(watch.meter, 3)


@pytest.mark.parametrize("name", ["lo", "any"])
def test_what_goes_over_the_loopback_is_metered_once(link: str, name: str) -> None:
    shell("ip link set lo up")
    watch = Watch(LiveMeter([name], MeterSettings(1, 60)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(b"hello", ("127.0.0.1", 9))
    watch.count(2)
    # Nobody listens: the answer is an ICMP message.
    assert sorted(watch.flows["protocol"].tolist()) == [1, 17]
    assert packets(watch.stop()) == 2
    balanced(watch.meter, 2)


def test_no_such_interface(link: str) -> None:
    with pytest.raises(InputError, match=r"^nowhere: no such interface"):
        LiveMeter([link, "nowhere"], LONG)


def test_counters_of_32_bits_go_round(link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    socket_on_link = Interface(link, CaptureSettings())
    told = iter([(4_294_967_290, 5, 0), (10, 4_294_967_295, 0), (20, 3, 1)])

    def pcap_stats(name: str, handle: int, stat: Any) -> int:
        stat._obj.received, stat._obj.dropped, stat._obj.by_interface = next(told)
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(interface, "_call", pcap_stats)
        for expected in (
            (4_294_967_290, 5, 0),
            (2**32 + 10, 2**32 - 1, 0),
            (2**32 + 20, 2**32 + 3, 1),
        ):
            counts = socket_on_link.counts()
            got = (counts.received, counts.dropped, counts.dropped_by_interface)
            assert got == expected
    socket_on_link.close()


# The threads


def test_closing_the_iterator_ends_the_capture(link: str) -> None:
    meter = LiveMeter([link], LONG)
    flows = meter.flows()
    next(flows)
    flows.close()
    assert not any(worker.thread.is_alive() for worker in meter._workers)


def test_a_meter_that_was_never_asked_can_be_closed(link: str) -> None:
    meter = LiveMeter([link], LONG)
    meter.close()
    meter.close()
    LiveMeter([link], LONG).close()


def test_what_goes_wrong_in_a_thread_is_raised_where_the_flows_are_taken(
    link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = LiveMeter([link], LONG)
    monkeypatch.setattr(FlowTable, "read", lambda table: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(meter.flows())


# Features and scores, without holding back


class Scripted:
    """A meter whose batches come at set times of a clock of its own."""

    clock_us = 1
    counters = MeterCounters()
    progress_us = None

    def __init__(self, *script: tuple[float, FlowBatch]) -> None:
        self._script = script
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def flows(self) -> Generator[FlowBatch, None, None]:
        for now, batch in self._script:
            self.now = now
            yield batch


def sizes(measured: Iterator[Measured], meter: Scripted) -> list[tuple[float, int]]:
    return [(meter.now, len(item.flows)) for item in measured if len(item.flows)]


def test_a_block_is_closed_when_it_is_full_or_old() -> None:
    nothing = empty_flows()
    at = 10.0
    meter = Scripted(
        (at, make_flow()),
        (at + BLOCK_AGE_S / 2, make_flow()),
        (at + BLOCK_AGE_S, nothing),
        (at + 2, nothing),
        (at + 3, np.concatenate([make_flow()] * 130)),
        (at + 3 + BLOCK_AGE_S, nothing),
        (at + 5, make_flow()),
    )
    schema = SCHEMAS["unsw-nb15"]
    measured = sizes(measure_live(meter, schema, 1, clock=meter.clock), meter)
    assert measured == [(at + BLOCK_AGE_S, 2), (at + 3, 100), (at + 4, 30), (at + 5, 1)]


def test_a_block_closed_by_age_counts_its_own_flows_only() -> None:
    meter = Scripted((0.0, make_flow()), (1.0, make_flow()), (2.0, empty_flows()))
    schema = SCHEMAS["unsw-nb15"]
    rows = np.concatenate([item.rows for item in measure_live(meter, schema, 1, clock=meter.clock)])
    assert rows[:, schema.index(["ct_srv_src"])[0]].tolist() == [2.0, 2.0]
    meter = Scripted((0.0, make_flow()), (1.0, empty_flows()), (2.0, make_flow()))
    rows = np.concatenate([item.rows for item in measure_live(meter, schema, 1, clock=meter.clock)])
    assert rows[:, schema.index(["ct_srv_src"])[0]].tolist() == [1.0, 1.0]


def test_each_interface_has_windows_of_its_own() -> None:
    flows = [make_flow(origin=0), make_flow(origin=1), make_flow(origin=0)]
    meter = Scripted((0.0, np.concatenate(flows)))
    schema = SCHEMAS["kdd"]
    measured = list(measure_live(meter, schema, 1, clock=meter.clock))
    counts = [
        (int(flow["origin"]), float(row[schema.index(["count"])[0]]))
        for item in measured
        for flow, row in zip(item.flows, item.rows, strict=True)
    ]
    assert counts == [(0, 1.0), (1, 1.0), (0, 2.0)]


def test_flows_are_scored_when_they_are_many_or_have_waited() -> None:
    nothing = empty_flows()
    meter = Scripted(
        (1.0, make_flow()),
        (1.0 + SCORING_AGE_S / 2, make_flow()),
        (1.0 + SCORING_AGE_S, nothing),
        (2.0, np.concatenate([make_flow()] * 1500)),
        (3.0, make_flow()),
    )
    detector = untrained("kdd", "gaussian")
    measured = measure_live(meter, detector.schema, 1000, clock=meter.clock)
    scorer = Scorer(detector)
    scored = [(meter.now, len(s.flows)) for s in score_live(measured, scorer, clock=meter.clock)]
    assert scored == [(1.0 + SCORING_AGE_S, 2), (2.0, 1500), (3.0, 1)]


# The command


def signalled(number: int, begin: Callable[[], None]) -> threading.Thread:
    """Once the command captures, let `begin` happen, then send this process a signal."""

    def act() -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if any(thread.name.startswith("capture ") for thread in threading.enumerate()):
                break
            time.sleep(0.02)
        begin()
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_capture_and_every_flow_is_scored(
    link: str, tmp_path: Path, number: int
) -> None:
    thread = signalled(number, lambda: replay(sample().excerpt, "--pps", "20000"))
    ran = run("run", "-i", link, "-l", tmp_path)
    thread.join()
    assert ran.code == ExitCode.OK
    assert not ran.err
    with CaptureSpool() as spool:
        sent = spool.open(sample().excerpt).packets
    events = [json.loads(line) for line in (tmp_path / "eve.json").read_text().splitlines()]
    flows = sum(known_flows(sample().excerpt).values())
    first, last = ran.out.splitlines()
    assert first == f"capturing on {link}; model nsl-kdd; events to {tmp_path}/eve.json"
    assert f"{len(events):,} alerts in {flows:,} flows" in last
    assert f"{sent:,} packets in: {sent:,} in flows, 0 not IP; lost: 0 packets" in last
    assert f"; {len(events):,} events written, 0 lost; " in last
    assert events
    assert {event["in_iface"] for event in events} == {link}
    assert {event["flow"]["reason"] for event in events} == {"shutdown"}


def test_a_configuration_file_says_what_is_captured_and_where_alerts_go(
    link: str, tmp_path: Path
) -> None:
    (tmp_path / "x.yaml").write_text(
        f"interfaces: [{{interface: {link}, threads: 2, buffer: 8}}]\n"
        f"default-log-dir: {tmp_path}\npidfile: {tmp_path}/x.pid\nfalse-positive-rate: 0.9\n"
        "outputs: [{eve-log: {filename: alerts.json}}]\n"
    )
    seen: list[str] = []

    def replay_and_look() -> None:
        seen.append((tmp_path / "x.pid").read_text())
        replay(sample().excerpt, "--pps", "20000")

    thread = signalled(signal.SIGTERM, replay_and_look)
    ran = run("run", "-c", tmp_path / "x.yaml")
    thread.join()
    assert (ran.code, ran.err) == (ExitCode.OK, "")
    assert seen == [f"{os.getpid()}\n"]
    assert not (tmp_path / "x.pid").exists()
    events = (tmp_path / "alerts.json").read_text().splitlines()
    assert events
    assert f"{len(events):,} alerts in " in ran.out.splitlines()[-1]


def test_each_interface_has_threads_and_a_buffer_of_its_own(link: str) -> None:
    def captures() -> Counter[str]:
        names = Counter(thread.name for thread in threading.enumerate())
        return Counter({name: names[name] for name in names if name.startswith("capture ")})

    watch = Watch(LiveMeter([Tap(link, SMALL_RING, threads=3), "lo"], LONG, threads=2))
    watch.until(lambda: captures().total() == 5)
    assert captures() == {f"capture {link}": 3, "capture lo": 2}
    assert [worker._capture for worker in watch.meter._workers[:4]] == [
        *[SMALL_RING] * 3, CaptureSettings(),
    ]  # fmt: skip
    watch.stop()


def test_more_signals_change_nothing(link: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sensor.cli", "run", "-i", link, "-l", str(tmp_path),
               "--fpr", "0.9"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sensor:
        assert sensor.stdout is not None
        assert sensor.stdout.readline().startswith("capturing on")
        replay(sample().excerpt, "--pps", "20000")
        while sensor.poll() is None:
            sensor.send_signal(signal.SIGTERM)
            sensor.send_signal(signal.SIGINT)
            time.sleep(0.002)
        last = sensor.stdout.read()
    assert sensor.returncode == ExitCode.OK
    events = [json.loads(line) for line in (tmp_path / "eve.json").read_text().splitlines()]
    assert last.startswith(f"{len(events):,} alerts in ")
    assert ", 0 (0 flows) to lack of time at the end; " in last


def test_logs_are_reopened_and_the_model_reloaded_under_load_and_nothing_is_lost(
    link: str, tmp_path: Path
) -> None:
    detector = load("nsl-kdd")
    for name in ("one", "two"):
        detector.name = name
        save(detector, tmp_path / name)
    config, log = tmp_path / "x.yaml", tmp_path / "eve.json"

    def configure(model: str) -> None:
        config.write_text(f"default-log-dir: {tmp_path}\nlinger: 0.1\nmodel: {tmp_path}/{model}\n")

    configure("one")
    manager = Manager(str(tmp_path / "notify"))
    heard: list[dict[str, str]] = []

    def hear(name: str, times: int = 1) -> None:
        """Wait until the manager has heard of something so often."""

        def told() -> bool:
            heard.extend(manager.heard())
            return sum(name in message for message in heard) >= times

        until(told, 60)

    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
    command = [sys.executable, "-m", "sensor.cli", "run", "-i", link, "-c", str(config)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environ},
    ) as sensor:  # fmt: skip
        hear("READY")
        load_on = ["tcpreplay", "-q", "-K", "-i", "fv1", "--pps", "3000", "--loop", "100",
                   str(sample().excerpt)]  # fmt: skip
        with subprocess.Popen(
            load_on, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as player:
            until(lambda: log.stat().st_size > 0, 60)
            log.rename(tmp_path / "eve.json.1")
            sensor.send_signal(signal.SIGHUP)
            until(log.exists)
            configure("none")
            sensor.send_signal(signal.SIGUSR2)
            hear("READY", 2)
            configure("two")
            sensor.send_signal(signal.SIGUSR2)
            hear("READY", 3)
            until(lambda: b'"two"' in log.read_bytes(), 60)
            player.terminate()
        hear("WATCHDOG")
        sensor.send_signal(signal.SIGTERM)
        out, err = sensor.communicate()
    hear("STOPPING")
    assert sensor.returncode == ExitCode.OK
    assert err.startswith(
        f"flowvane: warning: reload refused, all stays as it was: {tmp_path}/none: no such model"
    )
    assert len(err.splitlines()) == 1
    files = [tmp_path / "eve.json.1", log]
    events = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    models = [event["alert"]["metadata"]["model"][0] for event in events]
    assert set(models) == {"one", "two"}
    assert models == sorted(models)
    said = out.splitlines()
    assert said[1:-1] == ["reloaded; model two"]
    (alerts, came, went) = re.search(
        r"^([\d,]+) alerts .* ([\d,]+) packets in: ([\d,]+) in flows, 0 not IP; lost: 0 packets to "
        r"a full kernel buffer, 0 left in it, .* 0 \(0 flows\) to a full queue, 0 to lack of "
        r"memory, 0 \(0 flows\) to lack of time", said[-1],
    ).groups()  # type: ignore[union-attr]  # fmt: skip
    assert alerts == f"{len(events):,}"
    assert came == went
    order = [next(iter(message)) for message in heard if "WATCHDOG" not in message]
    order = [name for name in order if name != "STATUS"]
    assert order == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
    manager.close()


def test_what_is_not_scored_in_time_at_the_end_is_told(link: str, tmp_path: Path) -> None:
    thread = signalled(signal.SIGTERM, lambda: replay(sample().excerpt, "--pps", "20000"))
    ran = run("run", "-i", link, "-l", tmp_path, "--stop-within", "0")
    thread.join()
    assert ran.code == ExitCode.OK
    with CaptureSpool() as spool:
        sent = spool.open(sample().excerpt).packets
    last = ran.out.splitlines()[-1]
    assert last.startswith("0 alerts in 0 flows")
    assert f"{sent:,} packets in: 0 in flows, 0 not IP" in last
    # There is no time to empty the kernel's buffer either.
    (unread,) = re.findall(r", ([\d,]+) left in it", last)
    (late,) = re.findall(r", ([\d,]+) \([\d,]+ flows\) to lack of time at the end; ", last)
    assert int(late.replace(",", "")) + int(unread.replace(",", "")) == sent
    assert not (tmp_path / "eve.json").read_text()


def test_what_becomes_of_an_interface_is_told(link: str, tmp_path: Path) -> None:
    def down_and_up() -> None:
        for state in ("down", "up"):
            shell(f"ip link set {link} {state}")
            time.sleep(1.5)

    thread = signalled(signal.SIGTERM, down_and_up)
    ran = run("run", "-i", link, "-l", tmp_path)
    thread.join()
    assert ran.code == ExitCode.OK
    assert ran.lines == [
        f"flowvane: warning: {link}: is down; waiting for it",
        f"flowvane: warning: {link}: is back; capturing",
    ]


def test_a_full_disk_is_survived_and_what_it_cost_is_counted(link: str, tmp_path: Path) -> None:
    (tmp_path / "eve.json").symlink_to("/dev/full")
    thread = signalled(signal.SIGTERM, lambda: replay(sample().excerpt, "--pps", "20000"))
    ran = run("run", "-i", link, "-l", tmp_path)
    thread.join()
    assert ran.code == ExitCode.OK
    first, second = ran.lines
    refused = f"flowvane: warning: {tmp_path}/eve.json: cannot be written: no space left on device"
    assert first == f"{refused}; it is tried again"
    (alerts,) = re.findall(r"^([\d,]+) alerts in ", ran.out.splitlines()[-1])
    told = f"; 0 events written, {alerts} lost ({alerts} disk_full); "
    assert told in ran.out.splitlines()[-1]
    assert second.endswith(f"{alerts.replace(',', '')} lines are lost, queued at the end")


def test_no_permission_is_one_line(link: str, tmp_path: Path) -> None:
    need_tools("setpriv")
    command = [sys.executable, "-m", "sensor.cli", "run", "-i", link, "-l", str(tmp_path)]
    ran = subprocess.run(
        ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", *command],
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == ExitCode.INPUT
    assert ran.stderr == (
        f"flowvane: error: {link}: no permission to capture; run as root, or with CAP_NET_RAW\n"
    )
    assert not any(tmp_path.iterdir())


def test_an_unknown_interface_is_one_line(tmp_path: Path) -> None:
    need_tools("ip")
    ran = run("run", "-i", "nowhere", "-l", tmp_path)
    assert ran.code == ExitCode.INPUT
    assert "nowhere: " in ran.err
    assert len(ran.lines) == 1


@pytest.mark.parametrize(
    "options", [["-i", "a", "a"], ["-i", "a", "--linger", "-1"], ["-i", "a", "--threads", "0"], []]
)
def test_wrong_options(options: list[str], tmp_path: Path) -> None:
    assert run("run", *options, "-l", tmp_path).code == ExitCode.USAGE
