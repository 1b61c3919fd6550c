"""Training: reproducible, on disjoint rows, stopped at its best, and able to tell odd rows."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from features.encoder import Encoded, Encoder
from features.registry import SCHEMAS
from features.schema import Feature, FloatArray, Kind, MeterSettings, Schema, Windows
from models.detector import Detector
from models.heads import FAMILIES
from models.vae import VaeConfig, negative_elbo
from tests.helpers import FITTED, fitted, make_rows
from training.fit import MIN_ROWS, RECIPES, FitConfig, TooFewRows, fit

TINY = VaeConfig(heads="gaussian", hidden=(16, 8), latent=3)
NAMES = SCHEMAS["kdd"].select(live=True, testbed=False)


def tiny(seed: int = 0, rows: int = 600, **more: Any) -> Detector:
    """A fit on KDD-like rows."""
    config = more.pop("config", FitConfig(epochs=2, batch=64))
    return fit(
        SCHEMAS["kdd"], NAMES, more.pop("benign", make_rows(SCHEMAS["kdd"], rows)),
        name="tiny", seed=seed, clock_us=1000, config=config, network=TINY, **more,
    )  # fmt: skip


def weights(detector: Detector) -> list[NDArray[Any]]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(detector.state)]


# Reproducible


@pytest.mark.parametrize("family", FAMILIES)
def test_one_seed_gives_one_detector(family: str) -> None:
    one, two = fitted(family), fitted.__wrapped__(family)
    assert one is not two
    for left, right in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(one.calibration.scores, two.calibration.scores)
    assert one.usual_kl == two.usual_kl
    assert one.provenance == two.provenance
    rows = make_rows(SCHEMAS[FITTED[family]], 20, seed=4)
    np.testing.assert_array_equal(one.score(rows).score, two.score(rows).score)


def test_another_seed_gives_another_detector() -> None:
    one, two = fitted("gaussian"), tiny(seed=4)
    pairs = zip(weights(one), weights(two), strict=True)
    assert any((left != right).any() for left, right in pairs)
    assert set(one.calibration.scores) != set(two.calibration.scores)


# Rows


def test_no_row_serves_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(SCHEMAS["kdd"], 600)
    marks = np.arange(600.0)
    column = SCHEMAS["kdd"].names.index("src_bytes")
    rows[:, column] = marks
    fitted_on: list[FloatArray] = []
    encoded: list[FloatArray] = []
    scored: list[FloatArray] = []

    class Watched(Encoder):
        @classmethod
        def fit(cls, schema: Any, names: Any, rows: FloatArray) -> Encoder:
            fitted_on.append(rows[:, column])
            return super().fit(schema, names, rows)

        def encode(self, rows: Any, xp: Any = np) -> Encoded:
            if xp is np:  # not what the scorer traces
                encoded.append(rows[:, column])
            return super().encode(rows, xp)

    score = Detector.score

    def watched(self: Detector, rows: FloatArray) -> Any:
        scored.append(rows[:, column])
        return score(self, rows)

    monkeypatch.setattr("training.fit.Encoder", Watched)
    monkeypatch.setattr(Detector, "score", watched)
    detector = tiny(benign=rows)
    (train,), (calibration,) = fitted_on, scored
    held_out = {tuple(each) for each in encoded} - {tuple(train)}
    (validation,) = held_out
    together = np.concatenate([train, validation, calibration])
    assert sorted(together) == marks.tolist()
    # A tenth to stop by, a fifth to calibrate by, the rest to train on.
    assert detector.provenance["rows"] == {"train": 420, "validation": 60, "calibration": 120}
    assert (len(train), len(validation), len(calibration)) == (420, 60, 120)
    assert detector.calibration.count == 120
    # Shuffled: a file's order (by time, by kind) must not decide what is held out.
    assert {int(mark) // 100 for mark in validation} == set(range(6))


def test_no_more_calibration_rows_are_kept_than_wanted() -> None:
    detector = tiny(config=FitConfig(epochs=2, batch=64, most_calibration=33))
    assert detector.calibration.count == 33


def test_too_few_rows_are_refused() -> None:
    assert MIN_ROWS == 500
    with pytest.raises(TooFewRows, match=r"^499 benign rows are too few: 500 at least$"):
        tiny(rows=499)
    with pytest.raises(TooFewRows, match=r"^0 benign rows"):
        tiny(rows=0)


def test_a_feature_that_is_not_always_there_is_named() -> None:
    rows = make_rows(SCHEMAS["kdd"], 600)
    rows[:, SCHEMAS["kdd"].names.index("dst_bytes")] = np.nan
    with pytest.raises(ValueError, match="dst_bytes has values that are not finite"):
        tiny(benign=rows)


def test_the_recipe_is_noted() -> None:
    detector = fitted("gaussian")
    assert detector.name == "tiny-gaussian"
    assert detector.clock_us == 1000
    noted = detector.provenance["fit"]
    assert (noted["seed"], noted["epochs"], noted["batch"]) == (3, 2, 64)
    assert noted["features"] == list(NAMES)
    assert detector.usual_kl == 0.0  # a Gaussian's score counts all of the KL
    assert fitted("histogram").usual_kl > 0.0


def test_each_shipped_recipe_is_a_family_that_there_is() -> None:
    assert {recipe.heads for recipe in RECIPES.values()} <= set(FAMILIES)


# Telling


def _nothing(view: Any) -> NDArray[np.generic]:
    raise NotImplementedError


def _no_windows() -> Windows:
    raise NotImplementedError


TERMS = ("tcp", "udp", "sctp", "never")
TOY = Schema(
    name="toy",
    title="two sorts of flows",
    features=tuple(
        Feature(name, kind, "1", name, "this test", _nothing, vocabulary=terms)
        for name, kind, terms in (
            ("big", Kind.COUNT, ()),
            ("long", Kind.CONTINUOUS, ()),
            ("share", Kind.RATE, ()),
            ("proto", Kind.CATEGORICAL, TERMS),
        )
    ),
    meter=MeterSettings(60, 60),
    remeasure=lambda rows, clock_us, rng: rows,
    window_keys=lambda flows: {},
    windows=_no_windows,
)


def cluster(rng: np.random.Generator, count: int, sort: int) -> FloatArray:
    """Flows that are big and short over TCP (0), or small and long over UDP (1)."""
    big = rng.lognormal(np.log(2000.0 if sort == 0 else 20.0), 0.2, count).round()
    long = rng.lognormal(np.log(0.5 if sort == 0 else 50.0), 0.2, count)
    share = np.clip(rng.normal(0.2 if sort == 0 else 0.8, 0.05, count), 0, 1)
    return np.column_stack([big, long, share, np.full(count, float(sort))])


def benign(rng: np.random.Generator, count: int) -> FloatArray:
    return np.concatenate([cluster(rng, count, 0), cluster(rng, count, 1)])


TOY_CONFIG = FitConfig(epochs=40, batch=64, learning_rate=1e-2, patience=5)
TOY_ROWS = 2000


@functools.cache
def watched_toy(family: str) -> tuple[Detector, Encoded, list[tuple[int, float, float]]]:
    """A detector of the two sorts; its validation rows, and what it told of its progress."""
    encoded: list[Encoded] = []
    encode = Encoder.encode

    def watched(self: Encoder, rows: Any, xp: Any = np) -> Encoded:
        result = encode(self, rows, xp)
        if xp is np:  # not what the scorer traces
            encoded.append(result)
        return result

    told: list[tuple[int, float, float]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "encode", watched)
        detector = fit(
            TOY, TOY.names, benign(np.random.default_rng(0), TOY_ROWS // 2), name="toy", seed=0,
            clock_us=1, config=TOY_CONFIG, progress=lambda *news: told.append(news),
            network=VaeConfig(heads=family, hidden=(32, 16), latent=4),
        )  # fmt: skip
    (validation, *_) = (each for each in encoded if len(each.amounts) == TOY_ROWS // 10)
    return detector, validation, told


def toy(family: str) -> Detector:
    return watched_toy(family)[0]


def anomalies(kind: str) -> FloatArray:
    """Rows of neither sort."""
    rng = np.random.default_rng(2)
    rows = benign(rng, 100)
    if kind == "mixed":  # each value is usual, but not together: size of one, time of the other
        rows[:, 1] = rows[::-1, 1]
    elif kind == "far":
        rows[:, :2] *= 1000.0
    else:  # between the two
        rows[:, 0], rows[:, 1] = 200.0, 5.0
    return rows


@pytest.mark.parametrize("family", FAMILIES)
def test_training_stops_and_the_best_epoch_is_kept(family: str) -> None:
    detector, validation, told = watched_toy(family)
    history = [entry["validation"] for entry in detector.provenance["history"]]
    best = int(np.argmin(history))
    assert len(history) < TOY_CONFIG.epochs
    assert len(history) - 1 - best == TOY_CONFIG.patience
    assert [number for number, _, _ in told] == list(range(1, len(history) + 1))
    np.testing.assert_allclose([loss for _, _, loss in told], history, atol=1e-5)
    # The held-out loss of what was returned is the lowest of them.
    model = nnx.merge(detector._graph, detector.state)
    kept = float(negative_elbo(model, detector.heads, validation, TOY_CONFIG.beta))
    assert kept == pytest.approx(history[best], abs=2e-4)


@pytest.mark.parametrize("kind", ["mixed", "far", "between"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_neither_sort_are_told_apart(family: str, kind: str) -> None:
    detector, rng = toy(family), np.random.default_rng(1)
    usual, odd = detector.score(benign(rng, 300)).score, detector.score(anomalies(kind)).score
    labels = np.repeat([0, 1], [len(usual), len(odd)])
    assert roc_auc_score(labels, np.concatenate([usual, odd])) > 0.95


@pytest.mark.parametrize("family", FAMILIES)
def test_usual_rows_are_alerted_as_often_as_wanted(family: str) -> None:
    # 400 calibration rows, 4000 new ones: 5 % within four standard deviations of both.
    p = toy(family).score(benign(np.random.default_rng(3), 2000)).p_value
    assert abs((p <= 0.05).mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 * (1 / 400 + 1 / 4000))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("code", [-1.0, TERMS.index("never"), TERMS.index("sctp")])
def test_a_term_that_was_never_seen_raises_the_score(family: str, code: float) -> None:
    detector, rows = toy(family), benign(np.random.default_rng(4), 50)
    changed = rows.copy()
    changed[:, 3] = code
    before, after = detector.score(rows), detector.score(changed)
    assert (after.score > before.score).all()
    assert (after.parts[:, 3] > before.parts[:, 3]).all()
    # What was not seen is all the same, whichever it is.
    changed[:, 3] = -1.0
    np.testing.assert_array_equal(detector.score(changed).score, after.score)
