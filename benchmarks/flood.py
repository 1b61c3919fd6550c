"""A SYN flood from a generator: memory, rate, evictions, and whether normal flows come through.

``python -m benchmarks.flood [--syns N] [--rate N] [--most-flows N…] [--role ROLE…]`` has one
process write SYNs of distinct 5-tuples, with complete TCP conversations in between, as a capture
into a FIFO, and another one read it: with the compiled meter alone (*meter*), or as ``flowvane
triage`` does, with features, scores and alerts, which are encoded and dropped (*triage*). Prints
and writes as JSON, of the reading process, its peak memory, the packets a second, the flows that
were pushed out, the longest time between two batches of flows, and how many of the conversations
were reported whole.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.flows import Ending, FlowBatch
from features.registry import SCHEMAS
from features.schema import MeterSettings
from sensor.captures import Chain, Part
from sensor.meter.base import MeterCounters
from sensor.meter.compiled.core import Options
from sensor.meter.compiled.meter import CompiledMeter
from sensor.verdict import DEFAULT_FPR

if TYPE_CHECKING:
    from examples import traffic
    from models.detector import Detector
    from sensor.feed import AlertFeed

START_US = 1_700_000_000_000_000
SYNS_A_CONVERSATION = 1000
"""A conversation begins after so many SYNs."""
PAUSE_US = 200_000
"""A conversation is silent for so long, between question and answer."""
CLIENT_PACKETS, SERVER_PACKETS = 6, 6
"""Packets of a conversation. (The reading process does not make any: scapy needs memory, too.)"""
_LASTS_US = 270_000
_VICTIM = "02:00:00:00:00:02", "192.0.2.80"
_FIRST_SOURCE, _FIRST_CLIENT = 0x0B000000, 0xAC100000  # 11.0.0.0, 172.16.0.0
_CHUNK = 10_000
_FRAME_BYTES = 54
RECORD = np.dtype([("head", "<u4", (4,)), ("frame", "u1", (_FRAME_BYTES,))])
"""A record of a classic pcap whose packet is a TCP segment without options and payload."""


@dataclass(frozen=True, slots=True)
class Flood:
    """What is generated: `syns` SYNs, `rate` in a second of the capture's time."""

    syns: int
    rate: int

    @property
    def conversations(self) -> int:
        """How many normal TCP conversations are in between."""
        return self.syns // SYNS_A_CONVERSATION

    @property
    def packets(self) -> int:
        """Packets of all."""
        return self.syns + self.conversations * (CLIENT_PACKETS + SERVER_PACKETS)

    @property
    def last_us(self) -> int:
        """Time of the last packet."""
        last = self.syns - 1, self.conversations * SYNS_A_CONVERSATION - 1
        ends = self.time_us(last[1]) + _LASTS_US if self.conversations else 0
        return max(self.time_us(last[0]), ends)

    def time_us(self, number: int) -> int:
        """When a SYN is sent."""
        return START_US + number * 1_000_000 // self.rate


FEW = Flood(2 * SYNS_A_CONVERSATION, 100_000)


def conversation(number: int, begin_us: int) -> list[traffic.Frame]:
    """One client's question and answer, from handshake to farewell."""
    from examples import traffic

    victim = traffic.Host(*_VICTIM)
    address = ".".join(str(octet) for octet in (_FIRST_CLIENT + number).to_bytes(4, "big"))
    client = traffic.Host("02:00:00:00:00:01", address)
    talk = traffic.TcpConversation(client, victim, 40_000 + number % 20_000, 443)
    talk.handshake(begin_us, begin_us + 10_000, begin_us + 20_000)
    talk.segment(begin_us + 30_000, traffic.Side.CLIENT, "PA", bytes(range(200)))
    answer_us = begin_us + 30_000 + PAUSE_US
    for part in range(4):
        talk.segment(answer_us + part, traffic.Side.SERVER, "PA", bytes(1000))
    talk.segment(answer_us + 10_000, traffic.Side.CLIENT, "A")
    talk.farewell(traffic.Side.CLIENT, answer_us + 20_000, answer_us + 30_000, answer_us + 40_000)
    if len(talk.frames) != CLIENT_PACKETS + SERVER_PACKETS:
        raise AssertionError("a conversation has another number of packets")
    return talk.frames


def syn_records(flood: Flood, begin: int, count: int) -> NDArray[np.void]:
    """SYNs from number `begin` on, each of a source of its own (IP checksums left as they are)."""
    from examples import traffic

    source, victim = traffic.Host("02:00:00:00:00:03", "11.0.0.0"), traffic.Host(*_VICTIM)
    template = traffic.tcp_frame(source, victim, 1024, 80, "S")[:_FRAME_BYTES]
    numbers = np.arange(begin, begin + count)
    times = START_US + numbers * 1_000_000 // flood.rate
    records = np.zeros(count, RECORD)
    records["head"] = _FRAME_BYTES
    records["head"][:, 0], records["head"][:, 1] = times // 1_000_000, times % 1_000_000
    records["frame"] = np.frombuffer(template, np.uint8)
    records["frame"][:, 26:30] = (
        (_FIRST_SOURCE + numbers).astype(">u4").view(np.uint8).reshape(-1, 4)
    )
    records["frame"][:, 34:36] = (
        (1024 + numbers * 7919 % 60_000).astype(">u2").view(np.uint8).reshape(-1, 2)
    )
    return records


def write(flood: Flood, out: IO[bytes]) -> None:
    """The whole capture, in order of time."""
    out.write(np.array([0xA1B2C3D4, 4 << 16 | 2, 0, 0, 65_535, 1], "<u4").tobytes())
    waiting: list[traffic.Frame] = []
    for begin in range(0, flood.syns, _CHUNK):
        count = min(_CHUNK, flood.syns - begin)
        for number in range(begin, begin + count):
            if number % SYNS_A_CONVERSATION == SYNS_A_CONVERSATION - 1:
                waiting += conversation(number // SYNS_A_CONVERSATION, flood.time_us(number))
        waiting.sort()
        records, done = syn_records(flood, begin, count), 0
        end_us = flood.time_us(begin + count)
        due = [frame for frame in waiting if frame[0] < end_us]
        waiting = waiting[len(due) :]
        numbers = [-(-(time_us - START_US) * flood.rate // 1_000_000) - begin for time_us, _ in due]
        for number, frame in zip(numbers, due, strict=True):
            out.write(records[done:number].tobytes() + _record(*frame))
            done = max(done, number)
        out.write(records[done:].tobytes())
    for frame in waiting:
        out.write(_record(*frame))


def _record(time_us: int, frame: bytes) -> bytes:
    head = np.array([*divmod(time_us, 1_000_000), len(frame), len(frame)], "<u4")
    return head.tobytes() + frame


# ---------------------------------------------------------------------------------------
# The reading process


def chains_of(flood: Flood, path: Path) -> list[Chain]:
    """The capture that can be read from `path`."""
    part = Part(path, 1, flood.packets, START_US, flood.last_us)
    return [Chain((part,), (path,))]


class Watch:
    """Looks at the flows that a meter hands on, and at the time between batches of results."""

    def __init__(self) -> None:
        self.whole = 0
        self.endings: Counter[str] = Counter()
        self.longest_s = 0.0
        self._latest = 0.0

    def tick(self) -> None:
        """Results have come."""
        now = time.monotonic()
        self.longest_s = max(self.longest_s, now - self._latest if self._latest else 0.0)
        self._latest = now

    def see(self, flows: FlowBatch) -> None:
        """Take in some flows."""
        normal = flows[(flows["dst_port"] == 443) | (flows["src_port"] == 443)]
        whole = normal["src_packets"] == CLIENT_PACKETS
        whole &= normal["dst_packets"] == SERVER_PACKETS
        self.whole += int(whole.sum())
        self.endings.update(Ending(int(ending)).name for ending in flows["ending"].tolist())


def read_meter(
    flood: Flood, path: Path, options: Options, name: str, fpr: float
) -> tuple[MeterCounters, Watch, int]:
    """The compiled meter alone."""
    meter = CompiledMeter(chains_of(flood, path), SCHEMAS["kdd"].meter, 1, options)
    watch = Watch()
    for flows in meter.flows():
        watch.tick()
        watch.see(flows)
    return meter.counters, watch, 0


class WatchedMeter(CompiledMeter):
    """The compiled meter, its flows looked at."""

    def __init__(
        self, watch: Watch, chains: Sequence[Chain], settings: MeterSettings, clock_us: int,
        options: Options,
    ) -> None:  # fmt: skip
        super().__init__(chains, settings, clock_us, options)
        self._watch = watch

    def flows(self) -> Generator[FlowBatch, None, None]:
        """The flows."""
        for flows in super().flows():
            self._watch.see(flows)
            yield flows


class Dropped:
    """An output that drops all events and looks at the time between them."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def write(self, lines: Sequence[bytes]) -> None:
        """Drop them."""
        self._watch.tick()

    def close(self) -> None:
        """Nothing."""


def read_triage(
    flood: Flood, path: Path, options: Options, name: str, fpr: float
) -> tuple[MeterCounters, Watch, int]:
    """What ``flowvane triage`` does with a capture, but for writing the alerts."""
    from sensor.allocator import one_heap
    from sensor.feed import AlertFeed
    from sensor.model import read_model
    from sensor.triage import TriageSummary, score_chains
    from sensor.verdict import Verdict

    def ready() -> tuple[Detector, AlertFeed]:
        detector = model.load()
        return detector, AlertFeed(Verdict(detector, fpr))

    one_heap()
    model, watch, chains = read_model(name, fpr), Watch(), chains_of(flood, path)
    meter = WatchedMeter(watch, chains, model.schema.meter, model.clock_us, options)
    summary = TriageSummary()
    for _ in score_chains(chains, meter, model, ready, Dropped(watch), summary):
        pass
    summary.groups.table()
    return meter.counters, watch, summary.alerts


ROLES = {"meter": read_meter, "triage": read_triage}


def peak_mib(process: int | str = "self") -> float:
    """Most memory that a process has had, in MiB (`VmHWM` of proc(5))."""
    for line in Path(f"/proc/{process}/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("this system does not tell a process's peak memory")


def consume(
    flood: Flood, path: Path, role: str, options: Options, model: str, fpr: float
) -> dict[str, Any]:
    """Read the flood from `path`; what there is to say of it."""
    begun = time.monotonic()
    counters, watch, alerts = ROLES[role](flood, path, options, model, fpr)
    seconds = time.monotonic() - begun
    return {
        "role": role,
        "model": model,
        "most_flows": options.most_flows,
        "syns": flood.syns,
        "packets": counters.read,
        "lost": counters.lost,
        "flows": counters.flows,
        "evicted": counters.evicted,
        "endings": dict(watch.endings),
        "conversations": flood.conversations,
        "whole_conversations": watch.whole,
        "alerts": alerts,
        "packets_per_s": round(counters.read / seconds),
        "longest_between_batches_s": round(watch.longest_s, 3),
        "peak_mib": round(peak_mib()),
    }


def measured(flood: Flood, role: str, most_flows: int, model: str, fpr: float) -> dict[str, Any]:
    """Both processes, from beginning to end."""
    with tempfile.TemporaryDirectory(prefix="flowvane-flood-") as folder:
        fifo, few = Path(folder) / "flood.pcap", Path(folder) / "few.pcap"
        os.mkfifo(fifo)
        with few.open("wb") as file:
            write(FEW, file)
        own = [sys.executable, "-m", "benchmarks.flood", "--syns", str(flood.syns),
               "--rate", str(flood.rate), "--model", model, "--fpr", str(fpr), "--fifo", str(fifo),
               "--few", str(few)]  # fmt: skip
        with subprocess.Popen([*own, "--role", "generate"]) as generator:
            try:
                read = subprocess.run(
                    [*own, "--role", role, "--most-flows", str(most_flows)],
                    check=True, stdout=subprocess.PIPE,
                )  # fmt: skip
            finally:
                generator.kill()
    said: dict[str, Any] = json.loads(read.stdout)
    return said


def main() -> None:
    """Run each role with each size of table; print, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--syns", type=int, default=5_000_000)
    parser.add_argument("--rate", type=int, default=100_000, help="SYNs in a second of its time")
    parser.add_argument("--most-flows", type=int, nargs="+", default=[Options().most_flows])
    parser.add_argument("--role", nargs="+", default=list(ROLES), choices=[*ROLES, "generate"])
    parser.add_argument("--model", default="nsl-kdd", help="of triage (%(default)s)")
    parser.add_argument("--fpr", type=float, default=DEFAULT_FPR, help="of triage (%(default)s)")
    parser.add_argument("--fifo", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--few", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=Path("build/flood.json"))
    options = parser.parse_args()
    flood = Flood(options.syns, options.rate)
    if options.fifo and options.role == ["generate"]:
        with options.fifo.open("wb") as out:
            write(flood, out)
        return
    if options.fifo:
        role, most = options.role[0], options.most_flows[0]
        # Have everything compiled and loaded, as in a process that runs for long.
        ROLES[role](FEW, options.few, Options(), options.model, options.fpr)
        table = Options(most_flows=most)
        said = consume(flood, options.fifo, role, table, options.model, options.fpr)
        print(json.dumps(said))
        return
    results = []
    for role in options.role:
        for most in options.most_flows:
            results.append(measured(flood, role, most, options.model, options.fpr))
            print(json.dumps(results[-1]), flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
