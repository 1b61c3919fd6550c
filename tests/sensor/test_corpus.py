"""Captures from the wild: whatever is in them, triage ends in order and its events are valid."""

from __future__ import annotations

import os
import random
import tarfile
from pathlib import Path

import pytest

from tests.helpers import DATA, MODELS, read_events, run

ARCHIVES = {name: DATA / "pcaps" / f"{name}.tar.xz" for name in ("attacks", "benign-apps")}
FULL = os.environ.get("FLOWVANE_CORPUS_FULL") == "1"
CHOSEN, LARGEST = 25, 200_000
SEED = 20_260_115

corpus = pytest.mark.skipif(
    not ARCHIVES["attacks"].is_file(),
    reason=f"no captures in {DATA / 'pcaps'}; set FLOWVANE_CORPUS to where the corpus is",
)


def unpack(archive: Path, target: Path, most: int | None = None) -> list[Path]:
    """The captures of an archive, or `most` small ones drawn at random, always the same."""
    names = []
    with tarfile.open(archive) as tar:
        # As they come: to go back to one is to decompress all before it again.
        for member in tar:
            if member.isfile() and (most is None or member.size < LARGEST):
                tar.extract(member, target, filter="data")
                names.append(member.name)
    names.sort()
    return [target / name for name in (random.Random(SEED).sample(names, most) if most else names)]


def check(log_dir: Path, paths: list[Path], model: str) -> None:
    # Half of all flows: events of all sorts, not of the odd ones only.
    ran = run("triage", "-q", "-l", log_dir, "--model", model, "--fpr", "0.5", "-r", *paths)
    assert ran.code in (0, 3)
    assert (ran.code == 3) == any("error: " in line for line in ran.lines)
    for line in ran.lines:
        assert line.startswith(("flowvane: error: ", "flowvane: warning: "))
        assert sum(str(path) in line for path in paths) >= 1
    names = {str(path) for path in paths}
    events = read_events(log_dir)
    assert events
    assert {event["pcap_filename"] for event in events} <= names


@corpus
def test_some_captures_of_attacks_are_triaged(tmp_path: Path) -> None:
    check(tmp_path / "log", unpack(ARCHIVES["attacks"], tmp_path, CHOSEN), "nsl-kdd")


@pytest.mark.skipif(
    not FULL, reason="minutes long: set FLOWVANE_CORPUS_FULL=1 to triage every capture"
)
@corpus
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ARCHIVES)
def test_all_captures_are_triaged(name: str, model: str, tmp_path: Path) -> None:
    check(tmp_path / "log", unpack(ARCHIVES[name], tmp_path), model)
