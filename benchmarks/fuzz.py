"""Damaged captures through both meters: crashes, hangs, exceptions, and flows that are lost.

``python -m benchmarks.fuzz CAPTURE|FOLDER… [--variants N] [--first N] [--seed N] [-o FOLDER]``
makes variants of the captures (octets flipped in record headers and in packets, files cut, two
files spliced), the same ones on every run, opens them as ``flowvane triage`` does, meters them
with the compiled meter and with plain NFStreamer, and compares the flows. Variants go through
child processes, some at a time: a child that dies or says nothing for :data:`HANG_S` is a
finding, its input is kept, and the others of its batch are tried again without it. Writes
FOLDER/fuzz.json and the captures that made a finding; the exit code is 1 if there is any.
"""

from __future__ import annotations

import argparse
import json
import selectors
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import IO, cast

import numpy as np

from benchmarks import parity
from benchmarks.nfstream_reference import TIMES
from examples import traffic
from features.flows import NEVER, FlowBatch
from features.registry import SCHEMAS
from sensor.captures import CaptureSpool, Chain, chain
from sensor.errors import InputError
from sensor.meter.compiled.meter import CompiledMeter

KINDS = ("flip", "cut", "splice")
BATCH = 100
"""Variants that go through one child process."""
HANG_S = 10.0
"""A child that deals with one capture for so long hangs."""
_START_S, _REFERENCE_S = 300.0, 600.0
"""For a child to be ready (it may have to compile), and for NFStreamer over a whole batch."""
_FRAME_OCTETS = 96
"""Octets of a packet, from its first, that most flips go to: its headers."""
_SETTINGS = SCHEMAS["flow"].meter


# ---------------------------------------------------------------------------------------
# Variants


def records(data: bytes) -> list[tuple[int, int, int]]:
    """Where the records of a pcap or the packet blocks of a pcapng are, as far as they are whole.

    Returns:
        Offset of the record, of its packet's octets, and behind the record.
    """
    found: list[tuple[int, int, int]] = []
    if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\xc3\xd4"):
        order, at = "<" if data[1:2] in (b"\xc3", b"\x3c") else ">", 24
        while at + 16 <= len(data):
            behind = at + 16 + struct.unpack_from(order + "I", data, at + 8)[0]
            if behind > len(data):
                break
            found.append((at, at + 16, behind))
            at = behind
    elif data[:4] == b"\x0a\x0d\x0d\x0a":
        order, at = "<" if data[8:9] == b"\x4d" else ">", 0
        while at + 12 <= len(data):
            kind, length = struct.unpack_from(order + "II", data, at)
            if length < 12 or at + length > len(data):
                break
            if kind == 6:
                found.append((at, min(at + 28, at + length), at + length))
            at += length
    return found


def flip(data: bytes, random: Random) -> bytes:
    """Some octets changed: of record headers, of packets' headers, or anywhere."""
    changed, places = bytearray(data), records(data)
    for _ in range(random.choice((1, 2, 5, 20, 100))):
        at, where = random.randrange(len(data)), random.random()
        if places and where < 0.95:
            header, begin, behind = random.choice(places)
            if where < 0.15:
                at = random.randrange(header, begin)
            elif begin < behind:
                at = random.randrange(begin, min(behind, begin + _FRAME_OCTETS))
        if random.random() < 0.5:
            changed[at] ^= 1 << random.randrange(8)
        else:
            changed[at] = random.choice((0, 0xFF, random.randrange(256)))
    return bytes(changed)


def cut(data: bytes, random: Random) -> bytes:
    """The beginning of a file, of any length."""
    return data[: random.randrange(1, len(data) + 1)]


def splice(data: bytes, other: bytes, random: Random) -> bytes:
    """The beginning of one file and the end of another, at records or anywhere."""

    def place(octets: bytes) -> int:
        found = records(octets)
        if found and random.random() < 0.7:
            return random.choice(found)[0]
        return random.randrange(1, len(octets) + 1)

    return data[: place(data)] + other[place(other) :]


def variant(paths: Sequence[Path], seed: int, number: int) -> bytes:
    """The capture of this number: of each file each kind in turn."""
    random = Random(f"{seed}/{number}")
    kind = KINDS[(number % len(paths) + number // len(paths)) % len(KINDS)]
    data = paths[number % len(paths)].read_bytes()
    if kind == "cut":
        return cut(data, random)
    if kind == "splice":
        data = splice(data, random.choice(paths).read_bytes(), random)
        return flip(data, random) if random.random() < 0.5 else data
    return flip(data, random)


# ---------------------------------------------------------------------------------------
# The child: a batch through both meters


def _warm_up(spool: CaptureSpool) -> None:
    """Have everything compiled before the first variant is waited for."""
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        host = traffic.Host("02:00:00:00:00:01", "192.0.2.1")
        traffic.write_pcap(Path(file.name), [(0, traffic.udp_frame(host, host, 1, 2, b"x"))])
        found = chain([spool.open(Path(file.name))], 1)
        if sum(map(len, CompiledMeter(found, _SETTINGS).flows())) != 1:
            raise AssertionError("a capture with a flow has none")


def _cut_times(flows: FlowBatch) -> None:
    """Bring times to NFStream's milliseconds."""
    for name in TIMES:
        times = flows[name]
        flows[name] = np.where(times == NEVER, NEVER, times - times % parity.REFERENCE_CLOCK_US)


_TOGETHER = (
    *(name for name in parity.MATCHED_BY if name != "first_us"), "src_packets", "dst_packets",
)  # fmt: skip
"""What two records of the same flow have in common, but for its times."""


def at_other_times(rows: FlowBatch, own: FlowBatch) -> int:
    """How many flows both sides have alike, but at other times.

    Where a record says a time before the epoch, or a fraction of a second that is negative,
    NFStream's unsigned milliseconds are not what the record says.
    """

    def left(some: FlowBatch, others: FlowBatch) -> Counter[bytes]:
        full, other_full = parity.packed(some), parity.packed(others)
        together = parity.packed(some, _TOGETHER)
        alone = Counter(zip(full, together, strict=True))
        alone -= Counter(zip(other_full, parity.packed(others, _TOGETHER), strict=True))
        return Counter(key for _, key in alone.elements())

    return (left(rows, own) & left(own, rows)).total()


def child() -> None:
    """Meter the files named in the job on standard input; a line of JSON for each step."""
    job = json.load(sys.stdin)
    chains: list[Chain] = []
    batches: list[FlowBatch] = []
    refused, problems, packets = 0, 0, 0

    def tell(**what: object) -> None:
        print(json.dumps(what), flush=True)

    with CaptureSpool() as spool:
        _warm_up(spool)
        tell(step="ready")
        for name in job["files"]:
            tell(step="variant", name=name)
            try:
                capture = spool.open(Path(name))
            except InputError:
                refused += 1
                continue
            found = chain([capture], _SETTINGS.idle_timeout_s * 1_000_000)
            meter = CompiledMeter(found, _SETTINGS, parity.REFERENCE_CLOCK_US)
            for batch in meter.flows():
                batch["origin"] += len(chains)
                _cut_times(batch)
                batches.append(batch)
            counted = meter.counters
            if counted.read != counted.metered + counted.not_metered + counted.lost:
                raise AssertionError(f"{name}: the packets do not add up: {counted}")
            chains += found
            packets += counted.read
            problems += len(counted.problems)
        tell(step="reference")
        rows, failed = parity.reference(chains, _SETTINGS)
        names = [str(each.captures[0]) for each in chains]
        own = parity.own_rows(batches)
        report = parity.compare(rows, batches, parity.REFERENCE_CLOCK_US, names)
        differing = {name: each.examples for name, each in report.fields.items() if each.examples}
        tell(
            step="done", refused=refused, problems=problems, packets=packets, failed=failed,
            reference=report.reference_flows, own=report.own_flows, matched=report.matched,
            other_times=at_other_times(rows, own),
            identical=report.identical, only_reference=report.only_reference,
            only_own=report.only_own, differing=differing,
        )  # fmt: skip


# ---------------------------------------------------------------------------------------
# The parent


@dataclass
class Findings:
    """What came of the variants."""

    variants: int = 0
    refused: int = 0
    problems: int = 0
    packets: int = 0
    reference_flows: int = 0
    own_flows: int = 0
    matched: int = 0
    other_times: int = 0
    identical: int = 0
    slowest_s: float = 0.0
    broken: list[str] = field(default_factory=list)
    stock_failed: list[str] = field(default_factory=list)
    only_reference: list[str] = field(default_factory=list)
    only_own: list[str] = field(default_factory=list)
    differing: dict[str, list[str]] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Flows that NFStream reported and the compiled meter did not."""
        return self.reference_flows - self.matched - self.other_times

    def add(self, said: dict[str, object]) -> None:
        """Take in what a child said at its end."""
        for name in ("refused", "problems", "packets", "matched", "other_times", "identical"):
            setattr(self, name, getattr(self, name) + said[name])
        self.reference_flows += cast(int, said["reference"])
        self.own_flows += cast(int, said["own"])
        self.stock_failed += cast(list[str], said["failed"])
        self.only_reference += cast(list[str], said["only_reference"])
        self.only_own += cast(list[str], said["only_own"])
        for name, examples in cast(dict[str, list[str]], said["differing"]).items():
            self.differing.setdefault(name, []).extend(examples)


def said_by(pipe: IO[bytes], first_s: float) -> Iterator[tuple[dict[str, object], float]]:
    """What a child says, with how long it took to say so.

    Raises:
        TimeoutError: it said nothing for too long.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        limit, begun = first_s, time.monotonic()
        while True:
            if not selector.select(limit):
                raise TimeoutError(f"nothing for {limit:.0f} s")
            line = pipe.readline()
            if not line:
                return
            said = json.loads(line)
            yield said, time.monotonic() - begun
            limit = _REFERENCE_S if said["step"] == "reference" else HANG_S
            begun = time.monotonic()


def run_batch(files: Sequence[Path], findings: Findings) -> tuple[str, str]:
    """Send files through a child; the file on which it broke and how, or two empty strings."""
    with tempfile.TemporaryFile() as errors:
        worker = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fuzz", "--child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0,
        )  # fmt: skip
        at, how = "", ""
        try:
            with cast(IO[bytes], worker.stdin) as pipe:
                pipe.write(json.dumps({"files": [str(each) for each in files]}).encode())
            for said, seconds in said_by(cast(IO[bytes], worker.stdout), _START_S):
                if at and at != "reference":
                    findings.slowest_s = max(findings.slowest_s, seconds)
                at = str(said.get("name", said["step"]))
                if said["step"] == "done":
                    findings.add(said)
                    return "", ""
        except TimeoutError as error:
            how = f"hangs: {error}"
        finally:
            worker.kill()
            code = worker.wait()
            cast(IO[bytes], worker.stdout).close()
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
        return at, how or f"exit code {code}: {' '.join(last)}"


def fuzz(paths: Sequence[Path], seed: int, numbers: Iterable[int], folder: Path) -> Findings:
    """All variants of these numbers; what breaks a meter is kept in `folder`."""
    findings = Findings()
    todo = list(numbers)
    for begin in range(0, len(todo), BATCH):
        with tempfile.TemporaryDirectory(prefix="flowvane-fuzz-") as scratch:
            files = []
            for number in todo[begin : begin + BATCH]:
                files.append(Path(scratch) / f"{number}.cap")
                files[-1].write_bytes(variant(paths, seed, number))
            findings.variants += len(files)
            while files:
                broke, how = run_batch(files, findings)
                if not how:
                    break
                findings.broken.append(f"{Path(broke).name}: {how}")
                if Path(broke) not in files:  # not by one of them
                    break
                shutil.copy(broke, folder)
                files.remove(Path(broke))
        print(
            f"{findings.variants} variants, {findings.reference_flows} flows of NFStream, "
            f"{findings.matched} matched, {findings.identical} identical, {findings.lost} lost, "
            f"{len(findings.broken)} broken",
            flush=True,
        )
        _write(findings, folder)
    return findings


def _write(findings: Findings, folder: Path) -> None:
    (folder / "fuzz.json").write_text(json.dumps(asdict(findings), indent=1) + "\n", "utf-8")


def main() -> int:
    """Fuzz with the captures named; 1 if a meter broke or a flow of NFStream's was lost."""
    if sys.argv[1:] == ["--child"]:
        child()
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("captures", nargs="+", type=Path, metavar="CAPTURE|FOLDER")
    parser.add_argument("--variants", type=int, default=6500)
    parser.add_argument("--first", type=int, default=0, help="number of the first one, to go on")
    parser.add_argument("--seed", type=int, default=20_260_115)
    parser.add_argument("-o", "--output", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    paths = [each for each in parity.captures_in(options.captures) if each.stat().st_size]
    numbers = range(options.first, options.first + options.variants)
    findings = fuzz(paths, options.seed, numbers, options.output)
    return 1 if findings.broken or findings.lost else 0


if __name__ == "__main__":
    sys.exit(main())
