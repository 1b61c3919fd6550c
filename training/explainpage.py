"""The page of `flowvane explain`: a detector's parts beside Shapley values, in words and bars."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from features.schema import FloatArray
from models.detector import Detector
from training import pictures
from training.datasets.base import Table
from training.explain import TOP, Comparison, compare
from training.page import Html, Page, picture, table, text

BACKGROUND = 300
"""Benign rows that say what is usual."""
SHOWN = 20
"""Features in the picture."""
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
        walks, seed: see :func:`training.explain.shapley`.
        tell: called with 1 after each class.
    """
    names = [feature.name for feature in detector.features]
    found = {}
    for name, chosen in rows.items():
        found[name] = compare(detector, names, chosen, background, walks=walks, seed=seed)
        tell(1)
    page = Page(
        f"{detector.name}: what its alerts are made of",
        f"Alerts on {what}. Beside the parts that the detector gives each feature stand Shapley "
        "values, which SHAP estimates too: what the feature adds to the score, on average over "
        f"all orders in which features could be made known, against {len(background)} benign "
        f"rows. {walks} random orders a row, seed {seed}.",
    )
    page.add("agreement", "How far they agree", *_agreement(rows, found))
    for number, (name, comparison) in enumerate(found.items()):
        page.add(f"features-{number}", f"Features: {name}", _features(name, comparison))
    return page.render(), found


def _agreement(rows: dict[str, FloatArray], found: dict[str, Comparison]) -> list[Html]:
    return [
        text(
            "Rank correlations are over all features of a flow, then averaged: 1 is the same "
            f"order. Top {TOP} is the share of the first {TOP} features that both name, first the "
            "share of flows of which both name the same one first."
        ),
        table(
            "Agreement, mean over flows",
            ("alerts of", "flows", "Spearman", "Kendall", f"top {TOP}", "first"),
            [
                (name, c.agreement.flows, c.agreement.spearman, c.agreement.kendall,
                 c.agreement.top, c.agreement.first)
                for name, c in found.items()
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
            ("alerts of", "named by parts", "by Shapley values", "drawn at random"),
            [
                (name, c.falls["parts"], c.falls["shapley"], c.falls["random"])
                for name, c in found.items()
            ],
        ),
        text(
            "Largest standard error of a Shapley value, relative to its flow's score: "
            + ", ".join(f"{c.error:.3f} ({name})" for name, c in found.items())
            + "."
        ),
    ]  # fmt: skip


def _features(name: str, found: Comparison) -> Html:
    order = np.argsort(-found.shapley, kind="stable")[:SHOWN]
    names = [found.features[at] for at in order]
    figure = pictures.bars(
        names,
        {
            "mean part (units of the score)": found.parts[order],
            "mean Shapley value (units of the score)": found.shapley[order],
        },
    )
    return picture(
        pictures.encode(figure),
        alt=f"Bars of mean parts and mean Shapley values of {len(names)} features, alerts of "
        f"{name}; largest Shapley values: {', '.join(names[:TOP])}.",
        caption=f"The {len(names)} features with the largest mean Shapley values.",
    )
