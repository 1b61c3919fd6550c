"""Kills a `flowvane run` under load at random moments, over and over, and reads what it wrote.

    python -m benchmarks.kills [--times 50] [--pps 20000] [--seed 1]

In a network namespace of its own, as root, with ip and tcpreplay. Every flow makes an alert and a
`flow` event, all runs write to one file. Prints JSON: how many kills left a part of a line, whether
each such part stands alone, and whether any run wrote two events of a type with one flow_id.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from benchmarks.daemon import EVERYTHING, Daemon, write_conversations
from benchmarks.live import lab, replay

CONVERSATIONS = 5_000


@dataclass
class Found:
    """What the file held.

    Attributes:
        events: whole events, by type.
        torn: runs whose last line was cut off.
        broken: other lines that are no JSON.
        doubled: events whose type and flow_id another one of the same run had.
        shared: flows of which there was an event of each type, as there should be.
    """

    events: Counter[str] = field(default_factory=Counter)
    torn: int = 0
    broken: int = 0
    doubled: int = 0
    shared: int = 0

    def read(self, written: bytes) -> None:
        """Take what one run wrote, after the newline that closes what the one before left."""
        seen: Counter[tuple[str, int]] = Counter()
        *lines, rest = written.split(b"\n")
        self.torn += bool(rest)
        for line in lines:
            try:
                event = orjson.loads(line)
            except orjson.JSONDecodeError:
                self.broken += 1
                continue
            seen[event["event_type"], event["flow_id"]] += 1
        self.events.update(kind for kind, _ in seen.elements())
        self.doubled += sum(count - 1 for count in seen.values())
        self.shared += sum(("flow", flow_id) in seen for kind, flow_id in seen if kind == "alert")


def measure(times: int, pps: int, seed: int, folder: Path) -> dict[str, Any]:
    """Start and kill so often."""
    rng, found, read = random.Random(seed), Found(), 0
    capture, log = folder / "load.pcap", folder / "eve.json"
    write_conversations(capture, CONVERSATIONS)
    player, closed, left = replay(capture, pps, loops=1_000_000), 0, False
    try:
        for _ in range(times):
            with Daemon(folder, ["--linger", "0.1", *EVERYTHING]) as daemon:
                time.sleep(rng.uniform(0.3, 2.0))
                daemon.kill()
            with log.open("rb") as file:
                file.seek(read)
                written = file.read()
            read += len(written)
            if left and written:
                closed += written.startswith(b"\n")
                written = written.removeprefix(b"\n")
            left = bool(written) and not written.endswith(b"\n")
            found.read(written)
    finally:
        player.terminate()
        player.wait()
    return {
        "kills": times, "events": dict(found.events), "bytes": read,
        "torn_lines": found.torn, "closed_by_the_next_run": closed, "open_at_the_end": left,
        "broken_lines_beside": found.broken, "doubled_flow_ids": found.doubled,
        "flows_with_both_events": found.shared,
    }  # fmt: skip


def main() -> None:
    """Measure, print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--pps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    args = parser.parse_args()
    lab()
    with tempfile.TemporaryDirectory(prefix="flowvane-") as folder:
        print(json.dumps(measure(args.times, args.pps, args.seed, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
