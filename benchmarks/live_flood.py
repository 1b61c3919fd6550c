"""A SYN flood on a link into `flowvane run`: memory, losses by cause, and normal connections.

``python -m benchmarks.live_flood [--syns N] [--rate N] [--fpr P] [--options …]``, as root, with ip
and tcpreplay. The flood of ``benchmarks.flood`` is sent over a veth pair in a network namespace of
its own, as fast as its own times say, into `flowvane run` with a rate at which every flow is an
alert; then SIGTERM. Prints JSON: the peak memory of the process, what its last line says, and how
many of the normal connections are whole in the alerts.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from benchmarks.flood import (
    CLIENT_PACKETS,
    SERVER_PACKETS,
    SYNS_A_CONVERSATION,
    Flood,
    peak_mib,
    write,
)
from benchmarks.live import balance, lab, replay, sent, start_sensor


def whole_conversations(events: Path) -> int:
    """Events on connections that are told with all of their packets."""
    count = 0
    with events.open("rb") as lines:
        for line in lines:
            if b'"dest_port":443,' in line:
                flow = orjson.loads(line)["flow"]
                packets = flow["pkts_toserver"], flow["pkts_toclient"]
                count += packets == (CLIENT_PACKETS, SERVER_PACKETS)
    return count


def flooded(flood: Flood, folder: Path, options: list[str], settle_s: float) -> dict[str, Any]:
    """Send the flood; what became of it."""
    capture = folder / "flood.pcap"
    with capture.open("wb") as out:
        write(flood, out)
    sensor, told = start_sensor(folder, options)
    pps = flood.rate * flood.packets // flood.syns
    player = replay(capture, pps)
    offered = sent(player)
    time.sleep(settle_s)
    peak = peak_mib(sensor.pid)
    sensor.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    while sensor.poll() is None:
        # Later than this nothing is to be asked of a process that has ended.
        status = Path(f"/proc/{sensor.pid}/status")
        if b"VmHWM" in status.read_bytes():
            peak = max(peak, peak_mib(sensor.pid))
        time.sleep(0.02)
    line = told.readline()
    return {
        **offered, "options": options, "peak_mib": round(peak),
        "exit_code": sensor.returncode, "exit_s": round(time.monotonic() - begun, 2),
        **balance(line), "line": line.strip(), "conversations": flood.conversations,
        "whole_conversations": whole_conversations(folder / "eve.json"),
    }  # fmt: skip


def main() -> None:
    """One flood, with its figures as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--syns", type=int, default=5_000_000)
    parser.add_argument("--rate", type=int, default=20_000, help="SYNs a second (%(default)s)")
    parser.add_argument("--fpr", type=float, default=0.999, help="every flow an alert: %(default)s")
    parser.add_argument("--settle", type=float, default=5.0, help="seconds until the signal")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[],
                        help="the rest is for `flowvane run`")  # fmt: skip
    args = parser.parse_args()
    lab()
    load_average = os.getloadavg()[0]
    syns = args.syns // SYNS_A_CONVERSATION * SYNS_A_CONVERSATION
    with tempfile.TemporaryDirectory(prefix="flowvane-") as folder:
        options = ["--fpr", str(args.fpr), *args.options]
        said = flooded(Flood(syns, args.rate), Path(folder), options, args.settle)
    print(json.dumps({"load average before": load_average, **said}, indent=1))


if __name__ == "__main__":
    main()
