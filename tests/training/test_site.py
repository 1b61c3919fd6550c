"""Learning a site: what counts, what is set aside, and that later traffic calibrates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from features.registry import SCHEMAS
from features.schema import FloatArray, Schema
from models.kinds import KINDS
from models.recipe import FitConfig
from tests.helpers import TOY, toy_rows
from training.rows import Role
from training.site import (
    Choice,
    NoSuchPattern,
    Seen,
    TooLittleTraffic,
    chosen_by,
    cross_fit,
    learn,
    look,
    roles_of,
)
from training.sitepatterns import FEW, group, listed
from training.siterows import SiteTable, address_keys, microseconds
from training.sitesupport import (
    ALIKE,
    BURST,
    LEAST_SUPPORT,
    Traffic,
    coarse,
    described_by,
    mixed,
    weigh,
)
from training.siteupdate import few_hosts, without

QUICK = FitConfig(epochs=1)
HOUR_US = 3_600_000_000


def traffic(
    src: NDArray[np.int64], dst: NDArray[np.int64], hour: NDArray[np.int64],
    what: NDArray[np.int64], how: NDArray[np.int64] | None = None,
) -> Traffic:  # fmt: skip
    return Traffic(
        mixed(src), mixed(dst), hour * HOUR_US, mixed(what),
        mixed(np.zeros_like(what) if how is None else how),
    )  # fmt: skip


def joined(*parts: Traffic) -> Traffic:
    names = ("src", "dst", "end_us", "what", "how")
    return Traffic(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def usual(flows: int = 2000) -> Traffic:
    """Fifty hosts that do five sorts of things with ten servers, over two days."""
    at = np.arange(flows)
    return traffic(at % 50, 1000 + at % 10, at * 48 // flows, at % 5)


def scan(flows: int = 300) -> Traffic:
    at = np.arange(flows)
    return traffic(np.full(flows, 7), 2000 + at, np.full(flows, 20), 100 + at % 3)


def forged_flood(flows: int = 300) -> Traffic:
    at = np.arange(flows)
    return traffic(5000 + at, np.full(flows, 1000), np.full(flows, 30), np.full(flows, 200))


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
def test_what_describes_flows_can_be_measured(schema: Schema) -> None:
    features = {feature.name: feature for feature in schema.features}
    for names in described_by(schema):
        assert names
        assert all(features[name].live for name in names)


def test_equal_times_leave_no_part_empty() -> None:
    site = toy_site()
    same = SiteTable(TOY, site.rows, site.who.assign(end=site.who["end"].iloc[0]))
    roles = roles_of(look(same), np.ones(same.count), np.zeros(same.count, bool), seed=0)
    assert np.bincount(roles).tolist() == [0, 900, 150, 450]


@pytest.mark.parametrize("attack", [scan, forged_flood])
def test_a_burst_of_what_nobody_else_does_is_set_aside(attack: object) -> None:
    burst = attack()  # type: ignore[operator]
    support = weigh(joined(usual(), burst))
    np.testing.assert_array_equal(np.flatnonzero(support.burst), 2000 + np.arange(len(burst)))
    assert (support.share[support.burst] == 0.0).all()
    assert (support.share[~support.burst] == 1.0).all()


def test_a_few_flows_of_a_rare_sort_stay() -> None:
    support = weigh(joined(usual(), scan(BURST - 1)))
    assert support.weak[-5:].all()
    assert not support.burst.any()
    assert weigh(joined(usual(), scan(BURST))).burst.any()


def test_what_many_hosts_do_at_many_times_is_supported() -> None:
    at = np.arange(600)
    monday = traffic(at % LEAST_SUPPORT, 1000 + at % LEAST_SUPPORT, at % 40, np.full(600, 9))
    assert not weigh(joined(usual(), monday)).weak.any()


def test_a_way_of_behaving_counts_as_well_as_a_sort_of_flow() -> None:
    at = np.arange(100)
    strange = traffic(np.full(100, 3), 1000 + at % 10, np.full(100, 5), at % 5, np.full(100, 77))
    assert weigh(joined(usual(), strange)).burst[-100:].all()


def test_a_busy_host_counts_little_more_than_others() -> None:
    flows = 40 * ALIKE
    at = np.arange(flows)
    # A sort that all know, done over and over by one host within an hour.
    busy = traffic(np.full(flows, 3), np.full(flows, 1000), np.full(flows, 8), np.zeros_like(at))
    support = weigh(joined(usual(), busy))
    assert not support.burst.any()
    counted = support.share[2000:].sum()
    assert ALIKE * 0.9 < counted <= ALIKE


def test_keys_are_alike_where_all_columns_are() -> None:
    one, other = np.array([1, 1, 2, 1]), np.array([5, 5, 5, 6])
    keys = mixed(one, other)
    assert keys[0] == keys[1]
    assert len(set(keys.tolist())) == 3
    assert mixed(other, one)[0] != keys[0]


def test_amounts_are_described_in_powers_of_four() -> None:
    names = tuple(f.name for f in TOY.features if f.kind.value == "count")[:1]
    rows = toy_rows(20)[:5]
    rows[:, TOY.index(names)[0]] = [0, 1, 3, 4, 1000]
    assert coarse(TOY, names, rows)[:, 0].tolist() == [0, 0, 1, 1, 4]


# Learning


def who(src: list[str], dst: list[str], times_us: NDArray[np.int64]) -> pd.DataFrame:
    texts = pd.to_datetime(pd.Series(times_us), unit="us", utc=True)
    end = texts.dt.strftime("%Y-%m-%dT%H:%M:%S.%f+0000")
    return pd.DataFrame({
        "start": end, "end": end, "src_ip": src, "src_port": 40_000, "dst_ip": dst,
        "dst_port": 80, "protocol": "TCP",
    })  # fmt: skip


def toy_site(flows: int = 1500, rows: FloatArray | None = None) -> SiteTable:
    at = np.arange(flows)
    rows = toy_rows(flows) if rows is None else rows
    src, dst = [f"10.0.0.{n % 50}" for n in at], [f"10.1.0.{n % 10}" for n in at]
    return SiteTable(TOY, rows, who(src, dst, at * 48 * HOUR_US // flows))


def test_times_come_back() -> None:
    times = np.array([0, 1_768_467_600_495_565], np.int64)
    np.testing.assert_array_equal(microseconds(who(["a"] * 2, ["b"] * 2, times)["end"]), times)


def test_rows_are_split_by_time() -> None:
    site = toy_site()
    # Not in the order in which they are read.
    shuffled = np.random.default_rng(0).permutation(site.count)
    site = SiteTable(TOY, site.rows[shuffled], site.who.iloc[shuffled].reset_index(drop=True))
    seen = look(site)
    roles = roles_of(seen, np.ones(site.count), np.zeros(site.count, bool), seed=1)
    ends = [
        seen.traffic.end_us[roles == role]
        for role in (Role.SAMPLE, Role.VALIDATION, Role.CALIBRATION)
    ]
    assert [len(each) for each in ends] == pytest.approx([900, 150, 450], abs=2)
    assert ends[0].max() <= ends[1].min()
    assert ends[1].max() < ends[2].min()


def test_bursts_and_what_is_excluded_serve_for_nothing() -> None:
    whole = joined(usual(), scan())
    support = weigh(whole)
    seen = Seen(whole, support, group(whole, support))
    excluded = np.zeros(len(whole), bool)
    excluded[::2] = True
    roles = roles_of(seen, support.share, excluded, seed=0)
    assert (roles[support.burst] == Role.ASIDE).all()
    assert (roles[excluded] == Role.ASIDE).all()
    assert (roles[~support.burst & ~excluded] != Role.ASIDE).all()


def test_too_little_traffic_is_refused_with_what_is_missing() -> None:
    with pytest.raises(TooLittleTraffic, match=r"400 flows, of which 240 to learn \(500 needed\)"):
        learn(toy_site(400), name="x", seed=0, clock_us=1, fpr=0.01)
    with pytest.raises(TooLittleTraffic, match=r"450 later .* \(3,000 needed for --fpr 0.001\)"):
        learn(toy_site(), name="x", seed=0, clock_us=1, fpr=0.001)
    with pytest.raises(TooLittleTraffic, match="about 600 more are missing, 2 days"):
        learn(toy_site(400), name="x", seed=0, clock_us=1, fpr=0.01)


def test_patterns_are_named_alike_on_every_run() -> None:
    site = toy_site()
    scanner = who(["10.9.9.9"] * 60, [f"10.2.0.{n}" for n in range(60)], np.full(60, 3 * HOUR_US))
    strange = toy_rows(60)
    strange[:, TOY.index([TOY.features[0].name])] = 1e9
    codes = [at for at, f in enumerate(TOY.features) if f.vocabulary]
    strange[:, codes] = -1
    counts = [at for at, f in enumerate(TOY.features) if f.kind.value == "count"]
    strange[:, counts] = 12_345
    both = SiteTable(
        TOY, np.concatenate([site.rows, strange]), pd.concat([site.who, scanner], ignore_index=True)
    )
    seen = look(both)
    (pattern, *_) = listed(both, seen.grouped, seen.support)
    assert (pattern.by, pattern.host, pattern.flows) == ("source", "10.9.9.9", 60)
    assert (pattern.set_aside, pattern.peers, pattern.low_port) == (60, 60, 80)
    assert pattern.example["src_ip"] == "10.9.9.9"
    mask = chosen_by(seen, [pattern.id])
    np.testing.assert_array_equal(np.flatnonzero(mask), 1500 + np.arange(60))
    np.testing.assert_array_equal(chosen_by(seen, ["10.9.9.9"]), mask)
    longest = "2001:0db8:0000:0000:0000:0000:0000:0001"
    six = SiteTable(TOY, both.rows, both.who.assign(src_ip=longest))
    assert chosen_by(look(six), ["2001:db8::1"]).all()
    with pytest.raises(NoSuchPattern, match=r"10\.9\.9\.8: no pattern has this id"):
        chosen_by(seen, ["10.9.9.8"])
    learned = learn(
        both, name="x", seed=0, clock_us=1, fpr=0.01, choice=Choice(exclude=(pattern.id,)),
        kind=KINDS["autoencoder"], config=QUICK,
    )  # fmt: skip
    assert learned.excluded == 60
    assert learned.set_aside == 0.0
    noted = learned.detector.provenance
    assert noted["site"]["exclude"] == [pattern.id]


def test_what_was_scored_was_not_learnt_from() -> None:
    site = toy_site(1200)
    fitted = cross_fit(site, name="x", seed=0, clock_us=1, fpr=0.01, config=QUICK)
    # A host within a span is in one fold, and each fold is calibrated by the other's model.
    spans = look(site).traffic.spans
    keys = mixed(address_keys(site.who["src_ip"]), spans)
    for key in np.unique(keys)[:50]:
        assert len(set(fitted.fold[keys == key])) == 1
    counts = [int((fitted.fold == each).sum()) for each in (0, 1)]
    assert [each.calibration.count for each in fitted.detectors] == counts
    with pytest.raises(TooLittleTraffic, match="300 flows are too few to fit a model on"):
        cross_fit(toy_site(300), name="x", seed=0, clock_us=1, fpr=0.01)


# An update


def test_the_model_before_makes_a_small_burst_one() -> None:
    small, single = scan(FEW), traffic(*(np.array([n]) for n in (8, 3000, 25, 300)))
    site = joined(usual(), small, single)
    support = weigh(site)
    seen = Seen(site, support, group(site, support))
    assert not support.burst.any()
    # It alerts on half of what is usual, too: that is drift, and is learnt from.
    alerted = np.arange(len(site)) % 2 == 0
    alerted[2000:] = True
    score = np.arange(len(site), dtype=float)
    aside = few_hosts(seen, alerted, score, most=100)
    assert np.flatnonzero(aside).tolist() == list(range(2000, 2000 + FEW))
    bounded = few_hosts(seen, alerted, score, most=2)
    assert np.flatnonzero(bounded).tolist() == [2000 + FEW - 2, 2000 + FEW - 1]
    roles = roles_of(
        without(seen, aside), without(seen, aside).support.share, np.zeros(len(site), bool), 0
    )
    assert (roles[aside] == Role.ASIDE).all()
    assert (roles[~aside] != Role.ASIDE).all()


def test_what_was_decided_before_need_not_occur_any_more() -> None:
    seen = look(toy_site())
    assert not chosen_by(seen, ["10.9.9.9"], frozenset({"10.9.9.9"})).any()
    with pytest.raises(NoSuchPattern):
        chosen_by(seen, ["10.9.9.9"], frozenset({"10.0.0.1"}))
