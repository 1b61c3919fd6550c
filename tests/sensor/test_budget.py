"""The alert budget: how many alerts an hour there are, whatever the flows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sensor.budget import HOUR_US, STEP_US, AlertBudget
from sensor.errors import UsageError

SMALLEST, MOST = 1e-5, 0.01
TICKS = 360
"""Batches an hour in these tests: one in 10 s."""


def hours_of(
    budget: AlertBudget, flows_per_hour: Callable[[int], float], hours: int, seed: int = 0,
    p_values: Callable[[np.ndarray], np.ndarray] = lambda p: p,
) -> list[int]:  # fmt: skip
    """Alerts admitted in each hour of a Poisson stream of flows.

    Args:
        budget: asked for each.
        flows_per_hour: by the hour.
        hours, seed: how many, and of the generator.
        p_values: what becomes of uniform p-values.
    """
    rng = np.random.default_rng(seed)
    admitted = []
    for tick in range(hours * TICKS):
        hour = tick // TICKS
        count = int(rng.poisson(flows_per_hour(hour) / TICKS))
        budget.count(count, tick * HOUR_US // TICKS)
        p = np.maximum(p_values(rng.random(count)), SMALLEST)
        wanted = int((p <= budget.threshold).sum())
        admitted.append(sum(budget.take() for _ in range(wanted)))
    return np.reshape(admitted, (hours, TICKS)).sum(axis=1).tolist()


@settings(max_examples=12, deadline=None, database=None)
@given(
    per_hour=st.sampled_from([2, 10, 60]), rate=st.sampled_from([2e4, 1e5, 1e6]),
    seed=st.integers(0, 1000),
)  # fmt: skip
@example(per_hour=10, rate=1e6, seed=0)
def test_uniform_p_values_keep_the_budget(per_hour: int, rate: float, seed: int) -> None:
    budget = AlertBudget(per_hour, SMALLEST, MOST)
    counts = hours_of(budget, lambda hour: rate, 16, seed)
    # Where the smallest p-value is too large, the bucket alone holds the budget.
    mean = np.mean(counts[2:])
    assert per_hour / 2 <= mean <= 2 * per_hour
    assert max(counts) <= 2 * per_hour


@pytest.mark.parametrize("times", [0.3, 30.0])
def test_a_model_that_is_wrong_about_the_network_keeps_it_too(times: float) -> None:
    # Every p-value comes `times` as often as it should.
    budget = AlertBudget(10, SMALLEST, 0.5)
    counts = hours_of(budget, lambda hour: 1e4, 24, p_values=lambda p: p / times)
    assert 5 <= np.mean(counts[8:]) <= 20
    # Not because the bucket was empty: the threshold has found its place.
    assert budget.correction == pytest.approx(1 / times, rel=1.0)
    before = budget.refused
    hours_of(budget, lambda hour: 1e4, 4, seed=1, p_values=lambda p: p / times)
    assert budget.refused - before <= 20


def test_few_flows_are_not_made_alerts_to_spend_the_budget() -> None:
    budget = AlertBudget(100, SMALLEST, MOST)
    counts = hours_of(budget, lambda hour: 1000.0, 10)
    assert budget.threshold == MOST
    assert budget.correction == 1.0  # nothing winds up, for when there are more flows
    assert 5 <= np.mean(counts) <= 15


def test_the_threshold_follows_the_flows() -> None:
    budget = AlertBudget(10, SMALLEST, MOST)
    counts = hours_of(budget, lambda hour: 2e4 if hour < 12 else 4e5, 24)
    assert max(counts) <= 20
    assert 5 <= np.mean(counts[2:12]) <= 20
    assert 5 <= np.mean(counts[15:]) <= 20


def test_a_flood_does_not_hide_itself_and_is_forgotten_in_time() -> None:
    budget = AlertBudget(10, SMALLEST, MOST)
    hours_of(budget, lambda hour: 1e5, 10)
    usual, now = budget.threshold, 10 * HOUR_US
    # Ten minutes with 1,000 times as many flows, all as odd as can be.
    for second in range(600):
        budget.count(30_000, now + second * 1_000_000)
        for _ in range(100):
            budget.take()
    assert budget.threshold >= usual / 8
    budget.count(0, now + STEP_US * 2)
    hours_of(budget, lambda hour: 1e5, 12)
    assert budget.threshold == pytest.approx(usual, rel=1.0)


def test_no_hour_has_more_than_twice_the_budget() -> None:
    budget = AlertBudget(10, SMALLEST, MOST)
    taken = 0
    for second in range(3600):
        budget.count(1000, second * 1_000_000)
        taken += sum(budget.take() for _ in range(1000))
    assert 10 <= taken <= 20
    assert taken + budget.refused == 3_600_000


def test_the_first_alert_is_admitted_at_once() -> None:
    budget = AlertBudget(1, SMALLEST, MOST)
    budget.count(1, 0)
    assert budget.take()
    assert not budget.take()
    budget.count(0, HOUR_US)
    assert budget.take()


def test_events_that_are_not_asked_for_count_too() -> None:
    budget = AlertBudget(4, SMALLEST, MOST)
    budget.count(1, 0)
    budget.charge(6)
    assert not budget.take()
    budget.count(0, HOUR_US // 2)  # -2 + 2
    assert not budget.take()
    budget.count(0, HOUR_US)
    assert budget.take()
    budget.charge(1000)  # a debt of an hour's at most
    budget.count(0, 3 * HOUR_US)
    assert budget.take()


def test_a_clock_that_goes_back_or_leaps_does_no_harm() -> None:
    budget = AlertBudget(10, SMALLEST, MOST)
    for now in (0, 10 * HOUR_US, 5 * HOUR_US, 5 * HOUR_US + 1, 1_000_000 * HOUR_US):
        budget.count(1000, now)
        assert SMALLEST <= budget.threshold <= MOST
    assert budget.flows_per_hour is not None
    assert budget.flows_per_hour >= 0.0


@pytest.mark.parametrize("per_hour", [0.0, 0.9, -1.0, math.inf, math.nan])
def test_a_budget_that_is_none_is_refused(per_hour: float) -> None:
    with pytest.raises(UsageError, match="give 1 or more"):
        AlertBudget(per_hour, SMALLEST, MOST)
