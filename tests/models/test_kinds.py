"""What every kind declares, and that the page about them says the same."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass
from typing import Any

import jax
import numpy as np
import pytest

from models.kinds import DEFAULT_KIND, KINDS
from models.kinds.base import ModelKind
from models.kinds.inputs import Inputs, dropout
from tests.helpers import ROOT, VARIANTS, plain_set, toy, toy_rows, toy_source, windows

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def shown(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


@every_kind
def test_the_page_says_what_is_declared(kind: ModelKind[Any]) -> None:
    page = (ROOT / "docs" / "models.md").read_text().splitlines()
    (line,) = [each for each in page if each.startswith(f"| `{kind.name}` | {kind.title}")]
    sizes = ", ".join(f"{name} {shown(value)}" for name, value in asdict(kind.defaults).items())
    way = kind.training
    training = (
        f"{way.epochs} epochs, patience {way.patience}, batch {way.batch}, "
        f"rate {way.learning_rate:g}, {way.schedule}"
    )
    assert line == f"| `{kind.name}` | {kind.title} | {kind.source} | {sizes} | {training} |"


@every_kind
def test_sizes_go_through_json(kind: ModelKind[Any]) -> None:
    assert is_dataclass(kind.defaults)
    stored = json.loads(json.dumps(asdict(kind.defaults)))
    assert kind.config_from_json(stored) == kind.defaults
    with pytest.raises(TypeError, match=f"{kind.name} knows no colour"):
        kind.config_from_json({**stored, "colour": 3})
    assert KINDS[DEFAULT_KIND]
    assert all(field.default is not None for field in fields(kind.defaults))


@every_variant
def test_held_out_losses_are_finite_and_each_rows_own(variant: str) -> None:
    detector = toy(variant)
    (chunk,) = toy_source(detector.kind, toy_rows(100)).chunks()
    rows = plain_set(detector.encoder, chunk.rows, detector.window)._replace(attack=chunk.attack)
    network = detector.network
    everything = np.arange(len(chunk.rows))
    losses = np.asarray(network.loss(rows.batch(everything), chunk.attack, None))
    assert losses.shape == (len(chunk.rows),)
    assert np.isfinite(losses).all()
    some = np.array([7, 3, 50])
    alone = network.loss(rows.batch(some), chunk.attack[some], None)
    np.testing.assert_allclose(alone, losses[some], rtol=1e-4, atol=1e-5)
    # In training there is noise, dropout or sampling, but for a plain autoencoder.
    noisy = network.loss(rows.batch(everything), chunk.attack, jax.random.key(0))
    assert np.isfinite(np.asarray(noisy)).all()
    assert (np.asarray(noisy) != losses).any() == (variant != "autoencoder")


@every_variant
def test_a_window_matters_to_those_that_have_one(variant: str) -> None:
    detector, rows = toy(variant), toy_rows(60, seed=3)
    alone = detector.score(rows).score
    seen = detector.score(windows(rows, detector.window)).score
    assert (alone != seen).any() == (detector.window > 1)
    assert alone[0] == seen[0]  # nothing came before it


def test_dropout_keeps_the_mean() -> None:
    values = np.ones((100, 100), np.float32)
    assert dropout(values, 0.5, None) is values
    dropped = np.asarray(dropout(values, 0.25, jax.random.key(0)))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert dropped.mean() == pytest.approx(1.0, abs=0.03)


def test_inputs_and_what_is_made_of_them_by_hand() -> None:
    encoder = toy("autoencoder").encoder
    layout = Inputs(encoder)
    rows = toy_rows(10)
    encoded = encoder.encode(rows)
    inputs = np.asarray(layout.of(encoded))
    assert inputs.shape == (10, layout.width) == (10, 3 + 3)  # unseen, tcp, udp
    np.testing.assert_array_equal(inputs[:, :3], encoded.amounts)
    np.testing.assert_array_equal(inputs[:, 3:].argmax(axis=1), encoded.categories[:, 0])
    summed = np.asarray(layout.by_feature(inputs))
    np.testing.assert_allclose(summed, np.column_stack([encoded.amounts, np.ones(10)]), atol=1e-6)
    back = layout.typical(inputs)
    np.testing.assert_allclose(back[:, :3], encoded.scaled, atol=1e-4)
    np.testing.assert_array_equal(back[:, 3], encoded.categories[:, 0])
