"""Scores: what they are made of, and what they may depend on."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from features.encoder import CategoryColumn, Encoder, NumericColumn
from features.registry import SCHEMAS
from features.schema import FloatArray, Kind
from models.bundle import load
from models.calibration import Calibration
from models.detector import BATCH, Detector, Scores
from models.heads import GaussianHeads, HistogramHeads
from models.kinds import KINDS
from models.kinds.vae import VaeConfig
from tests.helpers import MODELS, PAIRS, born, make_rows, plain_set, untrained, windows

POOL = BATCH + 300


@functools.cache
def detector_of(kind: str, schema: str) -> Detector:
    return load(kind) if kind in MODELS else untrained(schema, kind)


@functools.cache
def pool(schema: str) -> FloatArray:
    """Rows of more than one batch, some of them odd; what no sensor measures is missing."""
    made = SCHEMAS[schema]
    rows = make_rows(made, POOL, seed=9)
    rng = np.random.default_rng(9)
    rows[rng.random(rows.shape) < 0.02] = 0.0
    live = np.array([feature.live for feature in made.features])
    amounts = np.array([feature.kind is not Kind.CATEGORICAL for feature in made.features])
    rows[:, live & amounts] *= np.where(rng.random((POOL, 1)) < 0.05, 1e6, 1.0)
    rows[:, ~live] = np.nan
    return rows


@functools.cache
def pool_scores(kind: str, schema: str) -> Scores:
    return detector_of(kind, schema).score(seen(kind, schema))


def seen(kind: str, schema: str) -> FloatArray:
    """The pool as the detector wants it: rows, or windows of consecutive ones."""
    window = detector_of(kind, schema).window
    return pool(schema) if window == 1 else windows(pool(schema), window)


all_detectors = pytest.mark.parametrize(("kind", "schema"), [*PAIRS, *MODELS.items()])


@all_detectors
def test_score_is_the_rest_and_the_parts(kind: str, schema: str) -> None:
    detector, scores = detector_of(kind, schema), pool_scores(kind, schema)
    assert scores.score.shape == scores.rest.shape == scores.p_value.shape == (POOL,)
    assert scores.parts.shape == (POOL, len(detector.features))
    for column in (scores.score, scores.rest, scores.parts, scores.p_value):
        assert column.dtype == np.float64
        assert np.isfinite(column).all()
    if not detector.kind.supervised:  # there, what speaks for a benign flow is negative
        assert scores.rest.min() >= 0.0
        assert scores.parts.min() >= 0.0
    sizes = np.abs(scores.rest) + np.abs(scores.parts).sum(axis=1)
    off = np.abs(scores.score - scores.rest - scores.parts.sum(axis=1))
    assert (off <= 1e-5 * sizes + 1e-6).all()
    np.testing.assert_array_equal(scores.p_value, detector.calibration.p_value(scores.score))


@all_detectors
@settings(max_examples=10, deadline=None, database=None)
@given(data=st.data())
def test_a_score_depends_on_its_row_alone(kind: str, schema: str, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**32))
    count = data.draw(st.sampled_from([1, 2, 7, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 3]))
    at = np.random.default_rng(seed).integers(0, POOL, count)  # any order, some twice
    got, expected = (
        detector_of(kind, schema).score(seen(kind, schema)[at]),
        pool_scores(kind, schema),
    )
    np.testing.assert_array_equal(got.score, expected.score[at])
    np.testing.assert_array_equal(got.rest, expected.rest[at])
    np.testing.assert_array_equal(got.parts, expected.parts[at])
    np.testing.assert_array_equal(got.p_value, expected.p_value[at])


@all_detectors
def test_what_is_expected_depends_on_the_row_alone(kind: str, schema: str) -> None:
    detector, rows = detector_of(kind, schema), seen(kind, schema)[:60]
    whole = detector.expected(rows)
    at = np.random.default_rng(1).permutation(len(rows))
    np.testing.assert_array_equal(detector.expected(rows[at]), whole[at])
    np.testing.assert_array_equal(detector.expected(rows[5:6]), whole[5:6])


@all_detectors
def test_no_rows_no_scores(kind: str, schema: str) -> None:
    detector = detector_of(kind, schema)
    none = seen(kind, schema)[:0]
    scores = detector.score(none)
    assert scores.score.shape == scores.rest.shape == scores.p_value.shape == (0,)
    assert scores.parts.shape == (0, len(detector.features))
    assert detector.expected(none).shape == (0, len(detector.features))


@all_detectors
def test_a_used_feature_that_is_missing_is_named(kind: str, schema: str) -> None:
    detector = detector_of(kind, schema)
    for number, feature in enumerate(detector.features):
        for bad in (np.nan, np.inf, -np.inf):
            rows = pool(schema)[:3].copy()
            rows[2, detector.columns[number]] = bad
            with pytest.raises(ValueError, match=f"^feature {feature.name} is not finite"):
                detector.score(rows)
            with pytest.raises(ValueError, match=f"^feature {feature.name} is not finite"):
                detector.expected(rows)


@all_detectors
def test_a_feature_that_is_not_used_does_not_matter(kind: str, schema: str) -> None:
    detector, rows = detector_of(kind, schema), seen(kind, schema)[:20].copy()
    unused = np.setdiff1d(np.arange(rows.shape[-1]), detector.columns)
    # Of these all that they have is used.
    assert len(unused) or schema in ("flow", "kdd", "zeek-conn")
    for value in (np.nan, 0.0, -7.0):
        rows[..., unused] = value
        np.testing.assert_array_equal(
            detector.score(rows).score, pool_scores(kind, schema).score[:20]
        )


def one_amount_is(detector: Detector, value: float) -> FloatArray:
    """A row for each amount that the detector uses, in which that one is `value`."""
    amounts = len(detector.encoder.numeric)
    rows = np.repeat(pool(detector.schema.name)[:1], amounts, axis=0)
    rows[np.arange(amounts), detector.columns[:amounts]] = value
    return rows


@all_detectors
def test_no_amount_is_too_large_to_score(kind: str, schema: str) -> None:
    detector = detector_of(kind, schema)
    for value in (1e38, -1e38, 1e20, -1.0):
        rows = one_amount_is(detector, value)
        scores = detector.score(rows)
        assert np.isfinite(scores.score).all()
        if hasattr(detector.config, "heads"):
            own = np.diagonal(scores.parts)
            assert own.min() >= 0.0
            # Inputs that count add the square of half of six standard deviations.
            assert own.max() <= (20.0 if detector.kind.name == "guarded-vae" else 11.0)
        assert np.isfinite(detector.expected(rows)).all()


@pytest.mark.parametrize(("kind", "schema"), MODELS.items())
def test_an_amount_beyond_float32_is_scored_or_refused(kind: str, schema: str) -> None:
    detector = detector_of(kind, schema)
    for value in (1e39, 1e300, -1e300):
        try:
            scores = detector.score(one_amount_is(detector, value))
        except ValueError as error:
            assert "feature" in str(error)
        else:
            assert np.isfinite(scores.score).all()


@all_detectors
def test_rows_of_another_width_are_refused(kind: str, schema: str) -> None:
    detector, rows = detector_of(kind, schema), pool(schema)[:4]
    width = len(detector.schema.features)
    for bad in (rows[:, 1:], np.column_stack([rows, rows[:, 0]]), rows[0], rows[:0, 1:]):
        with pytest.raises(ValueError, match=f"takes rows of {width} features") as caught:
            detector.score(bad)
        assert detector.name in str(caught.value)
        with pytest.raises(ValueError, match=f"takes rows of {width} features"):
            detector.expected(bad)


# By hand


def by_hand(outputs: dict[str, float | tuple[float, float]], kl_free: float = 0.0) -> Detector:
    """A Gaussian detector that says the same of every row: its last layer is a constant.

    Four features of KDD: an amount (count), a rate, a flag and a category; `outputs` are what
    the decoder says of them.
    """
    schema = SCHEMAS["kdd"]
    encoder = Encoder(
        schema,
        [
            NumericColumn("src_bytes", Kind.COUNT, 3.0, 2.0),
            NumericColumn("land", Kind.BINARY, 0.0, 1.0),
            NumericColumn("serror_rate", Kind.RATE, 0.25, 0.5),
        ],
        [CategoryColumn("protocol_type", ("udp", "icmp"))],
    )
    config = VaeConfig(heads="gaussian", hidden=(4, 4), latent=2)
    kind, heads = KINDS["vae"], GaussianHeads(encoder)
    network = born(kind, config, encoder, {}, seed=1)
    bias = [outputs.get(name, 0.0) for name in ("bytes", "rate", "bytes_raw", "rate_raw", "land")]
    bias += [outputs.get(name, 0.0) for name in ("unseen", "udp", "icmp")]
    network.to_heads.kernel = nnx.Param(np.zeros((4, heads.width), np.float32))
    network.to_heads.bias = nnx.Param(np.array(bias, np.float32))
    return Detector(
        name="by-hand",
        kind=kind,
        config=config,
        encoder=encoder,
        fitted={"usual_kl": np.array(kl_free, np.float32)},
        network=network,
        calibration=Calibration(np.arange(9.0)),
        clock_us=1000,
        provenance={},
    )


def kdd_row(**values: float) -> FloatArray:
    schema = SCHEMAS["kdd"]
    row = np.full((1, len(schema.features)), np.nan)
    given = {"src_bytes": 0.0, "land": 0.0, "serror_rate": 0.0, "protocol_type": 1.0} | values
    row[:, schema.index(list(given))] = list(given.values())
    return row


def test_features_are_in_the_order_of_the_parts() -> None:
    detector = by_hand({})
    names = ["src_bytes", "land", "serror_rate", "protocol_type"]
    assert [feature.name for feature in detector.features] == names
    assert [SCHEMAS["kdd"].names[at] for at in detector.columns] == names


def test_parts_by_hand() -> None:
    # The raw deviation is so low that the deviation is the least there is, 0.1.
    detector = by_hand(
        {"bytes": 1.0, "bytes_raw": -99.0, "rate": 0.5, "rate_raw": -99.0, "land": 0.0}
    )
    # log(1 + x) = 5 is one deviation of 2 above the mean of 3; 0.5 is (0.5 - 0.25) / 0.5 above.
    exact = kdd_row(src_bytes=np.expm1(5.0), serror_rate=0.5)
    parts = detector.score(exact).parts[0]
    # A logit of 0 costs log 2 nats; three equal logits cost log 3.
    np.testing.assert_allclose(parts, [0.0, np.log(2), 0.0, np.log(3)], atol=1e-4)
    # A tenth of a standard deviation off is one deviation of the head: half a nat.
    off = kdd_row(src_bytes=np.expm1(5.2), serror_rate=0.6)
    parts = detector.score(off).parts[0]
    np.testing.assert_allclose(parts, [0.5, np.log(2), 2.0, np.log(3)], atol=1e-3)
    # Far off costs no more than 8 nats, counted from the best a head can do.
    far = kdd_row(src_bytes=1e12, serror_rate=1.0)
    parts = detector.score(far).parts[0]
    most = 8.0 - np.log(0.1 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(parts[[0, 2]], [most, most], atol=1e-3)


def test_kl_counts_beyond_what_is_usual() -> None:
    rows = np.concatenate([kdd_row(src_bytes=10.0**power) for power in range(7)])
    plain = by_hand({}).score(rows).rest
    assert plain.min() > 0.0
    usual = float(np.median(plain))
    expected = np.maximum(plain - usual, 0.0)
    np.testing.assert_allclose(by_hand({}, usual).score(rows).rest, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        # The mean in standard deviations, taken back: log(1 + x) = 2 z + 3, rate = z / 2 + 1/4.
        ({"bytes": 1.0, "rate": 0.5, "udp": 9.0}, (np.expm1(5.0), 0.0, 0.5, 1.0)),
        ({"bytes": -1.5, "rate": -0.5, "icmp": 9.0}, (0.0, 0.0, 0.0, 2.0)),
        # No count is negative, no rate is outside of 0..1; a flag is what is likelier.
        ({"bytes": -3.0, "rate": -2.0, "land": 0.1, "udp": 1.0}, (0.0, 1.0, 0.0, 1.0)),
        ({"rate": 3.0, "land": -0.1, "udp": 1.0}, (np.expm1(3.0), 0.0, 1.0, 1.0)),
        # A term that training did not have has no code: -1.
        ({"unseen": 9.0}, (np.expm1(3.0), 0.0, 0.25, -1.0)),
    ],
)
def test_expected_is_in_units_and_codes(
    outputs: dict[str, float], expected: tuple[float, ...]
) -> None:
    got = by_hand(outputs).expected(np.concatenate([kdd_row(), kdd_row(src_bytes=7.0)]))
    assert got.shape == (2, 4)
    np.testing.assert_allclose(got, [expected, expected], rtol=1e-5, atol=1e-6)


@all_detectors
def test_expected_values_are_possible_ones(kind: str, schema: str) -> None:
    detector = detector_of(kind, schema)
    expected = detector.expected(pool(schema)[:200])
    assert np.isfinite(expected).all()
    for at, feature in enumerate(detector.features):
        values = expected[:, at]
        if feature.kind is Kind.CATEGORICAL:
            assert set(values) <= set(range(-1, len(feature.vocabulary)))
        elif feature.kind in (Kind.COUNT, Kind.BINARY):
            assert values.min() >= 0.0, feature.name
        elif feature.kind is Kind.RATE:
            assert values.min() >= 0.0
            assert values.max() <= 1.0


def test_a_histogram_expects_the_value_that_all_training_rows_had() -> None:
    schema = SCHEMAS["unsw-nb15"]
    rows = make_rows(schema, 200)
    constant = {"dur": 0.125, "spkts": 12.0, "sload": 64_000.0}
    rows[:, schema.index(list(constant))] = list(constant.values())
    encoder = Encoder.fit(schema, [*constant, "proto"], rows)
    kind, config = KINDS["vae"], VaeConfig(heads="histogram", hidden=(4, 4), latent=2)
    fitted = kind.fit_before(config, encoder, plain_set(encoder, rows))
    width = HistogramHeads.from_tensors(encoder, fitted).width
    network = born(kind, config, encoder, fitted, seed=1)
    # All codes equally likely: the median bin is the middle one of three, the value's own.
    network.to_heads.kernel = nnx.Param(np.zeros((4, width), np.float32))
    network.to_heads.bias = nnx.Param(np.zeros(width, np.float32))
    detector = Detector(
        name="constant", kind=kind, encoder=encoder, config=config, network=network,
        fitted=fitted | {"usual_kl": np.zeros((), np.float32)},
        calibration=Calibration(np.zeros(1)), clock_us=1, provenance={},
    )  # fmt: skip
    expected = detector.expected(rows[:2])
    np.testing.assert_allclose(expected[:, :3], [list(constant.values())] * 2, rtol=1e-5)
