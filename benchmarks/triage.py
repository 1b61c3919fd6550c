"""Compares `flowvane triage` with the metering under it, in turns, as whole processes.

``python -m benchmarks.triage [--rounds 3] [--seeds 4] [--json OUT]``. The capture is several
of the sample's networks one after the other. Each round runs every contender once; what is
reported is the median of the ratios to stock NFStreamer with statistics and dissection.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from examples.sample_capture import make_sample
from examples.traffic import write_pcap

SHIFT_US = 15 * 60 * 1_000_000

_STOCK = """
import sys
from nfstream import NFStreamer
from sensor.meter.stock_plugin import ExtraPlugin
plugin = ExtraPlugin() if sys.argv[2] == "plugin" else None
statistics = sys.argv[2] != "bare"
print(sum(1 for _ in NFStreamer(source=sys.argv[1], udps=plugin, n_meters=1, idle_timeout=120,
      active_timeout=1800, statistical_analysis=statistics, n_dissections=20 if statistics else 0)))
"""


def contenders(capture: Path, folder: Path) -> dict[str, list[str]]:
    """Name and command line of what is compared; the first is the measure of the others."""
    python = sys.executable
    flowvane = [python, "-m", "sensor.cli", "triage", "-q", "-r", str(capture), "-l", str(folder)]
    return {
        "stock NFStreamer, statistics and dissection": [python, "-c", _STOCK, str(capture), "full"],
        "stock NFStreamer, bare": [python, "-c", _STOCK, str(capture), "bare"],
        "stock NFStreamer with the plugin": [python, "-c", _STOCK, str(capture), "plugin"],
        "flowvane triage, nsl-kdd": [*flowvane, "--model", "nsl-kdd"],
        "flowvane triage, unsw-nb15": [*flowvane, "--model", "unsw-nb15"],
    }


def run(command: list[str]) -> tuple[float, int]:
    """Wall seconds of a command, and the peak memory of the largest process so far, in KiB."""
    begun = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - begun
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def main() -> None:
    """Make the capture, run the rounds, print the table and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=4, help="sample networks in the capture")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        capture = Path(folder) / "bench.pcap"
        frames = [
            (time_us + seed * SHIFT_US, frame)
            for seed in range(options.seeds)
            for time_us, frame in make_sample(seed).frames
        ]
        write_pcap(capture, frames)
        commands = contenders(capture, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        peak = 0
        for _ in range(options.rounds):
            for name, command in commands.items():
                taken, peak = run(command)
                seconds[name].append(taken)
    packets = len(frames)
    base = seconds[next(iter(commands))]
    print(f"{packets} packets, {options.rounds} rounds in turns; peak memory of any process "
          f"{peak / 1024:.0f} MiB")  # fmt: skip
    report = {}
    for name, runs in seconds.items():
        ratio = median(own / other for own, other in zip(runs, base, strict=True))
        rate = packets / median(runs)
        report[name] = {"time_ratio": ratio, "packets_per_s": rate, "seconds": runs}
        print(f"{name:45s} {rate:10,.0f} packets/s   time x {ratio:.2f}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"packets": packets, "runs": report}, indent=1) + "\n")


if __name__ == "__main__":
    main()
