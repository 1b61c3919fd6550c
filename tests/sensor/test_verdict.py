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
from models.bundle import load
from models.calibration import Calibration
from models.detector import Scores
from sensor.errors import UsageError
from sensor.eve import Style, alert_events, anomaly_events
from sensor.verdict import TOP_FEATURES, Alerts, Reasons, Verdict
from tests.helpers import MODELS, PAIRS, make_flow, make_rows, untrained

DETECTOR = untrained("kdd", "gaussian")
WIDTH = len(DETECTOR.features)


class Known:
    """A detector that expects of every feature what the test says."""

    def __init__(self, calibration: int = 9_999, expected: float = 0.0) -> None:
        self.name = "known"
        self.features, self.columns, self.schema = (
            DETECTOR.features, DETECTOR.columns, DETECTOR.schema,
        )  # fmt: skip
        self.kind, self.config = DETECTOR.kind, DETECTOR.config
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


def told_of(features: list[str], *more: str) -> float:
    """The sum of what is written of a score."""
    parts = [float(text.partition(" part=")[2].split()[0]) for text in features]
    return sum(parts) + sum(map(float, more))


@pytest.mark.parametrize(("variant", "schema"), [*PAIRS, *((None, name) for name in MODELS)])
def test_what_is_told_of_a_score_adds_up_to_it(variant: str | None, schema: str) -> None:
    detector, count = untrained(schema, variant) if variant else load(schema), 70
    rows = make_rows(detector.schema, count, seed=3)
    rows[:, ~np.isin(np.arange(rows.shape[1]), detector.columns)] = np.nan
    scores = detector.score(rows)
    flows = np.concatenate([make_flow(src_port=port) for port in range(count)])
    verdict = Verdict(detector, 0.99)
    found = verdict.explain(verdict.find(flows, rows, scores, np.arange(count)))
    # Of float32: a part in 10^5 of all that is added and taken away.
    size = 1e-5 * (np.abs(scores.rest) + np.abs(scores.parts).sum(axis=1)) + 1e-6
    written = 5e-5 * (TOP_FEATURES + 3)  # to four decimals
    where: list[dict[str, str]] = [{}] * count
    new = alert_events(found, "m", where, Style(version=8))
    odd = anomaly_events(found, "m", where)
    for score, off, alert, anomaly in zip(scores.score, size, new, odd, strict=True):
        context = alert["alert"]["context"]["flowvane"]
        parts = [reason["part"] for reason in context["features"]]
        assert sum(parts) + context["other"] + context["rest"] == pytest.approx(score, abs=off)
        metadata = alert["alert"]["metadata"]
        told = told_of(metadata["features"], *metadata["other"], *metadata["rest"])
        assert told == pytest.approx(score, abs=off + written)
        ints = anomaly["metadata"]["flowints"]
        told = told_of(
            [pair["value"] for pair in anomaly["metadata"]["flowvars"]
             if pair["key"] == "flowvane_feature"],
            f"{ints['flowvane_other_milli']}e-3", f"{ints['flowvane_rest_milli']}e-3",
        )  # fmt: skip
        assert told == pytest.approx(score, abs=off + written + 1e-3)
    assert {type(each.rest_of) for each in found.remainders} == {str}
    if variant in ("autoencoder", "deep-autoencoder"):
        assert found.remainders[0][1:] == (0.0, "none")


def test_what_is_named_is_no_part_of_the_remainder() -> None:
    parts = np.zeros((1, WIDTH))
    parts[0, [3, 1, 7, 2, 9, 5, 8]] = [4.0, 9.0, 4.0, 1.0, 2.0, 0.5, -0.25]
    given = scores([0.001], parts)
    given.rest[:] = 3.0
    verdict = Verdict(Known(), 0.01)  # type: ignore[arg-type]
    found = verdict.alerts(make_flow(), make_rows(SCHEMAS["kdd"], 1), given)
    assert found.remainders == [(0.25, 3.0, "latent")]


@pytest.mark.parametrize("name", MODELS)
def test_an_amount_has_a_usual_range_and_a_category_usual_terms(name: str) -> None:
    detector = load(name)
    assert detector.reference is not None
    parts = np.eye(len(detector.features))
    rows = make_rows(detector.schema, len(parts))
    count = len(parts)
    given = Scores(np.ones(count), np.zeros(count), parts, np.full(count, 0.001))
    flows = np.repeat(make_flow(), count)
    alerts = Verdict(detector, 0.01).alerts(flows, rows, given)
    amounts = len(detector.encoder.numeric)
    for at, (reason,) in enumerate(alerts.reasons):
        assert reason.feature == detector.features[at].name
        if at < amounts:
            low, high = detector.reference.quantiles[at, [1, 99]]
            assert (reason.usual_low, reason.usual_high) == pytest.approx((low, high), rel=1e-6)
            show = detector.features[at].show
            assert reason.usual == f"{show(float(low))}..{show(float(high))}"
        else:
            shares = detector.reference.shares[reason.feature]
            assert (reason.usual_low, reason.usual_high) == (None, None)
            terms = str(reason.usual).split("|")
            assert len(terms) == max((shares >= 0.01).sum(), 1)
            most = int(np.argmax(shares[:-1]))
            assert terms[0] == detector.features[at].vocabulary[most]


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
