"""The training loop, one for every kind of model.

Deterministic: the order of rows and all noise are functions of the seed, the epoch, the chunk and
the step. With several devices every step's rows are spread over them, weights are on each; what
belongs together is added up in another order then, so the last digits differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from features.encoder import Encoded, Encoder
from models.kinds.base import MAPPED_ROWS, Batch, ModelKind, Network, RowSet, Tensors
from models.recipe import FitConfig
from training.checkpoint import Checkpoint, TrainingState
from training.schedules import SCHEDULES

CLIP_NORM = 5.0
"""Gradients are scaled down to this norm."""


@dataclass(frozen=True)
class EpochNews:
    """What an epoch came to.

    Attributes:
        number: of the epoch, from 1.
        train_loss: weighted mean over the epoch's training rows, as trained on.
        validation_loss: weighted mean of `losses`.
        learning_rate: of the last step.
        losses: ``[V]``, of each held-out row.
        network: as the epoch left it.
    """

    number: int
    train_loss: float
    validation_loss: float
    learning_rate: float
    losses: NDArray[np.float32]
    network: Network


@dataclass(frozen=True)
class Setting:
    """What is trained: the parts of a model, and the held-out rows."""

    kind: ModelKind[Any]
    config: Any
    encoder: Encoder
    fitted: Tensors
    held_out: RowSet


class Observer:
    """Is told how a training goes. Whatever it raises ends the training."""

    def begun(self, setting: Setting) -> None:
        """All is ready."""

    def advance(self, epochs: float) -> None:
        """So many epochs (or a part of one) were just trained, or resumed from."""

    def epoch(self, news: EpochNews) -> None:
        """An epoch is done, and the checkpoint written."""


class Slabs:
    """Training rows as the loop takes them: equal in size, made again each time unless one.

    Attributes:
        steps: an epoch has.
    """

    def __init__(self, make: Callable[[], Iterable[RowSet]], batch: int) -> None:
        """Go through all rows once, to know how many there are.

        Args:
            make: gives the same sets of rows each time.
            batch: rows a step.
        """
        self._make = make
        self._batch = batch
        counts, sizes, last = [], [], None
        for last in make():
            counts.append(len(last.at))
            sizes.append(len(last.encoded.amounts))
        self.steps = sum(-(-count // batch) for count in counts)
        self.count = len(counts)
        self._size = max(sizes)
        self._only = _padded(last, self._size) if self.count == 1 and last is not None else None

    def __iter__(self) -> Any:
        """Pairs of padded rows and how many of them count."""
        if self._only is not None:
            yield self._only
            return
        for rows in self._make():
            yield _padded(rows, self._size)


def _padded(rows: RowSet, size: int) -> tuple[RowSet, int]:
    """`rows` with every axis of rows made `size` long, and how many count."""

    def longer(column: NDArray[Any]) -> NDArray[Any]:
        return np.pad(column, ((0, size - len(column)), *((0, 0),) * (column.ndim - 1)))

    padded = RowSet(
        Encoded(*(longer(np.asarray(column)) for column in rows.encoded)),
        *(longer(np.asarray(column)) for column in rows[1:]),
    )
    return padded, len(rows.at)


def _order(
    rng: np.random.Generator, count: int, size: int, batch: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], int]:
    """Rows in random order, whole batches of them, what each place counts, and the batches.

    The last batch is filled up with rows that count nothing.
    """
    places = -(-size // batch) * batch
    order = np.resize(rng.permutation(count).astype(np.int32), places)
    return order, (np.arange(places) < count).astype(np.float32), -(-count // batch)


class Trainer:
    """Trains a network; see the module's text."""

    def __init__(self, network: Network, config: FitConfig, slabs: Slabs, seed: int) -> None:
        """Make ready.

        Raises:
            ValueError: there is no such schedule.
        """
        if config.schedule not in SCHEDULES:
            known = ", ".join(SCHEDULES)
            raise ValueError(f"no schedule {config.schedule}; there are {known}")
        self._config, self._slabs, self._seed = config, slabs, seed
        mesh = Mesh(np.array(jax.devices()), ("rows",))
        self._by_rows = NamedSharding(mesh, PartitionSpec("rows"))  # type: ignore[no-untyped-call]
        self._whole = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]
        self._graph, weights = nnx.split(network)
        self._schedule = SCHEDULES[config.schedule](
            config.learning_rate, slabs.steps * config.epochs
        )
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(CLIP_NORM), optax.adam(self._schedule)
        )
        self.state = TrainingState(weights, self._optimizer.init(weights), weights, np.inf, 0, [])
        self._steps = jax.jit(self._train)
        self._losses = jax.jit(
            lambda weights, batch, attack: nnx.merge(self._graph, weights).loss(batch, attack, None)
        )

    @staticmethod
    def whole_batch(config: FitConfig) -> int:
        """Rows a step: the wanted number, made a multiple of the number of devices."""
        devices = jax.device_count()
        return -(-config.batch // devices) * devices

    def _spread(self, tree: Any) -> Any:
        """Arrays ``[B, ...]`` spread over the devices by rows."""
        return jax.lax.with_sharding_constraint(tree, self._by_rows)  # type: ignore[no-untyped-call]

    def _on_each(self, tree: Any) -> Any:
        """Arrays, whole, on each device."""
        return jax.device_put(tree, self._whole)

    def _train(
        self, weights: Any, optimizer: Any, key: jax.Array, rows: RowSet, order: jax.Array,
        counts: jax.Array, steps: jax.Array,
    ) -> Any:  # fmt: skip
        """Take `steps` steps over `rows`; weights, optimiser, and sums of loss and weight."""
        batch = self.whole_batch(self._config)

        def mean_loss(weights: Any, part: Batch, attack: Any, weight: Any, key: jax.Array) -> Any:
            network: Network = nnx.merge(self._graph, weights)
            losses = network.loss(part, attack, key)
            return (weight * losses).sum() / weight.sum()

        def step(number: Any, carry: Any) -> Any:
            weights, optimizer, total, weighed = carry
            chosen = jax.lax.dynamic_slice_in_dim(order, number * batch, batch)
            weight = rows.weight[chosen] * jax.lax.dynamic_slice_in_dim(
                counts, number * batch, batch
            )
            part, attack, weight = self._spread((rows.batch(chosen), rows.attack[chosen], weight))
            value, gradient = jax.value_and_grad(mean_loss)(
                weights, part, attack, weight, jax.random.fold_in(key, number)
            )
            updates, optimizer = self._optimizer.update(gradient, optimizer, weights)
            here = weight.sum()
            return (
                optax.apply_updates(weights, updates),
                optimizer,
                total + value * here,
                (weighed + here),
            )

        zero = jnp.zeros((), jnp.float32)
        return jax.lax.fori_loop(0, steps, step, (weights, optimizer, zero, zero))

    def _epoch(self, number: int, observers: Sequence[Observer]) -> float:
        """Train on all rows once; the mean loss."""
        batch = self.whole_batch(self._config)
        sums = np.zeros(2)
        state = self.state
        for chunk, (rows, count) in enumerate(self._slabs):
            rng = np.random.default_rng([self._seed, number, chunk])
            order, counts, steps = _order(rng, count, len(rows.at), batch)
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self._seed), number), chunk)
            state.weights, state.optimizer, *more = self._steps(
                state.weights, state.optimizer, key,
                *self._on_each((rows, order, counts)), np.int32(steps),
            )  # fmt: skip
            sums += [float(each) for each in more]
            for observer in observers:
                observer.advance(1 / self._slabs.count)
        return float(sums[0] / sums[1])

    def _held_out(self, rows: RowSet) -> NDArray[np.float32]:
        """The loss of each row that counts."""
        count = len(rows.at)
        size = min(MAPPED_ROWS, count)
        found = []
        for begin in range(0, count, size):
            chosen = np.minimum(np.arange(begin, begin + size), count - 1)
            batch, attack = rows.batch(chosen), rows.attack[chosen]
            found.append(np.asarray(self._losses(self.state.weights, batch, attack)))
        return np.concatenate(found)[:count]

    def run(
        self,
        held_out: RowSet,
        observers: Sequence[Observer] = (),
        checkpoint: Checkpoint | None = None,
        training: str = "",
    ) -> tuple[Network, list[dict[str, float]]]:
        """Train until the held-out loss has not improved for a while, or the epochs are over.

        Returns:
            The network of the lowest held-out loss, and the losses of each epoch.

        Raises:
            CheckpointError: the checkpoint to resume from cannot be used.
        """
        state, config = self.state, self._config
        if checkpoint and checkpoint.resume:
            checkpoint.load(state, training)
            for observer in observers:
                observer.advance(len(state.history))
        state.weights, state.optimizer = self._on_each((state.weights, state.optimizer))
        while len(state.history) < config.epochs and state.since < config.patience:
            number = len(state.history)
            train_loss = self._epoch(number, observers)
            losses = self._held_out(held_out)
            value = float(np.average(losses.astype(np.float64), weights=held_out.weight))
            state.history.append({"train": round(train_loss, 5), "validation": round(value, 5)})
            if value < state.best:
                state.best, state.best_weights, state.since = value, state.weights, 0
            else:
                state.since += 1
            if checkpoint:
                checkpoint.save(state, training)
            rate = float(self._schedule(self._slabs.steps * (number + 1) - 1))
            news = EpochNews(
                number + 1, train_loss, value, rate, losses, nnx.merge(self._graph, state.weights)
            )
            for observer in observers:
                observer.epoch(news)
        best = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), state.best_weights)
        return nnx.merge(self._graph, best), state.history


def fingerprint(**of: Any) -> str:
    """A digest of all that a training depends on, as JSON values and dataclasses."""
    plain = {
        name: asdict(value) if hasattr(value, "__dataclass_fields__") else value
        for name, value in of.items()
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
