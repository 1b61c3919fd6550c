"""The unit, its environment and logrotate's file: by the tools that will read them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from sensor.cli import build_parser
from sensor.errors import ExitCode
from tests.helpers import ROOT, need_tools

FOLDER = ROOT / "systemd"
UNIT = FOLDER / "flowvane@.service"
PROGRAM = "/opt/flowvane/bin/flowvane"


def values(name: str) -> list[str]:
    """What the unit sets `name` to, line by line."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)


def verified(folder: Path, unit: str) -> str:
    """What `systemd-analyze verify` has to say of a unit, its program replaced by one there is."""
    need_tools("systemd-analyze")
    path = folder / UNIT.name
    path.write_text(unit.replace(PROGRAM, "/bin/true"), "utf-8")
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True
    )
    return ran.stdout + ran.stderr


def test_systemd_has_nothing_against_the_unit(tmp_path):
    assert verified(tmp_path, UNIT.read_text("utf-8")) == ""


def test_systemd_would_say_what_it_does_not_know(tmp_path):
    unit = UNIT.read_text("utf-8").replace("LockPersonality=", "LockPersonalty=")
    assert "LockPersonalty" in verified(tmp_path, unit)


def test_the_exposure_is_2_at_most():
    need_tools("systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(UNIT)]
    ran = subprocess.run([*command, "--no-pager"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert "Overall exposure level" in ran.stdout


def test_no_privilege_but_raw_sockets():
    assert values("CapabilityBoundingSet") == values("AmbientCapabilities") == ["CAP_NET_RAW"]
    assert values("NoNewPrivileges") == ["yes"]


def test_the_command_line_of_the_unit_is_one_that_flowvane_takes():
    (command,) = values("ExecStart")
    given = dict(pair.split("=", 1) for pair in values("Environment"))
    program, *arguments = shlex.split(
        command.replace("%i", "eth0").replace("%L", "/var/log")
        .replace("${FLOWVANE_CONFIG}", given["FLOWVANE_CONFIG"])
        .replace("$FLOWVANE_OPTIONS", "--fpr 0.001")
    )  # fmt: skip
    assert program == PROGRAM
    args = build_parser().parse_args(arguments)
    assert (args.command, args.interfaces, args.fpr) == ("run", ["eth0"], 0.001)
    assert args.config == Path("/etc/flowvane/flowvane.yaml")
    assert args.log_dir == Path("/var/log/flowvane/eth0")


def test_logs_and_caches_are_in_the_folders_that_systemd_makes():
    (logs,), (caches,) = values("LogsDirectory"), values("CacheDirectory")
    assert f"-l %L/{logs} " in values("ExecStart")[0]
    assert f"NUMBA_CACHE_DIR=%C/{caches}/numba" in values("Environment")


def test_what_a_restart_does_not_mend_is_not_tried_again():
    (codes,) = values("RestartPreventExitStatus")
    assert {int(code) for code in codes.split()} == {ExitCode.USAGE, ExitCode.MODEL}


def test_the_environment_file_sets_what_the_unit_uses():
    text = (FOLDER / "flowvane.default").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    names = {line.partition("=")[0] for line in lines}
    assert names == set(re.findall(r"\$\{?([A-Z_]+)", values("ExecStart")[0]))


@pytest.mark.skipif(os.getuid() != 0, reason="logrotate would want to be root")
def test_logrotate_moves_the_files_and_has_them_reopened(tmp_path):
    need_tools("logrotate")
    logs, state, called = tmp_path / "logs", tmp_path / "state", tmp_path / "called"
    for interface in ("eth0", "eth1"):
        (logs / interface).mkdir(parents=True)
        (logs / interface / "eve.json").write_text("{}\n", "utf-8")
    text = (FOLDER / "flowvane.logrotate").read_text("utf-8")
    (tmp_path / "conf").write_text(text.replace("/var/log/flowvane", str(logs)), "utf-8")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {called}\n', "utf-8")
    (programs / "systemctl").chmod(0o755)
    ran = subprocess.run(
        ["logrotate", "--force", "--state", str(state), str(tmp_path / "conf")],
        env={"PATH": f"{programs}:{os.environ['PATH']}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    moved = [path.relative_to(logs).as_posix() for path in sorted(logs.rglob("eve*"))]
    assert moved == ["eth0/eve.json.1", "eth1/eve.json.1"]
    assert called.read_text("utf-8") == ("kill --signal=HUP --kill-whom=main flowvane@*.service\n")
