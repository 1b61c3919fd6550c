"""`flowvane triage --self`: no model at hand, so one is fitted on the captures themselves."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.registry import SCHEMAS
from features.schema import NEVER_EARLY, EarlyReports, Feature, FloatArray, Schema
from models.calibration import Calibration
from models.detector import Scores
from models.reference import Reference
from sensor.caches import keep_compiled
from sensor.errors import InputError
from sensor.measuring import Wanted, measure_captures
from sensor.pipeline import Measured
from sensor.report import Console
from sensor.train import Bar
from training.rows import RowsError
from training.site import CrossFit, TooLittleTraffic, cross_fit
from training.siterows import SiteFiles

NAME = "self"
"""Of the model, as alerts give it."""
WARNING = (
    "--self: the model was fitted on the captures themselves: what stands out is what few hosts "
    "did at few times in them; what most of them do passes for normal, be it an attack or not"
)
_CLOCK_US = 1
_SEED = 0
_EPOCHS = 30


class CrossFitted:
    """Two models as one: each scores the flows that the other was trained on.

    Follows :class:`sensor.triage.Triaging` and :class:`sensor.triage.Loaded`. Takes rows
    ``[B, F + 1]``: features, and the fold that a flow is in.
    """

    name = NAME
    window = 1

    def __init__(self, fitted: CrossFit, early: EarlyReports = NEVER_EARLY) -> None:
        self._fitted, self.early, self.clock_us = fitted, early, _CLOCK_US
        one, other = fitted.detectors
        self.kind, self.config = one.kind, one.config
        self.schema: Schema = one.schema
        self.features: tuple[Feature, ...] = one.features
        self.columns: NDArray[np.intp] = one.columns
        fewer = min(one, other, key=lambda detector: detector.calibration.count)
        self.calibration: Calibration = fewer.calibration
        self.reference: Reference | None = fewer.reference
        self.set_aside = fitted.set_aside

    def load(self) -> CrossFitted:
        """It is loaded."""
        return self

    def marked(self, measured: Iterator[Measured]) -> Iterator[Measured]:
        """The same flows in the order in which they were fitted on, their fold added to the rows.

        Raises:
            RuntimeError: they are not as many.
        """
        first, fold = 0, self._fitted.fold
        for item in measured:
            here = fold[first : first + len(item.flows)]
            first += len(item.flows)
            yield Measured(item.flows, np.column_stack([item.rows, here]))
        if first != len(fold):
            raise RuntimeError(f"{len(fold)} flows were fitted on, but {first} are to be scored")

    def score(self, rows: FloatArray) -> Scores:
        """Scores and p-values, each from the model that did not see the flow."""
        each = [detector.score(rows[:, :-1]) for detector in self._fitted.detectors]
        second = rows[:, -1] == 1
        return Scores(
            np.where(second, each[1].score, each[0].score),
            np.where(second, each[1].rest, each[0].rest),
            np.where(second[:, None], each[1].parts, each[0].parts),
            np.where(second, each[1].p_value, each[0].p_value),
        )

    def expected(self, rows: FloatArray) -> FloatArray:
        """What that model expects of each feature, ``[B, U]``."""
        each = [detector.expected(rows[:, :-1]) for detector in self._fitted.detectors]
        return np.where(rows[:, -1:] == 1, each[1], each[0])


class _Untold(Console):
    """Says nothing of the captures: the triage reads them again, and tells it then."""

    def error(self, message: str) -> None:
        """Nothing."""

    def warn(self, message: str) -> None:
        """Nothing."""


def fit_on(paths: Sequence[Path], fpr: float, meter: str, console: Console) -> CrossFitted:
    """Measure captures and fit on their flows.

    Raises:
        InputError: there are too few flows.
    """
    keep_compiled()
    schema = SCHEMAS["flow"]
    with tempfile.TemporaryDirectory(prefix="flowvane-") as folder:
        output = Path(folder) / "flows.parquet"
        wanted = Wanted(schema, _CLOCK_US, NEVER_EARLY, meter)
        measure_captures(paths, wanted, output, _Untold(quiet=console.quiet))
        with console.progress("fitting on the captures", 2 * _EPOCHS) as advance:
            try:
                fitted = cross_fit(
                    SiteFiles([output], schema), name=NAME, seed=_SEED, clock_us=_CLOCK_US,
                    fpr=fpr, observers=[Bar(advance)],
                )  # fmt: skip
            except (TooLittleTraffic, RowsError) as error:
                raise InputError(f"--self: {error}") from error
    console.warn(WARNING)
    return CrossFitted(fitted)
