"""How many alerts a second are explained, made into events, encoded and grouped.

``python -m benchmarks.alerts [--rounds N]`` scores a generated SYN flood, of which each flow is
an alert, and times what comes after the scores, in one thread, for each model that ships. Prints
JSON: the best of the rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.flood import Flood, chains_of, write
from models.bundle import load
from models.detector import Detector
from models.manifest import shipped
from sensor.eve import event_lines
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


def alerted(scored: list[Scored], detector: Detector) -> tuple[int, float]:
    """How many alerts there were, and seconds that they took."""
    verdict, groups, count = Verdict(detector, FPR), AlertGroups(), 0
    begun = time.perf_counter()
    for batch in scored:
        alerts = verdict.alerts(batch.flows, batch.rows, batch.scores)
        event_lines(alerts, detector.name, [{"pcap_filename": "flood.pcap"}] * len(alerts))
        groups.add(alerts)
        count += len(alerts)
    return count, time.perf_counter() - begun


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
            alerted(scored, detector)  # have all compiled
            count, seconds = min(
                (alerted(scored, detector) for _ in range(rounds)), key=lambda done: done[1]
            )
            report[name] = {"alerts": count, "alerts_per_s": round(count / seconds)}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
