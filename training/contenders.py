"""Whatever is compared: kinds of model and baselines, learnt from and asked in the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from features.encoder import Encoded
from features.schema import FloatArray
from models.detector import Detector
from models.kinds import KINDS
from models.kinds.base import Batch, ModelKind
from models.recipe import FitConfig
from training.baselines import BASELINES, Baseline, repeats
from training.evaluate import Task, score_in_order, train_on
from training.recipes import sizes
from training.rows import Role, run_length, split_roles

_TRAINED = (Role.TRAIN, Role.SAMPLE)


@dataclass(frozen=True)
class Learnt:
    """A contender that has learnt.

    Attributes:
        score: from test rows ``[M, F]`` in order to ``[M]``, larger is more anomalous.
        held_out: ``[C]`` scores of benign rows that it did not learn from.
        trained: ``[N]`` scores of the benign rows that it did learn from; None where a row's
            score among its own kind says nothing (a neighbour of itself).
        natural: the score from which on a supervised one says attack, None for others.
        history: losses of each epoch, if it has any.
        latent: from rows ``[B, F]`` to their latent means ``[B, Z]``, if it has any.
        rows: how many were trained on.
    """

    score: Callable[[FloatArray], FloatArray]
    held_out: FloatArray
    trained: FloatArray | None
    natural: float | None
    history: list[dict[str, float]]
    latent: Callable[[FloatArray], FloatArray] | None
    rows: int


class Contender(Protocol):
    """What can be compared."""

    @property
    def name(self) -> str:
        """How it is chosen."""

    @property
    def title(self) -> str:
        """What it is, in a few words."""

    @property
    def supervised(self) -> bool:
        """Whether it learns from labelled attacks."""

    def recipe(self, dataset: str) -> dict[str, Any]:
        """All that was chosen about it for a data set, as JSON values."""

    def learn(self, task: Task) -> Learnt:
        """Learn from a task's training rows.

        Raises:
            TooFewRows: there are too few of them, or of attacks for a supervised one.
            OneClassError: a supervised baseline has rows of one class only.
        """


@dataclass(frozen=True)
class KindContender:
    """A kind of model, in its own way of training unless another is given."""

    kind: ModelKind[Any]
    variant: str = ""
    config: FitConfig | None = None

    @property
    def name(self) -> str:
        """The kind's, and the variant's."""
        return self.kind.name + self.variant

    @property
    def title(self) -> str:
        """The kind's."""
        return self.kind.title

    @property
    def supervised(self) -> bool:
        """As the kind is."""
        return self.kind.supervised

    def recipe(self, dataset: str) -> dict[str, Any]:
        """Sizes and training."""
        training = asdict(self.config or self.kind.training)
        return {"network": asdict(sizes(dataset, self.kind)), "training": training}

    def learn(self, task: Task) -> Learnt:
        """See :class:`Contender`."""
        detector = train_on(task, self.kind, self.config)
        train, count = task.split.train, len(task.split.train)
        roles = split_roles(
            count, self.config or self.kind.training, task.seed, run_length(detector.window, count)
        )
        used = np.isin(roles, _TRAINED)
        return Learnt(
            score=lambda rows: score_in_order(detector, rows).score,
            held_out=detector.calibration.scores.astype(np.float64),
            trained=score_in_order(detector, train).score[used & ~task.split.train_attack],
            natural=0.0 if self.supervised else None,  # log-odds
            history=detector.provenance["history"],
            latent=latents(detector),
            rows=int(used.sum()),
        )


def latents(detector: Detector) -> Callable[[FloatArray], FloatArray] | None:
    """From rows ``[B, F]`` to latent means ``[B, Z]``; None for what has no such space.

    A model of windows sees each row as the first of its host.
    """
    posterior = getattr(detector.network, "posterior", None)  # mean and log variance
    if posterior is None:
        return None

    def means(rows: FloatArray) -> FloatArray:
        own = detector.encoder.encode(rows)
        shape = (len(rows), detector.window - 1)
        before = Encoded(*(np.zeros((*shape, *part.shape[1:]), part.dtype) for part in own))
        batch = jax.tree.map(jnp.asarray, Batch(own, before, np.zeros(shape, bool)))
        return np.asarray(posterior(batch)[0], np.float64)

    return means


@dataclass(frozen=True)
class BaselineContender:
    """A baseline, on the very rows that a detector of the same seed is trained on."""

    baseline: Baseline

    @property
    def name(self) -> str:
        """The baseline's."""
        return self.baseline.name

    @property
    def title(self) -> str:
        """The baseline's."""
        return self.baseline.title

    @property
    def supervised(self) -> bool:
        """As the baseline is."""
        return self.baseline.supervised

    def recipe(self, dataset: str) -> dict[str, Any]:
        """How many rows it learns from at most; all else is the code's."""
        return {"most_rows": self.baseline.most_rows}

    def learn(self, task: Task) -> Learnt:
        """See :class:`Contender`. Equal test rows are scored once: some scores are slow."""
        split = task.split
        roles = split_roles(len(split.train), FitConfig(), task.seed)
        used = np.isin(roles, _TRAINED)
        ask = self.baseline.fit(
            task.schema, task.names, split.train[used], split.train_attack[used], task.seed
        )
        columns = task.schema.index(task.names)

        def score(rows: FloatArray) -> FloatArray:
            _, first, again = np.unique(
                repeats(rows[:, columns]), return_index=True, return_inverse=True
            )
            return ask(rows[first])[again]

        cut = self.baseline.cut
        held_out = split.train[(roles == Role.CALIBRATION) & ~split.train_attack]
        return Learnt(
            score=score,
            held_out=score(held_out),
            trained=None,
            natural=None if cut is None else float(np.nextafter(cut, -np.inf)),  # from it on
            history=[],
            latent=None,
            rows=min(int(used.sum()), self.baseline.most_rows or len(used)),
        )


_AS_PUBLISHED = (
    # 10 epochs at 1e-5, batches of 512: a published project on KDD99.
    KindContender(
        KINDS["deep-autoencoder"],
        "-as-published",
        FitConfig(epochs=10, patience=10, batch=512, learning_rate=1e-5, schedule="constant"),
    ),
    # At most 73 epochs at 0.005, stopped after three that are no better: one on NSL-KDD.
    KindContender(
        KINDS["conv-vae"],
        "-as-published",
        FitConfig(epochs=73, patience=3, learning_rate=5e-3, schedule="constant"),
    ),
)

_ALL: tuple[Contender, ...] = (
    *(KindContender(kind) for kind in KINDS.values()),
    *(BaselineContender(baseline) for baseline in BASELINES.values()),
    *_AS_PUBLISHED,
)
CONTENDERS: dict[str, Contender] = {contender.name: contender for contender in _ALL}
"""By name: kinds first, then baselines, then kinds trained as other projects did."""
