"""The same captures give the same octets: on every run, in any order, in any memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples import traffic
from tests.helpers import ANN, BOB, ROOT, sample
from tests.sensor.test_corpus import ARCHIVES, FULL, corpus, unpack

START_US = 1_700_000_000_000_000
METER = """
import sys
from pathlib import Path
from features.registry import SCHEMAS
from sensor.captures import CaptureSpool, chain
from sensor.meter.compiled.meter import CompiledMeter
with CaptureSpool() as spool:
    captures = [spool.open(Path(name)) for name in sys.argv[1:]]
    for batch in CompiledMeter(chain(captures, 1), SCHEMAS["flow"].meter).flows():
        sys.stdout.buffer.write(batch.tobytes())
"""


def python(*arguments: object, perturb: int = 0) -> bytes:
    """What a Python of its own writes; new memory in it is full of an octet (mallopt(3))."""
    ran = subprocess.run(
        [sys.executable, *map(str, arguments)],
        check=False, capture_output=True, cwd=ROOT,
        env={**os.environ, "MALLOC_PERTURB_": str(perturb), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.returncode in (0, 3), ran.stderr.decode()
    return ran.stdout


def test_what_memory_was_used_for_before_makes_no_difference(tmp_path: Path) -> None:
    # The engine reads the flags and ports of a TCP header that was cut off all the same.
    cut = tmp_path / "cut.pcap"
    frame = traffic.tcp_frame(ANN, BOB, 1000, 80, "S", payload=bytes(100))
    traffic.write_pcap(cut, [(START_US, frame), (START_US + 1, frame)], snaplen=44)
    runs = [python("-c", METER, cut, sample().excerpt, perturb=octet) for octet in (85, 170)]
    assert runs[0] == runs[1]
    assert len(runs[0]) > 0


@corpus
@pytest.mark.parametrize(
    "most",
    [
        12,
        pytest.param(None, marks=pytest.mark.skipif(
            not FULL, reason="minutes long: set FLOWVANE_CORPUS_FULL=1 for every capture")),
    ],
)  # fmt: skip
def test_the_same_captures_give_the_same_alerts(tmp_path: Path, most: int | None) -> None:
    paths = unpack(ARCHIVES["attacks"], tmp_path, most)
    runs = []
    for octet, order in ((85, paths), (170, paths[::-1])):
        log_dir = tmp_path / str(octet)
        python("-m", "sensor.cli", "triage", "-q", "--fpr", "0.5", "-l", log_dir, "-r", *order,
               perturb=octet)  # fmt: skip
        runs.append((log_dir / "eve.json").read_bytes())
    assert runs[0] == runs[1]
    assert runs[0]
