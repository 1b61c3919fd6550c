"""Can the threshold be walked away? Poisoners who know it, against recalibration.

``python -m benchmarks.poisoning [--model NAME|DIR] [--seeds N] [--bounds K,K]
[--raised G,G] [--days D,D]``. A site
of 200 clients and 300 servers that never changes: its flows' scores are drawn from one half of the
model's held-out benign scores, and the other half calibrates. A poisoner's flows come beside
them, a share of all, from one host, from a few, or from ever new ones. Its scores begin just below
the model's own threshold. Flows below the threshold never raise it, as only those that score as
high count for a p-value; so each day it raises its scores by some percent, has alerts for a while,
and waits until it has none before it raises them again.

Told is how far it comes: the highest score, over the model's own threshold, at which fewer than
half of a day's flows of it are alerted; mean and sd over seeds. With a fixed threshold that is 1.
**Absorbed** is a poisoner that comes beyond 1.2: what a fixed threshold alerts on with a fifth to
spare goes by.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks.week import hosts_at_random
from features.flows import FLOW_DTYPE, FlowBatch
from features.schema import FloatArray
from models.bundle import load
from models.calibration import Calibration
from models.detector import Scores
from sensor.recalibration import RAISED, STEP_US, STEPS, Recalibration
from training.metrics import mean_sd

FPR = 0.01
PARTS = 4
"""A day is given in so many parts, after each of which the correction is made anew."""
A_PART = 1_500
"""Flows of the site in each."""
JUST_BELOW = 1.0 - 1e-4
ABSORBED = 1.2
STORM_SHARE = 0.95


@dataclass(frozen=True)
class Poisoner:
    """Who raises scores.

    Attributes:
        raised: by what factor more each day.
        share: of all flows.
        hosts: how many sources and destinations it has; 0: new ones each day.
        waits: until its flows are not alerted any more, before it raises them again.
    """

    raised: float
    share: float
    hosts: int
    waits: bool = True


class Day(NamedTuple):
    """What became of a day's flows.

    Attributes:
        score: of the poisoner, over the model's own threshold.
        caught: share of its flows that were alerted.
        alerts: share of the site's own flows that were.
    """

    score: float
    caught: float
    alerts: float


@dataclass
class Site:
    """A site whose model is calibrated on half of the `scores`, and whose flows have the others."""

    calibration: Calibration
    scores: FloatArray
    rng: np.random.Generator

    @staticmethod
    def of(scores: FloatArray, seed: int) -> Site:
        """Halves by `seed`."""
        rng = np.random.default_rng(seed)
        mixed = rng.permutation(scores)
        half = len(mixed) // 2
        return Site(Calibration(mixed[:half]), mixed[half:], rng)

    @property
    def level(self) -> float:
        """The score that the model's own threshold is at."""
        return float(self.calibration.scores[-int(FPR * (self.calibration.count + 1))])

    def judged(self, scores: FloatArray) -> Scores:
        """Scores with the model's p-values."""
        parts = np.zeros((len(scores), 1))
        return Scores(scores, scores, parts, self.calibration.p_value(scores))


def hosts_of(poisoner: Poisoner, count: int, day: int) -> FlowBatch:
    """The poisoner's flows, `count` of them."""
    flows = np.zeros(count, FLOW_DTYPE)
    flows["ip_version"], flows["protocol"] = 4, 6
    at = np.arange(count)
    new = poisoner.hosts == 0
    for side, net in (("src_ip", 66), ("dst_ip", 67)):
        host = at if new else at % poisoner.hosts
        if side == "dst_ip" and not new:
            host = at % 250
        flows[side][:, 12], flows[side][:, 13] = net, day % 250 if new else 0
        flows[side][:, 14], flows[side][:, 15] = host // 256, host % 256
    return flows


def walk(
    site: Site, made: Recalibration | None, poisoner: Poisoner, days: int,
    restarts: bool = False, step_day: int | None = None,
) -> Iterator[Day]:  # fmt: skip
    """What becomes of the poisoner's flows and of the site's own, day by day.

    Args:
        site: whose flows.
        made: corrects p-values; None for a fixed threshold.
        poisoner: sends beside them.
        days: how many.
        restarts: whether the sensor is started anew each day.
        step_day: from when on the site's own flows score a fifth higher.
    """
    count = round(A_PART * poisoner.share / (1.0 - poisoner.share))
    own = hosts_at_random(site.rng, A_PART)
    score = site.level * JUST_BELOW
    for day in range(days):
        if restarts and made is not None:
            made = Recalibration(site.calibration, raised=made.raised)
        flows = np.concatenate([own, hosts_of(poisoner, count, day)])
        caught = alerts = last = 0
        for part in range(PARTS):
            drawn = site.rng.choice(site.scores, A_PART)
            if step_day is not None and day >= step_day:
                drawn = drawn * ABSORBED
            given = site.judged(np.append(drawn, np.full(count, score)))
            judged = given if made is None else made.corrected(given)
            alerted = judged.p_value <= FPR
            alerts += int(alerted[:A_PART].sum())
            last = int(alerted[A_PART:].sum())
            caught += last
            now_us = (day * PARTS + part) * (STEPS // PARTS) * STEP_US
            if made is not None:
                made.learn(flows, given, alerted, FPR, now_us)
        yield Day(score / site.level, caught / (PARTS * count), alerts / (PARTS * A_PART))
        if last == 0 or not poisoner.waits:
            score *= 1.0 + poisoner.raised


def reached(days: Sequence[Day]) -> float:
    """The highest score that passed, over the model's own threshold."""
    return max([day.score for day in days if day.caught < 0.5], default=1.0)


def storm(site: Site, made: Recalibration) -> float:
    """Share of the site's own flows alerted, the day after a day's flood of lowest scores."""
    poisoner = Poisoner(0.0, STORM_SHARE, 0)
    count = round(A_PART * STORM_SHARE / (1.0 - STORM_SHARE))
    flows = np.concatenate([hosts_at_random(site.rng, A_PART), hosts_of(poisoner, count, 0)])
    least = np.full(count, site.scores.min())
    for part in range(PARTS + 1):
        given = site.judged(np.append(site.rng.choice(site.scores, A_PART), least))
        alerted = made.corrected(given).p_value <= FPR
        made.learn(flows, given, alerted, FPR, part * (STEPS // PARTS) * STEP_US)
    judged = made.corrected(site.judged(site.scores))
    return float((judged.p_value <= FPR).mean())


def _cell(values: Sequence[float]) -> str:
    mean, sd = mean_sd(list(values))
    return f"{mean:.2f} ± {sd:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="unsw-nb15")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--bounds", default=f"10,{RAISED:g}")
    parser.add_argument("--raised", default="0.01", help="by how much more each day")
    parser.add_argument("--days", default="30,60,120", help="after how many to tell")
    args = parser.parse_args(arguments)
    scores = np.asarray(load(args.model).calibration.scores, np.float64)
    bounds = [float(bound) for bound in args.bounds.split(",")]
    days = sorted(int(day) for day in args.days.split(","))
    sites = range(args.seeds)
    lines = {k: [Site.of(scores, seed) for seed in sites] for k in bounds}
    for k, made in lines.items():
        limits = [
            float(np.quantile(site.calibration.scores, 1 - FPR / k)) / site.level for site in made
        ]
        print(f"score at a p-value of {FPR} / {k:g}, over that at {FPR}: {_cell(limits)}")
    names = [f"{k:g} times, day {day}" for k in bounds for day in days]
    print("\n| raised a day | share | hosts | fixed | " + " | ".join(names) + " |")
    print("|---" * (4 + len(names)) + "|")
    for raised in map(float, args.raised.split(",")):
        for share in (0.001, 0.01, 0.05, 0.20):
            for hosts in (1, 5, 0):
                poisoner = Poisoner(raised, share, hosts)
                ways = [list(walk(Site.of(scores, seed), None, poisoner, 4)) for seed in sites]
                cells = [_cell([reached(way) for way in ways])]
                for k in bounds:
                    ways = []
                    for seed in sites:
                        site = Site.of(scores, seed)
                        made_ = Recalibration(site.calibration, raised=k)
                        ways.append(list(walk(site, made_, poisoner, days[-1])))
                    cells += [_cell([reached(way[:day]) for way in ways]) for day in days]
                who = hosts or "new ones"
                print(f"| {raised:.0%} | {share:.1%} | {who} | " + " | ".join(cells) + " |",
                      flush=True)  # fmt: skip
    print("\n| route, 5 % of flows from new hosts, 1 % a day | raised by | reached in 60 days |"
          " own flows alerted, last day |")  # fmt: skip
    print("|---" * 4 + "|")
    for k in bounds:
        for name, restarts, step_day in (
            ("as above", False, None),
            ("sensor restarted each day", True, None),
            ("own flows score 1.2 times as high from day 10", False, 10),
        ):
            ends = []
            for seed in sites:
                site = Site.of(scores, seed)
                made_ = Recalibration(site.calibration, raised=k)
                way = list(walk(site, made_, Poisoner(0.01, 0.05, 0), 60, restarts, step_day))
                ends.append((reached(way), 100 * way[-1].alerts))
            reach, alerts = zip(*ends, strict=True)
            print(f"| {name} | {k:g} | {_cell(reach)} | {_cell(alerts)} % |", flush=True)
        stormed = []
        for seed in sites:
            site = Site.of(scores, seed)
            stormed.append(100 * storm(site, Recalibration(site.calibration, raised=k)))
        print(f"| a day of 95 % lowest scores from new hosts | {k:g} | – | {_cell(stormed)} % |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
