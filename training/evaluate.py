"""What is trained and tested: a seed's rows as they are measured, a detector, its scores."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from features.history import previous_rows, windows_of
from features.schema import FloatArray, Schema
from models.detector import Detector, Scores
from models.kinds import DEFAULT_KIND, KINDS
from models.kinds.base import ModelKind
from models.recipe import FitConfig
from training.baselines import repeats
from training.datasets.base import Table
from training.fit import fit
from training.metrics import auroc
from training.recipes import sizes
from training.rows import TableRows
from training.trials import (
    LIVE_CLOCK_US,
    PUBLISHED_CLOCK_US,
    FeatureSet,
    Split,
    Trial,
    as_measured,
    chosen_features,
    contaminated,
)

TARGET_FPR = 0.01
SCORED_ROWS = 8192
"""Test rows scored at once; windows of them are copies."""


@dataclass(frozen=True)
class Task:
    """A seed's rows, measured as the features demand.

    Attributes:
        dataset: its name.
        schema: of all rows.
        names: the features that may be used.
        clock_us: resolution of times.
        seed: of all randomness.
        split: the rows to train on and to test on.
    """

    dataset: str
    schema: Schema
    names: tuple[str, ...]
    clock_us: int
    seed: int
    split: Split

    @property
    def used(self) -> FloatArray:
        """The test rows in the features that may be used, ``[M, U]``."""
        return self.split.rows[:, self.schema.index(self.names)]


def prepare(
    trial: Trial,
    tables: tuple[Table, ...],
    features: FeatureSet,
    seed: int,
    *,
    supervised: bool = False,
    contamination: float = 0.0,
) -> Task:
    """The rows of a seed.

    Args:
        trial, tables: how the data set is split.
        features: which are used.
        seed: draws whatever is drawn.
        supervised: attacks are trained on, too.
        contamination: share of hidden attacks (:func:`training.trials.contaminated`).

    Raises:
        NoSuchFeatures: the data set has no such features.
        TooFewToHideError: there are too few attacks to hide.
        ValueError: attacks are to be hidden that are trained on anyway.
    """
    rng, schema = np.random.default_rng(seed), tables[0].schema
    names = chosen_features(schema, features)
    split = trial.split(tables, rng, supervised)
    if contamination:
        split = contaminated(split, contamination, np.random.default_rng([seed, 1]))
    return Task(
        dataset=trial.dataset,
        schema=schema,
        names=names,
        clock_us=LIVE_CLOCK_US if features == "live" else PUBLISHED_CLOCK_US,
        seed=seed,
        split=Split(
            train=as_measured(schema, split.train, features, rng),
            train_attack=split.train_attack,
            rows=as_measured(schema, split.rows, features, rng),
            attack=split.attack,
            category=split.category,
        ),
    )


def train_on(
    task: Task,
    kind: ModelKind[Any] = KINDS[DEFAULT_KIND],
    config: FitConfig | None = None,
    network: Any = None,
) -> Detector:
    """A detector fitted on a task's training rows.

    Raises:
        TooFewRows: there are too few of them, or of attacks for a supervised kind.
    """
    return fit(
        task.schema,
        task.names,
        TableRows(task.split.train, task.split.train_attack),
        name=task.dataset,
        seed=task.seed,
        clock_us=task.clock_us,
        kind=kind,
        config=config,
        network=network or sizes(task.dataset, kind),
    )


def score_in_order(detector: Detector, rows: FloatArray) -> Scores:
    """Scores of rows ``[N, F]`` that came in this order.

    Data sets tell no hosts: a model of windows takes all rows for one host's.
    """
    before = previous_rows(np.zeros(len(rows), np.uint64), detector.window - 1)
    parts = []
    for begin in range(0, len(rows), SCORED_ROWS):
        end = begin + SCORED_ROWS
        parts.append(detector.score(windows_of(rows[:end], before[begin:end])))
    columns = (field.name for field in fields(Scores))
    return Scores(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def first_of_each(used: FloatArray, attack: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Numbers of the rows that repeat no earlier one, label and all.

    Args:
        used: ``[M, U]``, the rows in the features that may be used.
        attack: ``[M]`` their labels.
    """
    return np.unique(repeats(np.column_stack([used, attack])), return_index=True)[1]


@dataclass(frozen=True)
class Outcome:
    """Figures of one seed. `distinct` counts each test row once, however often it occurs."""

    auroc: float
    average_precision: float
    realised_fpr: float
    recall: float
    auroc_distinct: float


def outcome_of(scores: Scores, used: FloatArray, attack: NDArray[np.bool_]) -> Outcome:
    """Figures of scored test rows ``[M, U]`` (features in use) with their labels ``[M]``.

    The alert threshold is the calibration's p-value at :data:`TARGET_FPR`.
    """
    alerted = scores.p_value <= TARGET_FPR
    first = first_of_each(used, attack)
    return Outcome(
        auroc=auroc(scores.score, attack),
        average_precision=float(average_precision_score(attack, scores.score)),
        realised_fpr=float(alerted[~attack].mean()),
        recall=float(alerted[attack].mean()),
        auroc_distinct=auroc(scores.score[first], attack[first]),
    )
