"""Distributions of benign features: percentiles and drift against plain definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.encoder import Encoder
from features.registry import SCHEMAS
from models.reference import LEVELS, Reference
from tests.helpers import make_rows, toy, toy_rows

KDD = SCHEMAS["kdd"]
NAMES = ("duration", "src_bytes", "protocol_type")


def rows_of(duration: Any, protocol: Any) -> NDArray[np.float64]:
    rows = np.zeros((len(duration), len(KDD.features)))
    rows[:, KDD.index(["duration"])[0]] = duration
    rows[:, KDD.index(["protocol_type"])[0]] = protocol
    return rows


def reference(rows: NDArray[np.float64]) -> Reference:
    return Reference.of(Encoder.fit(KDD, NAMES, rows), rows)


HUNDRED = rows_of(np.arange(1, 101), [0] * 60 + [1] * 40)


def test_percentiles_are_shares_of_benign_values_no_larger() -> None:
    rows = rows_of([0, 1, 50, 100, 1e30], [0, 1, 2, -1, 0])
    got = reference(HUNDRED).percentiles(rows)
    assert got[:, 0].tolist() == pytest.approx([0, 1, 50, 100, 100], abs=1.0)
    assert got[:, 1].tolist() == [100.0] * 5  # all are 0, as all benign ones are
    assert got[:, 2].tolist() == pytest.approx([60, 40, 0, 0, 60])


def test_nothing_drifts_from_itself() -> None:
    kept = reference(HUNDRED)
    assert max(kept.stability(kept.counts(HUNDRED)).values()) < 0.01


def test_the_index_is_its_definition() -> None:
    kept = reference(HUNDRED)
    now = rows_of(np.arange(1, 101), [0] * 20 + [1] * 80)
    found = kept.stability(kept.counts(now))
    by_hand = (0.2 - 0.6) * math.log(0.2 / 0.6) + (0.8 - 0.4) * math.log(0.8 / 0.4)
    assert found["protocol_type"] == pytest.approx(by_hand, rel=1e-5)
    assert found["duration"] < 0.01
    # All in the highest of ten bins: nine bins that held a tenth hold (as good as) nothing.
    found = kept.stability(kept.counts(rows_of([1e6] * 100, [0] * 60 + [1] * 40)))
    by_hand = 9 * (0.001 - 0.1) * math.log(0.001 / 0.1) + 0.9 * math.log(1.0 / 0.1)
    assert found["duration"] == pytest.approx(by_hand, rel=0.02)


def test_counts_add_up() -> None:
    kept, rows = reference(HUNDRED), make_rows(KDD, 300)
    parts = [kept.counts(rows[:100]), kept.counts(rows[100:])]
    for one, two, whole in zip(*parts, kept.counts(rows), strict=True):
        assert (one + two == whole).all()
        assert whole.sum() == 300


def test_a_trained_model_keeps_that_of_its_calibration_rows() -> None:
    detector = toy("gaussian")
    assert detector.reference is not None
    assert detector.reference.names == detector.encoder.names
    again = Reference.from_tensors(detector.encoder, detector.reference.tensors())
    rows = toy_rows(50)
    assert (again.percentiles(rows) == detector.reference.percentiles(rows)).all()


def test_what_does_not_fit_is_refused() -> None:
    encoder = Encoder.fit(KDD, NAMES, HUNDRED)
    good = Reference.of(encoder, HUNDRED).tensors()
    with pytest.raises(ValueError, match=r"reference\.quantiles is \[1, 101\], the model wants"):
        Reference.from_tensors(encoder, {**good, "quantiles": np.zeros((1, LEVELS))})
    with pytest.raises(ValueError, match="do not ascend"):
        Reference.from_tensors(encoder, {**good, "quantiles": -good["quantiles"]})
    with pytest.raises(ValueError, match=r"reference\.shares\.protocol_type is \[2\]"):
        Reference.from_tensors(encoder, {**good, "shares.protocol_type": np.zeros(2)})
