"""Which features made a score, along straight lines from benign rows.

Integrated gradients (Sundararajan, Taly and Yan, ICML 2017) go from a baseline to the explained row
in a straight line, and credit each feature with the integral of the score's derivative by it, times
its way. So the values sum to what the row scores above the baseline, which they call completeness.
Here the baseline is not one row but several benign ones, and the values are means over them
(expected gradients: Erion et al., Nature Machine Intelligence 2021).

The line is one of encoded inputs: amounts go evenly on the encoder's scale. A category cannot be
half of one term and half of another; it changes at one point of the line, drawn at random, and is
credited with what the score jumps there.

A score of binned heads is constant in an amount but where a bin ends, so its derivative tells
nothing. There the line is walked in short steps, in each of which one feature after the other
moves, in random order, credited with how much the score does: path differences. For a smooth score
they tend to integrated gradients as the steps get shorter; both estimate the Aumann-Shapley value
(Sundararajan and Najmi, The many Shapley values for model explanation, ICML 2020). With a single
step they would be the Shapley values of random orders, as SHAP has them (Lundberg and Lee, 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from features.encoder import LOGGED, Encoder, signed_log
from features.schema import FloatArray
from models.detector import BATCH, Detector
from models.heads.gaussian import GaussianHeads
from models.kinds.base import Batch

Score = Callable[[FloatArray], FloatArray]
"""From rows ``[B, F]`` to scores ``[B]``."""
Slope = Callable[[FloatArray], FloatArray]
"""From rows ``[B, F]`` to derivatives ``[B, F]`` of their scores."""

LINES = 32
"""Benign rows that lines to an explained row begin at."""
POINTS = 1024
"""Points of a line at which the derivative is taken: many, as the encoder's clipping bends it."""
STEPS = 16
"""Steps of a line that is walked."""

GRADIENTS, DIFFERENCES = "integrated gradients", "path differences"
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Integrated:
    """What each feature adds to ``B`` scores along lines from benign rows.

    Attributes:
        method: :data:`GRADIENTS` or :data:`DIFFERENCES`.
        values: ``[B, U]``, in the score's unit.
        error: ``[B, U]``, their standard errors, over the lines.
        gap: ``[B]``, completeness error: what the values sum to, less the score's height above the
            mean score of the rows that the lines begin at.
    """

    method: str
    values: FloatArray
    error: FloatArray
    gap: FloatArray


class Line:
    """The straight line over encoded inputs from one row to another."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.columns: NDArray[np.intp] = encoder.schema.index(encoder.names)
        self.amounts = len(encoder.numeric)
        self._logged = np.array([column.kind in LOGGED for column in encoder.numeric], bool)

    def scaled(self, rows: FloatArray) -> FloatArray:
        """Amounts ``[..., D]`` of rows ``[..., F]`` on the encoder's scale."""
        values = rows[..., self.columns[: self.amounts]]
        return np.where(self._logged, signed_log(values), values)

    def stretch(self, rows: FloatArray) -> FloatArray:
        """Derivatives ``[..., D]`` of amounts by their scaled values, at rows ``[..., F]``."""
        values = rows[..., self.columns[: self.amounts]]
        return np.where(self._logged, 1.0 + np.abs(values), 1.0)

    def at(
        self, start: FloatArray, end: FloatArray, share: FloatArray, change: FloatArray
    ) -> FloatArray:
        """Rows ``[..., F]`` of which each feature has gone a share of its way.

        Args:
            start, end: ``[..., F]``; features that are not of the line are those of `end`.
            share: ``[..., U]``, 0 to 1.
            change: ``[..., C]``, shares beyond which categories are those of `end`.
        """
        shape = np.broadcast_shapes(start.shape[:-1], end.shape[:-1], share.shape[:-1])
        rows = np.array(np.broadcast_to(end, (*shape, end.shape[-1])))
        amounts, categories = np.split(self.columns, [self.amounts])
        gone = share[..., : self.amounts]
        scaled = (1.0 - gone) * self.scaled(start) + gone * self.scaled(end)
        rows[..., amounts] = self._encoder.unscale(scaled)
        changed = share[..., self.amounts :] > change
        rows[..., categories] = np.where(changed, end[..., categories], start[..., categories])
        return rows


def path_differences(
    score: Score,
    rows: FloatArray,
    background: FloatArray,
    line: Line,
    *,
    lines: int = LINES,
    steps: int = STEPS,
    seed: int = 0,
) -> Integrated:
    """Walk lines to each row; complete by construction, as a walk ends where the row is.

    Each line is walked twice, the second time in reversed orders, which lessens the variance.

    Args:
        score: of rows; called once for each row, with ``lines * (steps * U + 1)`` rows.
        rows: ``[B, F]`` to explain.
        background: ``[N, F]`` benign rows, from which lines begin: each as often as any other.
        line: over what the score looks at.
        lines: walks for each row; an even number, four at least.
        steps: of each walk.
        seed: of the orders, of the rows drawn, and of where categories change.

    Raises:
        ValueError: there are no background rows, or `lines` is odd or too few.
    """
    if lines % 2 or lines < 4 or not len(background):
        raise ValueError(
            "path differences need background rows, and 4 lines or another even number"
        )
    rng, count, half = np.random.default_rng(seed), len(line.columns), lines // 2
    values, error = np.empty((2, len(rows), count))
    gap = np.empty(len(rows))
    for at, row in enumerate(rows):
        start, change = _drawn(rng, background, line, half)
        place = rng.permuted(np.tile(np.arange(count), (half, steps, 1)), axis=2)
        place = np.concatenate([place, count - 1 - place])  # of each feature in each step
        done = place[:, :, None] < np.arange(count)[:, None]
        share = (np.arange(steps)[:, None, None] + done) / steps
        share = share.reshape(lines, steps * count, count)
        share = np.concatenate([share, np.ones((lines, 1, count))], axis=1)
        start, change = np.tile(start, (2, 1))[:, None], np.tile(change, (2, 1))[:, None]
        met = line.at(start, row, share, change)
        scores = score(met.reshape(-1, met.shape[-1])).reshape(lines, -1)
        moved = np.diff(scores, axis=1).reshape(lines, steps, count)
        each = np.take_along_axis(moved, place, axis=2).sum(axis=1)
        values[at], error[at] = _mean(each.reshape(2, half, count).mean(axis=0))
        gap[at] = values[at].sum() - (scores[:, -1] - scores[:, 0]).mean()
    return Integrated(DIFFERENCES, values, error, gap)


def integrated_gradients(
    score: Score,
    slope: Slope,
    rows: FloatArray,
    background: FloatArray,
    line: Line,
    *,
    lines: int = LINES,
    points: int = POINTS,
    seed: int = 0,
) -> Integrated:
    """Integrate the derivatives by amounts along lines to each row; categories jump.

    Args:
        score: of rows.
        slope: its derivatives; called once for each row, with ``lines * points`` rows.
        points: of each line, in the middles of equal pieces. What the sum over them leaves of the
            integral is the gap.
        rows, background, line, lines, seed: as of :func:`path_differences`; each line is drawn
            once, so `lines` need not be even.

    Raises:
        ValueError: there are no background rows, or less than two lines.
    """
    if lines < 2 or not len(background):
        raise ValueError("integrated gradients need background rows, and two lines or more")
    rng, count = np.random.default_rng(seed), len(line.columns)
    middles = ((np.arange(points) + 0.5) / points)[:, None]
    values, error = np.empty((2, len(rows), count))
    gap = np.empty(len(rows))
    for at, row in enumerate(rows):
        start, change = _drawn(rng, background, line, lines)
        share = np.broadcast_to(middles, (lines, points, count))
        met = line.at(start[:, None], row, share, change[:, None])
        slopes = slope(met.reshape(-1, met.shape[-1])).reshape(met.shape)
        by_scaled = slopes[..., line.columns[: line.amounts]] * line.stretch(met)
        way = line.scaled(row) - line.scaled(start)
        each = np.concatenate(
            [by_scaled.mean(axis=1) * way, _jumps(score, row, start, change, line)], axis=1
        )
        values[at], error[at] = _mean(each)
        height = score(row[None])[0] - score(start).mean()
        gap[at] = values[at].sum() - height
    return Integrated(GRADIENTS, values, error, gap)


def integrated(
    detector: Detector,
    rows: FloatArray,
    background: FloatArray,
    *,
    lines: int = LINES,
    seed: int = 0,
) -> Integrated:
    """The method that fits a detector: gradients if its score is smooth, differences if not.

    Of kinds that take a host's last flows the scores are those of a host's first flow.

    Args:
        detector: whose scores of rows are explained.
        rows, background, lines, seed: as of :func:`path_differences`.
    """

    def score(rows: FloatArray) -> FloatArray:
        return detector.score(rows).score

    line = Line(detector.encoder)
    if is_smooth(detector):
        slope = slope_of(detector)
        return integrated_gradients(score, slope, rows, background, line, lines=lines, seed=seed)
    return path_differences(score, rows, background, line, lines=lines, seed=seed)


def is_smooth(detector: Detector) -> bool:
    """Whether the score has a derivative by amounts nearly everywhere that is not 0 by binning."""
    family = getattr(detector.config, "heads", GaussianHeads.family)
    return bool(family == GaussianHeads.family)


def slope_of(detector: Detector) -> Slope:
    """The derivatives of a detector's own score, through encoder, network and heads."""
    network, encoder = detector.network, detector.encoder
    fitted = {name: jnp.asarray(value) for name, value in detector.fitted.items()}
    width = len(encoder.schema.features)

    def total(rows: jax.Array) -> jax.Array:
        before = jnp.zeros((BATCH, detector.window - 1, width), jnp.float32)
        none = jnp.zeros(before.shape[:2], bool)
        batch = Batch(encoder.encode(rows, jnp), encoder.encode(before, jnp), none)
        rest, parts = network.score(batch, fitted)
        return rest.sum() + parts.sum()

    by_rows = jax.jit(jax.grad(total))

    def slope(rows: FloatArray) -> FloatArray:
        count = -(-len(rows) // BATCH) * BATCH
        padded = np.zeros((count, width), np.float32)
        padded[: len(rows)] = np.clip(np.nan_to_num(rows), -_FLOAT32_MAX, _FLOAT32_MAX)
        found = [np.asarray(by_rows(padded[at : at + BATCH])) for at in range(0, count, BATCH)]
        return np.concatenate(found)[: len(rows)].astype(np.float64)

    return slope


def _drawn(
    rng: np.random.Generator, background: FloatArray, line: Line, lines: int
) -> tuple[FloatArray, FloatArray]:
    """Rows ``[L, F]`` that lines begin at, and where on each the categories change, ``[L, C]``."""
    order = [rng.permutation(len(background)) for _ in range(-(-lines // len(background)))]
    start = background[np.concatenate(order)[:lines]]
    return start, rng.random((lines, len(line.columns) - line.amounts))


def _jumps(
    score: Score, row: FloatArray, start: FloatArray, change: FloatArray, line: Line
) -> FloatArray:
    """What the score rises by as each category of each line changes, ``[L, C]``."""
    lines, categories = change.shape
    count = len(line.columns)
    share = np.repeat(change[:, :, None], count, axis=2)  # everything has come as far as this
    own = line.amounts + np.arange(categories)
    share = np.stack([share, share], axis=2)
    for after in (0, 1):
        share[:, np.arange(categories), after, own] = after
    met = line.at(start[:, None, None], row, share, change[:, None, None])
    scores = score(met.reshape(-1, met.shape[-1])).reshape(lines, categories, 2)
    return np.asarray(scores[..., 1] - scores[..., 0], np.float64)


def _mean(each: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean of ``[L, U]`` over the lines, and its standard error."""
    return each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(len(each))
