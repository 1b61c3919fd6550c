"""The encoder: the same numbers for training and sensor, and back again."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.encoder import CLIP, MIN_SCALE, CategoryColumn, Encoder, NumericColumn, signed_log
from features.registry import SCHEMAS
from features.schema import Feature, FloatArray, Kind, MeterSettings, Schema
from features.windows import BlockCounts

steady = settings(max_examples=40, deadline=None, database=None, derandomize=True)

SMALL = Schema(
    name="small",
    title="one feature of each kind",
    features=(
        Feature("service", Kind.CATEGORICAL, "name", "m", "d", None, "x", "", ("a", "b", "c", "d")),
        Feature("amount", Kind.CONTINUOUS, "s", "m", "d", None, "x"),
        Feature("unused", Kind.CONTINUOUS, "s", "m", "d", None, "x"),
        Feature("things", Kind.COUNT, "1", "m", "d", None, "x"),
        Feature("share", Kind.RATE, "1", "m", "d", None, "x"),
        Feature("flag", Kind.BINARY, "1", "m", "d", None, "x"),
        Feature("state", Kind.CATEGORICAL, "name", "m", "d", None, "x", "", ("p", "q")),
    ),
    meter=MeterSettings(1, 1),
    remeasure=lambda rows, clock_us, rng: rows,
    window_keys=lambda flows: {},
    windows=lambda: BlockCounts(()),
)
USED = ("amount", "things", "share", "flag", "service", "state")


def small_rows(count: int = 60, seed: int = 0) -> FloatArray:
    """Rows of SMALL with `unused` NaN; of `service`, "c" is rare and "d" never occurs."""
    rng = np.random.default_rng(seed)
    rows = np.empty((count, 7))
    rows[:, 0] = rng.integers(0, 2, count)
    rows[:4, 0] = 2
    rows[:, 1] = rng.lognormal(0, 3, count)
    rows[:, 2] = np.nan
    rows[:, 3] = rng.integers(0, 10_000, count)
    rows[:, 4] = rng.random(count)
    rows[:, 5] = rng.integers(0, 2, count)
    rows[:, 6] = np.where(rng.random(count) < 0.2, -1, 1)
    return rows


def schema_rows(schema: Schema, count: int, seed: int) -> FloatArray:
    """Rows in which every feature has a value of its kind."""
    rng = np.random.default_rng(seed)
    rows = np.empty((count, len(schema.features)))
    for column, feature in enumerate(schema.features):
        match feature.kind:
            case Kind.CATEGORICAL:
                rows[:, column] = rng.integers(-1, len(feature.vocabulary), count)
            case Kind.RATE:
                rows[:, column] = rng.random(count).round(2)
            case Kind.BINARY:
                rows[:, column] = rng.integers(0, 2, count)
            case Kind.COUNT:
                rows[:, column] = np.floor(rng.lognormal(3, 3, count))
            case Kind.CONTINUOUS:
                rows[:, column] = rng.lognormal(0, 5, count)
    return rows


every_schema = pytest.mark.parametrize("schema", list(SCHEMAS.values()), ids=list(SCHEMAS))


# ---------------------------------------------------------------------------------------
# Fitting


def test_columns_keep_the_schemas_order_amounts_before_categories() -> None:
    encoder = Encoder.fit(SMALL, USED[::-1], small_rows())
    assert encoder.names == ("amount", "things", "share", "flag", "service", "state")


def test_amounts_and_counts_are_standardised_on_a_log_scale_rates_as_they_are() -> None:
    rows = small_rows()
    by_name = {column.name: column for column in Encoder.fit(SMALL, USED, rows).numeric}
    logs = np.log1p(rows[:, 1])
    assert by_name["amount"].center == pytest.approx(logs.mean())
    assert by_name["amount"].scale == pytest.approx(logs.std())
    assert by_name["share"].center == pytest.approx(rows[:, 4].mean())
    assert by_name["share"].scale == pytest.approx(rows[:, 4].std())
    assert (by_name["flag"].center, by_name["flag"].scale) == (0.0, 1.0)


def test_what_never_varied_keeps_a_finite_scale() -> None:
    rows = small_rows()
    rows[:, 3] = 7
    encoder = Encoder.fit(SMALL, ["things"], rows)
    assert encoder.numeric[0].scale == MIN_SCALE
    assert encoder.encode(rows).amounts == pytest.approx(0, abs=1e-4)
    rows[0, 3] = 1e9
    assert encoder.encode(rows).amounts[0, 0] == CLIP


def test_rare_terms_are_not_learnt() -> None:
    # Five rows of a term are enough, four are not; a term outside the vocabulary never is one.
    rows = small_rows()
    encoder = Encoder.fit(SMALL, USED, rows)
    assert encoder.categories == (CategoryColumn("service", ("a", "b")), CategoryColumn("state", ("q",)))
    assert [column.size for column in encoder.categories] == [3, 2]
    rows[4, 0] = 2
    assert Encoder.fit(SMALL, USED, rows).categories[0].terms == ("a", "b", "c")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", USED)
def test_rows_without_a_value_are_refused_by_name(name: str, value: float) -> None:
    rows = small_rows()
    rows[3, SMALL.names.index(name)] = value
    with pytest.raises(ValueError, match=f"feature {name} "):
        Encoder.fit(SMALL, USED, rows)


def test_features_that_are_not_used_may_lack_values() -> None:
    rows = small_rows()
    assert np.isnan(rows[:, 2]).all()
    encoded = Encoder.fit(SMALL, USED, rows).encode(rows)
    assert np.isfinite(encoded.amounts).all()
    assert np.isfinite(encoded.scaled).all()


def test_unknown_features_are_refused() -> None:
    with pytest.raises(KeyError):
        Encoder.fit(SMALL, ["no such feature"], small_rows())
    with pytest.raises(KeyError):
        Encoder(SMALL, [NumericColumn("no such feature", Kind.COUNT, 0.0, 1.0)], [])
    with pytest.raises(ValueError, match="tuple"):
        Encoder(SMALL, [], [CategoryColumn("service", ("no such term",))])


# ---------------------------------------------------------------------------------------
# Encoding


def test_encoding_by_hand() -> None:
    encoder = Encoder(
        SMALL,
        [
            NumericColumn("amount", Kind.CONTINUOUS, 1.0, 2.0),
            NumericColumn("share", Kind.RATE, 0.5, 0.25),
            NumericColumn("flag", Kind.BINARY, 0.0, 1.0),
        ],
        [CategoryColumn("service", ("c", "a")), CategoryColumn("state", ("q",))],
    )
    nan = np.nan
    rows = np.array([[0, np.e - 1, nan, nan, 1.0, 1, 1], [3, 0, nan, nan, 0.0, 0, -1]])
    encoded = encoder.encode(rows)
    # log(1 + e - 1) = 1 is the centre; 0 is half a scale below; rates are not logged.
    np.testing.assert_allclose(encoded.amounts, [[0, 2, 1], [-0.5, -2, 0]], atol=1e-6)
    np.testing.assert_allclose(encoded.scaled, [[1, 1, 1], [0, 0, 0]], atol=1e-6)
    # "a" was named second; "d" was not met; -1 is no term at all.
    assert encoded.categories.tolist() == [[2, 1], [0, 0]]
    assert encoded.amounts.dtype == encoded.scaled.dtype == np.float32
    assert encoded.categories.dtype == np.int32


def test_terms_not_met_in_training_are_index_0() -> None:
    rows = small_rows()
    encoder = Encoder.fit(SMALL, USED, rows)
    probe = np.repeat(rows[:1], 5, axis=0)
    probe[:, 0] = [0, 1, 2, 3, -1]
    assert encoder.encode(probe).categories[:, 0].tolist() == [1, 2, 0, 0, 0]


@given(value=st.floats(-1e30, 1e30))
@steady
def test_amounts_stay_within_the_clip(value: float) -> None:
    rows = small_rows()
    encoder = Encoder.fit(SMALL, USED, rows)
    probe = rows[:1].copy()
    probe[0, 1] = value
    assert np.abs(encoder.encode(probe).amounts).max() <= CLIP


def test_the_signed_log_is_odd_and_keeps_order() -> None:
    values = np.array([-1e12, -3.0, -1e-9, 0.0, 1e-9, 3.0, 1e12])
    logs = signed_log(values)
    np.testing.assert_allclose(logs, -logs[::-1])
    assert (np.diff(logs) > 0).all()
    assert logs[5] == pytest.approx(np.log(4))


@every_schema
@given(seed=st.integers(0, 2**32 - 1))
@steady
def test_what_was_encoded_can_be_decoded(schema: Schema, seed: int) -> None:
    rows = schema_rows(schema, 40, seed)
    encoder = Encoder.fit(schema, schema.names, rows)
    encoded = encoder.encode(rows)
    numeric = schema.index([column.name for column in encoder.numeric])
    # float32 of a logarithm up to 40 keeps a few parts in a million.
    np.testing.assert_allclose(encoder.unscale(encoded.scaled), rows[:, numeric], rtol=2e-5)
    within = np.abs(encoded.amounts) < CLIP
    center, scale = np.array([[c.center, c.scale] for c in encoder.numeric]).T
    restored = encoded.amounts * scale + center
    np.testing.assert_allclose(restored[within], encoded.scaled[within], atol=1e-4)
    for at, column in enumerate(encoder.categories):
        feature = schema.features[schema.names.index(column.name)]
        codes = rows[:, schema.names.index(column.name)].astype(int)
        for index, code in zip(encoded.categories[:, at], codes, strict=True):
            term = feature.vocabulary[code] if code >= 0 else None
            assert (column.terms[index - 1] == term) if index else (term not in column.terms)


@every_schema
@given(seed=st.integers(0, 2**32 - 1))
@settings(steady, max_examples=4)
def test_numpy_and_jax_agree(schema: Schema, seed: int) -> None:
    rows = schema_rows(schema, 32, seed)
    encoder = Encoder.fit(schema, schema.names, rows)
    on_host = encoder.encode(rows)
    jitted = jax.jit(lambda values: encoder.encode(values, jnp))
    for on_device in (encoder.encode(rows, jnp), jitted(rows)):
        np.testing.assert_allclose(on_device.amounts, on_host.amounts, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(on_device.scaled, on_host.scaled, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(on_device.categories, on_host.categories)
        assert on_device.amounts.dtype == np.float32
        assert on_device.categories.dtype == np.int32


def test_jax_and_numpy_agree_where_unused_columns_are_nan() -> None:
    rows = small_rows()
    encoder = Encoder.fit(SMALL, USED, rows)
    on_device = encoder.encode(rows, jnp)
    np.testing.assert_allclose(on_device.amounts, encoder.encode(rows).amounts, atol=1e-5)
    np.testing.assert_array_equal(on_device.categories, encoder.encode(rows).categories)


@pytest.mark.parametrize("names", [("service",), ("amount",), ("amount", "service")])
def test_there_may_be_no_amounts_or_no_categories(names: tuple[str, ...]) -> None:
    rows = small_rows()
    encoder = Encoder.fit(SMALL, names, rows)
    for xp in (np, jnp):
        encoded = encoder.encode(rows, xp)
        assert encoded.amounts.shape == (len(rows), "amount" in names)
        assert encoded.categories.shape == (len(rows), "service" in names)


@every_schema
def test_no_rows_encode_to_no_rows(schema: Schema) -> None:
    rows = schema_rows(schema, 20, 1)
    encoder = Encoder.fit(schema, schema.names, rows)
    encoded = encoder.encode(rows[:0])
    assert encoded.amounts.shape == (0, len(encoder.numeric))
    assert encoded.categories.shape == (0, len(encoder.categories))


# ---------------------------------------------------------------------------------------
# Travelling


@every_schema
@given(seed=st.integers(0, 2**32 - 1))
@settings(steady, max_examples=10)
def test_json_keeps_everything(schema: Schema, seed: int) -> None:
    rows = schema_rows(schema, 30, seed)
    encoder = Encoder.fit(schema, schema.names, rows)
    text = json.dumps(encoder.to_json(), allow_nan=False)
    again = Encoder.from_json(schema, json.loads(text))
    assert again.numeric == encoder.numeric
    assert again.categories == encoder.categories
    assert again.names == encoder.names
    assert again.to_json() == encoder.to_json()
    for one, other in zip(again.encode(rows), encoder.encode(rows), strict=True):
        np.testing.assert_array_equal(one, other)


def test_json_of_another_schema_is_refused() -> None:
    data = Encoder.fit(SMALL, USED, small_rows()).to_json()
    with pytest.raises(KeyError):
        Encoder.from_json(SCHEMAS["kdd"], data)
    data["numeric"][0]["kind"] = "no such kind"
    with pytest.raises(ValueError, match="no such kind"):
        Encoder.from_json(SMALL, data)
    with pytest.raises(KeyError):
        Encoder.from_json(SMALL, {"numeric": []})
