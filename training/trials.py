"""How data sets are split into rows to train on and rows to test on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features.schema import FloatArray, Schema
from training.datasets import DATASETS
from training.datasets.base import Table

FeatureSet = Literal["live", "all", "header"]
LIVE_CLOCK_US = 1000
"""The clock that the shipped models are trained for: stock NFStream's milliseconds."""
PUBLISHED_CLOCK_US = 1
"""The clock of rows that are used as published."""
RARE = 0.01
"""Share of attacks where a trial makes them rare."""


class NoSuchFeatures(ValueError):
    """A schema has no such set of features."""


class TooFewToHideError(ValueError):
    """There are fewer attacks than are to be hidden."""


def feature_sets(schema: Schema) -> tuple[FeatureSet, ...]:
    """The sets of features that a schema has."""
    return ("all", "live", "header") if schema.name == "kdd" else ("all", "live")


def chosen_features(schema: Schema, features: FeatureSet) -> tuple[str, ...]:
    """Names of the features of a set.

    ``live``: what a sensor measures and a real network shares; ``all``: every column;
    ``header``: KDD's 1 to 9 and 23 to 41, which need no look into sessions.

    Raises:
        NoSuchFeatures: the schema has no such set.
    """
    if features not in feature_sets(schema):
        raise NoSuchFeatures(f"schema {schema.name} has no features called {features}")
    if features == "header":
        return (*schema.names[:9], *schema.names[22:])
    return schema.names if features == "all" else schema.select(live=True, testbed=False)


def as_measured(
    schema: Schema, rows: FloatArray, features: FeatureSet, rng: np.random.Generator
) -> FloatArray:
    """Rows ``[N, F]`` as the chosen features are to be measured: by a sensor, or as published."""
    return schema.remeasure(rows, LIVE_CLOCK_US, rng) if features == "live" else rows


@dataclass(frozen=True)
class Split:
    """Rows to train on and to test on, both in the order of their file.

    Attributes:
        train: ``[N, F]`` rows to train, stop and calibrate on.
        train_attack: ``[N]`` their labels; attacks are for supervised kinds alone.
        rows: ``[M, F]`` test rows.
        attack: ``[M]`` their labels.
        category: ``[M]`` their categories, ``"normal"`` for benign ones.
    """

    train: FloatArray
    train_attack: NDArray[np.bool_]
    rows: FloatArray
    attack: NDArray[np.bool_]
    category: NDArray[np.str_]

    @property
    def benign(self) -> FloatArray:
        """The training rows that pass for benign ones, ``[N0, F]``."""
        return self.train[~self.train_attack]


@dataclass(frozen=True)
class Trial:
    """A way to split a data set: what is loaded, and how a seed splits it.

    `split` is told whether attacks are trained on, too; the test rows lack them then.

    Attributes:
        optional: where its files are missing, the data set's other trials are enough.
        special: rebuilds what another project did; not part of a usual evaluation.
    """

    name: str
    title: str
    dataset: str
    load: Callable[[Path], tuple[Table, ...]]
    split: Callable[[tuple[Table, ...], np.random.Generator, bool], Split]
    optional: bool = False
    special: bool = False


def _parts(dataset: str, *parts: str) -> Callable[[Path], tuple[Table, ...]]:
    return lambda directory: tuple(DATASETS[dataset].load(directory, part) for part in parts)


def _official(tables: tuple[Table, ...], rng: np.random.Generator, supervised: bool) -> Split:
    train, test = tables
    keep = np.ones(len(train.rows), bool) if supervised else ~train.attack
    return Split(train.rows[keep], train.attack[keep], test.rows, test.attack, test.category)


def _halves(tables: tuple[Table, ...], rng: np.random.Generator, supervised: bool) -> Split:
    (table,) = tables
    trained = np.zeros(len(table.rows), bool)
    for sort in (~table.attack, table.attack)[: 2 if supervised else 1]:
        rows = rng.permutation(np.flatnonzero(sort))
        trained[rows[: len(rows) // 2]] = True
    return Split(
        table.rows[trained],
        table.attack[trained],
        table.rows[~trained],
        table.attack[~trained],
        table.category[~trained],
    )


def _rare(tables: tuple[Table, ...], rng: np.random.Generator, supervised: bool) -> Split:
    """Halves, and of the test's attacks only so many that they are :data:`RARE`."""
    split = _halves(tables, rng, supervised)
    benign, attacks = np.flatnonzero(~split.attack), np.flatnonzero(split.attack)
    wanted = round(RARE / (1 - RARE) * len(benign))
    keep = np.sort(np.append(benign, rng.permutation(attacks)[:wanted]))
    return replace(
        split, rows=split.rows[keep], attack=split.attack[keep], category=split.category[keep]
    )


TRIALS: tuple[Trial, ...] = (
    Trial(
        "nsl-kdd", "benign KDDTrain+ to KDDTest+", "nsl-kdd",
        _parts("nsl-kdd", "train", "test"), _official,
    ),
    Trial(
        "unsw-nb15-halves", "half of the testing set's benign rows to its other rows",
        "unsw-nb15", _parts("unsw-nb15", "test"), _halves,
    ),
    Trial(
        "unsw-nb15", "benign training set to the testing set", "unsw-nb15",
        _parts("unsw-nb15", "train-normal", "test"), _official,
    ),
    Trial(
        "kdd99-halves", "half of the ten per cent's benign rows to its other rows", "kdd99",
        _parts("kdd99", "train"), _halves,
    ),
    Trial(
        "kdd99", "benign ten per cent to the corrected test data", "kdd99",
        _parts("kdd99", "train", "test"), _official, optional=True,
    ),
    Trial(
        "cicids2017-halves", "half of the sample's distinct benign rows to its other rows",
        "cicids2017", _parts("cicids2017", "sample-distinct"), _halves,
    ),
    Trial(
        "kdd99-rare", "half of the ten per cent's benign rows to the others and 1 % attacks",
        "kdd99", _parts("kdd99", "train"), _rare, special=True,
    ),
    Trial(
        "cicids2017-repeats", "half of the sample, repeats and all, to the other half",
        "cicids2017", _parts("cicids2017", "sample"), _halves, special=True,
    ),
)  # fmt: skip


def contaminated(split: Split, share: float, rng: np.random.Generator) -> Split:
    """The split with attacks hidden among the training rows, where they pass for benign ones.

    They are drawn from the test rows and taken out of these; other copies of them stay, as the
    same attack goes on in a real network.

    Args:
        split: without attacks among its training rows.
        share: of the training rows that are attacks afterwards, at most; below 1.
        rng: draws them, and their places.

    Raises:
        TooFewToHideError: the test would be left without attacks.
        ValueError: attacks are trained on anyway.
    """
    if split.train_attack.any():
        raise ValueError("attacks are trained on as such: nothing can be hidden")
    benign = len(split.train)
    hidden = int(share / (1 - share) * benign)
    attacks = np.flatnonzero(split.attack)
    if hidden >= len(attacks):
        raise TooFewToHideError(f"{hidden} attacks are to be hidden, there are {len(attacks)}")
    drawn = rng.permutation(attacks)[:hidden]
    place = np.sort(rng.integers(0, benign + 1, hidden))
    keep = np.ones(len(split.rows), bool)
    keep[drawn] = False
    return Split(
        train=np.insert(split.train, place, split.rows[drawn], axis=0),
        train_attack=np.zeros(benign + hidden, bool),
        rows=split.rows[keep],
        attack=split.attack[keep],
        category=split.category[keep],
    )
