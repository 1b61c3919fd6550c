"""Compares the speed of the sensor with that of the metering under it, in turns.

``python -m benchmarks.speed [--rounds 3] [--networks 200] [--corpus DIR] [--json OUT]``. Two
captures: office traffic of the sample's maker, ten minutes of an office after the other (200
networks are 2 million packets), and with ``--corpus`` the Ethernet captures below a folder, one
after the other. On each, every round runs every contender once, as a process of its own:

- stock NFStreamer: bare; with statistics and dissection of 20 packets; with our plugin;
- ``argus | ra``, where it is installed;
- the compiled meter alone, on one thread and on as many as there are processors;
- the whole of ``flowvane triage``, start-up included.

Reported are the median of the rates, the median of the ratios within a round to stock NFStreamer
with statistics and dissection, and the most memory that a process of the contender had.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median

from scapy.error import Scapy_Exception
from scapy.utils import RawPcapReader

from examples.sample_capture import Office, background
from examples.traffic import Frame

NETWORKS = 8
"""Networks that are made; more are these again, later."""
SHIFT_US = 15 * 60 * 1_000_000
"""Later by this much, which every flow of the one before has ended by."""
GAP_US = 3_600_000_000
ETHERNET = 1
BASE = "stock NFStreamer, statistics and dissection"

_STOCK = """
import sys
from nfstream import NFStreamer
from sensor.meter.stock_plugin import ExtraPlugin
plugin = ExtraPlugin() if sys.argv[2] == "plugin" else None
statistics = sys.argv[2] != "bare"
print(sum(1 for _ in NFStreamer(source=sys.argv[1], udps=plugin, n_meters=1, idle_timeout=120,
      active_timeout=1800, statistical_analysis=statistics, n_dissections=20 if statistics else 0)))
"""
_METER = """
import sys
from pathlib import Path
from features.kdd import SCHEMA
from sensor.captures import CaptureSpool, chain
from sensor.meter.compiled.meter import CompiledMeter
with CaptureSpool() as spool:
    chains = chain([spool.open(Path(sys.argv[1]))], SCHEMA.meter.idle_timeout_s * 1_000_000)
    meter = CompiledMeter(chains, SCHEMA.meter, 1000, threads=int(sys.argv[2]))
    print(sum(len(batch) for batch in meter.flows()))
"""


@dataclass
class Runs:
    """What was seen of a contender, one entry a round."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    memory_mib: float = 0.0


def write_capture(path: Path, frames: Iterable[Frame]) -> int:
    """Write a classic pcap of frames as they come; the number of them."""
    count = 0
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, ETHERNET))
        for time_us, frame in frames:
            seconds, micros = divmod(time_us, 1_000_000)
            file.write(struct.pack("<IIII", seconds, micros, len(frame), len(frame)) + frame)
            count += 1
    return count


def generated(networks: int) -> Iterator[Frame]:
    """Ten minutes of so many offices, one after the other."""
    made = [sorted(background(Office(Random(seed))).frames) for seed in range(NETWORKS)]
    for number in range(networks):
        for time_us, frame in made[number % NETWORKS]:
            yield time_us + number * SHIFT_US, frame


def mixed(folder: Path) -> Iterator[Frame]:
    """The packets of the Ethernet captures below a folder, an hour between them."""
    begin_us = 1_700_000_000_000_000
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        last_us, shift = begin_us, None
        try:
            with RawPcapReader(str(path)) as reader:
                if getattr(reader, "linktype", None) not in (ETHERNET, None):
                    continue
                for data, meta in reader:
                    if getattr(meta, "linktype", ETHERNET) != ETHERNET:
                        break
                    if hasattr(meta, "tshigh"):
                        stamp = (meta.tshigh << 32) | (meta.tslow or 0)
                        time_us = stamp * 1_000_000 // int(meta.tsresol)
                    else:
                        time_us = meta.sec * 1_000_000 + meta.usec // (1000 if reader.nano else 1)
                    # No pause is longer than an hour: some captures have impossible times.
                    if shift is None or time_us + shift > last_us + GAP_US:
                        shift = last_us - time_us
                    last_us = max(last_us, time_us + shift)
                    yield last_us, data
        except (Scapy_Exception, EOFError, TypeError, struct.error):
            pass  # what is damaged is no measure of speed: the packets before it are taken
        begin_us = last_us + GAP_US


def contenders(capture: Path, folder: Path) -> dict[str, list[str]]:
    """Name and command line of what is compared; the first is the measure of the others."""
    python, name = sys.executable, str(capture)
    triage = [python, "-m", "sensor.cli", "triage", "-q", "-r", name, "-l", str(folder)]
    found = {
        BASE: [python, "-c", _STOCK, name, "full"],
        "stock NFStreamer, bare": [python, "-c", _STOCK, name, "bare"],
        "stock NFStreamer with the plugin": [python, "-c", _STOCK, name, "plugin"],
        "compiled meter, one thread": [python, "-c", _METER, name, "1"],
        "compiled meter, a thread for each processor": [
            python,
            "-c",
            _METER,
            name,
            str(os.cpu_count()),
        ],
        "flowvane triage, nsl-kdd": [*triage, "--model", "nsl-kdd"],
        "flowvane triage, unsw-nb15": [*triage, "--model", "unsw-nb15"],
    }
    if shutil.which("argus") and shutil.which("ra"):
        quoted = shlex.quote(name)
        found["argus | ra"] = ["sh", "-c", f"argus -X -r {quoted} -w - | ra -X -n -r -"]
    return found


def run(command: list[str], runs: Runs) -> str:
    """Run a command once and note what it took; its output.

    Raises:
        RuntimeError: it failed.
    """
    begun = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        runs.seconds.append(time.monotonic() - begun)
        runs.cpu_seconds.append(usage.ru_utime + usage.ru_stime)
        runs.memory_mib = max(runs.memory_mib, usage.ru_maxrss / 1024)
        if process.returncode:
            err.seek(0)
            raise RuntimeError(f"{shlex.join(command)[:200]}: {err.read().decode()[-500:]}")
        out.seek(0)
        return out.read().decode()


def compare(capture: Path, rounds: int) -> tuple[dict[str, Runs], int]:
    """Run all contenders in turns; what was seen, and the number of stock NFStreamer's flows."""
    with tempfile.TemporaryDirectory() as folder:
        commands = contenders(capture, Path(folder))
        for name in (each for each in commands if each.startswith(("compiled", "flowvane"))):
            run(commands[name], Runs())  # the first start compiles
        result = {name: Runs() for name in commands}
        flows = 0
        for _ in range(rounds):
            for name, command in commands.items():
                said = run(command, result[name])
                flows = int(said) if name == BASE else flows
    return result, flows


def table(title: str, packets: int, flows: int, result: dict[str, Runs]) -> str:
    """The comparison as Markdown."""
    lines = [
        f"{title}: {packets:,} packets, {flows:,} flows, {len(result[BASE].seconds)} rounds in "
        f"turns, {os.cpu_count()} processors.",
        "",
        "| | packets/s | flows/s | ratio | processor s | memory MiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, runs in result.items():
        seconds = median(runs.seconds)
        lines.append(
            f"| {name} | {packets / seconds:,.0f} | {flows / seconds:,.0f} | "
            f"{ratio(runs, result[BASE]):.2f} | {median(runs.cpu_seconds):.1f} | "
            f"{runs.memory_mib:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def ratio(runs: Runs, base: Runs) -> float:
    """How many times as fast as the base, the median over rounds."""
    return median(b / own for own, b in zip(runs.seconds, base.seconds, strict=True))


def main() -> None:
    """Make the captures, run the rounds, print the tables and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", type=int, default=200, help="offices in the capture")
    parser.add_argument("--corpus", type=Path, help="folder of real captures")
    parser.add_argument("--json", type=Path, default=Path("build/speed.json"))
    options = parser.parse_args()
    report = {}
    with tempfile.TemporaryDirectory() as folder:
        sources = {"Generated offices": generated(options.networks)}
        if options.corpus:
            sources["Real captures"] = mixed(options.corpus)
        for title, frames in sources.items():
            capture = Path(folder) / "speed.pcap"
            packets = write_capture(capture, frames)
            result, flows = compare(capture, options.rounds)
            print(table(title, packets, flows, result))
            report[title] = {
                "packets": packets,
                "flows": flows,
                "runs": {
                    name: {
                        "seconds": runs.seconds,
                        "cpu_seconds": runs.cpu_seconds,
                        "memory_mib": runs.memory_mib,
                        "ratio": ratio(runs, result[BASE]),
                    }
                    for name, runs in result.items()
                },
            }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
