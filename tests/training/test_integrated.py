"""Integrated gradients and path differences: by hand, against SHAP's explainer, and complete."""

from __future__ import annotations

import warnings
from types import ModuleType

import numpy as np
import pytest
from numpy.testing import assert_allclose

from features.schema import FloatArray
from models.detector import Detector
from tests.helpers import TOY, make_rows, untrained
from training.explain import agreement
from training.integrated import (
    DIFFERENCES,
    GRADIENTS,
    Integrated,
    Line,
    Score,
    integrated_gradients,
    is_smooth,
    path_differences,
    slope_of,
)

ROWS, BACKGROUND = make_rows(TOY, 12, 11), make_rows(TOY, 16, 12)
DETECTOR = untrained("toy", "gaussian")
LINE = Line(DETECTOR.encoder)
BIG, LONG, SHARE, PROTO = range(4)


def score_of(detector: Detector) -> Score:
    return lambda rows: detector.score(rows).score


def by_product(rows: FloatArray) -> FloatArray:
    """On the encoder's scale the product of two amounts, and 5 for one term."""
    big, long, _ = LINE.scaled(rows).T
    value: FloatArray = big * long + 5.0 * (rows[:, PROTO] == 1.0)
    return value


def slope_of_product(rows: FloatArray) -> FloatArray:
    slope = np.zeros_like(rows)
    big, long, _ = LINE.scaled(rows).T
    slope[:, BIG], slope[:, LONG] = long / (1 + rows[:, BIG]), big / (1 + rows[:, LONG])
    return slope


def of_product(row: FloatArray, start: FloatArray) -> FloatArray:
    """Along a straight line a factor is credited with its way, times the mean of the other."""
    (big, long, _), (big0, long0, _) = LINE.scaled(row), LINE.scaled(start)
    jump = 5.0 * ((row[PROTO] == 1.0) - float(start[PROTO] == 1.0))
    return np.array([(big - big0) * (long + long0) / 2, (long - long0) * (big + big0) / 2, 0, jump])


def test_both_are_the_line_integrals_by_hand() -> None:
    expected = np.mean([[of_product(row, start) for row in ROWS] for start in BACKGROUND], axis=0)
    lines = len(BACKGROUND)
    smooth = integrated_gradients(
        by_product, slope_of_product, ROWS, BACKGROUND, LINE, lines=lines, points=8
    )
    assert_allclose(smooth.values, expected, atol=1e-9)
    walked = path_differences(by_product, ROWS, BACKGROUND, LINE, lines=2 * lines, steps=8)
    assert_allclose(walked.values, expected, atol=1e-9)  # two orders cancel their errors
    for found in (smooth, walked):
        assert np.abs(found.gap).max() < 1e-9


def test_a_line_begins_at_one_row_and_ends_at_the_other() -> None:
    start, change = BACKGROUND[:12], np.full((12, 1), 0.5)
    for share, there in ((0.0, start), (1.0, ROWS)):
        assert_allclose(LINE.at(start, ROWS, np.full((12, 4), share), change), there, atol=1e-9)
    middle = LINE.at(start, ROWS, np.full((12, 4), 0.5), change)
    assert_allclose(LINE.scaled(middle), (LINE.scaled(start) + LINE.scaled(ROWS)) / 2)
    assert (middle[:, PROTO] == start[:, PROTO]).all()  # it changes beyond a half


def shap_values(detector: Detector) -> FloatArray:
    """Those of SHAP's KernelExplainer, which goes through every set of so few features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its import, about matplotlib's next version
        shap: ModuleType = pytest.importorskip("shap", reason="pip install 'flowvane[dev]'")
        explainer = shap.KernelExplainer(score_of(detector), BACKGROUND)
        values = explainer.shap_values(ROWS, l1_reg=False, silent=True)
    return np.asarray(values)[:, detector.columns]


def explained(detector: Detector) -> Integrated:
    """By the method that fits, quickly."""
    line, score = Line(detector.encoder), score_of(detector)
    if is_smooth(detector):
        slope = slope_of(detector)
        return integrated_gradients(score, slope, ROWS, BACKGROUND, line, lines=32, points=64)
    return path_differences(score, ROWS, BACKGROUND, line, lines=32)


@pytest.mark.parametrize(
    ("variant", "method"),
    [("gaussian", GRADIENTS), ("autoencoder", GRADIENTS), ("histogram", DIFFERENCES)],
)
def test_they_agree_with_shap(variant: str, method: str) -> None:
    detector = untrained("toy", variant)
    theirs, ours = shap_values(detector), explained(detector)
    assert ours.method == method
    # They answer not quite the same question, but a like one.
    size = np.abs(theirs).max(axis=1).mean()
    assert np.abs(ours.values - theirs).mean() < 0.1 * size
    figures = agreement(ours.values, theirs, top=1)
    assert figures.spearman > 0.9
    assert figures.first > 0.8
    # Both sum to the score's height, this one but for its points.
    height = detector.score(ROWS).score - detector.score(BACKGROUND).score.mean()
    assert_allclose(theirs.sum(axis=1), height, atol=1e-5)
    assert_allclose(ours.values.sum(axis=1), height + ours.gap, atol=1e-5)
    assert np.abs(ours.gap).max() < (0.02 * size if method == GRADIENTS else 1e-9)


@pytest.mark.parametrize("variant", ["histogram", "guarded-vae"])
def test_a_walk_of_one_step_is_shap_within_its_error(variant: str) -> None:
    detector = untrained("toy", variant)
    found = path_differences(
        score_of(detector), ROWS, BACKGROUND, Line(detector.encoder), lines=320, steps=1
    )
    theirs = shap_values(detector)
    # 48 values: beyond four standard errors comes one of so many once in 300 times.
    assert (np.abs(found.values - theirs) < 4 * found.error + 1e-5).all()
    assert np.abs(found.error).mean() < 0.1 * np.abs(theirs).max()


def test_more_points_close_the_gap() -> None:
    slope = slope_of(DETECTOR)
    few, many = (
        integrated_gradients(
            score_of(DETECTOR), slope, ROWS, BACKGROUND, LINE, lines=4, points=points
        )
        for points in (4, 256)
    )
    assert np.abs(many.gap).mean() < 0.2 * np.abs(few.gap).mean()


def test_the_slope_is_that_of_the_detectors_own_score() -> None:
    detector, rows = DETECTOR, ROWS.copy()
    rows[:, [BIG, LONG]] += 3.0
    slope = slope_of(detector)(rows)
    for column in (BIG, LONG, SHARE):
        step = np.zeros(4)
        step[column] = 0.02 if column == SHARE else 0.05
        up, down = (detector.score(rows + sign * step).score for sign in (1, -1))
        assert_allclose(slope[:, column], (up - down) / (2 * step[column]), rtol=0.05, atol=0.02)
    assert (slope[:, PROTO] == 0.0).all()


def test_what_cannot_be_integrated_is_refused() -> None:
    score = score_of(DETECTOR)
    for lines, background in ((3, BACKGROUND), (2, BACKGROUND), (4, BACKGROUND[:0])):
        with pytest.raises(ValueError, match="need background rows, and 4 lines"):
            path_differences(score, ROWS, background, LINE, lines=lines)
    for lines, background in ((1, BACKGROUND), (4, BACKGROUND[:0])):
        with pytest.raises(ValueError, match="need background rows, and two lines"):
            integrated_gradients(score, slope_of_product, ROWS, background, LINE, lines=lines)
