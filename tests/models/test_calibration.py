"""p-values against their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from models.calibration import BEYOND, Calibration, fit_tail

finite = st.floats(-(2.0**90), 2.0**90, width=32)
scores = hnp.arrays(np.float32, st.integers(1, 60), elements=finite | st.sampled_from([0, 1, 2]))


@settings(deadline=None, database=None)
@given(calibration=scores, new=scores)
def test_p_value_is_the_share_that_scores_as_high(
    calibration: NDArray[np.float32], new: NDArray[np.float32]
) -> None:
    # Old scores among the new ones, so that there are ties.
    new = np.concatenate([new, calibration])
    got = Calibration(calibration).p_value(new)
    for score, p in zip(new, got, strict=True):
        as_high = sum(1 for other in calibration if other >= score)
        assert p == (1 + as_high) / (len(calibration) + 1)


@settings(deadline=None, database=None)
@given(calibration=scores, new=scores)
def test_p_value_falls_as_the_score_rises(
    calibration: NDArray[np.float32], new: NDArray[np.float32]
) -> None:
    p = Calibration(calibration).p_value(np.sort(new))
    assert (np.diff(p) <= 0).all()
    assert p.min() >= Calibration(calibration).smallest_p
    assert p.max() <= 1.0


def test_the_order_of_the_scores_does_not_matter() -> None:
    rows = np.array([3.0, 1.0, 2.0])
    assert Calibration(rows).scores.tolist() == [1.0, 2.0, 3.0]
    assert rows.tolist() == [3.0, 1.0, 2.0]  # left as it was


def test_smallest_p_is_that_of_a_score_above_all() -> None:
    calibration = Calibration(np.arange(99.0))
    assert calibration.count == 99
    assert calibration.smallest_p == 0.01
    assert calibration.p_value(np.array([98.5, 1e30])).tolist() == [0.01, 0.01]
    # The highest of them counts itself.
    assert calibration.p_value(np.array([98.0])).tolist() == [0.02]
    assert calibration.p_value(np.array([-1.0, 0.0])).tolist() == [1.0, 1.0]


def test_no_scores_no_p_values() -> None:
    assert Calibration(np.zeros(3)).p_value(np.empty(0)).shape == (0,)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5])
def test_benign_flows_are_alerted_as_often_as_said(share: float) -> None:
    # With 99 calibration rows a share of whole hundredths is exact: (k of 100 ranks).
    trials, rng = 20_000, np.random.default_rng(5)
    drawn = rng.lognormal(size=(trials, 100)).astype(np.float32)
    alerted = sum(Calibration(row[:99]).p_value(row[99:])[0] <= share for row in drawn)
    deviation = math.sqrt(trials * share * (1 - share))
    assert abs(alerted - trials * share) < 4 * deviation


def test_scores_with_ties_are_alerted_no_more_often_than_said() -> None:
    trials, share, rng = 20_000, 0.05, np.random.default_rng(6)
    drawn = rng.integers(0, 5, size=(trials, 100)).astype(np.float32)
    alerted = sum(Calibration(row[:99]).p_value(row[99:])[0] <= share for row in drawn)
    assert alerted <= trials * share + 4 * math.sqrt(trials * share * (1 - share))


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf], [-math.inf, 0.0]])
def test_what_is_no_calibration_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="finite scores, one at least"):
        Calibration(np.array(bad))


def test_beyond_the_highest_score_p_values_follow_the_tail() -> None:
    # Of an exponential distribution they are known: exp(-s).
    rng = np.random.default_rng(8)
    errors = []
    for _ in range(50):
        calibration = Calibration(rng.exponential(size=10_000))
        highest = float(calibration.scores[-1])
        asked = np.array([max(highest, 9.3) + 1.0])
        errors.append(math.log(calibration.p_value(asked)[0]) + asked[0])
    # A median factor of two at a chance that one of 30,000 flows has.
    assert abs(np.median(errors)) < math.log(2.0)


def test_a_tail_is_never_lighter_than_an_exponential_one() -> None:
    tail = fit_tail(np.linspace(0.0, 1.0, 10_000))  # no score above 1 is possible
    assert tail is not None
    assert tail.shape == 0.0
    assert tail.p_value(np.array([2.0]))[0] > 0.0


def test_a_heavy_tail_is_seen() -> None:
    # Pareto with index 2: P(X > x) = x**-2, a generalised Pareto shape of 1/2.
    drawn = np.sort(np.random.default_rng(9).pareto(2.0, size=200_000) + 1.0)
    tail = fit_tail(drawn)
    assert tail is not None
    assert tail.shape == pytest.approx(0.5, abs=0.08)
    assert tail.p_value(np.array([100.0]))[0] == pytest.approx(1e-4, rel=0.3)


@pytest.mark.parametrize("rows", [np.arange(2_400.0), np.zeros(10_000)], ids=["few", "equal"])
def test_without_enough_to_go_by_there_is_no_tail(rows: NDArray[np.float64]) -> None:
    calibration = Calibration(rows)
    assert calibration.tail is None
    assert calibration.least_p == calibration.smallest_p
    assert calibration.p_value(np.array([1e30]))[0] == calibration.smallest_p


def test_p_values_end_where_the_tail_is_no_evidence() -> None:
    calibration = Calibration(np.random.default_rng(7).exponential(size=10_000))
    assert calibration.least_p == calibration.smallest_p / BEYOND
    p = calibration.p_value(np.array([calibration.scores[-1], 1e6], np.float32))
    assert p.tolist() == [2 * calibration.smallest_p, calibration.least_p]
