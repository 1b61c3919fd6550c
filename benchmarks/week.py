"""A simulated week: are alerts as many as promised?

``python -m benchmarks.week DATA [--model NAME|DIR] [--seeds N]``. Benign rows of the
UNSW-NB15 testing set, which the model that ships did not learn from and which differ from those it
did, are drawn as the flows of a site with 200 clients and 300 servers, more by day than by night.
Within the week flows of many bytes become more frequent: their chance to be drawn grows with
the logarithm of their bytes, by e a standard deviation in the end. On the fourth day at noon
a fifth of all flows becomes those of one seldom used service at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from features.flows import FLOW_DTYPE, FlowBatch
from features.schema import FloatArray
from models.bundle import load
from models.detector import Detector
from sensor.budget import HOUR_US, AlertBudget
from sensor.caches import keep_compiled
from sensor.feed import AlertFeed
from sensor.pipeline import Scored
from sensor.recalibration import Recalibration
from sensor.verdict import Verdict
from training.datasets import DATASETS
from training.metrics import mean_sd
from training.trials import LIVE_CLOCK_US

HOURS = 7 * 24
STEP_AT = 3 * 24 + 12
BY_DAY = 5_000
BUDGET = 20.0
FPR = 0.01
NEW_SHARE = 0.2
RARE = 0.02
"""A service that fewer of the benign flows have is seldom used."""
MOST_P = 0.05


def _rate(hour: int) -> int:
    return int(BY_DAY * (1.0 + 0.7 * np.sin(2 * np.pi * (hour - 9) / 24)))


def hosts_at_random(rng: np.random.Generator, count: int) -> FlowBatch:
    """Flows of some clients with some servers, a few of which have most of them."""
    flows = np.zeros(count, FLOW_DTYPE)
    flows["ip_version"], flows["protocol"] = 4, 6
    for side, net, hosts in (("src_ip", 10, 200), ("dst_ip", 20, 300)):
        host = np.minimum(rng.zipf(1.5, count), hosts)
        flows[side][:, 13], flows[side][:, 14:] = net, np.column_stack([host // 256, host % 256])
    return flows


class Site:
    """Benign rows ``[N, F]`` to draw flows from."""

    def __init__(self, detector: Detector, rows: FloatArray) -> None:
        self.rows = rows
        schema = detector.schema
        size, service = schema.index(["sbytes", "service"])
        logs = np.log1p(rows[:, size])
        self._size = (logs - logs.mean()) / logs.std()
        codes, counts = np.unique(rows[:, service], return_counts=True)
        seldom = codes[counts < RARE * len(rows)]
        most = seldom[np.argmax(counts[np.isin(codes, seldom)])]
        self._new = np.flatnonzero(rows[:, service] == most)

    def draw(self, rng: np.random.Generator, count: int, hour: int) -> FloatArray:
        """The rows of `count` flows in an hour of the week."""
        chance = np.exp(self._size * hour / HOURS)
        at = rng.choice(len(self.rows), count, p=chance / chance.sum())
        if hour >= STEP_AT:
            new = rng.random(count) < NEW_SHARE
            at[new] = rng.choice(self._new, int(new.sum()))
        return self.rows[at]


def simulate(
    detector: Detector, benign: FloatArray, seed: int, hours: int = HOURS
) -> Iterator[Scored]:
    """The week's flows, or those of its first hours, in batches, in order."""
    rng, schema, site = np.random.default_rng(seed), detector.schema, Site(detector, benign)
    for hour in range(hours):
        count = _rate(hour)
        rows = schema.remeasure(site.draw(rng, count, hour), LIVE_CLOCK_US, rng)
        flows = hosts_at_random(rng, count)
        flows["last_us"] = hour * HOUR_US + np.sort(rng.integers(0, HOUR_US, count))
        for at in range(0, count, 1024):
            part = slice(at, at + 1024)
            yield Scored(flows[part], rows[part], detector.score(rows[part]))


def alerts_by_hour(feed: AlertFeed, week: Sequence[Scored]) -> FloatArray:
    """Alerts of each hour, ``[HOURS]``."""
    found = np.zeros(HOURS)
    for scored in week:
        alerted = feed.push(scored).alerted
        hours = scored.flows["last_us"] // HOUR_US
        found += np.bincount(hours[alerted], minlength=HOURS)
    return found


def feed_of(detector: Detector, budget: bool, recalibrate: bool) -> AlertFeed:
    """What decides, on the time of the flows."""
    verdict = Verdict(detector, MOST_P if budget else FPR)
    least = detector.calibration.least_p
    return AlertFeed(
        verdict,
        budget=AlertBudget(BUDGET, least, MOST_P) if budget else None,
        recalibration=Recalibration(detector.calibration) if recalibrate else None,
    )


def _hours(name: str, hourly: Sequence[FloatArray], promised: Sequence[FloatArray]) -> str:
    """Realised over promised by the hour: least, mean and most without that of the step."""
    ratios = [np.delete(got / want, STEP_AT) for got, want in zip(hourly, promised, strict=True)]
    told = [
        mean_sd([float(ratio.min()) for ratio in ratios]),
        mean_sd([float(ratio.mean()) for ratio in ratios]),
        mean_sd([float(ratio.max()) for ratio in ratios]),
    ]
    cells = " | ".join(f"{mean:.2f} ± {sd:.2f}" for mean, sd in told)
    short = mean_sd([float((ratio < 0.5).mean()) for ratio in ratios])[0]
    over = mean_sd([float((ratio > 2.0).mean()) for ratio in ratios])[0]
    return f"| {name} | {cells} | {short:.1%} | {over:.1%} |"


def _line(name: str, hourly: Sequence[FloatArray], promised: Sequence[FloatArray]) -> str:
    """Realised over promised: by day, after the step, and hours beyond a factor of two."""
    ratios = [got / want for got, want in zip(hourly, promised, strict=True)]
    outside = np.setdiff1d(np.arange(HOURS), [STEP_AT])
    cells = [mean_sd([float(r.reshape(7, 24)[day].mean()) for r in ratios]) for day in range(7)]
    beyond = mean_sd([float(((r[outside] > 2) | (r[outside] < 0.5)).mean()) for r in ratios])
    step = mean_sd([float(r[STEP_AT]) for r in ratios])
    days = " | ".join(f"{mean:.2f} ± {sd:.2f}" for mean, sd in cells)
    return f"| {name} | {days} | {step[0]:.2f} ± {step[1]:.2f} | {beyond[0]:.1%} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="unsw-nb15")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args(arguments)
    keep_compiled()
    detector = load(args.model)
    table = DATASETS["unsw-nb15"].load(args.data, "test")
    benign = table.rows[~table.attack]
    found: dict[str, list[FloatArray]] = {}
    wanted: dict[str, list[FloatArray]] = {}
    for seed in range(args.seeds):
        week = list(simulate(detector, benign, seed))
        flows = np.array([_rate(hour) for hour in range(HOURS)], float)
        for budget in (False, True):
            for recalibrate in (False, True):
                name = f"{'20 alerts an hour' if budget else '1 % of flows'}, " + (
                    "corrected" if recalibrate else "not corrected"
                )
                feed = feed_of(detector, budget, recalibrate)
                found.setdefault(name, []).append(alerts_by_hour(feed, week))
                promise = np.full(HOURS, BUDGET) if budget else FPR * flows
                wanted.setdefault(name, []).append(promise)
    head = " | ".join(f"day {day}" for day in range(1, 8))
    print(f"| realised / promised | {head} | hour of the step | other hours beyond 2 |")
    print("|---" * 10 + "|")
    for name, hourly in found.items():
        print(_line(name, hourly, wanted[name]))
    print(
        "\n| by the hour, without that of the step | least | mean | most | below half | above 2 |"
    )
    print("|---" * 6 + "|")
    for name, hourly in found.items():
        print(_hours(name, hourly, wanted[name]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
