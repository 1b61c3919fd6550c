"""p-values follow the traffic of the day, and nobody leads them away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.flows import FlowBatch
from models.calibration import Calibration
from models.detector import Scores
from sensor.recalibration import (
    KEPT,
    LOWERED,
    PRIOR,
    RAISED,
    STEP_US,
    STEPS,
    Recalibration,
)  # fmt: skip
from tests.helpers import make_flow

RNG = np.random.default_rng(3)
CALIBRATION = Calibration(RNG.exponential(size=20_000))
PROMISED = 0.01


def scores_of(values: Any) -> Scores:
    values = np.asarray(values, np.float64)
    parts = np.zeros((len(values), 1))
    return Scores(values, values, parts, CALIBRATION.p_value(values))


def flows_of(sources: NDArray[np.int64], destinations: NDArray[np.int64]) -> FlowBatch:
    flows = np.repeat(make_flow(), len(sources))
    for side, hosts in (("src_ip", sources), ("dst_ip", destinations)):
        flows[side][:, 14], flows[side][:, 15] = hosts // 256, hosts % 256
    return flows


def many(count: int) -> FlowBatch:
    """Flows between many hosts."""
    return flows_of(RNG.integers(0, 200, count), RNG.integers(200, 400, count))


def after(
    *parts: tuple[FlowBatch, Any], alerted: Any = None, steps: int = 1, raised: float = 10.0
) -> Recalibration:
    """Recalibration after so many steps with the same flows in each, on a long leash."""
    made = Recalibration(CALIBRATION, raised=raised)
    for step in range(steps):
        for flows, values in parts:
            asked = scores_of(values)
            which = np.zeros(len(flows), bool) if alerted is None else alerted
            made.learn(flows, asked, which, PROMISED, step * STEP_US)
    nobody = np.empty(0, bool)
    made.learn(many(0), scores_of([]), nobody, PROMISED, steps * STEP_US)
    return made


def test_at_first_p_values_are_the_models_own() -> None:
    asked = scores_of([0.0, 3.0, 100.0])
    assert Recalibration(CALIBRATION).corrected(asked).p_value is asked.p_value


def test_by_hand() -> None:
    # Four flows of four pairs of hosts; each of them left out where it is the most.
    flows = flows_of(np.arange(4), np.arange(4, 8))
    made = after((flows, [1.0, 2.0, 3.0, 4.0]))
    assert made.flows == 4
    asked = scores_of([0.5, 2.5, 5.0])
    # As high as 0.5: all 4, less one's one: 3 of 3. As high as 2.5: 2 less 1 of 4 less 1.
    own = asked.p_value
    wanted = (PRIOR * own + 4 * np.array([1.0, 1 / 3, 0.0])) / (PRIOR + 4)
    assert made.corrected(asked).p_value == pytest.approx(wanted, abs=1e-6)


def test_a_site_that_scores_higher_is_alerted_as_often_as_promised() -> None:
    made = after((many(20_000), 1.5 * RNG.exponential(size=20_000)), steps=9)
    fresh = scores_of(1.5 * RNG.exponential(size=50_000))
    own, corrected = fresh.p_value, made.corrected(fresh).p_value
    assert (own <= PROMISED).mean() > 4 * PROMISED
    assert (corrected <= PROMISED).mean() == pytest.approx(PROMISED, rel=0.35)


def test_a_site_that_scores_lower_is_watched_more_closely() -> None:
    made = after((many(20_000), 0.7 * RNG.exponential(size=20_000)), steps=9)
    fresh = scores_of(0.7 * RNG.exponential(size=50_000))
    assert (fresh.p_value <= PROMISED).mean() < PROMISED / 4
    corrected = made.corrected(fresh).p_value
    assert (corrected <= PROMISED).mean() == pytest.approx(PROMISED, rel=0.35)


@pytest.mark.parametrize("who", ["source", "destination"])
def test_one_host_does_not_make_itself_normal(who: str) -> None:
    # A third of the flows of the day, just below the threshold.
    level = float(np.quantile(CALIBRATION.scores, 1 - PROMISED)) - 0.01
    others, one = RNG.integers(0, 300, 2_000), np.full(2_000, 999)
    flows = flows_of(one, others) if who == "source" else flows_of(others, one)
    made = after((many(4_000), RNG.exponential(size=4_000)), (flows, np.full(2_000, level)))
    assert made.corrected(scores_of([level])).p_value[0] < 2 * PROMISED
    # The same from many pairs is normal.
    made = after((many(4_000), RNG.exponential(size=4_000)), (many(2_000), np.full(2_000, level)))
    assert made.corrected(scores_of([level])).p_value[0] > 5 * PROMISED


@pytest.mark.parametrize(("sources", "destinations"), [(200, 1), (1, 200), (1, 1), (200, 3)])
def test_a_site_of_few_hosts_has_no_more_alerts_than_promised(
    sources: int, destinations: int
) -> None:
    flows = flows_of(
        RNG.integers(0, sources, 20_000), RNG.integers(500, 500 + destinations, 20_000)
    )
    made = after((flows, RNG.exponential(size=20_000)), steps=9)
    corrected = made.corrected(scores_of(RNG.exponential(size=50_000))).p_value
    assert (corrected <= PROMISED).mean() == pytest.approx(PROMISED, rel=0.3)


def test_alerts_beyond_those_promised_are_not_normal() -> None:
    values = np.concatenate([RNG.exponential(size=9_000), np.full(1_000, 4.0)])
    alerted = np.append(np.zeros(9_000, bool), np.ones(1_000, bool))
    flows, asked = many(10_000), scores_of([4.0])
    own = asked.p_value[0]
    assert after((flows, values), alerted=alerted).corrected(asked).p_value[0] < own + 0.025
    assert after((flows, values)).corrected(asked).p_value[0] > own + 0.05


def test_no_p_value_moves_far() -> None:
    made = after((many(10_000), np.full(10_000, 9.0)), steps=20, raised=RAISED)
    asked = scores_of(np.linspace(0.0, 30.0, 200))
    ratio = made.corrected(asked).p_value / asked.p_value
    assert ratio.max() == pytest.approx(RAISED)
    assert ratio.min() == pytest.approx(1 / LOWERED)


ACTS = st.lists(
    st.tuples(
        st.floats(0.0, 40.0, allow_nan=False), st.integers(0, 3_000), st.integers(1, 3_000),
        st.integers(0, STEPS), st.booleans(),
    ), max_size=8,
)  # fmt: skip
"""What a poisoner does: score, flows, hosts, steps that pass, and whether the sensor restarts."""


@settings(max_examples=40, deadline=None, database=None)
@given(acts=ACTS)
@example(acts=[(4.0 + at / 10, 3_000, 3_000, 1, False) for at in range(8)])
@example(acts=[(0.0, 3_000, 3_000, 1, False)] * 8)
def test_whatever_a_poisoner_does_the_threshold_stays_within_its_bounds(
    acts: list[tuple[float, int, int, int, bool]],
) -> None:
    made, now = Recalibration(CALIBRATION), 0
    scores = np.append(np.linspace(0.0, 12.0, 300), 1e6)
    for score, count, hosts, steps, restarts in acts:
        if restarts:
            made = Recalibration(CALIBRATION)
        at = np.arange(count) % hosts
        sent = scores_of(np.full(count, score))
        alerted = made.corrected(sent).p_value <= PROMISED
        made.learn(flows_of(at, at), sent, alerted, PROMISED, now)
        now += steps * STEP_US
        asked = scores_of(scores)
        found = made.corrected(asked).p_value <= PROMISED
        assert found[asked.p_value <= PROMISED / RAISED * (1 - 1e-9)].all()
        assert not found[asked.p_value > PROMISED * LOWERED * (1 + 1e-9)].any()


def test_flows_that_stay_below_the_threshold_do_not_raise_it() -> None:
    level = float(np.quantile(CALIBRATION.scores, 1 - PROMISED))
    own = (many(4_000), RNG.permutation(CALIBRATION.scores)[:4_000])
    poison = (many(4_000), np.full(4_000, 0.99 * level))
    asked = scores_of([1.001 * level])
    assert after(own, poison).corrected(asked).p_value[0] <= after(own).corrected(asked).p_value[0]


def test_p_values_fall_as_scores_rise() -> None:
    made = after((many(3_000), np.round(RNG.exponential(size=3_000), 1)), steps=3)
    p = made.corrected(scores_of(np.linspace(0.0, 20.0, 500))).p_value
    assert (np.diff(p) <= 0).all()
    assert p.min() > 0
    assert p.max() <= 1


def test_a_day_later_all_is_forgotten() -> None:
    made = after((many(5_000), np.full(5_000, 9.0)))
    assert made.flows == 5_000
    nobody = np.empty(0, bool)
    made.learn(many(0), scores_of([]), nobody, PROMISED, (STEPS + 2) * STEP_US)
    assert made.flows == 0
    asked = scores_of([1.0, 9.0])
    assert (made.corrected(asked).p_value == asked.p_value).all()


def test_a_flood_of_flows_is_kept_in_little_room_and_stands_for_all() -> None:
    values = RNG.exponential(size=120_000)
    made = Recalibration(CALIBRATION)
    flows, nobody = many(10_000), np.zeros(10_000, bool)
    for part in np.split(values, 12):
        made.learn(flows, scores_of(part), nobody, PROMISED, 0)
    nobody = np.empty(0, bool)
    made.learn(many(0), scores_of([]), nobody, PROMISED, STEP_US)
    assert sum(map(len, made._steps)) <= 2 * KEPT
    assert made.flows == pytest.approx(120_000, rel=1e-3)
    levels = np.quantile(values, [0.5, 0.9, 0.99, 0.999])
    got = made.corrected(scores_of(levels)).p_value
    assert got == pytest.approx([0.5, 0.1, 0.01, 0.001], rel=0.15)


def test_another_model_begins_anew_and_the_same_goes_on() -> None:
    made = after((many(1_000), np.full(1_000, 9.0)))
    same, other = (
        Recalibration(Calibration(CALIBRATION.scores)),
        Recalibration(Calibration(np.arange(100.0))),
    )
    same.go_on_from(made)
    other.go_on_from(made)
    assert (same.flows, other.flows) == (1_000, 0)
