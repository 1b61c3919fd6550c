"""Training: reproducible, on disjoint rows, stopped at its best, and able to tell odd rows."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from features.encoder import Encoded, Encoder, EncoderFit
from features.schema import FloatArray
from models.detector import Detector
from models.heads import FAMILIES
from models.kinds import KINDS
from tests.helpers import (
    TERMS,
    TOY,
    TOY_COUNT,
    TOY_FIT,
    VARIANTS,
    fit_toy,
    toy,
    toy_attacks,
    toy_rows,
)
from training.datasets import DATASETS
from training.fit import MIN_ROWS, TooFewRows
from training.loop import EpochNews, Observer
from training.recipes import RECIPES
from training.rows import TableRows

every_family = pytest.mark.parametrize("family", FAMILIES)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def weights(detector: Detector) -> list[NDArray[Any]]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(detector.state)]


# Reproducible


@every_variant
def test_one_seed_gives_one_detector(variant: str) -> None:
    one, two = toy(variant), fit_toy(variant)
    assert one is not two
    for left, right in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(one.calibration.scores, two.calibration.scores)
    for key, values in one.fitted.items():
        np.testing.assert_array_equal(values, two.fitted[key])
    assert one.provenance == two.provenance
    rows = toy_rows(20, seed=4)
    np.testing.assert_array_equal(one.score(rows).score, two.score(rows).score)


def test_another_seed_gives_another_detector() -> None:
    one, two = toy("gaussian"), fit_toy("gaussian", seed=4)
    pairs = zip(weights(one), weights(two), strict=True)
    assert any((left != right).any() for left, right in pairs)
    assert set(one.calibration.scores) != set(two.calibration.scores)


# Rows


def test_no_row_serves_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = toy_rows()
    marks = np.arange(float(TOY_COUNT))
    rows[:, 0] = marks
    encoded: list[FloatArray] = []
    fitted_on: list[FloatArray] = []
    scored: list[FloatArray] = []
    encode, score, add = Encoder.encode, Detector.score, EncoderFit.add

    def watched_encode(self: Encoder, rows: Any, xp: Any = np) -> Encoded:
        if xp is np:  # not what the scorer traces
            encoded.append(rows[:, 0])
        return encode(self, rows, xp)

    def watched_score(self: Detector, rows: FloatArray) -> Any:
        scored.append(rows[:, -1, 0])
        return score(self, rows)

    def watched_add(self: EncoderFit, rows: FloatArray) -> None:
        fitted_on.append(rows[:, 0])
        add(self, rows)

    monkeypatch.setattr(Encoder, "encode", watched_encode)
    monkeypatch.setattr(EncoderFit, "add", watched_add)
    monkeypatch.setattr(Detector, "score", watched_score)
    detector = fit_toy("gaussian", TableRows(rows))
    (train,), (calibration,) = fitted_on, scored
    held_out = {tuple(each) for each in encoded} - {tuple(train)}
    (validation,) = held_out
    together = np.concatenate([train, validation, calibration])
    assert sorted(together) == marks.tolist()
    # A tenth to stop by, a fifth to calibrate by, the rest to train on.
    assert detector.provenance["rows"] == {"train": 1400, "validation": 200, "calibration": 400}
    assert (len(train), len(validation), len(calibration)) == (1400, 200, 400)
    assert detector.calibration.count == 400
    # Shuffled: a file's order (by time, by kind) must not decide what is held out.
    assert {int(mark) // 200 for mark in validation} == set(range(10))


def test_no_more_calibration_rows_are_kept_than_wanted() -> None:
    detector = fit_toy("gaussian", config=replace(TOY_FIT, most_calibration=33))
    assert detector.calibration.count == 33


def test_too_few_rows_are_refused() -> None:
    assert MIN_ROWS == 500
    with pytest.raises(TooFewRows, match=r"^499 benign rows are too few: 500 at least$"):
        fit_toy("gaussian", toy_rows()[:499])
    with pytest.raises(TooFewRows, match=r"^0 benign rows"):
        fit_toy("gaussian", toy_rows(0))


def test_a_feature_that_is_not_always_there_is_named() -> None:
    rows = toy_rows()
    rows[7, 1] = np.nan
    with pytest.raises(ValueError, match="feature long has values that are not finite"):
        fit_toy("gaussian", rows)


def test_the_recipe_is_noted() -> None:
    detector = toy("gaussian")
    assert detector.name == "toy-gaussian"
    assert detector.clock_us == 1
    noted = detector.provenance["fit"]
    assert (noted["seed"], noted["epochs"], noted["batch"]) == (0, 40, 64)
    assert noted["features"] == list(TOY.names)
    assert detector.fitted["usual_kl"] == 0.0  # a Gaussian's score counts all of the KL
    assert toy("histogram").fitted["usual_kl"] > 0.0


def test_each_recipe_is_of_a_kind_and_a_data_set_that_there_are() -> None:
    for (dataset, kind), sizes in RECIPES.items():
        assert dataset in (*DATASETS, "site")
        assert type(sizes) is type(KINDS[kind].defaults)
        assert sizes.heads in FAMILIES


# Stopping


class Heard(Observer):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.news: list[EpochNews] = []
        self.epochs = 0.0

    def advance(self, epochs: float) -> None:
        self.epochs += epochs

    def epoch(self, news: EpochNews) -> None:
        self.news.append(news)


@every_variant
def test_training_stops_and_the_best_epoch_is_kept(variant: str) -> None:
    heard = Heard()
    detector = fit_toy(variant, observers=[heard])
    history = [entry["validation"] for entry in detector.provenance["history"]]
    best = int(np.argmin(history))
    assert best >= 1  # it learns
    assert len(history) - 1 - best == TOY_FIT.patience or len(history) == TOY_FIT.epochs
    assert [news.number for news in heard.news] == list(range(1, len(history) + 1))
    assert heard.epochs == len(history)
    told = [news.validation_loss for news in heard.news]
    np.testing.assert_allclose(told, history, atol=1e-5)
    for news in heard.news:
        assert news.losses.mean() == pytest.approx(news.validation_loss)
    # What was returned is the network of the lowest held-out loss.
    _, kept = nnx.split(heard.news[int(np.argmin(told))].network)
    for left, right in zip(jax.tree.leaves(kept), weights(detector), strict=True):
        np.testing.assert_array_equal(np.asarray(left), right)


# Telling


@functools.cache
def anomalies(kind: str) -> FloatArray:
    """Rows of neither sort."""
    rows = toy_rows(200, seed=2)
    if kind == "mixed":  # each value is usual, but not together: size of one, time of the other
        rows[:, 1] = rows[::-1, 1]
    elif kind == "far":
        rows[:, :2] *= 1000.0
    else:  # between the two
        rows[:, 0], rows[:, 1] = 200.0, 5.0
    return rows


@pytest.mark.parametrize("kind", ["mixed", "far", "between"])
@every_family
def test_rows_of_neither_sort_are_told_apart(family: str, kind: str) -> None:
    detector = toy(family)
    usual, odd = (detector.score(rows).score for rows in (toy_rows(600, 1), anomalies(kind)))
    labels = np.repeat([0, 1], [len(usual), len(odd)])
    assert roc_auc_score(labels, np.concatenate([usual, odd])) > 0.95


@every_variant
def test_every_kind_tells_mixed_rows_apart(variant: str) -> None:
    # The time of one sort with the size of the other: what the classifier was shown, too.
    usual, odd = (toy(variant).score(rows).score for rows in (toy_rows(600, 1), toy_attacks()))
    labels = np.repeat([0, 1], [len(usual), len(odd)])
    assert roc_auc_score(labels, np.concatenate([usual, odd])) > 0.95


@every_family
def test_usual_rows_are_alerted_as_often_as_wanted(family: str) -> None:
    # 400 calibration rows, 4000 new ones: 5 % within four standard deviations of both.
    p = toy(family).score(toy_rows(4000, seed=3)).p_value
    assert abs((p <= 0.05).mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 * (1 / 400 + 1 / 4000))


@every_family
@pytest.mark.parametrize("code", [-1.0, TERMS.index("never"), TERMS.index("sctp")])
def test_a_term_that_was_never_seen_raises_the_score(family: str, code: float) -> None:
    detector, rows = toy(family), toy_rows(100, seed=4)
    changed = rows.copy()
    changed[:, 3] = code
    before, after = detector.score(rows), detector.score(changed)
    assert (after.score > before.score).all()
    assert (after.parts[:, 3] > before.parts[:, 3]).all()
    # What was not seen is all the same, whichever it is.
    changed[:, 3] = -1.0
    np.testing.assert_array_equal(detector.score(changed).score, after.score)
