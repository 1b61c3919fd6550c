"""Figures: those of the textbooks, and thresholds that look at nothing they must not see."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from models.calibration import Calibration
from training.metrics import (
    auroc,
    by_category,
    calibrated_threshold,
    decide,
    figures,
    mean_sd,
    oracle_threshold,
    recall_at,
)

# Few values, so that there are ties.
scores = st.lists(st.integers(-3, 3), min_size=1, max_size=30)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores of both sorts."""
    benign, attacks = draw(scores), draw(scores)
    order = np.array(draw(st.permutations(range(len(benign) + len(attacks)))))
    attack = np.repeat([False, True], [len(benign), len(attacks)])
    return np.array(benign + attacks, float)[order], attack[order]


@given(labelled(), st.floats(-4, 4))
def test_a_decision_is_the_textbooks(rows: tuple[np.ndarray, np.ndarray], threshold: float) -> None:
    score, attack = rows
    made, said = decide(score, attack, threshold), score > threshold
    assert made.accuracy == pytest.approx(accuracy_score(attack, said))
    assert made.precision == pytest.approx(precision_score(attack, said, zero_division=0))
    assert made.recall == pytest.approx(recall_score(attack, said))
    assert made.f1 == pytest.approx(f1_score(attack, said))
    assert made.fpr == pytest.approx(said[~attack].mean())


@given(labelled())
def test_the_area_is_scikit_learns(rows: tuple[np.ndarray, np.ndarray]) -> None:
    score, attack = rows
    assert auroc(score, attack) == pytest.approx(roc_auc_score(attack, score))


@given(labelled(), st.sampled_from(["accuracy", "f1"]))
def test_no_threshold_beats_the_oracles(rows: tuple[np.ndarray, np.ndarray], by: str) -> None:
    score, attack = rows
    best = getattr(decide(score, attack, oracle_threshold(score, attack, by)), by)  # type: ignore[arg-type]
    for threshold in np.arange(-4, 4):
        assert best >= getattr(decide(score, attack, threshold), by) - 1e-12


@given(labelled(), st.floats(0.0, 1.0))
def test_recall_at_a_rate_is_the_best_that_keeps_to_it(
    rows: tuple[np.ndarray, np.ndarray], fpr: float
) -> None:
    score, attack = rows
    made = [decide(score, attack, threshold) for threshold in np.arange(-4, 4)]
    # Counted in rows: a share may differ from a rate in the last bit.
    benign = (~attack).sum()
    best = max(each.recall for each in made if round(each.fpr * benign) <= fpr * benign)
    assert recall_at(score, attack, fpr) == pytest.approx(best)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=300), st.integers(0, 20))
def test_the_threshold_is_the_sensors(held_out: list[int], score: int) -> None:
    held, fpr = np.array(held_out, float), 0.05
    alerted = score > calibrated_threshold(held, fpr)
    p_value = Calibration(held).p_value(np.array([score]))[0]
    assert alerted == (p_value <= fpr + 1e-9)


def test_too_few_held_out_rows_alert_nothing_and_are_not_reported() -> None:
    assert calibrated_threshold(np.zeros(50), 0.01) == math.inf
    assert calibrated_threshold(np.arange(99.0), 0.01) == 98.0
    made = figures(np.arange(4.0), np.array([0, 0, 1, 1], bool), {"held_out": math.inf})
    assert set(made["thresholds"]) == {"oracle_accuracy", "oracle_f1"}
    assert (made["auroc"], made["average_precision"], made["recall_at_0.01"]) == (1.0, 1.0, 1.0)
    assert made["rows"] == {"benign": 2, "attacks": 2}


def test_categories_by_hand() -> None:
    score = np.array([0.0, 1.0, 2.0, 3.0, 0.5, 9.0])
    category = np.array(["normal", "normal", "a", "a", "b", "a"])
    made = by_category(score, category != "normal", category, threshold=2.5)
    assert made["a"] == {"rows": 3, "recall": pytest.approx(2 / 3), "auroc": 1.0}
    assert made["b"] == {"rows": 1, "recall": 0.0, "auroc": 0.5}


def test_mean_and_sample_deviation() -> None:
    mean, deviation = mean_sd([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5
    # Squares of ±1.5 and ±0.5 sum to 5; three degrees of freedom.
    assert deviation == pytest.approx(math.sqrt(5 / 3))
    assert mean_sd([0.25]) == (0.25, 0.0)
