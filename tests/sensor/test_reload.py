"""Reloading: what is put in place, what is refused, and that no flow is lost either way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from features.schema import EarlyReports
from models.bundle import save
from models.detector import Detector
from sensor import daemon
from sensor.config.build import deciders_of
from sensor.config.check import check
from sensor.config.keys import Config
from sensor.config.source import Source
from sensor.feed import AlertFeed
from sensor.pipeline import Scorer
from sensor.reload import Reloader, restarts
from sensor.report import Console
from sensor.signals import Requests
from tests.helpers import until, untrained
from tests.sensor.test_daemon import DETECTOR, Acts, scan, stages_of
from tests.sensor.test_feed import Kept


def config_of(**values: Any) -> Config:
    """A configuration, dashes for underscores."""
    return check(Source({name.replace("_", "-"): value for name, value in values.items()}))


def saved(detector: Detector, folder: Path, **changed: Any) -> str:
    """A bundle of the detector, with some attributes changed."""
    before = {name: getattr(detector, name) for name in changed}
    try:
        for name, value in changed.items():
            setattr(detector, name, value)
        save(detector, folder)
    finally:
        for name, value in before.items():
            setattr(detector, name, value)
    return str(folder)


class Sensor:
    """A sensor whose configuration can be changed, on a meter that acts."""

    def __init__(self, config: Config, *acts: Any) -> None:
        self.config, self.requests, self.output = config, Requests(), Kept()
        feed = AlertFeed(**deciders_of(config, DETECTOR)._asdict(), clock=lambda: 0)
        self.stages = stages_of(Acts(*acts), feed, self.output)
        self.console = Console()
        self.reloader = Reloader(
            config, lambda: self.config, self.stages, self.console, self.requests
        )

    def becomes(self, config: Config) -> Callable[[], None]:
        """An act: the configuration changes, and a reload is asked for."""

        def act() -> None:
            self.config, self.requests.reload = config, True

        return act

    def made(self) -> None:
        """An act: wait until what was begun is made."""
        until(lambda: self.reloader.under_way)
        until(lambda: not any(each.name == "reload" for each in threading.enumerate()), 60)

    def reload(self, config: Config) -> None:
        """Reload, without flows."""
        self.becomes(config)()
        self.reloader.turn()
        self.made()
        self.reloader.turn()


def test_a_new_model_scores_from_a_batch_on_and_no_flow_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensor.live.SCORING_AGE_S", 0.0)
    new = config_of(
        model=saved(DETECTOR, tmp_path / "new", name="new"), false_positive_rate=0.995,
        grouping={"enabled": True}, linger=5.0,
    )  # fmt: skip
    old = config_of(false_positive_rate=0.999, grouping={"enabled": True})
    sensor = Sensor(old)
    sensor.stages.meter._acts = (  # type: ignore[attr-defined]
        scan(300), sensor.becomes(new), scan(30), sensor.made, scan(500),
    )  # fmt: skip
    daemon.run(sensor.stages, sensor.console, [sensor.reloader.turn])
    feed = sensor.stages.feed
    assert feed.counters.flows == 830
    assert (sensor.reloader.done, sensor.reloader.refused) == (1, 0)
    assert sensor.stages.scorer.detector.name == feed.verdict.model == "new"
    assert feed.verdict.fpr == 0.995
    told: dict[str, int] = {}
    for event in sensor.output.events:
        data = event["alert"]["metadata"]
        (model,) = data["model"]
        told[model] = told.get(model, 0) + int(data["count"][0])
    # What the old model found is told under its name, with the groups that it was waiting in.
    assert list(told) == ["m", "new"]
    assert sum(told.values()) == feed.counters.alerts
    out, err = capsys.readouterr()
    assert out == "reloaded; model new\n"
    assert err == "flowvane: warning: reload: linger takes a restart, and stays as it was\n"


def broken(folder: Path) -> None:
    path = folder / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"clock_us": 1}, "wants a clock in microseconds of 1, and flows are measured for 1000"),
        ({"state": None}, "gives a flow no score: nan"),
        ({"broken": True}, "is not what SHA256SUMS says"),
    ],
    ids=["clock", "weights", "broken"],
)
def test_a_model_that_cannot_be_used_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], reason: str
) -> None:
    if "state" in change:
        change = {"state": jax.tree.map(lambda leaf: leaf * jnp.nan, DETECTOR.state)}
    damaged = change.pop("broken", False)
    model = saved(DETECTOR, tmp_path / "new", **change)
    if damaged:
        broken(tmp_path / "new")
    before = config_of(false_positive_rate=0.5)
    sensor = Sensor(before)
    used = sensor.stages.scorer.detector, sensor.stages.feed.verdict
    sensor.reload(config_of(model=model, false_positive_rate=0.25))
    assert (sensor.reloader.done, sensor.reloader.refused) == (0, 1)
    assert (sensor.stages.scorer.detector, sensor.stages.feed.verdict) == used
    err = capsys.readouterr().err
    assert err.startswith("flowvane: warning: reload refused, all stays as it was: ")
    assert reason in err
    assert len(err.splitlines()) == 1


def test_a_model_of_another_schema_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sensor = Sensor(config_of(false_positive_rate=0.5))
    model = saved(untrained("flow", "gaussian"), tmp_path / "new", clock_us=1000)
    sensor.reload(config_of(model=model))
    assert "wants schema flow, and flows are measured for kdd; that takes a restart" in (
        capsys.readouterr().err
    )
    assert sensor.stages.scorer.detector is DETECTOR


def test_a_model_that_wants_other_early_reports_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = untrained("flow", "gaussian")
    sensor = Sensor(config_of(false_positive_rate=0.5))
    sensor.stages.scorer = Scorer(used)
    model = saved(used, tmp_path / "new", early=EarlyReports(ages_s=(10.0,)))
    sensor.reload(config_of(model=model))
    assert "and flows are measured for none; that takes a restart" in capsys.readouterr().err


def test_what_else_is_wrong_is_refused_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sensor = Sensor(config_of(false_positive_rate=0.5))
    rules = tmp_path / "rules.yaml"
    rules.write_text("- {prt: 80}\n")
    model = saved(DETECTOR, tmp_path / "new")
    sensor.reload(config_of(model=model, suppress=str(rules)))
    sensor.reload(config_of(model=model, false_positive_rate=1e-9))
    sensor.reloader._reread = lambda: check(Source({"modl": 1, "lingr": 2}))
    sensor.reload(config_of())
    sensor.reloader._reread = lambda: 1 / 0  # type: ignore[assignment,return-value]
    sensor.reload(config_of())
    assert sensor.reloader.refused == 4
    told = [
        line.removeprefix("flowvane: warning: reload refused, all stays as it was: ")
        for line in capsys.readouterr().err.splitlines()
    ]
    assert told[0] == f"{rules}:1: there is no 'prt'; is it port?"
    assert told[1].startswith("--fpr 1e-09: model ")
    assert told[2:] == [
        "configuration: modl: unknown key; did you mean model?",
        "configuration: lingr: unknown key; did you mean linger?",
        "ZeroDivisionError: division by zero",
    ]


def test_what_was_asked_for_meanwhile_is_done_after(tmp_path: Path) -> None:
    sensor = Sensor(config_of(false_positive_rate=0.5))
    model = saved(DETECTOR, tmp_path / "new")
    sensor.becomes(config_of(model=model, false_positive_rate=0.25))()
    sensor.reloader.turn()
    sensor.becomes(config_of(model=model, false_positive_rate=0.125))()
    for _ in range(2):
        sensor.made()
        sensor.reloader.turn()
        sensor.reloader.turn()
    assert sensor.reloader.done == 2
    assert sensor.stages.feed.verdict.fpr == 0.125


def test_a_budget_that_is_spent_stays_spent_and_counts_go_on(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("- {name: web, port: 80}\n")
    model = saved(DETECTOR, tmp_path / "new")
    sensor = Sensor(config_of(alert_budget=10.0, suppress=str(rules)))
    feed = sensor.stages.feed
    assert feed.budget is not None
    assert feed.suppression is not None
    feed.suppression.counts["web"] = 3
    assert [feed.budget.take() for _ in range(11)] == [True] * 10 + [False]
    sensor.reload(config_of(model=model, alert_budget=20.0, suppress=str(rules)))
    assert sensor.reloader.done == 1
    assert feed.budget.per_hour == 20.0
    assert not feed.budget.take()
    assert feed.suppression.counts == {"web": 3}


def test_a_history_is_kept_where_it_is_as_long() -> None:
    known = untrained("kdd", "host-conv-vae")
    scorer = Scorer(known)
    history = scorer._history
    scorer.use(known)
    assert scorer._history is history
    scorer.use(DETECTOR)
    assert scorer._history is not history


def test_keys_that_take_a_restart_are_named() -> None:
    before = config_of(interfaces=[{"interface": "a"}])
    now = config_of(
        interfaces=[{"interface": "a", "threads": 2}, {"interface": "b"}],
        model="unsw-nb15", grouping={"enabled": True}, metrics={"enabled": False},
    )  # fmt: skip
    assert list(restarts(before, now)) == [
        "interfaces[0].threads",
        *(f"interfaces[1].{name}" for name in ("interface", "threads", "buffer",
                                               "disable-promisc")),
    ]  # fmt: skip
    assert not list(restarts(now, now))
