"""The loop: resumed, streamed, on several devices, weighed; and a kind made elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.typing import NDArray
from safetensors.numpy import load_file

from features.encoder import Encoder
from features.registry import SCHEMAS
from features.schema import FloatArray
from models.bundle import BundleError, load, save
from models.detector import Detector
from models.kinds import KINDS
from models.kinds.autoencoders import Autoencoder, AutoencoderConfig, AutoencoderKind
from models.kinds.base import (
    Batch,
    Network,
    Prepared,
    RowScores,
    RowSet,
    Shape,
    Tensors,
    mapped,
)
from models.recipe import FitConfig
from tests.helpers import ROOT, TOY, TOY_FIT, VARIANTS, fit_toy, plain_set, toy_rows, toy_source
from training.checkpoint import Checkpoint, CheckpointError
from training.fit import NoAttacks, fit
from training.loop import EpochNews, Observer, Slabs, Trainer
from training.rows import TableRows
from training.schedules import SCHEDULES

SHORT = replace(TOY_FIT, epochs=4)
some_variants = pytest.mark.parametrize("variant", ["histogram", "host-conv-vae", "classifier"])


def tensors(detector: Detector) -> list[NDArray[Any]]:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(detector.state)]
    return [*leaves, *detector.fitted.values(), detector.calibration.scores]


def same(one: Detector, two: Detector) -> None:
    for left, right in zip(tensors(one), tensors(two), strict=True):
        np.testing.assert_array_equal(left, right)
    assert one.provenance == two.provenance


# Resuming


class Power(Observer):
    """Goes off after some epochs."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self.advanced = 0.0

    def advance(self, epochs: float) -> None:
        self.advanced += epochs

    def epoch(self, news: EpochNews) -> None:
        if news.number == self._epochs:
            raise KeyboardInterrupt


@some_variants
def test_a_resumed_training_ends_as_if_it_was_never_interrupted(
    variant: str, tmp_path: Path
) -> None:
    path = tmp_path / "place" / "mine.checkpoint"
    whole = fit_toy(variant, config=SHORT)
    with pytest.raises(KeyboardInterrupt):
        fit_toy(variant, config=SHORT, observers=[Power(2)], checkpoint=Checkpoint(path))
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    power = Power(9)
    resumed = fit_toy(
        variant, config=SHORT, observers=[power], checkpoint=Checkpoint(path, resume=True)
    )
    same(whole, resumed)
    assert power.advanced == 4.0  # the two that were done before are told, too


def test_a_finished_training_is_resumed_without_another_epoch(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    whole = fit_toy("autoencoder", config=SHORT, checkpoint=Checkpoint(path))
    before = path.read_bytes()
    resumed = fit_toy("autoencoder", config=SHORT, checkpoint=Checkpoint(path, resume=True))
    same(whole, resumed)
    assert path.read_bytes() == before
    Checkpoint(path).remove()
    assert not path.exists()


def test_only_the_same_training_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit_toy("autoencoder", config=SHORT, observers=[Power(1)], checkpoint=Checkpoint(path))
    resume = Checkpoint(path, resume=True)
    other = toy_rows()
    other[0, 0] += 1
    for change in (
        {"seed": 1},
        {"config": replace(SHORT, epochs=5)},
        {"config": replace(SHORT, learning_rate=1e-3)},
        {"rows": other},
        {"network": AutoencoderConfig(hidden=(8,), latent=4)},
    ):
        given: dict[str, Any] = {"config": SHORT, "checkpoint": resume, **change}
        with pytest.raises(CheckpointError, match="of another training"):
            fit_toy("autoencoder", **given)
    for content in (b"", b"nonsense", path.read_bytes()[:-100]):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(CheckpointError, match="bad: not a checkpoint"):
            fit_toy("autoencoder", config=SHORT, checkpoint=Checkpoint(tmp_path / "bad", True))
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        fit_toy("autoencoder", config=SHORT, checkpoint=Checkpoint(tmp_path / "no", True))


def test_a_checkpoint_holds_tensors_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    fit_toy("autoencoder", config=SHORT, checkpoint=Checkpoint(path))
    stored = load_file(path)
    assert {name.split(".")[0] for name in stored} == {"weights", "optimizer", "best_weights"}


# Streaming


@some_variants
def test_rows_that_come_in_chunks_train_as_well(variant: str) -> None:
    kind, _ = VARIANTS[variant]
    whole = toy_source(kind)
    (chunk,) = whole.chunks()
    streamed = TableRows(chunk.rows, chunk.attack, chunk=330)
    one, two = fit_toy(variant, whole), fit_toy(variant, streamed)
    assert one.provenance["rows"] == two.provenance["rows"]
    assert one.encoder.names == two.encoder.names
    for left, right in zip(one.encoder.numeric, two.encoder.numeric, strict=True):
        assert left.center == pytest.approx(right.center)
        assert left.scale == pytest.approx(right.scale)
    assert one.encoder.categories == two.encoder.categories
    losses = [min(e["validation"] for e in d.provenance["history"]) for d in (one, two)]
    first = one.provenance["history"][0]["validation"]
    # Another order of rows, so another run; but it gets about as far.
    assert abs(losses[0] - losses[1]) < 0.3 * abs(first - losses[0])
    same(two, fit_toy(variant, streamed))


def test_every_training_row_counts_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    # The loss is linear in the weight of a row, so its mean tells how often each was seen.
    rows = toy_rows(600)
    encoder = Encoder.fit(TOY, TOY.names, rows)
    sets = [plain_set(encoder, rows[begin : begin + 130]) for begin in range(0, 600, 130)]
    slabs = Slabs(lambda: iter(sets), 64)
    assert slabs.steps == 4 * 3 + 2

    class Counting(Network):
        def __init__(self) -> None:
            self.nothing = nnx.Param(jnp.zeros(()))

        def loss(self, batch: Batch, attack: jax.Array, key: jax.Array | None) -> jax.Array:
            return batch.encoded.amounts[:, 0] + self.nothing

    config = FitConfig(epochs=1, batch=64, learning_rate=1e-9, schedule="constant")
    heard: list[EpochNews] = []

    class Listener(Observer):
        def epoch(self, news: EpochNews) -> None:
            heard.append(news)

    Trainer(Counting(), config, slabs, 0).run(sets[0], [Listener()])
    expected = encoder.encode(rows).amounts[:, 0].mean()
    assert heard[0].train_loss == pytest.approx(expected, abs=1e-6)


# Devices


def test_two_devices_come_to_the_same(tmp_path: Path) -> None:
    code = (
        "import sys, jax, numpy as np\n"
        "from tests.helpers import fit_toy, toy_rows\n"
        "from tests.training.test_loop import SHORT\n"
        "made = fit_toy('autoencoder', config=SHORT)\n"
        "losses = [entry['train'] for entry in made.provenance['history']]\n"
        "np.savez(sys.argv[1], devices=jax.device_count(), losses=losses,\n"
        "         score=made.score(toy_rows(50, 1)).score)\n"
    )
    flags = "--xla_force_host_platform_device_count=2"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    output = tmp_path / "two.npz"
    subprocess.run([sys.executable, "-c", code, output], cwd=ROOT, env=env, check=True)
    two, one = np.load(output), fit_toy("autoencoder", config=SHORT)
    assert (int(two["devices"]), jax.device_count()) == (2, 1)
    losses = [entry["train"] for entry in one.provenance["history"]]
    np.testing.assert_allclose(two["losses"], losses, atol=2e-5)
    score = one.score(toy_rows(50, 1)).score
    np.testing.assert_allclose(two["score"], score, rtol=1e-3, atol=1e-5)


# Schedules


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_never_leaves_its_range(name: str) -> None:
    for steps in (1, 2, 5, 1000):
        schedule = SCHEDULES[name](0.01, steps)
        rates = np.array([float(schedule(step)) for step in range(steps + 1)])
        assert rates.max() <= 0.01 * (1 + 1e-6)
        assert rates.min() >= 0.01 / 50 * (1 - 1e-3)
    assert rates.max() == pytest.approx(0.01, rel=0.02)
    assert rates[-1] == pytest.approx(0.01 if name == "constant" else 0.01 / 50, rel=0.02)


def test_an_unknown_schedule_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match="no schedule sawtooth; there are constant, "):
        fit_toy("autoencoder", config=replace(TOY_FIT, schedule="sawtooth"))


# Labels


def test_a_supervised_kind_needs_attacks_and_others_refuse_them() -> None:
    with pytest.raises(NoAttacks, match="0 attacks are too few for a classifier"):
        fit_toy("classifier", TableRows(toy_rows()))
    rows = toy_source(KINDS["classifier"])
    with pytest.raises(ValueError, match="learns from benign rows alone, 400 are attacks"):
        fit_toy("autoencoder", rows)


def test_the_classifier_takes_the_features_that_tell() -> None:
    config = replace(VARIANTS["classifier"][1], features=2)
    detector = fit_toy("classifier", network=config)
    # The time belies the size (or the share, or the protocol): those decide.
    assert len(detector.features) == 2
    assert "long" in {feature.name for feature in detector.features}
    scores = detector.score(toy_rows(500, 1))
    np.testing.assert_allclose(scores.rest + scores.parts.sum(axis=1), scores.score, atol=1e-4)
    # Integrated gradients: what is left beside the mean row's own log-odds is small.
    assert np.ptp(scores.rest) < 0.2 * np.ptp(scores.score)


# A kind made elsewhere: weighed rows, a score of network and prototypes


@dataclass(frozen=True, slots=True, kw_only=True)
class NearConfig(AutoencoderConfig):
    prototypes: int = 5


class Near(Autoencoder):
    def codes(self, batch: Batch) -> jax.Array:
        hidden = self.layout.of(batch.encoded)
        for layer in list(self.layers)[: self.narrowest]:
            hidden = layer(hidden)
        return hidden

    def score(self, batch: Batch, fitted: Mapping[str, jax.Array]) -> RowScores:
        parts = super().score(batch, fitted).parts / fitted["usual"]
        codes = self.codes(batch)
        distance = ((codes[:, None] - fitted["prototypes"]) ** 2).sum(-1).min(-1)
        return RowScores(distance, parts)


class NearKind(AutoencoderKind):
    name = "near"
    title = "an autoencoder with prototypes"
    source = "this test"
    defaults: Any = NearConfig()

    def prepare(self, config: Any, rows: FloatArray) -> Prepared:
        _, first, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
        order = np.argsort(first)
        return Prepared(first[order], np.sqrt(counts[order]).astype(np.float32))

    def build(
        self, config: Any, encoder: Encoder, fitted: Mapping[str, Any], rngs: nnx.Rngs
    ) -> Autoencoder:
        return Near(config, encoder, rngs)

    def after_shapes(self, config: Any, encoder: Encoder) -> dict[str, Shape]:
        return {"usual": (None,), "prototypes": (config.prototypes, config.latent)}

    def fit_after(
        self, config: Any, encoder: Encoder, network: Network, train: RowSet, held_out: RowSet
    ) -> Tensors:
        codes = mapped(network, train, lambda made, batch, _: made.codes(batch))
        assert len(codes) == len(train.weight)
        parts = mapped(
            network, held_out, lambda made, batch, _: Autoencoder.score(made, batch, {}).parts
        )
        return {
            "prototypes": codes[: config.prototypes].astype(np.float32),
            "usual": (parts.mean(axis=0) + 1e-3).astype(np.float32),
        }


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> NearKind:
    kind = NearKind()
    monkeypatch.setitem(KINDS, kind.name, kind)
    monkeypatch.setitem(SCHEMAS, TOY.name, TOY)
    return kind


def fit_near(near: NearKind, rows: FloatArray, **more: Any) -> Detector:
    config = NearConfig(hidden=(16,), latent=3, prototypes=5)
    return fit(
        TOY, TOY.names, rows, name="near", seed=0, clock_us=1, kind=near, network=config,
        config=SHORT, **more,
    )  # fmt: skip


def test_a_kind_made_elsewhere_is_trained_saved_and_loaded(near: NearKind, tmp_path: Path) -> None:
    detector = fit_near(near, toy_rows())
    save(detector, tmp_path / "bundle")
    again = load(tmp_path / "bundle")
    assert again.kind is near
    rows = toy_rows(50, seed=4)
    scores = again.score(rows)
    np.testing.assert_array_equal(scores.score, detector.score(rows).score)
    np.testing.assert_allclose(scores.rest + scores.parts.sum(axis=1), scores.score, rtol=1e-5)
    assert again.expected(rows).shape == (50, 4)


def test_a_fitted_tensor_of_another_shape_is_named(near: NearKind, tmp_path: Path) -> None:
    detector = fit_near(near, toy_rows())
    for name, value in (
        ("prototypes", np.zeros((4, 3), np.float32)),
        ("prototypes", np.zeros((5, 3), np.float64)),
        ("usual", np.zeros((4, 1), np.float32)),
    ):
        detector.fitted |= {name: value}
        save(detector, tmp_path / "bundle")
        with pytest.raises(BundleError, match=f"fitted.{name} is .* the model wants float32"):
            load(tmp_path / "bundle")
        detector = fit_near(near, toy_rows())


def test_weights_of_rows_are_those_of_the_kind(near: NearKind) -> None:
    once = toy_rows(1000)
    rows = np.concatenate([once, once[:500], once[:500], once[:500]])
    encoder = Encoder.fit(TOY, TOY.names, rows)
    used = rows[:, TOY.index(encoder.names)]
    prepared = near.prepare(None, used)
    assert len(prepared.at) == 1000
    assert set(prepared.weight.tolist()) == {1.0, 2.0}
    # In the loop, a row of weight two pulls as two rows do.
    weight = np.array([2.0] + [1.0] * 9, np.float32)
    weighed = plain_set(encoder, once[:10])._replace(weight=weight)
    twice = plain_set(encoder, np.concatenate([once[:1], once[:10]]))
    results = []
    for rows_set in (weighed, twice):
        network = Autoencoder(AutoencoderConfig(hidden=(4,), latent=2), encoder, nnx.Rngs(0))
        config = FitConfig(epochs=3, batch=16, learning_rate=1e-2, schedule="constant")
        trainer = Trainer(network, config, Slabs(lambda rows=rows_set: iter([rows]), 16), 0)
        _, history = trainer.run(twice)
        results.append(history)
    for left, right in zip(*results, strict=True):
        assert left["train"] == pytest.approx(right["train"], abs=2e-5)
        assert left["validation"] == pytest.approx(right["validation"], abs=2e-5)
