"""A real Zeek raises a notice for each alert, over a rotation of the log."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers import ROOT, excerpt_triage, until

PACKAGE = ROOT / "integrations" / "zeek"

pytestmark = pytest.mark.skipif(shutil.which("zeek") is None, reason="not installed: zeek")


def test_a_notice_for_each_alert(tmp_path: Path) -> None:
    lines = excerpt_triage("nsl-kdd")[1].splitlines(keepends=True)
    half, eve, log = len(lines) // 2, tmp_path / "eve.json", tmp_path / "notice.log"
    eve.write_bytes(b"".join(lines[:half]))

    def notices() -> list[dict[str, str]]:
        text = log.read_text() if log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    command = ["zeek", PACKAGE / "scripts", "exit_only_after_terminate=T", "LogAscii::use_json=T",
               f"Flowvane::eve_file={eve}"]  # fmt: skip
    with subprocess.Popen(command, cwd=tmp_path) as process:
        try:
            until(lambda: len(notices()) == half, 60.0)
            eve.rename(tmp_path / "eve.json.1")
            eve.write_bytes(b"".join(lines[half:]))
            until(lambda: len(notices()) == len(lines), 60.0)
        finally:
            process.terminate()
    told, alerts = notices(), [json.loads(line) for line in lines]
    assert {each["note"] for each in told} == {"Flowvane::Anomalous_Flow"}
    assert [each["src"] for each in told] == [alert["src_ip"] for alert in alerts]
    assert all(alert["community_id"] in each["sub"]
               for each, alert in zip(told, alerts, strict=True))  # fmt: skip


def test_zkg_takes_the_package(tmp_path: Path) -> None:
    if shutil.which("zkg") is None:
        pytest.skip("not installed: zkg")
    copy = shutil.copytree(PACKAGE, tmp_path / "flowvane")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t",
                    "commit", "-qm", "flowvane"]):  # fmt: skip
        subprocess.run(["git", *command], cwd=copy, check=True)
    subprocess.run(["zkg", "info", str(copy)], check=True, capture_output=True)
