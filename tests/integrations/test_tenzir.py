"""A real Tenzir reads events of all types as Suricata's, without a warning."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from benchmarks.events import Lines, read_by_tenzir, write_events
from models.bundle import load
from sensor.captures import CaptureSpool, chain
from tests.helpers import sample

PROGRAM = shutil.which(os.environ.get("FLOWVANE_TENZIR") or "tenzir")

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no tenzir in PATH; FLOWVANE_TENZIR may name one (pip install tenzir)"
)


@pytest.mark.parametrize("version", [7, 8])
def test_all_types_of_events_are_read_without_a_word(version: int, tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    with CaptureSpool() as spool:
        output = Lines(path)
        chains = chain([spool.open(sample().excerpt)], 0)
        write_events(chains, load("nsl-kdd"), 0.01, {version: output})
        output.close()
    types = [json.loads(line)["event_type"] for line in path.read_bytes().splitlines()]
    read = read_by_tenzir(str(PROGRAM), path)
    assert read == {
        "code": 0, "said": [],
        "events": {name: types.count(name) for name in ("alert", "anomaly", "flow", "stats")},
    }  # fmt: skip
    # It does say something where there is something to say.
    path.write_bytes(path.read_bytes().replace(b'"timestamp":"2026-', b'"timestamp":"soon-'))
    assert read_by_tenzir(str(PROGRAM), path)["said"]
