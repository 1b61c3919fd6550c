"""From the meter to rows: what is counted on the way."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import traffic
from examples.traffic import Host
from features.context import Capacities
from features.flows import FlowBatch
from features.history import HostHistory, host_keys, previous_rows, windows_of
from features.registry import SCHEMAS
from models.bundle import save
from sensor import triage as triage_module
from sensor.feed import AlertFeed
from sensor.live import score_live
from sensor.meter.base import MemoryMeter
from sensor.model import read_model
from sensor.pipeline import Measured, Scored, Scorer, measure, score
from sensor.report import Console
from sensor.verdict import Verdict
from tests.helpers import BOB, make_flow, make_rows, run, small_pcap, syn, untrained

FLOW = SCHEMAS["flow"]
SMALL = Capacities(hosts=4, pairs=2, uses=8, offers=8, habits=8, terms=8)


def strangers(count: int, origin: int) -> FlowBatch:
    """Flows of 1 s each, one after the other, from host to host, none of them seen twice."""
    return np.concatenate(
        [
            make_flow(
                src_ip=f"10.{origin}.1.{number}",
                dst_ip=f"10.{origin}.2.{number}",
                first_us=1_768_467_600_000_000 + number * 1_000_000,
                last_us=1_768_467_601_000_000 + number * 1_000_000,
                origin=origin,
            )
            for number in range(count)
        ]
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.context.Capacities", lambda: SMALL)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [1, 3, 100])
def test_forgotten_hosts_are_counted_over_all_captures(size: int) -> None:
    flows = np.concatenate([strangers(5, 0), strangers(4, 1), strangers(2, 2)])
    batches = [flows[at : at + size] for at in range(0, len(flows), size)]
    forgotten: Counter[str] = Counter()
    list(measure(MemoryMeter(batches, 1000), FLOW, 1000, forgotten))
    # Of 10, 8 and 4 hosts 4 are kept each time, of 5, 4 and 2 pairs 2.
    assert forgotten == {"hosts": 6 + 4, "pairs": 3 + 2}


@pytest.mark.parametrize("name", ["unsw-nb15", "kdd", "cicids2017"])
def test_windows_of_a_fixed_number_of_flows_forget_nothing(name: str) -> None:
    forgotten: Counter[str] = Counter()
    rows = list(measure(MemoryMeter([strangers(200, 0)], 1000), SCHEMAS[name], 1000, forgotten))
    assert sum(len(each.flows) for each in rows) == 200
    assert not forgotten


class _Nowhere:
    """An output that keeps nothing."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.usefixtures("small")
def test_triage_says_what_was_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = small_pcap(tmp_path / "some.pcap", syn(1025))
    detector = untrained("flow", "histogram")
    save(detector, tmp_path / "toy")
    stored = read_model(str(tmp_path / "toy"), 0.5)
    for count, line in (
        (2, ""),
        (5, "context of the hosts was full; forgotten, the oldest first: 6 hosts, 3 pairs"),
    ):
        meter = MemoryMeter([strangers(count, 0)], 1000)
        monkeypatch.setattr(triage_module, "open_meter", lambda *_, meter=meter, **__: meter)
        summary = triage_module.triage(
            [path], stored, lambda: (detector, AlertFeed(Verdict(detector, 0.5))), _Nowhere(),
            Console(quiet=True),
        )  # fmt: skip
        assert summary.forgotten == ({"hosts": 6, "pairs": 3} if line else {})
        assert capsys.readouterr().err == (f"flowvane: warning: {line}\n" if line else "")


@pytest.mark.usefixtures("small")
def test_features_says_what_was_forgotten(tmp_path: Path) -> None:
    # Five clients of one server, which stays in memory.
    clients = [Host("02:00:00:00:00:07", f"10.0.1.{number}") for number in range(5)]
    frames = [traffic.tcp_frame(client, BOB, 1025, 80, "S") for client in clients]
    path = small_pcap(tmp_path / "some.pcap", *frames)
    ran = run("features", "-r", path, "--schema", "flow", "-o", tmp_path / "out.csv")
    assert ran.code == 0
    (line,) = ran.lines
    assert line.endswith("forgotten, the oldest first: 2 hosts, 3 pairs")


# Models that see what a host did before


@pytest.mark.parametrize("cuts", [(), (1, 2, 3), (1500,), (1024, 2048)])
@pytest.mark.parametrize("way", [score, score_live])
def test_windows_do_not_depend_on_how_flows_come(
    way: Callable[..., Iterator[Scored]], cuts: tuple[int, ...]
) -> None:
    detector, count = untrained("kdd", "host-conv-vae"), 2100
    rng = np.random.default_rng(0)
    flows = np.repeat(make_flow(), count)
    flows["src_ip"][:, 15] = rng.integers(0, 40, count)
    flows["origin"] = rng.integers(0, 2, count)
    rows = make_rows(SCHEMAS["kdd"], count).astype(np.float32).astype(np.float64)  # as remembered
    parts = zip(np.split(flows, cuts), np.split(rows, cuts), strict=True)
    given: Any = Scorer(detector) if way is score_live else detector
    scored = list(way((Measured(*part) for part in parts), given))
    before = previous_rows(host_keys(flows), detector.window - 1)
    assert 0.5 < (before >= 0).mean() < 1.0
    windows = windows_of(rows, before)
    np.testing.assert_array_equal(np.concatenate([each.rows for each in scored]), windows)
    found = np.concatenate([each.scores.score for each in scored])
    np.testing.assert_array_equal(found, detector.score(windows).score)
    assert (found != detector.score(rows).score).any()  # they matter


def test_hosts_that_were_forgotten_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, forgotten = untrained("kdd", "host-conv-vae"), Counter[str]()
    small = functools.partial(HostHistory, hosts=4)
    monkeypatch.setattr("sensor.pipeline.HostHistory", small)
    flows = np.repeat(make_flow(), 6)
    flows["src_ip"][:, 15] = range(6)
    rows = make_rows(SCHEMAS["kdd"], 6)
    assert len(list(score(iter([Measured(flows, rows)]), detector, forgotten))) == 1
    assert forgotten == {"histories": 2}


def test_an_alert_shows_the_flows_own_row() -> None:
    detector = untrained("kdd", "host-conv-vae")
    rows = make_rows(SCHEMAS["kdd"], 3)
    (scored,) = score(iter([Measured(np.repeat(make_flow(), 3), rows)]), detector)
    found = Verdict(detector, 0.99).alerts(scored.flows, scored.rows, scored.scores)
    assert len(found) == 3
    for row, reasons in zip(rows, found.reasons, strict=True):
        for reason in reasons:
            (feature,) = [f for f in detector.features if f.name == reason.feature]
            value = row[SCHEMAS["kdd"].names.index(reason.feature)]
            assert reason.observed == feature.show(value)
