"""Which flows are alerts, how severe, and which reasons are given."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.registry import SCHEMAS
from models.calibration import Calibration
from models.detector import Scores
from sensor.errors import UsageError
from sensor.verdict import TOP_FEATURES, Alerts, Reasons, Verdict
from tests.helpers import PAIRS, make_flow, make_rows, untrained

DETECTOR = untrained("kdd", "gaussian")
WIDTH = len(DETECTOR.features)


class Known:
    """A detector that expects of every feature what the test says."""

    def __init__(self, calibration: int = 9_999, expected: float = 0.0) -> None:
        self.name = "known"
        self.features, self.columns, self.schema = (
            DETECTOR.features, DETECTOR.columns, DETECTOR.schema,
        )  # fmt: skip
        self.calibration = Calibration(np.zeros(calibration))
        self.reference = None
        self._expected = expected
        self.asked: list[int] = []

    def expected(self, rows: NDArray[Any]) -> NDArray[Any]:
        self.asked.append(len(rows))
        return np.full((len(rows), WIDTH), self._expected)


def scores(p_values: list[float], parts: NDArray[Any] | None = None) -> Scores:
    count = len(p_values)
    if parts is None:
        parts = np.tile(np.arange(WIDTH, dtype=float), (count, 1))
    score = 100.0 - np.array(p_values)
    return Scores(score, np.zeros(count), parts, np.array(p_values))


def alerts(detector: Any, fpr: float, given: Scores) -> list[Alert]:
    count = len(given.score)
    flows = np.concatenate([make_flow(src_port=port) for port in range(count)] or [make_flow()[:0]])
    return one_by_one(Verdict(detector, fpr).alerts(flows, make_rows(SCHEMAS["kdd"], count), given))


class Alert(NamedTuple):
    flow: Any
    score: float
    p_value: float
    severity: int
    reasons: Reasons


def one_by_one(found: Alerts) -> list[Alert]:
    columns = found.score.tolist(), found.p_value.tolist(), found.severity.tolist()
    return list(map(Alert, found.flows, *columns, found.reasons))


def test_flows_at_or_below_the_wanted_rate_are_alerts_in_order() -> None:
    found = alerts(Known(), 0.01, scores([0.5, 0.01, 0.010001, 0.0001, 1.0, 0.005]))
    assert [int(alert.flow["src_port"]) for alert in found] == [1, 3, 5]
    assert [alert.p_value for alert in found] == [0.01, 0.0001, 0.005]
    assert [alert.score for alert in found] == [99.99, 99.9999, 99.995]


def test_no_alerts_ask_the_model_nothing() -> None:
    detector = Known()
    assert alerts(detector, 0.01, scores([0.5, 0.9])) == []
    assert alerts(detector, 0.01, scores([])) == []
    assert detector.asked == []
    assert len(alerts(detector, 0.01, scores([0.5, 0.001, 0.01]))) == 2
    assert detector.asked == [2]


@settings(deadline=None, database=None)
@given(p=st.lists(st.floats(1e-4, 1.0), max_size=30), fpr=st.floats(1e-4, 0.99))
def test_a_higher_rate_alerts_on_more_and_is_no_milder(p: list[float], fpr: float) -> None:
    few, more = (alerts(Known(), rate, scores(p)) for rate in (fpr, min(2 * fpr, 0.999)))
    assert len(few) == sum(each <= fpr for each in p)
    severity = {int(alert.flow["src_port"]): alert.severity for alert in more}
    for alert in few:
        assert severity[int(alert.flow["src_port"])] <= alert.severity


@pytest.mark.parametrize(
    ("p", "severity"),
    # Of a rate of 0.03: a tenth is high, a third is medium.
    [(0.0001, 1), (0.003, 1), (0.00301, 2), (0.0099, 2), (0.0101, 3), (0.03, 3)],
)
def test_severity_counts_down_to_high(p: float, severity: int) -> None:
    (alert,) = alerts(Known(), 0.03, scores([p]))
    assert alert.severity == severity


def test_reasons_are_the_largest_parts_first() -> None:
    parts = np.zeros((1, WIDTH))
    parts[0, [3, 1, 7, 2, 9, 5]] = [4.0, 9.0, 4.0, 1.0, 2.0, 0.5]
    (alert,) = alerts(Known(), 0.01, scores([0.001], parts))
    assert TOP_FEATURES == 5
    # Equal parts are named in the schema's order: 3 before 7.
    assert [reason.part for reason in alert.reasons] == [9.0, 4.0, 4.0, 2.0, 1.0]
    assert [reason.feature for reason in alert.reasons] == [
        DETECTOR.features[at].name for at in (1, 3, 7, 9, 2)
    ]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_feature_that_adds_nothing_is_no_reason(count: int) -> None:
    parts = np.zeros((1, WIDTH))
    parts[0, :count] = 1.0
    (alert,) = alerts(Known(), 0.01, scores([0.001], parts))
    assert len(alert.reasons) == count


@pytest.mark.parametrize(("family", "schema"), PAIRS)
def test_alerts_of_a_batch_are_those_of_each_flow_by_itself(family: str, schema: str) -> None:
    detector, count = untrained(schema, family), 70
    verdict = Verdict(detector, 0.5)
    flows = np.concatenate([make_flow(src_port=port) for port in range(count)])
    rows = make_rows(SCHEMAS[schema], count, seed=3)
    together = one_by_one(verdict.alerts(flows, rows, detector.score(rows)))
    apart = [
        alert
        for at in range(count)
        for alert in one_by_one(
            verdict.alerts(flows[at : at + 1], rows[at : at + 1], detector.score(rows[at : at + 1]))
        )
    ]
    assert together == apart
    assert len(together) > 1


def test_reasons_say_what_was_seen_and_what_was_expected() -> None:
    names = [feature.name for feature in DETECTOR.features]
    chosen = {"src_bytes": "1500", "serror_rate": "0.333", "protocol_type": "icmp"}
    parts = np.zeros((1, WIDTH))
    parts[0, [names.index(name) for name in chosen]] = [3.0, 2.0, 1.0]
    row = make_rows(SCHEMAS["kdd"], 1)
    row[0, SCHEMAS["kdd"].index(list(chosen))] = [1500.0, 1 / 3, 2.0]
    verdict = Verdict(Known(expected=0.0), 0.01)  # type: ignore[arg-type]
    (alert,) = one_by_one(verdict.alerts(make_flow(), row, scores([0.001], parts)))
    seen = {reason.feature: (reason.observed, reason.expected) for reason in alert.reasons}
    assert seen == {
        "src_bytes": ("1500", "0"),
        "serror_rate": ("0.333", "0"),
        "protocol_type": ("icmp", "tcp"),
    }


def test_an_unknown_term_is_called_so() -> None:
    names = [feature.name for feature in DETECTOR.features]
    parts = np.zeros((1, WIDTH))
    parts[0, names.index("service")] = 1.0
    row = make_rows(SCHEMAS["kdd"], 1)
    row[0, SCHEMAS["kdd"].index(["service"])] = -1.0
    verdict = Verdict(Known(expected=-1.0), 0.01)  # type: ignore[arg-type]
    (alert,) = one_by_one(verdict.alerts(make_flow(), row, scores([0.001], parts)))
    (reason,) = alert.reasons
    assert (reason.observed, reason.expected) == ("(unknown)", "(unknown)")


@pytest.mark.parametrize("fpr", [0.0, -0.1, 1.0, 2.0, math.nan, math.inf, -math.inf])
def test_a_rate_outside_of_0_to_1_is_refused(fpr: float) -> None:
    with pytest.raises(UsageError, match=r"--fpr .*: give a rate between 0 and 1"):
        Verdict(Known(), fpr)  # type: ignore[arg-type]


def test_a_rate_that_the_calibration_cannot_tell_is_refused() -> None:
    detector: Any = Known(calibration=99)
    Verdict(detector, 0.01)  # one in a hundred is just what 99 rows can tell
    with pytest.raises(UsageError, match=r"--fpr 0\.0099: model known was .* 99 ") as error:
        Verdict(detector, 0.0099)
    assert str(error.value).endswith("down to 0.01")
    assert int(error.value.exit_code) == 2
