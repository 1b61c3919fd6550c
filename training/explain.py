"""Which features made a score: the parts that a detector gives itself, beside two other answers.

A detector's parts cost nothing and go into every alert. Shapley values, which are what SHAP
estimates, cost thousands of scorings a flow, but need not know the model, and are fair in the
sense of Shapley's axioms. Integrated gradients (:mod:`training.integrated`) go straight from a
benign row to the flow, and so meet fewer mixtures of the two. How far they agree says what the
parts are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from features.schema import FloatArray
from training.integrated import Integrated, Score

Integrate = Callable[[FloatArray, FloatArray], Integrated]
"""From rows ``[B, F]`` and background rows ``[N, F]`` to what lines between them say."""

TOP = 5
"""Features that are compared as a set: an alert names as many."""


class _Scores(Protocol):
    @property
    def score(self) -> FloatArray: ...

    @property
    def parts(self) -> FloatArray: ...


class Explained(Protocol):
    """What is asked of a detector: its scores, their parts, and the columns these belong to."""

    @property
    def columns(self) -> NDArray[np.intp]:
        """``[U]`` columns of the rows, one a part."""

    def score(self, rows: FloatArray) -> _Scores:
        """Scores ``[B]`` and parts ``[B, U]`` of rows ``[B, F]``."""


@dataclass(frozen=True)
class Shapley:
    """Shapley values of ``B`` scores.

    Attributes:
        values: ``[B, U]``, in the score's unit: what each feature adds to the score, against
            background rows. They sum to the score less its mean over the background rows met.
        error: ``[B, U]``, their standard errors.
    """

    values: FloatArray
    error: FloatArray


def shapley(
    score: Score,
    rows: FloatArray,
    background: FloatArray,
    columns: NDArray[np.intp],
    *,
    walks: int = 256,
    seed: int = 0,
) -> Shapley:
    """Estimate Shapley values by random walks (Castro et al., 2009; Mitchell et al., 2022).

    A walk starts at a background row and takes over the features of the explained row one by
    one, in random order; each feature is credited with how much the score moves. Every order
    is walked backwards, too, from the same start, which lessens the variance. The game is that
    of SHAP (Lundberg and Lee, 2017): an absent feature has the values that it has in
    background rows, whatever the others are.

    Args:
        score: of rows; called once for each row, with ``walks * (U + 1)`` rows.
        rows: ``[B, F]`` to explain.
        background: ``[N, F]`` rows that say what is usual, benign ones.
        columns: ``[U]`` columns that the score looks at.
        walks: for each row; an even number, four at least.
        seed: of the orders and of the starts.

    Raises:
        ValueError: there are no background rows, or `walks` is odd or too few.
    """
    if walks % 2 or walks < 4 or not len(background):
        raise ValueError("Shapley values need background rows, and 4 walks or another even number")
    rng, count = np.random.default_rng(seed), len(columns)
    values, error = np.empty((2, len(rows), count))
    for at, row in enumerate(rows):
        place = rng.permuted(np.tile(np.arange(count), (walks // 2, 1)), axis=1)
        place = np.concatenate([place, count - 1 - place])  # of each feature in each walk
        start = background[np.tile(rng.integers(0, len(background), walks // 2), 2)]
        met = np.repeat(start[:, None], count + 1, axis=1)
        taken = place[:, None] < np.arange(count + 1)[None, :, None]
        met[:, :, columns] = np.where(taken, row[columns], met[:, :, columns])
        scores = score(met.reshape(-1, met.shape[2])).reshape(walks, count + 1)
        moved = np.take_along_axis(np.diff(scores, axis=1), place, axis=1)
        pairs = moved.reshape(2, walks // 2, count).mean(axis=0)
        values[at] = pairs.mean(axis=0)
        error[at] = pairs.std(axis=0, ddof=1) / np.sqrt(walks // 2)
    return Shapley(values, error)


@dataclass(frozen=True)
class Agreement:
    """How far two rankings of ``U`` features agree, each a mean over ``flows`` flows.

    Attributes:
        spearman, kendall: rank correlations (tau-b), 1 for the same order.
        top: share of the first :data:`TOP` features that they have in common.
        first: share of flows of which both name the same feature first.
        flows: with an order at all: in neither are all features alike.
    """

    spearman: float
    kendall: float
    top: float
    first: float
    flows: int


def agreement(one: FloatArray, other: FloatArray, top: int = TOP) -> Agreement:
    """Compare two sets of shares ``[B, U]`` of the same scores.

    Raises:
        ValueError: no flow has an order in both.
    """
    figures = []
    for a, b in zip(one, other, strict=True):
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            continue
        best, worst = (np.argsort(-each, kind="stable")[:top] for each in (a, b))
        figures.append(
            (
                spearmanr(a, b).statistic,
                kendalltau(a, b).statistic,
                len(np.intersect1d(best, worst)) / len(best),
                best[0] == worst[0],
            )
        )
    if not figures:
        raise ValueError("no flow has features that differ in both")
    spearman, kendall, common, first = np.mean(np.array(figures, np.float64), axis=0)
    return Agreement(float(spearman), float(kendall), float(common), float(first), len(figures))


def explained_share(
    score: Score,
    rows: FloatArray,
    background: FloatArray,
    columns: NDArray[np.intp],
    shares: FloatArray,
    *,
    top: int = TOP,
    seed: int = 0,
) -> float:
    """How much of the scores goes when their `top` features are made usual, 1 being all.

    The test of an explanation that needs no other one: the features named first are given the
    values of random background rows. How far the scores fall, in sum, is put in relation to
    their height above the mean background score. Below 0 the scores rise: a flow that is half
    another one can be stranger than either, where features depend on each other.

    Args:
        score, rows, background, columns: as in :func:`shapley`.
        shares: ``[B, U]``, of which the largest are taken.
        top: how many.
        seed: of the background rows drawn, 32 for each row.
    """
    rng, usual = np.random.default_rng(seed), score(background).mean()
    fall = height = 0.0
    for row, share in zip(rows, shares, strict=True):
        named = columns[np.argsort(-share, kind="stable")[:top]]
        changed = np.repeat(row[None], 33, axis=0)
        changed[1:, named] = background[rng.integers(0, len(background), 32)][:, named]
        scores = score(changed)
        fall += scores[0] - scores[1:].mean()
        height += scores[0] - usual
    return float(fall / height) if height > 0 else 0.0


@dataclass(frozen=True)
class Comparison:
    """A detector's parts, Shapley values and integrated gradients of the same flows.

    Attributes:
        features: names, ``U`` of them.
        means: of each method ``[U]`` means over the flows, in the score's unit.
        error: of those that are estimated, the largest standard error of a flow's value, relative
            to its score.
        gap: mean and largest completeness error of integrated gradients
            (:class:`training.integrated.Integrated`), relative to the flow's score.
        agreement: of each two methods.
        falls: share of the score that goes with the first :data:`TOP` features named by each
            method, or drawn at ``random``.
    """

    features: tuple[str, ...]
    means: dict[str, FloatArray]
    error: dict[str, float]
    gap: tuple[float, float]
    agreement: dict[tuple[str, str], Agreement]
    falls: dict[str, float]


def compare(
    detector: Explained,
    features: Sequence[str],
    rows: FloatArray,
    background: FloatArray,
    integrate: Integrate,
    *,
    walks: int = 256,
    seed: int = 0,
) -> Comparison:
    """Explain the scores of rows ``[B, F]`` in all three ways.

    They are called `parts`, `Shapley values`, and as `integrate` names its method.

    Args:
        detector: that gives the scores; `features` are the names of its parts.
        features: ``U`` names.
        rows: to explain, a sample of those that were alerted.
        background: ``[N, F]`` benign rows, some hundreds.
        integrate: the third way, e.g. :func:`training.integrated.integrated` of the detector.
        walks, seed: see :func:`shapley`.
    """

    def score(rows: FloatArray) -> FloatArray:
        return detector.score(rows).score

    found = detector.score(rows)
    values = shapley(score, rows, background, detector.columns, walks=walks, seed=seed)
    lines = integrate(rows, background)
    ways = {"parts": found.parts, "Shapley values": values.values, lines.method: lines.values}
    drawn = np.random.default_rng(seed).random(found.parts.shape)
    height = np.maximum(np.abs(found.score), 1e-9)
    gap = np.abs(lines.gap) / height
    errors = {"Shapley values": values.error, lines.method: lines.error}
    return Comparison(
        tuple(features),
        {way: shares.mean(axis=0) for way, shares in ways.items()},
        {way: float((error.max(axis=1) / height).max()) for way, error in errors.items()},
        (float(gap.mean()), float(gap.max())),
        {(one, other): agreement(ways[one], ways[other]) for one, other in combinations(ways, 2)},
        {
            name: explained_share(score, rows, background, detector.columns, shares, seed=seed)
            for name, shares in {**ways, "random": drawn}.items()
        },
    )
