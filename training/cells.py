"""One cell of an evaluation: a contender, a trial, features, a seed; trained, tested, recorded.

A record is made of JSON values, and says what it rests on (:mod:`training.records` keeps it).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import jax
import numpy as np
from numpy.typing import NDArray

from features.schema import FloatArray
from training.baselines import BASELINES, OneClassError, cross_validate
from training.contenders import CONTENDERS, KindContender, Learnt
from training.datasets import DATASETS
from training.datasets.base import Table
from training.evaluate import Task, first_of_each, prepare
from training.fit import TooFewRows
from training.metrics import by_category, calibrated_threshold, figures
from training.sources import digest
from training.trials import TRIALS, FeatureSet, TooFewToHideError, chosen_features

CALIBRATED = {"held_out_99": 0.01, "held_out_95": 0.05, "held_out_92": 0.08}
"""Thresholds from held-out benign rows, and their false-positive rates."""
HEADLINE = "held_out_99"
"""The threshold that categories are counted at."""
DRAWN_ROWS = 4000
"""Test rows whose latent means are kept for a picture."""
FOLDS = 5

Record = dict[str, Any]
BY_TRIAL = {trial.name: trial for trial in TRIALS}


@dataclass(frozen=True)
class Drawn:
    """What pictures of a cell are drawn from.

    Attributes:
        score, attack: ``[M]``, of the test rows.
        latent, latent_category: ``[B, Z]`` and ``[B]`` of some of them; empty if there is none.
    """

    score: FloatArray
    attack: NDArray[np.bool_]
    latent: FloatArray
    latent_category: NDArray[np.str_]


class Cell(Protocol):
    """Something to run once."""

    @property
    def path(self) -> str:
        """Where its record is kept, below the folder; unlike any other cell's."""

    @property
    def dataset(self) -> str:
        """Whose tables it takes."""

    @property
    def source(self) -> str:
        """What names its tables; cells that have it in common take the same."""

    def load(self, data: Path) -> tuple[Table, ...]:
        """Its tables."""

    def rests_on(self) -> str:
        """A digest of all that decides the record, beside the data."""

    def run(self, tables: tuple[Table, ...]) -> tuple[Record, Drawn | None]:
        """Train and test.

        Raises:
            TooFewRows: there are too few rows to train on.
        """


@dataclass(frozen=True)
class TrialCell:
    """Train on a trial's training rows, test on its test rows."""

    trial: str
    features: FeatureSet
    model: str
    seed: int
    contamination: float = 0.0

    @property
    def path(self) -> str:
        """See :class:`Cell`."""
        hidden = f"{100 * self.contamination:g}-percent-hidden/" if self.contamination else ""
        return f"{self.trial}/{self.features}/{self.model}/{hidden}seed-{self.seed}"

    @property
    def dataset(self) -> str:
        """See :class:`Cell`."""
        return BY_TRIAL[self.trial].dataset

    @property
    def source(self) -> str:
        """See :class:`Cell`."""
        return self.trial

    def load(self, data: Path) -> tuple[Table, ...]:
        """See :class:`Cell`."""
        return BY_TRIAL[self.trial].load(data)

    def rests_on(self) -> str:
        """See :class:`Cell`."""
        contender = CONTENDERS[self.model]
        learns: tuple[str, ...] = ("training.baselines",)
        if isinstance(contender, KindContender):
            learns = ("training.fit", type(contender.kind).__module__)
        return _digest(self.dataset, learns, contender.recipe(self.dataset))

    def run(self, tables: tuple[Table, ...]) -> tuple[Record, Drawn | None]:
        """See :class:`Cell`."""
        contender, trial = CONTENDERS[self.model], BY_TRIAL[self.trial]
        task = prepare(
            trial, tables, self.features, self.seed,
            supervised=contender.supervised, contamination=self.contamination,
        )  # fmt: skip
        begun = perf_counter()
        learnt = contender.learn(task)
        trained = perf_counter()
        score = learnt.score(task.split.rows)
        tested = perf_counter()
        record = {
            "cell": asdict(self),
            "recipe": contender.recipe(self.dataset),
            "trained_on": learnt.rows,
            "calibrated_on": len(learnt.held_out),
            "seconds": {"learn": round(trained - begun, 2), "score": round(tested - trained, 2)},
            **_figures(task, learnt, score),
            "history": learnt.history,
        }
        jax.clear_caches()  # type: ignore[no-untyped-call]  # code of networks that are gone
        shown = self.seed == 0 and not self.contamination
        return record, _drawn(task, learnt, score) if shown else None


def _digest(dataset: str, learns: tuple[str, ...], recipe: Mapping[str, Any]) -> str:
    """Over how rows are read and split, the code that learns, and the recipe."""
    reads = ("training.trials", "training.rows", type(DATASETS[dataset]).__module__)
    alone = ("training.cells", "training.contenders", "training.evaluate", "training.metrics")
    text = digest((*reads, *learns), alone) + json.dumps(recipe, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _figures(task: Task, learnt: Learnt, score: FloatArray) -> dict[str, Any]:
    """Figures of all test rows, of distinct ones, and of each category."""
    attack = task.split.attack
    thresholds = {
        name: calibrated_threshold(learnt.held_out, fpr) for name, fpr in CALIBRATED.items()
    }
    if learnt.trained is not None:
        thresholds["training_99"] = float(np.quantile(learnt.trained, 0.99))
    if learnt.natural is not None:
        thresholds["natural"] = learnt.natural
    first = first_of_each(task.used, attack)
    return {
        "all": figures(score, attack, thresholds),
        "distinct": figures(score[first], attack[first], thresholds),
        "categories": by_category(score, attack, task.split.category, thresholds[HEADLINE]),
    }


def _drawn(task: Task, learnt: Learnt, score: FloatArray) -> Drawn:
    rows, latent, category = task.split.rows, np.empty((0, 0)), np.empty(0, np.str_)
    if learnt.latent is not None:
        some = np.random.default_rng(task.seed).permutation(len(rows))[:DRAWN_ROWS]
        latent, category = learnt.latent(rows[some]), task.split.category[some]
    return Drawn(score, task.split.attack, latent, category)


@dataclass(frozen=True)
class CeilingCell:
    """What a supervised baseline reaches under cross-validation within the rows of a part.

    Attributes:
        dataset, part: whose rows.
        features: of the rows, as published but for ``live``.
        model: a supervised baseline.
        grouped: rows that are equal are in one fold.
    """

    dataset: str
    part: str
    features: FeatureSet
    model: str
    grouped: bool

    @property
    def path(self) -> str:
        """See :class:`Cell`."""
        repeats = "repeats-grouped" if self.grouped else "repeats-not-grouped"
        return f"ceilings/{self.dataset}-{self.part}/{self.features}/{self.model}/{repeats}"

    @property
    def source(self) -> str:
        """See :class:`Cell`."""
        return f"{self.dataset} {self.part}"

    def load(self, data: Path) -> tuple[Table, ...]:
        """See :class:`Cell`."""
        return (DATASETS[self.dataset].load(data, self.part),)

    def rests_on(self) -> str:
        """See :class:`Cell`."""
        return _digest(self.dataset, ("training.baselines",), {})

    def run(self, tables: tuple[Table, ...]) -> tuple[Record, None]:
        """See :class:`Cell`."""
        (table,) = tables
        names = chosen_features(table.schema, self.features)
        begun = perf_counter()
        folds = [
            asdict(fold)
            for fold in cross_validate(
                BASELINES[self.model], table.schema, names, table.rows, table.attack,
                seed=0, folds=FOLDS, grouped=self.grouped,
            )
        ]  # fmt: skip
        seconds = {"learn": round(perf_counter() - begun, 2), "score": 0.0}
        return {"cell": asdict(self), "seconds": seconds, "folds": folds}, None


def left_out(cell: Cell, tables: tuple[Table, ...]) -> tuple[Record, Drawn | None]:
    """Run a cell; where its rows are not enough, the record says so instead."""
    try:
        return cell.run(tables)
    except (TooFewRows, OneClassError, TooFewToHideError) as error:
        return {"left_out": str(error), "because": type(error).__name__}, None
