"""What learning rate, epochs and latent size do: a grid of trainings, each tested like any other.

Points are compared by their held-out loss, which sees no label of a test row (and none at all
for kinds that are not supervised). Test figures stand beside it; nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from models.kinds.base import ModelKind
from models.recipe import FitConfig
from training.datasets.base import Table
from training.evaluate import Outcome, outcome_of, prepare, score_in_order, train_on
from training.trials import FeatureSet, Trial


class NoLatent(ValueError):
    """The kind of model has no latent space whose size could be varied."""


@dataclass(frozen=True)
class Point:
    """One point of the grid."""

    learning_rate: float
    epochs: int
    latent: int | None

    def config(self, base: FitConfig) -> FitConfig:
        """`base` at this point."""
        return replace(base, learning_rate=self.learning_rate, epochs=self.epochs)

    def network(self, base: Any) -> Any:
        """The sizes `base` at this point."""
        return base if self.latent is None else replace(base, latent=self.latent)


@dataclass(frozen=True)
class Result:
    """What one training at a point came to.

    Attributes:
        held_out_loss: the lowest of all epochs.
        best_epoch: the epoch that had it, from 1.
        epochs_run: epochs until it was over.
        outcome: figures of the test rows.
    """

    held_out_loss: float
    best_epoch: int
    epochs_run: int
    outcome: Outcome


def grid(
    config: FitConfig,
    network: Any,
    learning_rates: Sequence[float],
    epochs: Sequence[int],
    latents: Sequence[int],
) -> list[Point]:
    """All combinations; where nothing is to be varied, what the model has anyway.

    Raises:
        NoLatent: latent sizes are wanted of sizes that have none.
    """
    if latents and not hasattr(network, "latent"):
        raise NoLatent("this kind of model has no latent space")
    rates = learning_rates or [config.learning_rate]
    lengths = epochs or [config.epochs]
    spaces: Sequence[int | None] = latents or [getattr(network, "latent", None)]
    return [Point(*values) for values in product(rates, lengths, spaces)]


def run_point(
    point: Point,
    trial: Trial,
    tables: tuple[Table, ...],
    features: FeatureSet,
    seed: int,
    kind: ModelKind[Any],
    network: Any,
) -> Result:
    """Train at a point on a seed's split and test once.

    Raises:
        TooFewRows: there are too few rows to train on.
    """
    task = prepare(trial, tables, features, seed, supervised=kind.supervised)
    detector = train_on(task, kind, point.config(kind.training), point.network(network))
    losses = [entry["validation"] for entry in detector.provenance["history"]]
    best = int(np.argmin(losses))
    return Result(
        held_out_loss=losses[best],
        best_epoch=best + 1,
        epochs_run=len(losses),
        outcome=outcome_of(score_in_order(detector, task.split.rows), task.used, task.split.attack),
    )
