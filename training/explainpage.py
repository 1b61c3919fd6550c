"""The page of `flowvane explain`: what made a detector's alerts, in three ways, words and bars."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from features.schema import FloatArray
from models.detector import Detector
from training import pictures
from training.datasets.base import Table
from training.explain import TOP, Comparison, compare
from training.integrated import POINTS, STEPS, Integrated, integrated, is_smooth
from training.page import Html, Page, picture, table, text

BACKGROUND = 300
"""Benign rows that say what is usual."""
SHOWN = 20
"""Features in the picture."""
WALKS_A_LINE = 8
"""Walks of Shapley values to a line of integrated gradients, which takes more scorings."""
LEAST = 5
"""Alerts of a class below which nothing is averaged."""


class NothingToExplainError(ValueError):
    """Too few of the rows were alerted, or none is benign."""


def choose(
    detector: Detector, rows: Table, fpr: float, most: int, seed: int
) -> tuple[dict[str, FloatArray], FloatArray]:
    """Alerted rows of attacks and of benign traffic, at most so many each, and benign rows.

    Rows are measured anew on the detector's clock, unless it was trained on them as published.

    Raises:
        NothingToExplainError: no benign rows, or less than :data:`LEAST` alerts in either class.
    """
    rng = np.random.default_rng(seed)
    # A clock of 1 us is that of rows that were used as published.
    measured = rows.rows
    if detector.clock_us > 1:
        measured = rows.schema.remeasure(rows.rows, detector.clock_us, rng)
    alerted = detector.score(measured).p_value <= fpr
    benign = rng.permutation(np.flatnonzero(~rows.attack))[:BACKGROUND]
    classes = {"attacks": alerted & rows.attack, "benign rows": alerted & ~rows.attack}
    drawn = {
        name: measured[rng.permutation(np.flatnonzero(chosen))[:most]]
        for name, chosen in classes.items()
        if chosen.sum() >= LEAST
    }
    if not drawn or not len(benign):
        raise NothingToExplainError(
            f"{int(alerted.sum())} of {len(alerted)} rows are alerted at {fpr}, {len(benign)} "
            f"benign ones: too few to explain; raise --fpr, or name a --part with both"
        )
    return drawn, measured[benign]


def render(
    detector: Detector,
    rows: dict[str, FloatArray],
    background: FloatArray,
    *,
    what: str,
    walks: int,
    seed: int,
    tell: Callable[[float], None],
) -> tuple[str, dict[str, Comparison]]:
    """The page, and the figures in it for each class of alerted rows.

    Args:
        detector: whose alerts are explained.
        rows: ``[B, F]`` of each class, see :func:`choose`.
        background: ``[N, F]`` benign rows.
        what: the rows are, for the heading.
        walks, seed: see :func:`training.explain.shapley`. There are lines, too, one for
            :data:`WALKS_A_LINE` walks.
        tell: called with 1 after each class.
    """
    names = [feature.name for feature in detector.features]
    found = {}
    lines = 2 * max(walks // (2 * WALKS_A_LINE), 2)  # an even number, four at least

    def integrate(rows: FloatArray, background: FloatArray) -> Integrated:
        return integrated(detector, rows, background, lines=lines, seed=seed)

    for name, chosen in rows.items():
        found[name] = compare(
            detector, names, chosen, background, integrate, walks=walks, seed=seed
        )
        tell(1)
    page = Page(
        f"{detector.name}: what its alerts are made of",
        f"Alerts on {what}. Beside the parts that the detector gives each feature stand Shapley "
        "values, which SHAP estimates too: what the feature adds to the score, on average over "
        f"all orders in which features could be made known, against {len(background)} benign "
        f"rows; {walks} random orders a row, seed {seed}. And {_lines(detector, lines)}",
    )
    page.add("agreement", "How far they agree", *_agreement(found))
    page.add("sums", "What they sum to", *_sums(found))
    for number, (name, comparison) in enumerate(found.items()):
        page.add(f"features-{number}", f"Features: {name}", _features(name, comparison))
    return page.render(), found


def _lines(detector: Detector, lines: int) -> str:
    """What the third way is, for this detector."""
    if is_smooth(detector):
        return (
            f"integrated gradients: the score's derivative, integrated over {POINTS} points of "
            f"each of {lines} straight lines from benign rows to the flow."
        )
    return (
        "path differences, as the score of binned heads has no derivative worth the name: "
        f"{lines} straight lines from benign rows to the flow, walked in {STEPS} steps, feature by "
        "feature in random order, each credited with how much the score moves."
    )


def _agreement(found: dict[str, Comparison]) -> list[Html]:
    return [
        text(
            "Rank correlations are over all features of a flow, then averaged: 1 is the same "
            f"order. Top {TOP} is the share of the first {TOP} features that both name, first the "
            "share of flows of which both name the same one first."
        ),
        table(
            "Agreement, mean over flows",
            ("alerts of", "of", "and", "flows", "Spearman", "Kendall", f"top {TOP}", "first"),
            [
                (name, *pair, c.flows, c.spearman, c.kendall, c.top, c.first)
                for name, comparison in found.items()
                for pair, c in comparison.agreement.items()
            ],
        ),
        text(
            f"What the naming is worth: the {TOP} features named first are given the values of "
            "benign rows; this share of the scores' height above the usual goes. Below 0 the "
            "scores rise: a flow that is half another one can be stranger than either, where "
            "features depend on each other. Shapley values are made of such mixtures, too."
        ),
        table(
            f"Share of the score that goes with {TOP} features",
            ("alerts of", *(f"named by {way}" for way in _ways(found)), "drawn at random"),
            [(name, *comparison.falls.values()) for name, comparison in found.items()],
        ),
    ]


def _sums(found: dict[str, Comparison]) -> list[Html]:
    *_, lines = _ways(found)
    return [
        text(
            "Parts sum to the score, but for what is no feature's. Shapley values and "
            f"{lines} sum to the score's height above the mean score of the benign rows that they "
            f"begin at (completeness); of {lines} this is what they miss it by, relative to the "
            "flow's score, and beside it the largest standard error of a single value."
        ),
        table(
            "Errors, relative to the flow's score",
            ("alerts of", "completeness, mean", "completeness, largest",
             *(f"standard error, {way}" for way in _ways(found)[1:])),
            [
                (name, *(f"{gap:.1e}" for gap in comparison.gap),
                 *(f"{error:.3f}" for error in comparison.error.values()))
                for name, comparison in found.items()
            ],
        ),
    ]  # fmt: skip


def _ways(found: dict[str, Comparison]) -> list[str]:
    return list(next(iter(found.values())).means)


def _features(name: str, found: Comparison) -> Html:
    order = np.argsort(-found.means["Shapley values"], kind="stable")[:SHOWN]
    names = [found.features[at] for at in order]
    figure = pictures.bars(
        names,
        {f"{way},\nmean (units of the score)": mean[order] for way, mean in found.means.items()},
    )
    return picture(
        pictures.encode(figure),
        alt=f"Bars of mean {', '.join(found.means)} of {len(names)} features, alerts of "
        f"{name}; largest Shapley values: {', '.join(names[:TOP])}.",
        caption=f"The {len(names)} features with the largest mean Shapley values.",
    )
