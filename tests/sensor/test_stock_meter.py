"""The stock meter when all goes well, and when its processes do not live."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from examples import traffic
from features.flows import FLOW_DTYPE, FlowBatch, empty_flows
from features.schema import MeterSettings
from sensor.captures import CaptureSpool, Chain, chain
from sensor.meter import stock
from sensor.meter.base import MemoryMeter, MeterCounters
from sensor.meter.frames import CHAIN_DONE, FAILED, FLOWS, FRAME
from sensor.meter.stock import StockMeter

ANN = traffic.Host("02:00:00:00:00:01", "10.0.0.1")
BOB = traffic.Host("02:00:00:00:00:02", "10.0.0.2")
ARP = bytes.fromhex("ffffffffffff 020000000001 0806".replace(" ", "")) + bytes(46)
SETTINGS = MeterSettings(idle_timeout_s=60, active_timeout_s=60)
START_US = 1_700_000_000_000_000
HOUR_US = 3_600_000_000
PATIENCE_S = 20
"""How long a meter may take that has lost its processes; it should take none at all."""

MANY = 6000

Popen = subprocess.Popen[bytes]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Popen]]:
    """The worker processes that are started; whatever is left of them is killed at the end."""
    started: list[Popen] = []

    def start(*args: Any, **more: Any) -> Popen:
        started.append(subprocess.Popen(*args, **more))
        return started[-1]

    class Subprocess:
        """The module, with its one door watched."""

        PIPE = subprocess.PIPE
        Popen = staticmethod(start)

    monkeypatch.setattr(stock, "subprocess", Subprocess)
    yield started
    for worker in started:
        end_group(worker.pid)
        for pipe in (worker.stdin, worker.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


def end_group(group: int) -> None:
    """Kill a worker and the meter that it forked."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def alive(group: int) -> list[int]:
    """Processes of a group that are not just waiting to be buried."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Wait for what should come soon."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def write(path: Path, count: int, start_us: int = START_US) -> Path:
    """A capture of `count` flows, one packet each."""
    frames = [
        (start_us + 100 * n, traffic.udp_frame(ANN, BOB, 1024 + n % 60_000, 7000 + n // 60_000))
        for n in range(count)
    ]
    traffic.write_pcap(path, frames)
    return path


def hourly(directory: Path, *counts: int) -> list[Path]:
    """Captures of so many flows each, an hour apart: chains of their own."""
    return [
        write(directory / f"{number}.pcap", count, START_US + number * HOUR_US)
        for number, count in enumerate(counts)
    ]


Look = Callable[[Sequence[Path]], list[Chain]]


@pytest.fixture
def look() -> Iterator[Look]:
    """Look captures through; gives their chains."""
    with CaptureSpool() as spool:
        yield lambda paths: chain([spool.open(path) for path in paths], 60_000_000)


def collect(
    meter: StockMeter, workers: list[Popen], seen: Callable[[int], None] = lambda number: None
) -> list[FlowBatch]:
    """All batches; calls `seen` with the number of each. Fails if it takes forever."""
    batches: list[FlowBatch] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            for batch in meter.flows():
                batches.append(batch)
                seen(len(batches))
        except BaseException as error:  # noqa: BLE001 - told below, in the test's own thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    stuck = thread.is_alive()
    if stuck:
        for worker in workers:
            end_group(worker.pid)
        thread.join(PATIENCE_S)
    assert not stuck, "the meter waits for ever"
    if errors:
        raise errors[0]
    return batches


def balanced(counters: MeterCounters) -> bool:
    return counters.read == counters.metered + counters.not_metered + counters.lost


# ---------------------------------------------------------------------------------------
# All is well


def test_chains_are_metered_in_order_each_an_origin(
    tmp_path: Path, look: Look, workers: list[Popen]
) -> None:
    meter = StockMeter(look(hourly(tmp_path, 3, 1200, 2)), SETTINGS)
    flows = np.concatenate(collect(meter, workers))
    assert flows.dtype == FLOW_DTYPE
    assert flows["origin"].tolist() == [0] * 3 + [1] * 1200 + [2] * 2
    assert meter.counters == MeterCounters(read=1205, metered=1205, flows=1205)
    assert len(workers) == 1
    # Each flow once.
    assert len(np.unique(flows[["origin", "src_port"]])) == 1205


def test_the_same_input_gives_the_same_octets(
    tmp_path: Path, look: Look, workers: list[Popen]
) -> None:
    chains = look(hourly(tmp_path, 700, 20))
    runs = [np.concatenate(collect(StockMeter(chains, SETTINGS), workers)) for _ in range(2)]
    assert runs[0].tobytes() == runs[1].tobytes()


def test_without_chains_there_is_no_process(workers: list[Popen]) -> None:
    meter = StockMeter([], SETTINGS)
    assert collect(meter, workers) == []
    assert workers == []
    assert meter.counters == MeterCounters()


def test_what_is_not_ip_is_counted(tmp_path: Path, look: Look, workers: list[Popen]) -> None:
    traffic.write_pcap(tmp_path / "arp.pcap", [(START_US + n, ARP) for n in range(5)])
    meter = StockMeter(look([tmp_path / "arp.pcap"]), SETTINGS)
    assert collect(meter, workers) == []
    assert meter.counters == MeterCounters(read=5, not_metered=5, empty_origins={0})


@pytest.mark.parametrize(
    "name",
    [b"with space.pcap", b"new\nline.pcap", "größe.pcap".encode(), b"latin-\xe9.pcap"],
    ids=repr,
)
def test_files_may_have_any_name(
    tmp_path: Path, look: Look, workers: list[Popen], name: bytes
) -> None:
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))  # noqa: PTH118 - octets
    meter = StockMeter(look([write(path, 3)]), SETTINGS)
    collect(meter, workers)
    assert meter.counters == MeterCounters(read=3, metered=3, flows=3)


def test_the_memory_meter_counts_what_it_hands_on() -> None:
    flows = empty_flows(3)
    flows["src_packets"], flows["dst_packets"] = [1, 2, 3], [0, 1, 0]
    meter = MemoryMeter([flows, flows[:1], empty_flows()])
    assert [len(batch) for batch in meter.flows()] == [3, 1, 0]
    assert meter.counters == MeterCounters(read=8, metered=8, flows=4)


# ---------------------------------------------------------------------------------------
# Files that go away


def test_a_file_that_vanished_is_told_and_the_others_are_metered(
    tmp_path: Path, look: Look, workers: list[Popen]
) -> None:
    paths = hourly(tmp_path, 3, 4, 5)
    meter = StockMeter(look(paths), SETTINGS)
    paths[1].unlink()
    flows = np.concatenate(collect(meter, workers))
    assert flows["origin"].tolist() == [0] * 3 + [2] * 5
    (problem,) = meter.counters.problems
    assert problem.startswith(f"{paths[1]}: metering failed: ")
    assert "\n" not in problem
    assert (meter.counters.read, meter.counters.metered, meter.counters.lost) == (12, 8, 4)
    assert balanced(meter.counters)


def test_a_file_that_became_something_else_is_told(
    tmp_path: Path, look: Look, workers: list[Popen]
) -> None:
    paths = hourly(tmp_path, 3, 4)
    meter = StockMeter(look(paths), SETTINGS)
    paths[0].write_text("no capture any more\n", encoding="ascii")
    flows = np.concatenate(collect(meter, workers))
    assert flows["origin"].tolist() == [1] * 4
    assert len(meter.counters.problems) == 1
    assert balanced(meter.counters)
    assert meter.counters.lost == 3


def test_a_chain_that_lost_a_file_is_told_once(
    tmp_path: Path, look: Look, workers: list[Popen]
) -> None:
    first = write(tmp_path / "a.pcap", 3, START_US)
    second = write(tmp_path / "b.pcap", 4, START_US + 1_000_000)
    meter = StockMeter(look([first, second]), SETTINGS)
    second.unlink()
    collect(meter, workers)
    (problem,) = meter.counters.problems
    assert str(first) in problem
    assert str(second) in problem
    assert meter.counters.read == 7
    assert balanced(meter.counters)


# ---------------------------------------------------------------------------------------
# Processes that die


def kill_worker(worker: Popen) -> None:
    worker.kill()


def kill_meter(worker: Popen) -> None:
    for child in psutil.Process(worker.pid).children():
        child.kill()


@pytest.mark.parametrize("kill", [kill_worker, kill_meter])
def test_a_process_that_is_killed_is_told_and_the_others_are_metered(
    tmp_path: Path, look: Look, workers: list[Popen], kill: Callable[[Popen], None]
) -> None:
    # More flows than the pipes between the processes hold, so none can end by itself.
    paths = hourly(tmp_path, MANY, 5)
    meter = StockMeter(look(paths), SETTINGS)

    def seen(number: int) -> None:
        if number == 1:
            kill(workers[0])

    flows = np.concatenate(collect(meter, workers, seen))
    (problem,) = meter.counters.problems
    assert problem.startswith(f"{paths[0]}: metering failed: ")
    assert (flows["origin"] == 1).sum() == 5
    assert 0 < (flows["origin"] == 0).sum() < MANY
    assert meter.counters.read == MANY + 5
    assert meter.counters.metered == len(flows)
    assert balanced(meter.counters)
    wait_until(lambda: not any(alive(worker.pid) for worker in workers))


def test_a_meter_that_dies_at_once_is_told(
    tmp_path: Path, look: Look, workers: list[Popen], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The worker as it is, but for a meter that ends before anybody looks at it.
    script = tmp_path / "worker"
    script.write_text(
        f"#!{sys.executable}\n"
        "import os, runpy, nfstream.meter\n"
        "nfstream.meter.set_affinity = lambda number: os._exit(7)\n"
        "runpy.run_module('sensor.meter.stock_worker', run_name='__main__')\n",
        encoding="utf-8",
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    meter = StockMeter(look(hourly(tmp_path, 3)), SETTINGS)
    assert collect(meter, workers) == []
    (problem,) = meter.counters.problems
    assert "7" in problem.removeprefix(str(tmp_path))
    assert (meter.counters.read, meter.counters.lost) == (3, 3)


def test_a_worker_that_dies_at_once_is_told(
    tmp_path: Path, look: Look, workers: list[Popen], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = fake_worker(tmp_path, b"", "echo 'ImportError: no such module' >&2")
    monkeypatch.setattr(sys, "executable", str(script))
    paths = hourly(tmp_path, 3, 4)
    meter = StockMeter(look(paths), SETTINGS)
    assert collect(meter, workers) == []
    assert meter.counters.problems == [
        f"{path}: metering failed: ImportError: no such module" for path in paths
    ]
    assert meter.counters.lost == meter.counters.read == 7


def fake_worker(directory: Path, output: bytes, more: str = "") -> Path:
    """A program that takes a job, writes `output` and ends."""
    (directory / "output").write_bytes(output)
    script = directory / "worker"
    frames = shlex.quote(str(directory / "output"))
    script.write_text(
        f"#!/bin/sh\ncat >/dev/null\ncat {frames}\n{more}\nexit 3\n", encoding="utf-8"
    )
    script.chmod(0o755)
    return script


def frame(kind: bytes, body: bytes) -> bytes:
    return FRAME.pack(kind, len(body)) + body


ROWS = np.zeros(2, FLOW_DTYPE)
ROWS["src_packets"] = 1
GOOD = frame(FLOWS, ROWS.tobytes())


@pytest.mark.parametrize(
    ("output", "whole"),
    [
        (b"", 0),
        (GOOD[:3], 0),
        (GOOD[: FRAME.size], 0),
        (GOOD[:-1], 0),
        (GOOD[: FRAME.size + FLOW_DTYPE.itemsize], 0),
        (GOOD, 2),
        (GOOD + GOOD[:-7], 2),
        (GOOD + frame(FAILED, b'{"reason": "the meter is tired"}')[:-5], 2),
        (GOOD + frame(FAILED, b'{"reason": "the meter is tired"}'), 2),
    ],
    ids=[
        "nothing", "half a head", "a head", "all but an octet", "one row of two", "no end",
        "half a second frame", "half a reason", "a reason",
    ],
)  # fmt: skip
def test_a_worker_that_dies_while_it_writes_is_told(
    tmp_path: Path,
    look: Look,
    workers: list[Popen],
    monkeypatch: pytest.MonkeyPatch,
    output: bytes,
    whole: int,
) -> None:
    chains = look([write(tmp_path / "a.pcap", 5)])
    monkeypatch.setattr(sys, "executable", str(fake_worker(tmp_path, output)))
    meter = StockMeter(chains, SETTINGS)
    flows = sum(len(batch) for batch in collect(meter, workers))
    # A row of a frame that is not whole may be used, or not.
    assert whole <= flows <= whole + 1
    (problem,) = meter.counters.problems
    assert problem.startswith(f"{tmp_path / 'a.pcap'}: metering failed: ")
    assert (meter.counters.read, meter.counters.metered) == (5, flows)
    assert meter.counters.lost == 5 - flows


def test_a_worker_that_does_not_take_its_job_is_told(
    tmp_path: Path, look: Look, workers: list[Popen], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A job longer than a pipe holds: thousands of files.
    script = tmp_path / "worker"
    script.write_text("#!/bin/sh\nexec <&-\nexit 3\n", encoding="ascii")
    script.chmod(0o755)
    (whole,) = look([write(tmp_path / "a.pcap", 5)])
    many = Chain(whole.parts * 5000, whole.captures * 5000)
    monkeypatch.setattr(sys, "executable", str(script))
    meter = StockMeter([many], SETTINGS)
    assert collect(meter, workers) == []
    assert len(meter.counters.problems) == 1
    assert balanced(meter.counters)


def test_a_worker_that_reports_and_goes_is_believed(
    tmp_path: Path, look: Look, workers: list[Popen], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two of five packets were in flows; the rest belonged to none.
    chains = look([write(tmp_path / "a.pcap", 5)])
    output = GOOD + frame(CHAIN_DONE, b"{}")
    monkeypatch.setattr(sys, "executable", str(fake_worker(tmp_path, output)))
    meter = StockMeter(chains, SETTINGS)
    assert len(collect(meter, workers)) == 1
    assert meter.counters == MeterCounters(read=5, metered=2, not_metered=3, flows=2)


# ---------------------------------------------------------------------------------------
# Leaving early


def test_closing_the_iterator_leaves_no_process_behind(
    tmp_path: Path, look: Look, workers: list[Popen]
) -> None:
    meter = StockMeter(look(hourly(tmp_path, MANY)), SETTINGS)
    flows = meter.flows()
    assert len(next(flows)) > 0
    (worker,) = workers
    assert len(alive(worker.pid)) == 2  # it and the meter that it forked
    flows.close()  # type: ignore[attr-defined]
    wait_until(lambda: not alive(worker.pid))
    assert worker.returncode is not None
    assert list(flows) == []


def test_an_error_of_the_reader_leaves_no_process_behind(
    tmp_path: Path, look: Look, workers: list[Popen]
) -> None:
    def read_on() -> None:
        for _ in StockMeter(look(hourly(tmp_path, MANY)), SETTINGS).flows():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_on()
    wait_until(lambda: not alive(workers[0].pid))


def test_a_meter_that_is_done_leaves_no_process_behind(
    tmp_path: Path, look: Look, workers: list[Popen]
) -> None:
    collect(StockMeter(look(hourly(tmp_path, 3)), SETTINGS), workers)
    wait_until(lambda: not alive(workers[0].pid))
    assert workers[0].returncode is not None


def test_settings_reach_the_worker(tmp_path: Path, look: Look, workers: list[Popen]) -> None:
    # Packets 5 s apart: one flow, or three where it is idle after 4 s.
    frames = [(START_US + n * 5_000_000, traffic.udp_frame(ANN, BOB, 1, 2)) for n in range(3)]
    traffic.write_pcap(tmp_path / "a.pcap", frames)
    chains = look([tmp_path / "a.pcap"])
    counts = [
        sum(len(batch) for batch in collect(StockMeter(chains, settings), workers))
        for settings in (MeterSettings(6, 60), MeterSettings(4, 60))
    ]
    assert counts == [1, 3]
