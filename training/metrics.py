"""What scores are worth: pure functions of scores, labels and thresholds.

A row is alerted if its score is *above* the threshold. Thresholds come from scores of benign
rows; only those called *oracle*, and points read off the ROC curve, look at labels of test rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from features.schema import FloatArray

Labels = NDArray[np.bool_]
FALSE_POSITIVES = (0.001, 0.01, 0.05)
"""Rates at which the ROC curve is read off."""


@dataclass(frozen=True)
class Decision:
    """How many rows a threshold gets right.

    Attributes:
        threshold: alerted is what scores above it.
        accuracy, precision, recall, f1: as usual, attacks being what is looked for; precision
            is 0 where nothing is alerted.
        fpr: share of the benign rows that were alerted: *realised* false positives.
    """

    threshold: float
    accuracy: float
    precision: float
    recall: float
    f1: float
    fpr: float


def decide(score: FloatArray, attack: Labels, threshold: float) -> Decision:
    """Figures of scores ``[M]`` with labels ``[M]``, of both sorts, at a threshold."""
    alerted = score > threshold
    true, false = int((alerted & attack).sum()), int((alerted & ~attack).sum())
    attacks, benign = int(attack.sum()), int((~attack).sum())
    return Decision(
        threshold=float(threshold),
        accuracy=(true + benign - false) / (attacks + benign),
        precision=true / max(true + false, 1),
        recall=true / attacks,
        f1=2 * true / (attacks + true + false),
        fpr=false / benign,
    )


def calibrated_threshold(held_out: FloatArray, fpr: float) -> float:
    """The threshold of a false-positive rate, from scores ``[N]`` of held-out benign rows.

    The same rule as the sensor's: alerted is what has a conformal p-value
    (:class:`models.calibration.Calibration`) of `fpr` at most. Infinite if there are too few
    rows for any.
    """
    allowed = int(np.floor(fpr * (len(held_out) + 1) + 1e-9)) - 1
    if allowed < 0:
        return float("inf")
    return float(np.sort(held_out)[len(held_out) - 1 - allowed])


@dataclass(frozen=True)
class _Curve:
    """What is alerted by each threshold, from the highest score down.

    Attributes:
        score: ``[G]``, the lowest score that is alerted.
        true, false: ``[G]``, how many attacks and benign rows are.
    """

    score: FloatArray
    true: NDArray[np.intp]
    false: NDArray[np.intp]


def _curve(score: FloatArray, attack: Labels) -> _Curve:
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # of equal scores
    true = np.cumsum(attack[order], dtype=np.intp)[last]
    return _Curve(score[order][last], true, last + 1 - true)


def oracle_threshold(score: FloatArray, attack: Labels, by: Literal["accuracy", "f1"]) -> float:
    """The threshold that is best for the labels of these very rows; nobody has them."""
    curve = _curve(score, attack)
    attacks, benign = int(attack.sum()), int((~attack).sum())
    if by == "accuracy":
        worth, none = curve.true + benign - curve.false, benign
    else:
        worth, none = 2 * curve.true / (attacks + curve.true + curve.false), 0
    best = int(worth.argmax())
    if worth[best] <= none:
        return float(curve.score[0])
    return float(np.nextafter(curve.score[best], -np.inf))


def recall_at(score: FloatArray, attack: Labels, fpr: float) -> float:
    """The highest recall of any threshold that alerts a share `fpr` of the benign rows at most."""
    curve = _curve(score, attack)
    within = curve.true[curve.false <= fpr * (~attack).sum()]
    return float(within[-1] / attack.sum()) if len(within) else 0.0


def above_benign(score: FloatArray, benign: FloatArray) -> FloatArray:
    """Share of `benign` scores ``[N]`` below each score, ties by half: ``[M]``."""
    ordered = np.sort(benign)
    left, right = (np.searchsorted(ordered, score, side) for side in ("left", "right"))
    share: FloatArray = (left + right) / (2 * len(ordered))
    return share


def auroc(score: FloatArray, attack: Labels) -> float:
    """Area under the ROC curve (Mann and Whitney, 1947)."""
    return float(above_benign(score[attack], score[~attack]).mean())


def figures(score: FloatArray, attack: Labels, thresholds: Mapping[str, float]) -> dict[str, Any]:
    """All figures of scores ``[M]`` with labels ``[M]`` of both sorts, as JSON values.

    Args:
        score, attack: of the test rows.
        thresholds: found without them, by name; two oracle ones are added.
    """
    oracle = {f"oracle_{by}": oracle_threshold(score, attack, by) for by in ("accuracy", "f1")}
    return {
        "rows": {"benign": int((~attack).sum()), "attacks": int(attack.sum())},
        "auroc": auroc(score, attack),
        "average_precision": float(average_precision_score(attack, score)),
        **{f"recall_at_{fpr}": recall_at(score, attack, fpr) for fpr in FALSE_POSITIVES},
        "thresholds": {
            name: asdict(decide(score, attack, threshold))
            for name, threshold in {**thresholds, **oracle}.items()
            if np.isfinite(threshold)
        },
    }


def by_category(
    score: FloatArray, attack: Labels, category: NDArray[np.str_], threshold: float
) -> dict[str, dict[str, float]]:
    """For each category of attacks its rows, recall at the threshold, and AUROC among benign."""
    share = above_benign(score, score[~attack])
    result = {}
    for name in np.unique(category[attack]):
        mine = attack & (category == name)
        result[str(name)] = {
            "rows": int(mine.sum()),
            "recall": float((score[mine] > threshold).mean()),
            "auroc": float(share[mine].mean()),
        }
    return result


def mean_sd(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
