"""Stock NFStreamer on interfaces, behind the live meter's threads: what `flowvane run` falls back
to. On a veth pair in a network namespace, as tests/sensor/test_live.py."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from features.flows import Ending
from features.schema import EarlyReports, MeterSettings
from sensor.captures import CaptureSpool
from sensor.errors import ExitCode
from sensor.meter import stock_live
from sensor.meter.choice import open_live_meter
from sensor.meter.compiled import engine
from sensor.meter.compiled.core import Options
from sensor.meter.compiled.live import LiveMeter
from sensor.meter.stock_live import StockTable
from tests.helpers import ARP, run, sample
from tests.sensor.test_live import (
    LONG,
    PATIENCE_S,
    SMALL_RING,
    Watch,
    add_veth,
    balanced,
    described,
    known_flows,
    link,
    packets,
    replay,
    send,
    shell,
    signalled,
    udp,
)

__all__ = ["link"]  # the fixture


def stock(
    *links: str, settings: MeterSettings = LONG, options: Options | None = None, **more: Any
) -> LiveMeter:
    return LiveMeter(
        links, settings, 1000, new_table=lambda: StockTable(settings, options or Options()), **more
    )


def worker_pid(meter: LiveMeter) -> int:
    session = meter._workers[0]._table._session  # type: ignore[attr-defined]
    pid: int = session._worker.pid
    return pid


# Why flows end


def test_flows_end_on_a_silent_link_though_an_older_one_goes_on(link: str) -> None:
    watch = Watch(stock(link, settings=MeterSettings(1, 60)))
    send(udp(1))
    send(*(udp(port) for port in range(2, 2002)), ARP)
    going_on = 1
    end = time.monotonic() + PATIENCE_S
    while len(watch.flows) < 2000 and time.monotonic() < end:
        send(udp(1))
        going_on += 1
        time.sleep(0.2)
    assert watch.endings() == 2000 * [Ending.IDLE]
    flows = watch.stop()
    assert flows["src_port"].tolist()[-1] == 1
    assert watch.endings()[-1] == Ending.SHUTDOWN
    assert packets(flows[-1:]) == going_on
    assert watch.meter.counters.not_metered == 1
    balanced(watch.meter, 2000 + going_on + 1)


def test_time_goes_on_whatever_comes_before_ip(link: str) -> None:
    shell("ip link set lo up")
    watch = Watch(stock("any", settings=MeterSettings(1, 60)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(b"hello", ("127.0.0.1", 9))
    watch.count(2)
    # Nobody listens: the answer is an ICMP message.
    assert sorted(watch.flows["protocol"].tolist()) == [1, 17]
    assert packets(watch.stop()) == 2
    balanced(watch.meter, 2)


def test_beyond_the_most_flows_new_ones_end_with_their_first_packet(link: str) -> None:
    watch = Watch(stock(link, options=Options(most_flows=4)))
    send(*(udp(port) for port in range(1, 11)), udp(1))
    watch.count(6)
    assert sorted(watch.flows["src_port"].tolist()) == [5, 6, 7, 8, 9, 10]
    watch.stop()
    assert Counter(watch.endings()) == {Ending.EVICTED: 6, Ending.SHUTDOWN: 4}
    assert watch.meter.counters.evicted == 6
    balanced(watch.meter, 11)


def test_a_clock_that_was_set_back_ends_all_flows_and_time_goes_on(link: str) -> None:
    ahead_us = 3_600_000_000
    watch = Watch(
        stock(link, settings=MeterSettings(1, 60),
              wall_us=lambda: time.time_ns() // 1000 + ahead_us)
    )  # fmt: skip
    control = watch.meter._workers[0]._table.control
    watch.until(lambda: control["now_us"] > time.time_ns() // 1000)
    send(udp(1))
    watch.read(1)
    ahead_us = 0
    watch.until(lambda: bool(watch.notices))
    assert "the clock was set back by 3" in watch.notices[0]
    send(udp(2))
    watch.count(2)
    assert watch.flows["src_port"].tolist() == [1, 2]
    assert watch.endings()[1] == Ending.IDLE
    assert abs(int(watch.flows["last_us"][1]) - time.time_ns() // 1000) < 3_000_000_000
    watch.stop()
    balanced(watch.meter, 2)


# What is lost, and what is not


def test_the_flows_are_those_of_the_compiled_meter_on_two_threads(link: str) -> None:
    path = sample().excerpt
    watch = Watch(stock(link, threads=2))
    replay(path, "--pps", "20000")
    with CaptureSpool() as spool:
        in_file = spool.open(path).packets
    watch.read(in_file)
    flows = watch.stop()
    balanced(watch.meter, in_file)
    assert packets(flows) == watch.meter.counters.metered == in_file
    assert set(watch.endings()) == {Ending.SHUTDOWN}
    assert described(flows) == known_flows(path)


def test_a_signal_to_every_process_loses_nothing(link: str) -> None:
    watch = Watch(stock(link))
    send(*(udp(port) for port in range(1, 101)))
    watch.read(100)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.killpg(worker_pid(watch.meter), number)
    assert len(watch.stop()) == 100
    balanced(watch.meter, 100)


def test_packets_wait_in_the_kernel_while_nfstreamer_is_busy_and_drops_are_counted(
    link: str,
) -> None:
    meter = stock(link, capture=SMALL_RING)
    # NFStreamer does not come to read; the ring takes what it can.
    os.killpg(worker_pid(meter), signal.SIGSTOP)
    watch = Watch(meter)
    replay(sample().excerpt, "--topspeed", "--loop", "4")
    os.killpg(worker_pid(meter), signal.SIGCONT)
    with CaptureSpool() as spool:
        sent = 4 * spool.open(sample().excerpt).packets
    counts = meter._workers[0].counts
    watch.until(lambda: counts.received == sent == counts.read + counts.kernel_drops)
    flows = watch.stop()
    assert 0 < meter.counters.kernel_drops < sent
    assert packets(flows) == sent - meter.counters.kernel_drops
    balanced(meter, sent)


def test_packets_of_flows_for_which_there_is_no_time_at_the_end_are_counted(link: str) -> None:
    watch = Watch(stock(link, stop_within_s=0.0))
    send(*(udp(port) for port in range(1, 101)), udp(1))
    watch.read(101)
    assert not len(watch.stop())
    assert watch.meter.counters.late_packets == 101
    balanced(watch.meter, 101)


def test_a_meter_that_dies_ends_the_capture_and_what_it_had_is_counted(link: str) -> None:
    meter = stock(link)
    watch = Watch(meter)
    send(*(udp(port) for port in range(1, 101)))
    watch.read(100)
    os.killpg(worker_pid(meter), signal.SIGKILL)
    watch.until(lambda: meter.failure is not None)
    assert not len(watch.stop())
    assert str(meter.failure).startswith("metering failed: ")
    assert meter.counters.failed_packets == 100
    balanced(meter, 100)
    assert not any(worker.thread.is_alive() for worker in meter._workers)


# Interfaces that come and go


def test_an_interface_that_goes_and_comes_is_waited_for(link: str) -> None:
    shell(f"ip link set {link} down")
    watch = Watch(stock(link))
    watch.until(lambda: watch.notices == [f"{link}: is down; waiting for it"])
    shell(f"ip link set {link} up")
    watch.until(lambda: watch.notices[1:] == [f"{link}: is back; capturing"])
    send(udp(1), udp(3))
    watch.read(2)
    shell(f"ip link del {link}")
    watch.until(lambda: watch.notices[2:] == [f"{link}: is gone; waiting for it"])
    add_veth()
    watch.until(lambda: watch.notices[3:] == [f"{link}: is back; capturing"])
    send(udp(2), udp(1))
    assert sorted(watch.stop()["src_port"].tolist()) == [1, 2, 3]
    balanced(watch.meter, 4)


def test_an_interface_that_was_never_up_can_be_stopped(link: str) -> None:
    shell(f"ip link set {link} down")
    watch = Watch(stock(link))
    assert not len(watch.stop())
    balanced(watch.meter, 0)
    meter = stock(link)
    meter.close()
    meter.close()


# The command


@pytest.mark.parametrize("chosen", [True, False], ids=["chosen", "fallen back to"])
def test_run_with_stock_nfstreamer(
    link: str, tmp_path: Path, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> tuple[int, int]:
        raise engine.UnknownEngine("libpcap keeps no packet header in its handle")

    options = ["--meter", "stock"] if chosen else []
    thread = signalled(signal.SIGTERM, lambda: replay(sample().excerpt, "--pps", "5000"))
    with monkeypatch.context() as patch:
        if not chosen:
            patch.setattr(engine, "handle_offsets", unknown)
        ran = run("run", "-i", link, "-l", tmp_path, "--stop-within", "30", *options)
    thread.join()
    assert ran.code == ExitCode.OK
    if chosen:
        assert not ran.err
    else:
        assert ran.lines == [
            "flowvane: warning: this NFStream is not one that the compiled meter knows (libpcap "
            "keeps no packet header in its handle); stock NFStreamer meters instead: slower, "
            "times to the millisecond, wrong fragments not seen, no flow reported before its end"
        ]
    with CaptureSpool() as spool:
        sent = spool.open(sample().excerpt).packets
    events = [json.loads(line) for line in (tmp_path / "eve.json").read_text().splitlines()]
    flows = sum(known_flows(sample().excerpt).values())
    last = ran.out.splitlines()[-1]
    assert f"{len(events):,} alerts in {flows:,} flows" in last
    assert f"{sent:,} packets in: {sent:,} in flows, 0 not IP; lost: 0 packets" in last
    assert events
    assert {event["flow"]["reason"] for event in events} == {"shutdown"}


def test_a_run_whose_meter_dies_scores_what_came_out_and_counts_the_rest(
    link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []
    start = stock_live.start_worker

    def started(*arguments: Any) -> subprocess.Popen[bytes]:
        worker = start(*arguments)
        pids.append(worker.pid)
        return worker

    def kill_it() -> None:
        send(*(udp(port) for port in range(1, 51)))
        time.sleep(0.3)
        os.killpg(pids[0], signal.SIGKILL)
        time.sleep(1.0)

    monkeypatch.setattr(stock_live, "start_worker", started)
    thread = signalled(signal.SIGCONT, kill_it)
    ran = run("run", "-i", link, "-l", tmp_path, "--meter", "stock", "--most-flows", "10",
              "--fpr", "0.999")  # fmt: skip
    thread.join()
    assert ran.code == ExitCode.INPUT
    assert ran.lines == [
        "flowvane: error: metering failed: the metering process ended without a word"
    ]
    last = ran.out.splitlines()[-1]
    written, lost = re.search(
        r"^(\d+) alerts in .* 50 packets in: .*, (\d+) to metering that", last
    ).groups()
    assert (int(written), int(lost)) == (40, 10)
    assert len((tmp_path / "eve.json").read_text().splitlines()) == 40


def test_an_engine_without_a_libpcap_is_one_line(
    link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise engine.UnknownEngine(f"libpcap's {name} cannot be called")

    monkeypatch.setattr("sensor.meter.compiled.interface.libpcap", missing)
    ran = run("run", "-i", link, "-l", tmp_path)
    assert ran.code == ExitCode.INPUT
    assert ran.lines == [
        f"flowvane: error: {link}: cannot be captured: libpcap's pcap_create cannot be called"
    ]


def test_options_that_stock_nfstreamer_does_not_have_are_told(link: str) -> None:
    told: list[str] = []
    options = Options(linger_s=1.0, early=EarlyReports(packets=(3,)))
    meter = open_live_meter(
        [link], LONG, 1, options, wanted="stock", warn=told.append,
        stop_within_s=1.0,
    )  # fmt: skip
    meter.close()
    early, linger = told
    assert "never before" in early
    assert "--linger is left aside" in linger
    assert meter.clock_us == 1000
    assert not meter.early
