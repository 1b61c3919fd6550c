"""Lets `flowvane run` capture for long at a steady rate, and looks whether it grows.

    nice -n -10 python -m benchmarks.soak CAPTURES [--minutes 30] [--pps 50000]

In a network namespace of its own, as root, with ip and tcpreplay. The benign captures below
CAPTURES are replayed in a loop, with other addresses in each, so that the flows are new ones.
Prints JSON: resident memory and open descriptors once a minute, how far memory is off its mean
after the warm-up, and the last line of `flowvane run`, with the losses by cause.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.background import write_background
from benchmarks.daemon import Daemon
from benchmarks.live import THEIRS, arrived, balance, lab, sent

WARM_UP_MINUTES = 5
"""By then the flow table is full, and what is compiled and allocated once is there."""
ROTATED = ("outputs.0.eve-log.rotate-size=100000000", "outputs.0.eve-log.rotate-count=1")


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Capture for so long."""
    capture = folder / "background.pcap"
    _, packets = write_background(capture, args.captures)
    loops = round(args.pps * args.minutes * 60 / packets) or 1
    command = ["tcpreplay", "-q", "-K", "-i", THEIRS, "--pps", str(args.pps), "--loop", str(loops),
               "--unique-ip", str(capture)]  # fmt: skip
    options = [part for key in ROTATED for part in ("--set", key)] + args.options
    samples: list[tuple[float, float, int]] = []
    with Daemon(folder, options) as daemon:
        before = arrived()
        player = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        begun = time.monotonic()
        while player.poll() is None:
            minutes = (time.monotonic() - begun) / 60
            samples.append((round(minutes, 1), daemon.resident_mib(), daemon.descriptors()))
            print(*samples[-1], flush=True)
            next_s = begun + 60 * len(samples) - time.monotonic()
            try:
                player.wait(max(next_s, 0.1))
            except subprocess.TimeoutExpired:
                continue
        offered = sent(player)
        came = arrived() - before
        line = daemon.stop()
    warm = [each for each in samples if each[0] >= min(WARM_UP_MINUTES, args.minutes / 2)]
    resident = [each[1] for each in warm]
    mean = sum(resident) / len(resident)
    return {
        "load_average": os.getloadavg()[0], **offered, "arrived": came,
        "resident_mib": [round(each[1]) for each in samples],
        "mean_mib_after_warm_up": round(mean, 1),
        "off_the_mean": round(max(abs(each - mean) for each in resident) / mean, 4),
        "descriptors": sorted({each[2] for each in samples}), **balance(line), "line": line,
    }  # fmt: skip


def main() -> None:
    """Measure, print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("captures", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pps", type=int, default=50_000)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[],
                        help="the rest is for `flowvane run`")  # fmt: skip
    args = parser.parse_args()
    lab()
    with tempfile.TemporaryDirectory(prefix="flowvane-") as folder:
        print(json.dumps(measure(args, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
