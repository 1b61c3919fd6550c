"""Every family of heads, held to what :class:`models.heads.base.Heads` promises."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from features.encoder import Encoded, Encoder
from features.registry import SCHEMAS
from features.schema import FloatArray, Kind
from models.heads import FAMILIES, GaussianHeads, Heads, HistogramHeads
from models.heads.histogram import quantile_cuts
from models.heads.softmax import LOGIT_CAP, FlatSoftmax
from tests.helpers import fitted_heads, make_rows

LARGEST_PART = {
    # 8 nats, counted from the best that a Gaussian of deviation 0.1 can do.
    "gaussian": 8.0 - math.log(0.1 * math.sqrt(2 * math.pi)),
    "histogram": 10.0,
}
HUGE = float(np.finfo(np.float32).max)
ROWS = 4

pairs = pytest.mark.parametrize(
    ("family", "schema"), [(family, schema) for family in FAMILIES for schema in SCHEMAS]
)


def arbitrary_rows(encoder: Encoder, rng: np.random.Generator) -> FloatArray:
    """Rows as no network has them: huge, tiny, negative, of categories unseen and unknown."""
    schema = encoder.schema
    rows = np.empty((ROWS, len(schema.features)))
    odd = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-38, -1e-38, 255.0, 1e9, -1e9, 1e30, -1e30, HUGE, -HUGE]
    for at, feature in enumerate(schema.features):
        if feature.kind is Kind.CATEGORICAL:
            rows[:, at] = rng.integers(-1, len(feature.vocabulary), ROWS)
        else:
            rows[:, at] = np.where(
                rng.random(ROWS) < 0.7, rng.choice(odd, ROWS), rng.lognormal(0, 9, ROWS)
            )
    return rows


def arbitrary_outputs(heads: Heads, rng: np.random.Generator, size: float) -> NDArray[np.float32]:
    return np.float32(size) * rng.standard_normal((ROWS, heads.width)).astype(np.float32)


@functools.cache
def scorer(encoder: Encoder, heads: Heads) -> Callable[..., Any]:
    """``(nll, parts)`` of outputs and rows, compiled, as the detector does it."""

    def both(outputs: Any, rows: Any) -> tuple[Any, Any]:
        encoded = encoder.encode(rows, jnp)
        return heads.nll(outputs, encoded), heads.parts(outputs, encoded)

    return jax.jit(both)


def codes_of(schema: str, rows: FloatArray) -> NDArray[np.int32]:
    """The codes that histogram heads give rows, compiled: XLA's logarithm is not numpy's."""
    encoder, _, heads = fitted_heads(schema, "histogram")
    assert isinstance(heads, HistogramHeads)
    codes = jax.jit(lambda rows: heads.codes(encoder.encode(rows, jnp)))
    return np.asarray(codes(rows.astype(np.float32)))


# What every family promises


def test_each_family_has_a_largest_part_here() -> None:
    assert set(FAMILIES) == set(LARGEST_PART)
    for name, family in FAMILIES.items():
        assert family.family == name


@pairs
@settings(max_examples=20, deadline=None, database=None)
@given(seed=st.integers(0, 2**32), size=st.sampled_from([0.0, 1.0, 20.0, 1e3, 1e6]))
def test_parts_are_bounded_and_nll_is_finite_for_any_row(
    family: str, schema: str, seed: int, size: float
) -> None:
    encoder, _, heads = fitted_heads(schema, family)
    rng = np.random.default_rng(seed)
    rows = arbitrary_rows(encoder, rng).astype(np.float32)
    outputs = arbitrary_outputs(heads, rng, size)
    nll, parts = map(np.asarray, scorer(encoder, heads)(outputs, rows))
    assert nll.shape == parts.shape == (ROWS, len(encoder.names))
    assert np.isfinite(nll).all()
    assert np.isfinite(parts).all()
    assert parts.min() >= 0.0
    assert parts.max() <= LARGEST_PART[family] + 1e-4


@pairs
@settings(max_examples=20, deadline=None, database=None)
@given(seed=st.integers(0, 2**32), size=st.sampled_from([0.0, 1.0, 5.0]))
def test_what_is_typical_lies_where_benign_rows_lie(
    family: str, schema: str, seed: int, size: float
) -> None:
    encoder, encoded, heads = fitted_heads(schema, family)
    outputs = arbitrary_outputs(heads, np.random.default_rng(seed), size)
    typical = heads.typical(outputs)
    assert typical.shape == (ROWS, len(encoder.names))
    for at, column in enumerate(encoder.numeric):
        low, high = encoded.scaled[:, at].min(), encoded.scaled[:, at].max()
        if column.kind is Kind.BINARY:
            low, high = 0.0, 2.0  # a histogram's bin for neither 0 nor 1 is at 1.5
        room = {"gaussian": 5.0 * size * column.scale, "histogram": 0.01 * (high - low) + 0.01}
        assert typical[:, at].min() >= low - room[family]
        assert typical[:, at].max() <= high + room[family]
    for at, category in enumerate(encoder.categories, start=len(encoder.numeric)):
        assert set(typical[:, at]) <= set(range(category.size))


@pairs
def test_tensors_bring_the_same_heads_back(family: str, schema: str) -> None:
    encoder, _, heads = fitted_heads(schema, family)
    again = FAMILIES[family].from_tensors(encoder, heads.tensors())
    assert again.width == heads.width
    outputs = arbitrary_outputs(heads, np.random.default_rng(0), 2.0)
    rows = make_rows(encoder.schema, ROWS).astype(np.float32)
    for got, expected in zip(
        scorer(encoder, again)(outputs, rows), scorer(encoder, heads)(outputs, rows), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(again.typical(outputs), heads.typical(outputs))


# Softmax


@pytest.mark.parametrize("sizes", [(1,), (2, 1, 7), (5, 5), (3, 40, 1, 2)])
@settings(max_examples=15, deadline=None, database=None)
@given(seed=st.integers(0, 2**32), size=st.sampled_from([0.0, 1.0, 10.0, 100.0]))
def test_heads_side_by_side_are_the_heads_one_by_one(
    sizes: tuple[int, ...], seed: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    raw = (size * rng.standard_normal((ROWS, sum(sizes)))).astype(np.float32)
    codes = np.column_stack([rng.integers(0, size, ROWS) for size in sizes]).astype(np.int32)
    softmax = FlatSoftmax(sizes)
    nll, excess = (np.asarray(x) for x in softmax.nll_and_excess(jnp.asarray(raw), codes))
    assert nll.shape == excess.shape == codes.shape
    start = 0
    for head, count in enumerate(sizes):
        for row in range(ROWS):
            own = raw[row, start : start + count].astype(np.float64)
            logits = [LOGIT_CAP * math.tanh(x / LOGIT_CAP) for x in own]
            total = sum(math.exp(x) for x in logits)
            p = [math.exp(x) / total for x in logits]
            np.testing.assert_allclose(softmax.head(raw, head)[row], p, rtol=1e-6, atol=1e-12)
            expected = -math.log(p[codes[row, head]])
            entropy = -sum(x * math.log(x) for x in p)
            assert nll[row, head] == pytest.approx(expected, abs=1e-4)
            assert excess[row, head] == pytest.approx(expected - entropy, abs=1e-4)
        start += count


# Histogram


def inner_bins(edges: NDArray[np.float32], values: FloatArray) -> NDArray[np.intp]:
    """The bin of each value, counted by the edges that lie at or below it."""
    return np.array([sum(edge <= value for edge in edges) for value in values])


# Sixty-fourths: float32 has them all exactly, so edges can lie between any two.
sixty_fourths = st.integers(-(2**16), 2**16).map(lambda number: number / 64)
samples = st.lists(
    st.tuples(sixty_fourths, st.sampled_from([1, 1, 1, 2, 7, 40])), min_size=1, max_size=60
).map(lambda found: np.repeat(*(np.array(part) for part in zip(*found, strict=True))))


@settings(deadline=None, database=None)
@given(values=samples, bins=st.integers(2, 40))
@example(values=np.zeros(5), bins=32)
@example(values=np.array([1e9 + 1, 1e9 + 65]), bins=2)
def test_bins_hold_all_that_was_seen_and_atoms_are_alone(values: FloatArray, bins: int) -> None:
    edges = quantile_cuts(values, bins)
    assert edges.dtype == np.float32
    assert (np.diff(edges) > 0).all()
    codes = inner_bins(edges, values)
    # Bin 0 lies below everything seen, the last one above: neither holds a value.
    assert codes.min() >= 1
    assert codes.max() <= len(edges) - 1
    assert set(codes) == set(range(1, len(edges)))  # no inner bin is empty
    unique, counts = np.unique(values, return_counts=True)
    for value, count in zip(unique, counts, strict=True):
        if count / len(values) >= 1 / bins:
            assert set(values[codes == codes[values == value][0]]) == {value}


@settings(deadline=None, database=None)
@given(
    values=hnp.arrays(
        np.float32,
        st.integers(1, 50),
        elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
    )
)
def test_bins_hold_all_values_of_any_size(values: NDArray[np.float32]) -> None:
    edges = quantile_cuts(values.astype(np.float64))
    codes = inner_bins(edges, values)
    assert codes.min() >= 1
    assert codes.max() <= len(edges) - 1


def test_evenly_spread_values_get_as_many_bins_as_asked_for() -> None:
    values = np.arange(3200) / 8
    edges = quantile_cuts(values, 32)
    counts = np.bincount(inner_bins(edges, values))
    assert counts[1:].tolist() == [100] * 32


@pytest.mark.parametrize("schema", SCHEMAS)
def test_training_rows_are_in_inner_bins_when_scored(schema: str) -> None:
    encoder, _, heads = fitted_heads(schema, "histogram")
    codes = codes_of(schema, make_rows(encoder.schema, 600))
    tensors = heads.tensors()
    for at in range(len(encoder.numeric)):
        last = len(tensors[f"cuts.{at}"])
        if encoder.numeric[at].kind is Kind.BINARY:
            assert set(codes[:, at]) <= {0, 1}
        else:
            assert codes[:, at].min() >= 1
            assert codes[:, at].max() <= last - 1


@pytest.mark.parametrize("schema", SCHEMAS)
def test_values_beyond_all_seen_are_in_the_outer_bins(schema: str) -> None:
    encoder, _, heads = fitted_heads(schema, "histogram")
    width = len(encoder.schema.features)
    rows = np.stack([np.full(width, -HUGE), np.full(width, HUGE)])
    for at, feature in enumerate(encoder.schema.features):
        if feature.kind is Kind.CATEGORICAL:
            rows[:, at] = -1  # outside the vocabulary
    codes = codes_of(schema, rows)
    amounts = len(encoder.numeric)
    assert codes[0, :amounts].tolist() == [0] * amounts
    tensors = heads.tensors()
    assert codes[1, :amounts].tolist() == [len(tensors[f"cuts.{at}"]) for at in range(amounts)]
    assert (codes[:, amounts:] == 0).all()


def test_heads_that_do_not_fit_the_encoder_are_refused() -> None:
    encoder, _, heads = fitted_heads("kdd", "histogram")
    tensors = heads.tensors()
    cuts = [tensors[f"cuts.{at}"] for at in range(len(encoder.numeric))]
    with pytest.raises(ValueError, match=f"{len(cuts) - 1} heads"):
        HistogramHeads(encoder, cuts[1:], tensors["centers"])
    with pytest.raises(ValueError, match="centers"):
        HistogramHeads(encoder, cuts, tensors["centers"][1:])
    with pytest.raises(KeyError):
        HistogramHeads.from_tensors(encoder, {"centers": tensors["centers"]})


# Gaussian


def softplus(value: FloatArray) -> FloatArray:
    return np.logaddexp(0.0, value)


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("seed", range(3))
def test_gaussian_nll_is_the_closed_form(schema: str, seed: int) -> None:
    encoder, encoded, heads = fitted_heads(schema, "gaussian")
    outputs = arbitrary_outputs(heads, np.random.default_rng(seed), 2.0)
    rows = Encoded(*(column[:ROWS] for column in encoded))
    nll = np.asarray(jax.jit(heads.nll)(outputs, rows))
    wide = outputs.astype(np.float64)
    kinds = [column.kind for column in encoder.numeric]
    gauss, bits = sum(kind is not Kind.BINARY for kind in kinds), kinds.count(Kind.BINARY)
    # Outputs are means, raw deviations, Bernoulli logits, softmax logits.
    means, raw, logits, rest = np.split(wide, [gauss, 2 * gauss, 2 * gauss + bits], axis=1)
    gauss_at = bits_at = 0
    for at, kind in enumerate(kinds):
        x = rows.amounts[:, at].astype(np.float64)
        if kind is Kind.BINARY:
            logit = 15.0 * np.tanh(logits[:, bits_at] / 15.0)
            expected = np.where(x == 1.0, softplus(-logit), softplus(logit))
            bits_at += 1
        else:
            sigma = softplus(raw[:, gauss_at]) + 0.1
            distance = (x - means[:, gauss_at]) / sigma
            expected = 0.5 * distance**2 + np.log(sigma * math.sqrt(2.0 * math.pi))
            gauss_at += 1
        np.testing.assert_allclose(nll[:, at], expected, rtol=2e-4, atol=2e-4)
    start = 0
    for at, category in enumerate(encoder.categories):
        own = 15.0 * np.tanh(rest[:, start : start + category.size] / 15.0)
        p = np.exp(own) / np.exp(own).sum(axis=1, keepdims=True)
        expected = -np.log(p[np.arange(ROWS), rows.categories[:, at]])
        np.testing.assert_allclose(nll[:, len(kinds) + at], expected, rtol=2e-4, atol=2e-4)
        start += category.size


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_perfect_gaussian_prediction_costs_nothing(schema: str) -> None:
    encoder, encoded, heads = fitted_heads(schema, "gaussian")
    assert isinstance(heads, GaussianHeads)
    gauss_at = [at for at, c in enumerate(encoder.numeric) if c.kind is not Kind.BINARY]
    outputs = np.zeros((ROWS, heads.width), np.float32)
    rows = Encoded(*(column[:ROWS] for column in encoded))
    outputs[:, : len(gauss_at)] = rows.amounts[:, gauss_at]
    outputs[:, len(gauss_at) : 2 * len(gauss_at)] = -1e3  # as sure as it can be: 0.1
    parts = np.asarray(jax.jit(heads.parts)(outputs, rows))[:, gauss_at]
    assert parts.min() >= 0.0
    assert parts.max() <= 1e-5
