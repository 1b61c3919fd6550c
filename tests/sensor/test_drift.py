"""Drift: seen where there is some, silent where there is none."""

from __future__ import annotations

import numpy as np

from models.reference import Reference
from sensor.drift import ADVICE, HOUR_S, HOURS, Drift
from sensor.pipeline import Scored
from tests.helpers import TOY_COUNT, make_flow, toy, toy_rows

OTHERS = np.random.default_rng(4).permutation(toy_rows(TOY_COUNT, seed=9))
NOBODY = np.zeros(256, bool)


class Clock:
    """Seconds that pass as told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def drift() -> tuple[Drift, Clock]:
    clock = Clock()
    return Drift(toy("gaussian"), clock), clock


def scored(rows: np.ndarray) -> Scored:
    return Scored(np.repeat(make_flow(), len(rows)), rows, toy("gaussian").score(rows))


def show(what: Drift, clock: Clock, rows: np.ndarray, times: int = 16) -> None:
    """Show batches of these rows, a second between two."""
    for number in range(times):
        at = 256 * number % (len(rows) - 255)
        what.observe(scored(rows[at : at + 256]), NOBODY)
        clock.now += 1.0


def test_the_same_traffic_is_no_drift() -> None:
    what, clock = drift()
    show(what, clock, OTHERS, times=4)
    assert what.features() == {}
    assert what.scores() is None
    show(what, clock, OTHERS)
    assert max(what.features().values()) < 0.25
    assert (what.scores() or 1.0) < 0.25
    assert what.notice() is None
    assert what.due() is None


def test_another_traffic_is_named_with_what_to_do() -> None:
    what, clock = drift()
    rows, column = OTHERS.copy(), toy("gaussian").columns[0]
    rows[:, column] = 1000.0 * rows[:, column] + 1e6
    show(what, clock, rows)
    name = toy("gaussian").features[0].name
    assert what.features()[name] > 1.0
    notice = what.notice()
    assert notice is not None
    assert name in notice
    assert notice.endswith(ADVICE)
    # Told once an hour.
    assert what.due() == notice
    assert what.due() is None
    clock.now += HOUR_S
    assert what.due() == notice


def test_alerts_are_no_drift() -> None:
    what, _ = drift()
    what.observe(scored(OTHERS[:256]), ~NOBODY)
    assert what.flows == 0


def test_few_flows_of_many_are_looked_at() -> None:
    what, _ = drift()
    for _ in range(10):  # all in one moment
        what.observe(scored(OTHERS[:256]), NOBODY)
    assert what.flows == 256


def test_yesterday_is_forgotten() -> None:
    what, clock = drift()
    show(what, clock, OTHERS)
    clock.now += (HOURS + 1) * HOUR_S
    what.observe(scored(OTHERS[:256]), NOBODY)
    assert what.flows == 256


def test_without_a_reference_scores_alone_are_compared() -> None:
    what, clock = drift()
    what._reference = None
    show(what, clock, OTHERS)
    assert what.features() == {}
    assert what.scores() is not None


def test_reference_is_of_rows_like_the_training_rows() -> None:
    assert isinstance(toy("gaussian").reference, Reference)
