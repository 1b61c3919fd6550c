"""What Prometheus is told: the right numbers, under names that the docs and the dashboard have."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from features.flows import Ending
from sensor import daemon, service
from sensor.config.check import check
from sensor.config.source import Source
from sensor.destinations import Destinations
from sensor.drift import Drift
from sensor.errors import OutputError
from sensor.feed import AlertFeed, EventWriter
from sensor.grouping import Groups
from sensor.metrics import Buckets, Metrics, served
from sensor.outputs.queued import Queued
from sensor.report import Console
from sensor.verdict import Verdict
from sensor.zeek.columns import Fault
from sensor.zeek.parser import LogCounters
from tests.helpers import ROOT, make_flow
from tests.sensor.test_daemon import DETECTOR, Acts, scan, stages_of
from tests.sensor.test_feed import Kept
from tests.sensor.test_outputs_queued import Scripted

DASHBOARD = ROOT / "integrations" / "grafana" / "flowvane.json"


def samples(metrics: Metrics) -> dict[str, float]:
    """All samples by name and labels, as a Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(metrics)
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())):
            sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }  # fmt: skip


class Drifted(Drift):
    """As after a day of another traffic."""

    def features(self) -> dict[str, float]:
        return {"duration": 0.5}

    def scores(self) -> float | None:
        return 0.25


@pytest.fixture(scope="module")
def seen() -> tuple[dict[str, float], AlertFeed]:
    """What is told of a run, once all of it is written."""
    feed = AlertFeed(Verdict(DETECTOR, 0.999), groups=Groups(), clock=lambda: 0)
    early = make_flow(ending=Ending.EARLY)
    meter = Acts(scan(300), np.concatenate([make_flow(ending=Ending.IDLE), early]))
    for number, name in enumerate(("received", "kernel_drops", "unread", "queue_full_flows"), 1):
        setattr(meter.counters, name, number)
    meter.waiting = 5
    stages = stages_of(meter, feed, Kept())
    queue = Queued(Scripted())
    stages.outputs = Destinations([EventWriter(queue, "m", daemon.places(["eth0"]))], (), [queue])
    stages.statistics.drift = Drifted(DETECTOR)
    metrics = Metrics(stages, lambda: {"done": 2, "refused": 1})
    daemon.run(stages, Console(), observe=metrics.observe)
    stages.outputs.close()
    return samples(metrics), feed


def test_counters_are_those_that_are_kept(seen: tuple[dict[str, float], AlertFeed]) -> None:
    told, feed = seen
    counters = feed.counters
    assert counters.alerts > 200
    assert counters.events > 1
    expected = {
        "flowvane_packets_total": 1, "flowvane_packets_lost_total cause=kernel_buffer": 2,
        "flowvane_packets_lost_total cause=unread": 3,
        "flowvane_flows_lost_total cause=queue_full": 4, "flowvane_flows_waiting": 5,
        "flowvane_bytes_total": 301 * 210,
        "flowvane_flows_total reason=early": 1, "flowvane_flows_total reason=idle": 301,
        "flowvane_flows_total reason=evicted": 0,
        "flowvane_alerts_total": counters.alerts, "flowvane_alert_events_total": counters.events,
        "flowvane_alert_threshold": 0.999, "flowvane_alert_groups": 0,
        "flowvane_events_written_total output=0 scripted": counters.events,
        "flowvane_events_lost_total cause=stopped output=0 scripted": 0,
        "flowvane_events_waiting output=0 scripted": 0,
        "flowvane_feature_drift feature=duration": 0.5, "flowvane_score_drift": 0.25,
        "flowvane_reloads_total result=done": 2, "flowvane_reloads_total result=refused": 1,
        "flowvane_score_count": 302, "flowvane_p_value_count": 302,
        "flowvane_p_value_bucket le=1": 302, "flowvane_p_value_bucket le=+Inf": 302,
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected
    assert told["flowvane_batch_seconds_count"] >= 1
    assert told["flowvane_resident_bytes"] > 1e7
    (model,) = [name for name in told if name.startswith("flowvane_model_info")]
    assert " name=untrained-gaussian schema=kdd" in model


@settings(deadline=None)
@given(
    bounds=st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True).map(sorted),
    batches=st.lists(st.lists(st.integers(-1, 10) | st.floats(-1, 10), max_size=9), max_size=3),
)
def test_a_bucket_has_the_values_up_to_its_bound(
    bounds: list[float], batches: list[list[float]]
) -> None:
    buckets = Buckets(bounds)
    for batch in batches:
        buckets.add(batch)
    values = [value for batch in batches for value in batch]
    told = {
        sample.labels.get("le", sample.name): sample.value
        for sample in buckets.family("x", "X").samples
    }
    for bound in bounds:
        assert told[f"{bound:g}"] == sum(value <= bound for value in values)
    assert told["+Inf"] == told["x_count"] == len(values)
    assert told["x_sum"] == pytest.approx(sum(values))


# Names


def families(told: dict[str, float]) -> set[str]:
    """The names without what histograms add."""
    names = {name.split()[0] for name in told}
    return {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in names}


def test_the_docs_have_every_metric_and_no_other(
    seen: tuple[dict[str, float], AlertFeed],
) -> None:
    page = (ROOT / "docs" / "daemon.md").read_text("utf-8").split("\n## Metrics\n")[1]
    listed = re.findall(r"`(flowvane_\w+)`", page)
    assert len(listed) == len(set(listed))
    # Without a rule or a table that forgets there is no sample of these.
    empty = {"flowvane_alerts_suppressed_by_total", "flowvane_forgotten_total"}
    assert set(listed) == families(seen[0]) | families(of_a_log()) | empty


def of_a_log() -> dict[str, float]:
    """What is told of a log that is followed."""
    meter = Acts()
    meter.counters = LogCounters(lines=9, unread_bytes=7, broken=Counter({Fault.VALUE: 2}))
    stages = stages_of(meter, AlertFeed(Verdict(DETECTOR, 0.999), clock=lambda: 0), Kept())
    return samples(Metrics(stages, lambda: {"done": 0}))


def test_a_log_has_lines_in_the_place_of_packets() -> None:
    told = of_a_log()
    expected = {
        "flowvane_log_lines_total": 9, "flowvane_log_bytes_waiting": 7,
        "flowvane_log_lines_not_read_total cause=value": 2,
        "flowvane_log_lines_not_read_total cause=cut": 0,
        "flowvane_packets_metered_total": 0,
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected
    assert "flowvane_packets_total" not in told


def test_every_metric_of_the_dashboard_is_there(
    seen: tuple[dict[str, float], AlertFeed],
) -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    panels: list[dict[str, Any]] = dashboard["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    variables = json.dumps(dashboard["templating"])
    used = set(re.findall(r"\bflowvane_\w+", " ".join([*expressions, variables])))
    assert used <= {name.split()[0] for name in seen[0]}
    assert len(used) > 20
    for text in expressions:
        assert text.count("(") == text.count(")")
        labels = set(re.findall(r"by \(([^)]*)\)", text))
        assert labels <= {"le", "cause", "reason", "output", "output, cause"}
    assert len({panel["id"] for panel in panels}) == len(panels)


# The endpoint


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_metrics_are_served_while_it_runs(host: str) -> None:
    stages = stages_of(Acts(), AlertFeed(Verdict(DETECTOR, 0.5)), Kept())
    metrics = Metrics(stages, dict)
    try:
        serving = served(metrics, f"{host}:0")
        address = serving.__enter__()
    except OutputError:
        if host == "127.0.0.1":
            raise
        pytest.skip("no IPv6 here")
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        assert "flowvane_alerts_total 0.0" in answer.read().decode()
    with pytest.raises(OutputError, match=f"cannot listen on {re.escape(address)}: address alr"):
        served(metrics, address).__enter__()
    serving.__exit__(None, None, None)
    with served(metrics, address):
        pass


def test_a_port_that_is_none_is_refused() -> None:
    metrics = Metrics(stages_of(Acts(), AlertFeed(Verdict(DETECTOR, 0.5)), Kept()), dict)
    with pytest.raises(OutputError, match="there is no such port"):
        served(metrics, "127.0.0.1:99999").__enter__()


def test_without_the_package_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "sensor.metrics")
    nothing: Any = None
    config = check(Source({"metrics": {"enabled": True}}))
    with pytest.raises(OutputError, match=r"pip install 'flowvane\[metrics\]'"):
        service._metrics(config, nothing, nothing, nothing).__enter__()
