"""Baselines: they learn, from the rows that they may see, and the folds do not leak."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.metrics import roc_auc_score

from features.encoder import Encoder
from features.schema import FloatArray
from tests.helpers import TOY, toy_rows
from training import baselines
from training.baselines import BASELINES, Baseline, OneClassError, OneHot, cross_validate, repeats

every = pytest.mark.parametrize("baseline", BASELINES.values(), ids=list(BASELINES))


def labelled(count: int = 400, attacks: int = 60, seed: int = 0) -> tuple[FloatArray, Any]:
    """Benign rows of two sorts, and attacks that mix what belongs to either: big and long."""
    rows = toy_rows(count, seed)
    wrong = toy_rows(attacks * 2, seed + 1)[:attacks]
    wrong[:, 1] = 50.0
    return np.concatenate([rows, wrong]), np.repeat([False, True], [count, attacks])


@every
def test_each_tells_attacks_from_benign_rows_that_it_did_not_see(baseline: Baseline) -> None:
    rows, attack = labelled()
    score = baseline.fit(TOY, TOY.names, rows, attack, seed=0)
    test, truth = labelled(200, 40, seed=10)
    scores = score(test)
    assert scores.shape == (240,)
    assert scores.dtype == np.float64
    assert roc_auc_score(truth, scores) > 0.95
    if baseline.cut is not None:
        assert ((scores >= baseline.cut) == truth).mean() > 0.95


@every
def test_the_same_seed_gives_the_same_scores(baseline: Baseline) -> None:
    rows, attack = labelled(200, 40)
    first, second = (baseline.fit(TOY, TOY.names, rows, attack, seed=3)(rows) for _ in range(2))
    assert_array_equal(first, second)


@every
def test_one_class_ones_see_benign_rows_only(baseline: Baseline) -> None:
    rows, attack = labelled(200, 40)
    if baseline.supervised:
        for labels in (None, np.zeros(240, bool), np.ones(240, bool)):
            with pytest.raises(OneClassError, match=f"{baseline.name} learns from"):
                baseline.fit(TOY, TOY.names, rows, labels, seed=0)
        return
    given = baseline.fit(TOY, TOY.names, rows, attack, seed=0)(rows)
    assert_array_equal(given, baseline.fit(TOY, TOY.names, rows[:200], None, seed=0)(rows))
    # Without labels all rows count as benign: what contaminated training does.
    assert not np.array_equal(given, baseline.fit(TOY, TOY.names, rows, None, seed=0)(rows))


def test_only_the_named_features_count() -> None:
    rows, attack = labelled(200, 40)
    other = rows.copy()
    other[:, 0] *= 100.0
    score = BASELINES["knn-distance"].fit(TOY, ("long", "share", "proto"), rows, attack, seed=0)
    assert_array_equal(score(rows), score(other))


def test_a_quadratic_one_learns_from_a_seeded_sample() -> None:
    seen: list[int] = []

    def learn(inputs: Any, labels: Any, seed: int) -> Any:
        seen.append(len(inputs))
        assert labels.sum() > 0
        return lambda inputs: inputs[:, 0]

    rows, attack = labelled(200, 40)
    Baseline("some", "some", True, learn, most_rows=50).fit(TOY, TOY.names, rows, attack, seed=0)
    Baseline("all", "all", True, learn, most_rows=240).fit(TOY, TOY.names, rows, attack, seed=0)
    assert seen == [50, 240]
    assert BASELINES["svm"].most_rows == BASELINES["one-class-svm"].most_rows == 10_000


def test_inputs_are_amounts_and_a_column_for_each_term() -> None:
    rows = toy_rows(40)
    inputs = OneHot(Encoder.fit(TOY, TOY.names, rows))
    assert inputs.features == ("big", "long", "share", "proto", "proto", "proto")
    made = inputs(np.concatenate([rows, [[1.0, 1.0, 0.5, 3.0], [1.0, 1.0, 0.5, -1.0]]]))
    assert made.shape == (42, 6)
    assert_array_equal(made[:, 3:].sum(axis=1), 1.0)
    assert_array_equal(made[[0, 20, 40, 41], 3:], [[0, 1, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]])


def test_repeats_are_rows_equal_in_every_column() -> None:
    rows = np.array([[1.0, 2.0], [3.0, 2.0], [1.0, 2.0], [1.0, 2.5]])
    numbers = repeats(rows)
    assert numbers[0] == numbers[2]
    assert len(set(numbers.tolist())) == 3


def test_a_repeated_row_is_never_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    distinct, attack = labelled(60, 30)
    rows, attack = np.tile(distinct, (3, 1)), np.tile(attack, 3)
    trained: list[FloatArray] = []
    real = Baseline.fit

    def fit(self: Baseline, schema: Any, names: Any, rows: FloatArray, *more: Any) -> Any:
        score = real(self, schema, names, rows, *more)
        trained.append(rows)
        return lambda test: _apart(score, trained[-1], test)

    overlap: list[int] = []

    def _apart(score: Any, train: FloatArray, test: FloatArray) -> FloatArray:
        overlap.append(len({tuple(row) for row in train} & {tuple(row) for row in test}))
        return score(test)  # type: ignore[no-any-return]

    monkeypatch.setattr(baselines.Baseline, "fit", fit)
    knn = BASELINES["knn"]
    figures = list(cross_validate(knn, TOY, TOY.names, rows, attack, seed=0, folds=3))
    assert overlap == [0, 0, 0]
    assert all(0.9 < fold.accuracy <= 1.0 and 0.9 < fold.auroc <= 1.0 for fold in figures)
    overlap.clear()
    list(cross_validate(knn, TOY, TOY.names, rows, attack, seed=0, folds=3, grouped=False))
    assert min(overlap) > 0


def test_the_ceiling_is_for_supervised_ones() -> None:
    rows, attack = labelled(60, 30)
    with pytest.raises(OneClassError, match="pca does not learn from labels"):
        next(cross_validate(BASELINES["pca"], TOY, TOY.names, rows, attack, seed=0))
