"""How many alerts a second are explained, made into events, encoded and grouped.

``python -m benchmarks.alerts [--rounds N]`` scores a generated SYN flood, of which each flow is
an alert, and times what comes after the scores, in one thread, for each model that ships: an event
for each alert, and one for each group with its count. Prints JSON: the best of the rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.flood import Flood, chains_of, write
from models.bundle import load
from models.detector import Detector
from models.manifest import shipped
from sensor.feed import AlertFeed, EventWriter
from sensor.grouping import Groups
from sensor.meter.compiled.meter import CompiledMeter
from sensor.pipeline import Scored, measure, score
from sensor.report import AlertGroups
from sensor.verdict import Verdict

FLOOD = Flood(syns=20_000, rate=100_000)
FPR = 0.999
"""So high that (nearly) every flow is an alert."""


def scored_flood(detector: Detector, path: Path) -> list[Scored]:
    """The flows of a flood with their scores."""
    with path.open("wb") as file:
        write(FLOOD, file)
    meter = CompiledMeter(chains_of(FLOOD, path), detector.schema.meter, detector.clock_us)
    return list(score(measure(meter, detector.schema, detector.clock_us), detector))


class Dropped:
    """An output that drops the lines."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Drop them."""

    def close(self) -> None:
        """Nothing to close."""


def alerted(scored: list[Scored], detector: Detector, *, group: bool) -> tuple[int, float]:
    """How many alerts there were, and seconds that they took."""
    feed = AlertFeed(Verdict(detector, FPR), groups=Groups() if group else None)
    place, table = {"pcap_filename": "flood.pcap"}, AlertGroups()
    writer = EventWriter(Dropped(), detector.name, lambda flows: [place] * len(flows))
    begun = time.perf_counter()
    for batch in scored:
        decided = feed.push(batch)
        writer.write(decided)
        table.add(decided.alerts)
    writer.write(feed.end())
    return feed.counters.alerts, time.perf_counter() - begun


def fastest(scored: list[Scored], detector: Detector, rounds: int, *, group: bool) -> int:
    """Alerts a second, in the best of the rounds."""
    each = [alerted(scored, detector, group=group) for _ in range(rounds + 1)]  # one compiles
    return round(max(count / seconds for count, seconds in each))


def main() -> None:
    """Time each model; print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    report: dict[str, Any] = {"load average before": os.getloadavg()[0], "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="flowvane-") as folder:
        for name in shipped():
            detector = load(name)
            scored = scored_flood(detector, Path(folder) / "flood.pcap")
            gc.freeze()  # as the commands do
            report[name] = {
                "alerts": sum(len(batch.flows) for batch in scored),
                "alerts_per_s": fastest(scored, detector, rounds, group=False),
                "grouped_alerts_per_s": fastest(scored, detector, rounds, group=True),
            }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
