"""Shapley values: against every order worked out, against SHAP's own, and what agreement means."""

from __future__ import annotations

import functools
import itertools
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from features.schema import FloatArray
from models.detector import Detector
from tests.helpers import SCHEMAS, make_rows, untrained
from training.explain import agreement, compare, explained_share, shapley
from training.integrated import Integrated, integrated

COLUMNS = np.array([0, 2, 3])


def score(rows: FloatArray) -> FloatArray:
    """A score with an interaction, and one column (the second) that it ignores."""
    a, c, d = rows[:, COLUMNS].T
    value: FloatArray = 3.0 * a + a * c - np.abs(d) + np.maximum(c, d)
    return value


def some_rows(count: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(count, 4))


def exact(row: FloatArray, background: FloatArray) -> FloatArray:
    """Shapley values by all orders and all background rows."""
    values = np.zeros(len(COLUMNS))
    orders = list(itertools.permutations(range(len(COLUMNS))))
    for order in orders:
        met = background.copy()
        before = score(met).mean()
        for feature in order:
            met[:, COLUMNS[feature]] = row[COLUMNS[feature]]
            after = score(met).mean()
            values[feature] += (after - before) / len(orders)
            before = after
    return values


def test_they_are_those_of_every_order_within_their_error() -> None:
    rows, background = some_rows(4, 0), some_rows(20, 1)
    found = shapley(score, rows, background, COLUMNS, walks=4000, seed=0)
    expected = np.array([exact(row, background) for row in rows])
    assert_allclose(found.values, expected, atol=0.15)
    # Twelve values: none is beyond four standard errors by chance.
    assert (np.abs(found.values - expected) < 4 * found.error + 1e-12).all()
    assert found.error.max() < 0.1


def test_they_are_those_of_shap() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its import, about matplotlib's next version
        shap = pytest.importorskip("shap", reason="pip install 'flowvane[dev]'")
        rows, background = some_rows(3, 2), some_rows(15, 3)
        theirs = shap.KernelExplainer(score, background).shap_values(
            rows, l1_reg=False, silent=True
        )
    ours = shapley(score, rows, background, COLUMNS, walks=4000, seed=0)
    assert_allclose(theirs[:, 1], 0.0, atol=1e-9)
    assert_allclose(ours.values, theirs[:, COLUMNS], atol=0.15)


def test_they_sum_to_the_score_above_the_background_rows_met() -> None:
    rows, background = some_rows(5, 4), some_rows(1, 5)
    found = shapley(score, rows, background, COLUMNS, walks=8)
    assert_allclose(found.values.sum(axis=1), score(rows) - score(background))


def test_of_a_sum_they_are_exact_and_free_of_error() -> None:
    weights = np.array([1.0, -2.0, 0.5])
    rows, background = some_rows(3, 6), some_rows(1, 7)
    found = shapley(lambda rows: rows[:, COLUMNS] @ weights, rows, background, COLUMNS, walks=4)
    assert_allclose(found.values, (rows - background)[:, COLUMNS] * weights)
    assert_allclose(found.error, 0.0, atol=1e-12)


def test_a_seed_gives_the_same_values() -> None:
    rows, background = some_rows(2, 8), some_rows(9, 9)
    first, again, other = (
        shapley(score, rows, background, COLUMNS, walks=8, seed=seed).values for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("walks", "background"), [(3, 1), (2, 1), (5, 1), (4, 0)])
def test_what_cannot_be_estimated_is_refused(walks: int, background: int) -> None:
    with pytest.raises(ValueError, match="need background rows, and 4 walks"):
        shapley(score, some_rows(1, 0), some_rows(background, 0), COLUMNS, walks=walks)


def test_agreement_by_hand() -> None:
    one = np.array([[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    other = np.array([[8.0, 6.0, 4.0, 2.0], [3.0, 4.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    found = agreement(one, other, top=1)
    # The second flow has its first two exchanged: rho = 1 - 6 * 2 / (4 * 15), tau = (5 - 1) / 6.
    assert found.spearman == pytest.approx((1 + 0.8) / 2)
    assert found.kendall == pytest.approx((1 + 2 / 3) / 2)
    assert found.top == found.first == 0.5
    assert found.flows == 2  # the third has no order
    assert agreement(one, other, top=2).top == 1.0
    with pytest.raises(ValueError, match="no flow"):
        agreement(one[2:], other[2:])


def test_making_all_that_counts_usual_takes_the_score_away() -> None:
    rows, background = some_rows(3, 1) + 5.0, np.zeros((4, 4))
    shares = np.tile([3.0, 2.0, 1.0], (3, 1))
    assert explained_share(score, rows, background, COLUMNS, shares, top=3) == pytest.approx(1.0)
    assert explained_share(score, rows, background, COLUMNS, shares, top=0) == pytest.approx(0.0)


@dataclass
class Additive:
    """A detector whose parts are its Shapley values, but for a constant."""

    columns: NDArray[np.intp]

    @dataclass
    class Scores:
        score: FloatArray
        parts: FloatArray

    def score(self, rows: FloatArray) -> Scores:
        parts = np.abs(rows[:, self.columns])
        return self.Scores(parts.sum(axis=1), parts)


def test_parts_that_are_shapley_values_agree_in_full() -> None:
    def integrate(rows: FloatArray, background: FloatArray) -> Integrated:
        values = rows[:, COLUMNS]
        return Integrated("backwards", values.copy(), np.full(values.shape, 0.5), values.sum(1) / 8)

    rows = some_rows(6, 1) * 9
    found = compare(Additive(COLUMNS), "acd", rows, np.zeros((5, 4)), integrate, walks=4)
    assert found.features == ("a", "c", "d")
    assert_allclose(found.means["parts"], found.means["Shapley values"])
    same = found.agreement["parts", "Shapley values"]
    assert same.spearman == same.kendall == pytest.approx(1.0)
    assert same.top == same.first == 1.0
    assert found.falls["parts"] == found.falls["Shapley values"]
    assert found.error["Shapley values"] < 1e-9
    # The third way is whatever it says of itself.
    assert set(found.agreement) == {
        ("parts", "Shapley values"), ("parts", "backwards"), ("Shapley values", "backwards"),
    }  # fmt: skip
    assert found.agreement["parts", "backwards"].spearman < 1.0
    height = np.abs(rows[:, COLUMNS]).sum(axis=1)
    gaps = np.abs(rows[:, COLUMNS].sum(axis=1)) / 8 / height
    assert found.gap == pytest.approx((gaps.mean(), gaps.max()))
    assert found.error["backwards"] == pytest.approx((0.5 / height).max())


@pytest.mark.parametrize("family", ["gaussian"])
def test_a_detector_is_explained_by_its_public_face(family: str) -> None:
    detector: Detector = untrained("kdd", family)
    names = [feature.name for feature in detector.features]
    rows, background = make_rows(SCHEMAS["kdd"], 3, 1), make_rows(SCHEMAS["kdd"], 20, 2)
    found = compare(
        detector, names, rows, background, functools.partial(integrated, detector, lines=4), walks=8
    )
    ways = {"parts", "Shapley values", "integrated gradients"}
    assert {way: len(mean) for way, mean in found.means.items()} == dict.fromkeys(ways, len(names))
    assert set(found.falls) == {*ways, "random"}
    assert all(-1.0 <= each.spearman <= 1.0 for each in found.agreement.values())
    assert 0.0 <= found.gap[0] <= found.gap[1] < 0.1
