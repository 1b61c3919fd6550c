"""Kinds that score by the distance to prototypes, held to plain numpy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from features.registry import SCHEMAS
from features.schema import FloatArray
from models.bundle import load, save
from models.detector import Detector
from models.heads.binned import EXCESS_RANGE, BinnedHeads, ClippedSoftmax
from models.kinds.base import Batch, mapped
from models.kinds.prototypes import PrototypeVae, centres, nearest, prices
from tests.helpers import make_rows, plain_set, untrained

NAMES = ("prototype-vae", "guarded-vae")
ROWS = 50


def places_of(detector: Detector, rows: FloatArray) -> FloatArray:
    """Weighed places, in float64."""
    some = plain_set(detector.encoder, rows.astype(np.float32))

    def places(network: PrototypeVae, batch: Batch, _: object) -> jax.Array:
        return network.places(batch)

    return mapped(detector.network, some, places) * detector.fitted["weights"].astype(float)


@pytest.mark.parametrize("name", NAMES)
def test_the_score_is_the_least_of_all_distances_and_prices(name: str) -> None:
    detector, rows = untrained("kdd", name), make_rows(SCHEMAS["kdd"], ROWS, seed=4)
    scores, places = detector.score(rows), places_of(detector, rows)
    prototypes, price = (detector.fitted[key].astype(float) for key in ("prototypes", "price"))
    squares = (places[:, None] - prototypes) ** 2
    costs = squares.sum(-1) + price
    np.testing.assert_allclose(scores.score, costs.min(axis=1), rtol=3e-4, atol=3e-4)
    # The parts are those of a prototype that is as good as nearest.
    features = len(detector.features)
    for row in range(ROWS):
        own = squares[row, :, -features:]
        if name == "guarded-vae":
            inputs = squares[row, :, :-features]
            owner = np.repeat(
                np.arange(features),
                [1] * len(detector.encoder.numeric)
                + [column.size for column in detector.encoder.categories],
            )
            own = own + np.stack([np.bincount(owner, line) for line in inputs])
        off = np.abs(own - scores.parts[row]).max(axis=1)
        chosen = int(off.argmin())
        assert off[chosen] < 1e-3
        assert costs[row, chosen] <= costs[row].min() * (1 + 2**-12) + 1e-3


def test_a_bundle_scores_the_same_and_another_one_is_refused(tmp_path: Path) -> None:
    made, rows = untrained("kdd", "prototype-vae"), make_rows(SCHEMAS["kdd"], ROWS, seed=4)
    save(made, tmp_path / "bundle")
    again, scores = load(tmp_path / "bundle").score(rows), made.score(rows)
    np.testing.assert_array_equal(again.score, scores.score)
    np.testing.assert_array_equal(again.parts, scores.parts)
    for change in ({"heads": "gaussian"}, {"space": "elsewhere"}):
        config = dataclasses.replace(made.config, **change)
        with pytest.raises(ValueError, match="has binned heads and one of the spaces latent, "):
            made.kind.build(config, made.encoder, made.fitted, nnx.Rngs(0))


def test_centres_are_those_of_crowds_and_no_more_than_rows() -> None:
    crowds = np.repeat(np.array([[0, 0], [9, 0], [0, 9]], np.float32), 100, axis=0)
    places = crowds + np.random.default_rng(0).normal(0, 0.01, crowds.shape).astype(np.float32)
    found = centres(places, 3)
    assert sorted(map(tuple, np.rint(found).tolist())) == [(0, 0), (0, 9), (9, 0)]
    np.testing.assert_array_equal(found, centres(places, 3))
    assert len(centres(places[:5], 20)) == 5


# Prices


def test_prices_by_hand() -> None:
    # 10,000 rows: the nearest 0.03 % end with the third, the nearest 0.8 % with the eightieth.
    places = np.full((10_000, 2), 100.0, np.float32)
    places[:80] = [3.0, 4.0]  # a tight crowd of 80: the eightieth is as near as the third
    places[200:203], places[203:280] = [50.0, 0.0], [50.0, 2.0]
    places[300:380, 0] = np.arange(80) - 1000.0
    places[300:380, 1] = 0.0
    found = prices(np.array([[0, 0], [50, 0], [-1000, 0]], np.float32), places)
    # Of the origin d = D = 25; of the second three rows are upon it and 77 two off: 4 - 0; of the
    # last the third is 2 off, the eightieth 79.
    np.testing.assert_allclose(found, [0.0, 4.0, 79.0**2 - 4 * 2.0**2], atol=0.5)
    few = prices(np.array([[0.0]], np.float32), np.array([[1.0], [3.0]], np.float32))
    assert few.tolist() == [0.0]  # of two rows, one is the nearest share of both


@settings(max_examples=30, deadline=None, database=None)
@given(seed=st.integers(0, 2**32), count=st.sampled_from([1, 2, 5, 64, 100]))
def test_the_nearest_is_within_rounding_of_brute_force(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(20, 4)).astype(np.float32)
    prototypes = rng.normal(size=(count, 4)).astype(np.float32)
    price = rng.exponential(size=count).astype(np.float32)
    costs = ((places[:, None].astype(float) - prototypes) ** 2).sum(-1) + price
    chosen = np.asarray(nearest(jnp.asarray(places), prototypes, jnp.asarray(price)))
    got = costs[np.arange(20), chosen]
    np.testing.assert_allclose(got, costs.min(axis=1), rtol=2**-13, atol=1e-5)


# Heads


@pytest.mark.parametrize("sizes", [(1,), (2, 1, 7), (5, 5), (3, 40, 3, 2, 40)])
@pytest.mark.parametrize("size", [0.0, 1.0, 10.0, 1000.0])
def test_the_fast_excess_is_the_likelihood_less_the_entropy(
    sizes: Sequence[int], size: float
) -> None:
    rng = np.random.default_rng(3)
    raw = (size * rng.standard_normal((6, sum(sizes)))).astype(np.float32)
    codes = np.column_stack([rng.integers(0, count, 6) for count in sizes]).astype(np.int32)
    heads = ClippedSoftmax(sizes)
    assert sorted(heads.layout) == list(range(heads.width))
    nll, slow = map(np.asarray, heads.nll_and_excess(jnp.asarray(raw), codes))
    fast = np.asarray(heads.excess(jnp.asarray(raw.T[heads.layout]), jnp.asarray(codes)))
    np.testing.assert_allclose(fast, slow, atol=2e-4)
    for at in range(len(sizes)):
        p = heads.head(raw, at)
        np.testing.assert_allclose(p.sum(axis=1), 1.0)
        expected = -np.log(p[np.arange(6), codes[:, at]])
        entropy = -(p * np.log(p)).sum(axis=1)
        np.testing.assert_allclose(nll[:, at], expected, atol=2e-4)
        np.testing.assert_allclose(fast[:, at], expected - entropy, atol=2e-4)


def test_bins_are_fewer_and_hold_the_training_rows() -> None:
    made = untrained("kdd", "prototype-vae")
    encoded = made.encoder.encode(make_rows(SCHEMAS["kdd"], 600))
    heads = BinnedHeads.from_tensors(made.encoder, made.fitted)
    codes = np.asarray(heads.codes(encoded))
    tensors = heads.tensors()
    start = 0
    for at in range(len(made.encoder.numeric)):
        bins = len(tensors[f"cuts.{at}"]) + 1
        assert bins <= 2 * 16 + 2  # atoms are alone
        for code in set(codes[:, at]):
            inside = np.sort(encoded.scaled[codes[:, at] == code, at])
            center = tensors["centers"][start + code]
            assert math.isclose(center, np.median(inside), rel_tol=1e-3, abs_tol=1e-3)
        start += bins
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(heads.width, 600)), jnp.float32)
    excess = np.asarray(heads.excess(outputs, encoded))
    assert excess.shape == (600, len(made.encoder.names))
    assert EXCESS_RANGE[0] <= excess.min() <= excess.max() <= EXCESS_RANGE[1]
