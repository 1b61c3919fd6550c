"""What the live meter loses under load, when flows come out, and what a signal costs.

``python -m benchmarks.live [--pps 200000] [--seconds 10] [--buffer MIB…] [--json OUT]``, as root,
with ip and tcpreplay. All of it happens on a veth pair in a network namespace of its own:

- load: packets are offered at a rate, then the link is silent until every flow has come out; once
  with a consumer that only counts, and once with all that `flowvane run` does: features, scores,
  alerts. What was really offered is what tcpreplay and the interface's own counter say.
- signal: `flowvane run` as a process of its own, which gets SIGTERM while packets come in. With a
  full table of flows that are nearly all alerts, among busy processes: ``--only signal --busy 2
  --flows 70000 --seconds 36 --fpr 0.999 --options --most-flows 65536``.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import orjson

from examples.traffic import Host, tcp_frame, write_pcap
from features.flows import Ending, FlowBatch
from features.schema import MeterSettings
from models.bundle import load
from models.detector import Detector
from sensor.daemon import monotonic_us, places
from sensor.feed import AlertFeed, EventWriter
from sensor.live import measure_live, score_live, warm_up
from sensor.meter.base import packets_of
from sensor.meter.compiled.interface import CaptureSettings
from sensor.meter.compiled.live import LiveMeter
from sensor.outputs.regular import RegularFile
from sensor.pipeline import Scorer
from sensor.verdict import Verdict

OURS, THEIRS = "bench0", "bench1"
SETTINGS = MeterSettings(idle_timeout_s=5, active_timeout_s=60)
FLOWS_AT_ONCE = 500
PACKETS_A_FLOW = 20
PAYLOADS = (120, 1400, 0, 600)
"""Bytes of the payloads of a flow's packets, in turn: 584 bytes a frame on average."""


def lab(*, mounts: bool = False) -> None:
    """Move this process to a network of its own, with a veth pair that says nothing by itself.

    `mounts`: and to where what it mounts is seen by nobody else.
    """
    namespaces = 0x40000000 | (0x00020000 if mounts else 0)  # CLONE_NEWNET, CLONE_NEWNS
    if ctypes.CDLL(None, use_errno=True).unshare(namespaces):
        raise SystemExit(f"no network namespace: {os.strerror(ctypes.get_errno())}; be root")
    if mounts:
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    ip("link", "add", OURS, "type", "veth", "peer", "name", THEIRS)
    for name in (OURS, THEIRS):
        ip("link", "set", name, "addrgenmode", "none", "up")


def ip(*arguments: str) -> str:
    """What the command ``ip`` says."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def arrived() -> int:
    """Packets that came in at the interface so far, by its own counter."""
    (link,) = json.loads(ip("-s", "-j", "link", "show", OURS))
    return int(link["stats64"]["rx"]["packets"])


def write_traffic(path: Path, flows: int) -> int:
    """A capture of `flows` TCP flows, :data:`FLOWS_AT_ONCE` at a time; how many packets."""

    def packets() -> Iterator[tuple[int, bytes]]:
        for begin in range(0, flows, FLOWS_AT_ONCE):
            for number in range(PACKETS_A_FLOW):
                for flow in range(begin, min(begin + FLOWS_AT_ONCE, flows)):
                    yield 1_768_467_600_000_000, frame(flow, number)

    frames = list(packets())
    write_pcap(path, frames)
    return len(frames)


def frame(flow: int, number: int) -> bytes:
    """Packet `number` of a flow: SYN, SYN with ACK, ACK, then data in turns, no goodbye."""
    client = Host("02:00:00:00:00:01", f"10.1.{flow // 200 % 250}.{flow % 200 + 1}")
    server = Host("02:00:00:00:00:02", f"10.2.0.{flow % 50 + 1}")
    port = 1024 + flow % 60_000
    ends = (client, server, port, 443) if number % 2 == 0 else (server, client, 443, port)
    if number < 3:
        return tcp_frame(*ends, ("S", "SA", "A")[number], seq=number // 2, ack=number > 0)
    return tcp_frame(*ends, "PA", seq=1 + number * 1400, payload=bytes(PAYLOADS[number % 4]))


def replay(path: Path, pps: int, loops: int = 1) -> subprocess.Popen[str]:
    """Send the capture over and over at a rate, 0 for as fast as can be."""
    rate = ["--pps", str(pps)] if pps else ["--topspeed"]
    command = ["tcpreplay", "-q", "-K", "-i", THEIRS, *rate, "--loop", str(loops), str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def sent(process: subprocess.Popen[str]) -> dict[str, float]:
    """Packets that tcpreplay says it has sent, and at what rate."""
    said = process.communicate()[0]
    found = re.search(r"Actual: (\d+) packets .* sent in ([\d.]+) seconds", said)
    if found is None:
        raise SystemExit(f"tcpreplay failed: {said}")
    packets, seconds = int(found[1]), float(found[2])
    return {"sent": packets, "seconds": seconds, "pps": round(packets / seconds)}


class Lags:
    """How long after their timeout flows were taken, on the clock of the packets."""

    def __init__(self) -> None:
        self.worst_s, self.packets, self.endings = 0.0, 0, np.zeros(len(Ending), np.int64)

    def add(self, flows: FlowBatch) -> None:
        """Take flows that came out just now."""
        idle = flows["last_us"][flows["ending"] == Ending.IDLE]
        if len(idle):
            due_us = int(idle.min()) + SETTINGS.idle_timeout_s * 1_000_000
            self.worst_s = max(self.worst_s, (time.time_ns() // 1000 - due_us) / 1e6)
        self.packets += packets_of(flows)
        self.endings += np.bincount(flows["ending"], minlength=len(Ending))


def under_load(
    args: argparse.Namespace, capture: Path, loops: int, buffer_mib: int, detector: Detector | None
) -> dict[str, Any]:
    """Offer the load, then silence until every flow has come out; stop, and balance.

    Without a detector flows are only counted.
    """
    clock_us = detector.clock_us if detector else 1
    meter = LiveMeter(
        [OURS], SETTINGS, clock_us, threads=args.threads,
        capture=CaptureSettings(buffer_bytes=buffer_mib << 20),
    )  # fmt: skip
    lags, before = Lags(), arrived()
    player, begun_cpu, silent_since = replay(capture, args.pps, loops), time.process_time(), 0.0
    take = meter.flows

    def watched() -> Generator[FlowBatch, None, None]:
        nonlocal silent_since
        for batch in take():
            lags.add(batch)
            if not silent_since and player.poll() is not None:
                silent_since = time.monotonic()
            if silent_since and time.monotonic() - silent_since > SETTINGS.idle_timeout_s + 4:
                meter.stop()
            yield batch

    meter.flows = watched  # type: ignore[method-assign]
    alerts = consume(meter, detector, args.fpr, capture.parent)
    return {
        "consumer": "scores and writes" if detector else "counts", "buffer_mib": buffer_mib,
        **sent(player), "arrived": arrived() - before, "alerts": alerts,
        "cpu_s": round(time.process_time() - begun_cpu, 1), **told(meter),
        "packets_in_flows": lags.packets, "late_s_at_most": round(lags.worst_s, 2),
        "endings": {Ending(at).name: int(n) for at, n in enumerate(lags.endings) if n},
    }  # fmt: skip


def consume(meter: LiveMeter, detector: Detector | None, fpr: float, folder: Path) -> int:
    """Take the flows to the end, as `flowvane run` does if there is a detector; alerts written."""
    if detector is None:
        for _ in meter.flows():
            pass
        return 0
    feed = AlertFeed(Verdict(detector, fpr), clock=monotonic_us)
    output = RegularFile(folder / "eve.json")
    writer = EventWriter(output, detector.name, places([OURS]))
    measured = measure_live(meter, detector.schema, detector.clock_us)
    for scored in score_live(measured, Scorer(detector)):
        writer.write(feed.push(scored))
    output.close()
    return feed.counters.alerts


def told(meter: LiveMeter) -> dict[str, int]:
    """The counters that are not zero by nature."""
    names = (
        "received", "read", "metered", "not_metered", "kernel_drops", "unread", "interface_drops",
        "queue_full_flows", "queue_full_packets", "no_memory", "evicted", "flows",
    )  # fmt: skip
    return {name: int(getattr(meter.counters, name)) for name in names}


@contextmanager
def others_busy(loops: int) -> Iterator[None]:
    """Meanwhile `loops` other processes do nothing but take processor time."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def start_sensor(folder: Path, options: Sequence[str]) -> tuple[subprocess.Popen[str], IO[str]]:
    """`flowvane run`, capturing, with alerts in `folder`; and what it will say."""
    command = [sys.executable, "-m", "sensor.cli", "run", "-i", OURS, "-l", str(folder), *options]
    sensor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    told = cast(IO[str], sensor.stdout)
    told.readline()
    return sensor, told


def under_signal(args: argparse.Namespace, capture: Path, loops: int) -> dict[str, Any]:
    """SIGTERM to `flowvane run` half-way through the load, and again 10 ms later."""
    folder, before = Path(tempfile.mkdtemp(dir=capture.parent)), arrived()
    options = ["--fpr", str(args.fpr), "--model", args.model, *args.options]
    sensor, told = start_sensor(folder, options)
    with others_busy(args.busy):
        player = replay(capture, args.pps, loops)
        while arrived() == before:  # it loads the capture first
            time.sleep(0.1)
        time.sleep(args.seconds / 2)
        sensor.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        time.sleep(0.01)
        sensor.send_signal(signal.SIGTERM)
        line = told.read().splitlines()[-1]
        code, seconds = sensor.wait(), time.monotonic() - begun
    offered = sent(player)
    events = (folder / "eve.json").read_bytes()
    return {
        **offered, "others_busy": args.busy, "arrived_in_all": arrived() - before,
        **balance(line), "events_whole": whole_events(events), "exit_code": code,
        "exit_s": round(seconds, 2), "line": line.strip(),
    }  # fmt: skip


def balance(line: str) -> dict[str, Any]:
    """What the last line of `flowvane run` says came in, and where it says it went."""
    pattern = (
        r"([\d,]+) packets in: ([\d,]+) in flows, ([\d,]+) not IP; lost: ([\d,]+) packets to a "
        r"full kernel buffer, ([\d,]+) left in it, [\d,]+ to the interface, ([\d,]+) "
        r"\([\d,]+ flows\) to a full queue, ([\d,]+) to lack of memory, ([\d,]+)"
    )
    found = re.search(pattern, line)
    if found is None:
        raise SystemExit(f"flowvane said: {line}")
    came, *went = (int(number.replace(",", "")) for number in found.groups())
    return {
        "packets_in": came, "packets_in_flows_and_counted_drops": sum(went),
        "exact": came == sum(went),
    }  # fmt: skip


def whole_events(events: bytes) -> int:
    """How many events there are; every one has to be whole."""
    return sum(1 for line in events.splitlines() if orjson.loads(line))


def main() -> None:
    """Make the traffic, run both, print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pps", type=int, default=200_000, help="offered; 0: as fast as can be")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--flows", type=int, default=20_000, help="in the capture")
    parser.add_argument("--buffer", type=int, nargs="+", default=[64], metavar="MIB")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fpr", type=float, default=0.01, help="0.0001: hardly an alert")
    parser.add_argument("--only", choices=("load", "signal"))
    parser.add_argument("--busy", type=int, default=0, help="other busy processes, at the signal")
    parser.add_argument("--model", default="nsl-kdd", help="for the signal (%(default)s)")
    parser.add_argument("--repeat", type=int, default=1, help="signals, one run each")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[],
                        help="the rest is for `flowvane run`")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args()
    lab()
    detector = load("nsl-kdd")
    warm_up(detector)
    report: dict[str, Any] = {"load average before": os.getloadavg()[0], "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="flowvane-") as folder:
        capture = Path(folder) / "load.pcap"
        packets = write_traffic(capture, args.flows)
        loops = max(1, round((args.pps or 400_000) * args.seconds / packets))
        if args.only != "signal":
            report["load"] = [
                under_load(args, capture, loops, buffer_mib, consumer)
                for buffer_mib in args.buffer
                for consumer in (None, detector)
            ]
        if args.only != "load":
            report["signal"] = [under_signal(args, capture, loops) for _ in range(args.repeat)]
    text = json.dumps(report, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
