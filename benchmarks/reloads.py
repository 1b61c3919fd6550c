"""Reloads the model of a `flowvane run` under load, over and over, and looks for what it cost.

    python -m benchmarks.reloads [--times 100] [--pps 20000]

In a network namespace of its own, as root. Prints JSON: whether each packet is accounted for, what
was lost, whether the events are as many as the alerts, and resident memory along the way.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.daemon import Daemon
from benchmarks.live import balance, lab, replay, whole_events, write_traffic


def measure(times: int, pps: int, folder: Path) -> dict[str, Any]:
    """Reload so often while packets come in."""
    capture = folder / "load.pcap"
    write_traffic(capture, 20_000)
    options = ["--linger", "0.5", "--fpr", "0.05", "--set",
               "outputs.0.eve-log.types=[alert, flow]"]  # fmt: skip
    with Daemon(folder, options) as daemon:
        player = replay(capture, pps, loops=1_000_000)
        resident, begun = {0: round(daemon.resident_mib())}, time.monotonic()
        for number in range(1, times + 1):
            daemon.process.send_signal(signal.SIGUSR2)
            daemon.wait_ready()
            if number in (1, 5) or number % 10 == 0:
                resident[number] = round(daemon.resident_mib())
        seconds = time.monotonic() - begun
        player.terminate()
        player.wait()
        line = daemon.stop()
        reloads = daemon.text("stdout").count("\nreloaded")
    return {
        "reloads": reloads, "seconds_each": round(seconds / times, 2), "resident_mib": resident,
        **balance(line), "events_whole": whole_events((folder / "eve.json").read_bytes()),
        "line": line,
    }  # fmt: skip


def main() -> None:
    """Measure, print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--pps", type=int, default=20_000)
    args = parser.parse_args()
    lab()
    with tempfile.TemporaryDirectory(prefix="flowvane-") as folder:
        print(json.dumps(measure(args.times, args.pps, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
