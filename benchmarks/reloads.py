"""Reloads the model of a `flowvane run` under load, over and over, and looks for what it cost.

    python -m benchmarks.reloads [--times 100] [--pps 20000]

In a network namespace of its own, as root. Prints JSON: whether each packet is accounted for, what
was lost, whether the events are as many as the alerts, and resident memory along the way.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.live import OURS, balance, lab, replay, whole_events, write_traffic

_PATIENCE_S = 120.0


@contextmanager
def _manager(path: Path) -> Iterator[socket.socket]:
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(_PATIENCE_S)
        yield listening


def _ready(listening: socket.socket) -> None:
    """Wait until the sensor is ready: capturing, or done with a reload."""
    while not listening.recv(4096).startswith(b"READY=1"):
        pass


def _resident_mib(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def measure(times: int, pps: int, folder: Path) -> dict[str, Any]:
    """Reload so often while packets come in."""
    capture = folder / "load.pcap"
    write_traffic(capture, 20_000)
    with _manager(folder / "notify") as listening:
        command = [sys.executable, "-m", "sensor.cli", "run", "-i", OURS, "-l", str(folder),
                   "--linger", "0.5", "--fpr", "0.05", "--set",
                   "outputs.0.eve-log.types=[alert, flow]"]  # fmt: skip
        environ = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
        sensor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
        _ready(listening)
        player = replay(capture, pps, loops=1_000_000)
        resident, begun = {0: _resident_mib(sensor.pid)}, time.monotonic()
        for number in range(1, times + 1):
            sensor.send_signal(signal.SIGUSR2)
            _ready(listening)
            if number in (1, 5) or number % 10 == 0:
                resident[number] = _resident_mib(sensor.pid)
        seconds = time.monotonic() - begun
        player.terminate()
        player.wait()
        sensor.send_signal(signal.SIGTERM)
        said = sensor.communicate()[0].splitlines()
    return {
        "reloads": sum(line.startswith("reloaded") for line in said),
        "seconds_each": round(seconds / times, 2), "resident_mib": resident,
        **balance(said[-1]), "events_whole": whole_events((folder / "eve.json").read_bytes()),
        "exit_code": sensor.returncode, "line": said[-1],
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
