"""What a detector has to beat: scikit-learn's models on the same rows and the same inputs.

Inputs are those of the detector: :class:`features.encoder.Encoder`, then one input for each
term of a category. Nothing here was tuned: parameters are scikit-learn's defaults or those
of the work that a baseline stands for, and say which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.svm import SVC, OneClassSVM

from features.encoder import Encoder
from features.schema import FloatArray, Schema

Inputs = NDArray[np.float32]
Labels = NDArray[np.bool_]
Score = Callable[[FloatArray], FloatArray]
"""From rows ``[B, F]`` of the schema to ``[B]``; larger is more anomalous, in no unit."""
Learn = Callable[[Inputs, Labels, int], Callable[[Inputs], FloatArray]]
"""From inputs ``[N, D]``, labels ``[N]`` and a seed to a score of inputs."""

NEIGHBOURS = 3
"""Of the k-nearest-neighbour classifier, as in the NSL-KDD study that it stands for."""
NEAREST = 5
"""Neighbours whose mean distance is a score (Angiulli and Pizzuti, PKDD 2002)."""
OUTSIDE = 0.01
"""Share of the training rows that the one-class SVM may leave outside: our false-positive rate."""
KEPT_VARIANCE = 0.95
"""Share of the variance that the principal components keep."""
TREES = 100


class OneClassError(ValueError):
    """A supervised baseline was given no labels, or rows of one class."""


class OneHot:
    """From rows to inputs ``[N, D]``: encoded amounts, and 0 or 1 for each term of a category."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        sizes = [column.size for column in encoder.categories]
        self.features: tuple[str, ...] = (
            *(column.name for column in encoder.numeric),
            *(column.name for column in encoder.categories for _ in range(column.size)),
        )
        """The feature of each input, ``D`` of them."""
        self._terms = [np.arange(size) for size in sizes]

    def __call__(self, rows: FloatArray) -> Inputs:
        """Inputs ``[N, D]`` of rows ``[N, F]``."""
        encoded = self.encoder.encode(rows)
        hot = [
            encoded.categories[:, at, None] == terms[None] for at, terms in enumerate(self._terms)
        ]
        return np.concatenate([encoded.amounts, *hot], axis=1, dtype=np.float32)


@dataclass(frozen=True)
class Baseline:
    """One model to compare with.

    Attributes:
        name, title: how it is chosen, and how a table calls it.
        supervised: whether it learns from labels. Those that do not see benign rows only.
        learn: see :data:`Learn`.
        most_rows: a seeded sample of so many rows is learnt from where there are more,
            because time or memory grows with their square, or with theirs times the tested.
        cut: the score from which on a supervised one says attack.
    """

    name: str
    title: str
    supervised: bool
    learn: Learn
    most_rows: int | None = None
    cut: float | None = None

    def fit(
        self,
        schema: Schema,
        names: Sequence[str],
        rows: FloatArray,
        attack: Labels | None,
        seed: int,
    ) -> Score:
        """Learn from rows ``[N, F]``, in the features `names`.

        Args:
            schema: whose columns `rows` has.
            names: features to use.
            rows: to train on.
            attack: ``[N]`` labels. A one-class baseline leaves attacks out; with None it
                takes all rows for benign ones.
            seed: of all randomness.

        Raises:
            OneClassError: a supervised baseline needs rows of both classes.
            ValueError: a feature in `names` is not finite in every row.
        """
        labels = np.zeros(len(rows), np.bool_) if attack is None else attack
        if self.supervised and (labels.all() or not labels.any()):
            raise OneClassError(f"{self.name} learns from benign rows and attacks: give both")
        if not self.supervised:
            rows, labels = rows[~labels], labels[~labels]
        if self.most_rows is not None and len(rows) > self.most_rows:
            drawn = np.random.default_rng(seed).permutation(len(rows))[: self.most_rows]
            rows, labels = rows[drawn], labels[drawn]
        inputs = OneHot(Encoder.fit(schema, tuple(names), rows))
        score = self.learn(inputs(rows), labels, seed)
        return lambda test: score(inputs(test)).astype(np.float64)


def _attack_share(model: Any) -> Callable[[Inputs], FloatArray]:
    return lambda inputs: model.predict_proba(inputs)[:, 1]


def _nearest_classes(inputs: Inputs, labels: Labels, seed: int) -> Callable[[Inputs], FloatArray]:
    return _attack_share(KNeighborsClassifier(NEIGHBOURS, algorithm="brute").fit(inputs, labels))


def _distance(inputs: Inputs, labels: Labels, seed: int) -> Callable[[Inputs], FloatArray]:
    near = NearestNeighbors(n_neighbors=NEAREST, algorithm="brute").fit(inputs)
    return lambda inputs: near.kneighbors(inputs)[0].mean(axis=1)


def _svm(inputs: Inputs, labels: Labels, seed: int) -> Callable[[Inputs], FloatArray]:
    model = SVC(random_state=seed).fit(inputs, labels)
    return lambda inputs: model.decision_function(inputs)


def _one_class_svm(inputs: Inputs, labels: Labels, seed: int) -> Callable[[Inputs], FloatArray]:
    model = OneClassSVM(nu=OUTSIDE).fit(inputs)
    return lambda inputs: -model.decision_function(inputs)


def _isolation(inputs: Inputs, labels: Labels, seed: int) -> Callable[[Inputs], FloatArray]:
    model = IsolationForest(n_estimators=TREES, random_state=seed).fit(inputs)
    return lambda inputs: -model.score_samples(inputs)


def _residual(inputs: Inputs, labels: Labels, seed: int) -> Callable[[Inputs], FloatArray]:
    model = PCA(KEPT_VARIANCE, svd_solver="full").fit(inputs)

    def score(inputs: Inputs) -> FloatArray:
        rebuilt = model.inverse_transform(model.transform(inputs))
        error: FloatArray = ((inputs - rebuilt) ** 2).sum(axis=1)
        return error

    return score


def _mahalanobis(inputs: Inputs, labels: Labels, seed: int) -> Callable[[Inputs], FloatArray]:
    # Shrunk (Ledoit and Wolf, 2004): inputs that are constant make a plain covariance singular.
    model: Any = LedoitWolf().fit(inputs.astype(np.float64))
    return lambda inputs: model.mahalanobis(inputs.astype(np.float64))


def _forest(inputs: Inputs, labels: Labels, seed: int) -> Callable[[Inputs], FloatArray]:
    return _attack_share(RandomForestClassifier(TREES, random_state=seed).fit(inputs, labels))


def _boosting(inputs: Inputs, labels: Labels, seed: int) -> Callable[[Inputs], FloatArray]:
    return _attack_share(
        HistGradientBoostingClassifier(max_iter=300, random_state=seed).fit(inputs, labels)
    )


_QUADRATIC = 10_000
"""Kernel machines take the square of it in time and memory: half a minute, not half a day."""
_BRUTE = 150_000
"""Neighbours are looked for among all: KDDTrain+ whole, KDD99 sampled."""

_ALL: tuple[Baseline, ...] = (
    Baseline("knn", f"{NEIGHBOURS} nearest neighbours", True, _nearest_classes, _BRUTE, cut=0.5),
    Baseline("knn-distance", f"distance to {NEAREST} neighbours", False, _distance, _BRUTE),
    Baseline("svm", "support vector machine (RBF)", True, _svm, _QUADRATIC, cut=0.0),
    Baseline("one-class-svm", "one-class SVM (RBF)", False, _one_class_svm, _QUADRATIC),
    Baseline("isolation-forest", "isolation forest", False, _isolation),
    Baseline("pca", "PCA residual", False, _residual),
    Baseline("mahalanobis", "Mahalanobis distance", False, _mahalanobis),
    Baseline("random-forest", "random forest", True, _forest, cut=0.5),
    Baseline("gradient-boosting", "gradient boosting", True, _boosting, cut=0.5),
)
BASELINES: dict[str, Baseline] = {baseline.name: baseline for baseline in _ALL}


def repeats(rows: FloatArray) -> NDArray[np.intp]:
    """A number for each row ``[N, F]``, the same for rows that are equal in every column."""
    frame = pd.DataFrame(rows)
    return np.asarray(frame.groupby(list(frame.columns), sort=False).ngroup(), np.intp)


@dataclass(frozen=True)
class Ceiling:
    """What a supervised model reaches on rows of the sort that it was trained on; one fold."""

    accuracy: float
    f1: float
    auroc: float
    average_precision: float


def cross_validate(
    baseline: Baseline,
    schema: Schema,
    names: Sequence[str],
    rows: FloatArray,
    attack: Labels,
    *,
    seed: int,
    folds: int = 5,
    grouped: bool = True,
) -> Iterator[Ceiling]:
    """Figures of a supervised baseline on each fold, learnt from the others.

    Rows that are equal in the features `names` are in one fold, whatever their labels;
    without that, a model meets its training rows again. `grouped=False` shows by how much
    that flatters.

    Raises:
        OneClassError: the baseline is not supervised, or a fold lacks a class.
    """
    if baseline.cut is None:
        raise OneClassError(f"{baseline.name} does not learn from labels")
    used = rows[:, schema.index(tuple(names))]
    groups = repeats(used) if grouped else np.arange(len(rows))
    split = GroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in split.split(rows, attack, groups):
        score = baseline.fit(schema, names, rows[train], attack[train], seed)(rows[test])
        truth = attack[test]
        if truth.all() or not truth.any():
            raise OneClassError(f"a fold of {len(test)} rows has one class only")
        said = score >= baseline.cut
        yield Ceiling(
            accuracy=float(accuracy_score(truth, said)),
            f1=float(f1_score(truth, said)),
            auroc=float(roc_auc_score(truth, score)),
            average_precision=float(average_precision_score(truth, score)),
        )
