"""Where there is no model yet: what is learnt, by whom, and what the sensor does meanwhile."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sensor import coldstart
from sensor.coldstart import Learning, LearningFailed, changeover
from sensor.config.keys import Config
from sensor.errors import ConfigError, ExitCode, ModelError
from sensor.learnconfig import capture_by
from sensor.livefeatures import FlowFolder, Progress
from sensor.notify import Notifier
from sensor.report import Console
from tests.helpers import until
from tests.sensor.test_lifecycle import Manager, manager
from tests.sensor.test_reload import config_of

__all__ = ["manager"]


class Acted(Learning):
    """Learns by shell scripts, one after the other; `MODEL` in them is the bundle."""

    def __init__(self, config: Config, *scripts: str) -> None:
        super().__init__(config, Console())
        self.scripts, self.usual = list(scripts), list[list[str]]()

    def command(self, config: Path) -> list[str]:
        self.usual.append(super().command(config))
        return ["sh", "-c", self.scripts.pop(0).replace("MODEL", self._config.model)]


MADE = "mkdir MODEL; touch MODEL/manifest.json"


def config_for(place: Path, **learn: Any) -> Config:
    return config_of(
        interfaces=[{"interface": "eth0", "threads": 3, "buffer": 7}], model=str(place / "site"),
        linger=2.0, learn={"enabled": True, **learn},
        outputs=[{"eve-log": {"filetype": "redis", "redis": {"password": "secret"}}}],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"model": "nsl-kdd"}, "model: with learn.enabled, the path"),
        ({"learn": {"enabled": True, "meanwhile": "x/site"}}, "learn.meanwhile: is the model"),
        ({"interfaces": [], "zeek_conn": {"filename": "conn.log"}}, "learn.enabled: only inter"),
        ({"learn": {"enabled": True, "for": "1 day"}}, "learn.for: must be a number with"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], told: str) -> None:
    usual = {"interfaces": [{"interface": "eth0"}], "model": "x/site", "learn": {"enabled": True}}
    with pytest.raises(ConfigError) as refused:
        config_of(**(usual | values))
    assert told in str(refused.value)


def test_a_model_that_is_there_is_not_learnt_again(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    assert coldstart.needed(config)
    coldstart.check_start(config)
    (tmp_path / "site").mkdir()
    with pytest.raises(ModelError, match="is no model bundle"):
        coldstart.check_start(config)
    (tmp_path / "site" / "manifest.json").touch()
    assert not coldstart.needed(config)
    assert not coldstart.needed(config_of(model="x/site"))


def test_the_model_for_the_time_being_has_to_be_one(tmp_path: Path) -> None:
    coldstart.check_start(config_for(tmp_path, meanwhile="nsl-kdd"))
    with pytest.raises(ModelError, match=r"learn\.meanwhile: no-such: no such"):
        coldstart.check_start(config_for(tmp_path, meanwhile="no-such"))


def test_what_learns_captures_as_the_sensor_will(tmp_path: Path) -> None:
    learning = Acted(config_for(tmp_path, flows=9, **{"for": "2h"}), "exit 0")
    learning.begin()
    (command,) = learning.usual
    file = tmp_path / "site.flows" / "capture.yaml"
    assert command[:5] == [sys.executable, "-P", "-m", "sensor.tied", str(os.getpid())]
    assert command[-4:] == ["--for", "7200s", "--flows", "9"]
    assert "secret" not in file.read_text()
    args = argparse.Namespace(
        config=file, update=None, output=None, fpr=None, lasting=None, flows=None, meter=None
    )
    capture = capture_by(args)
    (tap,) = capture.taps
    assert (tap.name, tap.threads, tap.capture.buffer_bytes) == ("eth0", 3, 7 << 20)
    assert (capture.options.linger_s, capture.lasting_s, capture.flows) == (2.0, 7200.0, 9)
    assert (str(args.output), args.fpr, args.meter) == (str(tmp_path / "site"), 0.01, "compiled")
    learning.end()


@pytest.mark.parametrize(("meter", "clock"), [("compiled", None), ("stock", "ms")])
def test_times_are_no_finer_than_the_meters(tmp_path: Path, meter: str, clock: str | None) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"interfaces: [{{interface: eth0}}]\nmodel: ./site\nmeter: {meter}\n")
    args = argparse.Namespace(
        config=file, update=None, output=None, fpr=None, lasting=None, flows=None, clock=None
    )
    capture_by(args)
    assert args.clock == clock


def test_in_silence_it_is_waited_for(
    tmp_path: Path, manager: Manager, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
    learning = Acted(config_for(tmp_path), f"echo flowvane: warning: hot; sleep 0.3; {MADE}")
    learning.begin()
    assert coldstart.wait(learning, Notifier(environ, print), Console())
    heard = manager.heard()
    assert heard[0] == {"READY": "1"}
    told = "0 flows in 0.0 of 24.0 h; no alerts until then"
    assert {"STATUS": f"learning {tmp_path / 'site'}: {told}"} in heard
    assert {"WATCHDOG": "1"} in heard
    until(lambda: not any(each.name == "learning" for each in threading.enumerate()))
    assert capsys.readouterr().out == "learning: warning: hot\n"


def test_too_little_traffic_takes_longer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learning = Acted(config_for(tmp_path, flows=9), "exit 6", MADE)
    learning.begin()
    FlowFolder(tmp_path / "site.flows", resume=True).closed(Progress(seconds=600.0))
    assert coldstart.wait(learning, Notifier({}, print), Console())
    assert learning.usual[1][-2:] == ["--for", "87000s"]  # 600 s, and a day more
    assert "capturing for 1 day, 0:00:00 (h:mm:ss) more" in capsys.readouterr().err


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("exit 77", 1), ("true", 1)])
def test_no_model_and_none_to_come_ends_the_sensor(tmp_path: Path, script: str, code: int) -> None:
    learning = Acted(config_for(tmp_path), script)
    learning.begin()
    with pytest.raises(LearningFailed) as failed:
        coldstart.wait(learning, Notifier({}, print), Console())
    assert failed.value.exit_code == ExitCode(code)


def test_another_model_gives_way_or_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped: list[bool] = []
    for script in (f"sleep 0.2; {MADE}", "exit 4"):
        learning = Acted(config_for(tmp_path), script)
        turn = changeover(learning, lambda: stopped.append(True), Console())
        learning.begin()
        turn()
        assert len(stopped) in (0, 2)  # it is not there yet
        until(lambda: learning.poll() or learning.failed is not None)  # noqa: B023
        turn()
        turn()
    assert stopped == [True, True]  # both of the first
    assert capsys.readouterr().err.count("going on without") == 1


def test_at_the_end_nobody_learns_on(tmp_path: Path) -> None:
    learning = Acted(config_for(tmp_path), "exec sleep 60")
    learning.begin()
    process = learning._process
    learning.end()
    assert process is not None
    assert process.returncode == -15
    assert not learning.poll()
    assert learning.failed is None
    # One whose parent has gone does not begin.
    gone = subprocess.run([sys.executable, "-m", "sensor.tied", "1", "--version"], check=False)
    assert gone.returncode == 1
