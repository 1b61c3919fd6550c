"""A real Filebeat reads events with the configuration that ships."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helpers import ROOT, excerpt_triage, until

PROGRAM = shutil.which(os.environ.get("FLOWVANE_FILEBEAT") or "filebeat")
CONFIG = ROOT / "integrations" / "filebeat" / "filebeat.yml"

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no filebeat in PATH; FLOWVANE_FILEBEAT may name one"
)


def filebeat(config: Path, *arguments: str) -> list[str]:
    """A command line of it, with a home of its own beside the configuration."""
    home = config.parent
    return [str(PROGRAM), *arguments, "-c", str(config), "--strict.perms=false",
            "--path.data", str(home / "data"), "--path.logs", str(home / "logs")]  # fmt: skip


def test_every_event_comes_out_with_its_time(tmp_path: Path) -> None:
    lines = excerpt_triage("nsl-kdd")[1].splitlines(keepends=True)
    # As with a `sensor-name`: Filebeat has a `host` of its own, an object.
    lines += [json.dumps(json.loads(lines[0]) | {"host": "sensor-1"}).encode() + b"\n"]
    read, out = tmp_path / "eve.json", tmp_path / "out"
    read.write_bytes(b"".join(lines))
    settings = yaml.safe_load(CONFIG.read_text())
    settings["filebeat.inputs"][0]["paths"] = [str(read)]
    del settings["output.elasticsearch"]
    settings["output.file"] = {"path": str(out), "filename": "events"}
    config = tmp_path / "filebeat.yml"
    config.write_text(yaml.safe_dump(settings))
    subprocess.run(filebeat(config, "test", "config"), check=True, capture_output=True)

    def written() -> list[str]:
        return [line for path in out.glob("events*") for line in path.read_text().splitlines()]

    with subprocess.Popen(filebeat(config, "run"), stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: len(written()) >= len(lines), 60.0)
        finally:
            process.terminate()
    events = {(event["flow_id"], event.get("host")): event for event in map(json.loads, written())}
    assert len(events) == len(lines)
    for line in lines:
        event = json.loads(line)
        got = events[event["flow_id"], event.get("host")]
        assert got["@timestamp"] == event["timestamp"][:23] + "Z"
        assert {key: got[key] for key in event} == event
