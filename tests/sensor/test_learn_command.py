"""`flowvane learn` and `flowvane triage --self`."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from models.bundle import load
from models.recipe import FitConfig
from sensor import learn as learn_module
from sensor.cli import _lasting
from sensor.learn import names_in
from sensor.livefeatures import FlowFolder, Progress, held
from tests.helpers import Ran, read_events, run, sample, small_pcap, syn
from tests.sensor.test_live import link, replay
from training import site as site_module
from training.loop import EpochNews

__all__ = ["link"]

QUICK = ("--model", "autoencoder", "--epochs", 1, "--fpr", 0.02)


@pytest.fixture
def flows(office_flows: Path) -> Path:
    return office_flows


def learn(*arguments: object) -> Ran:
    return run("learn", "-q", *QUICK, *arguments)


def patterns(bundle: Path) -> list[dict[str, Any]]:
    told = json.loads(bundle.with_name(bundle.name + ".patterns.json").read_text())
    found: list[dict[str, Any]] = told["patterns"]
    return found


def test_a_site_is_learnt_and_its_bursts_are_listed(flows: Path, tmp_path: Path) -> None:
    ran = run("learn", *QUICK, "--features", flows, "-o", tmp_path / "mine")
    assert (ran.code, ran.err) == (0, "")
    assert "later ones; 81 % of the flows set aside" in ran.out
    flood, scan = patterns(tmp_path / "mine")[:2]
    assert (flood["by"], flood["host"]) == ("destination", "10.20.30.80")
    assert (scan["by"], scan["host"]) == ("source", "10.20.30.109")
    assert scan["id"] in ran.out
    detector = load(tmp_path / "mine")
    noted = detector.provenance
    assert noted["site"]["flows"] == 4977
    assert noted["rows"]["train"] > 500
    assert detector.schema.name == "flow"
    # Learnt from files, no copy of the flows is kept.
    assert not (tmp_path / "mine.flows").exists()


def test_what_a_person_says_counts(flows: Path, tmp_path: Path) -> None:
    assert learn("--features", flows, "-o", tmp_path / "a").code == 0
    flood, scan = (each["id"] for each in patterns(tmp_path / "a")[:2])
    (tmp_path / "list").write_text(f"{scan}  # nmap, by us\n\n10.20.30.112\n")
    ran = learn(
        "--features", flows, "-o", tmp_path / "b",
        "--exclude", tmp_path / "list", "--include", flood,
    )  # fmt: skip
    assert ran.code == 0
    site = load(tmp_path / "b").provenance["site"]
    assert site["exclude"] == [scan, "10.20.30.112"]
    assert site["include"] == [flood]
    assert site["excluded"] > 1000
    assert site["set_aside"] < 0.1
    ran = learn("--features", flows, "-o", tmp_path / "c", "--exclude", "10.99.99.99")
    assert ran.code == 2
    assert "10.99.99.99: no pattern has this id, and no flow this address" in ran.err


def test_captures_are_measured_and_their_flows_kept(tmp_path: Path) -> None:
    ran = learn("-r", sample().path, "-o", tmp_path / "mine")
    assert (ran.code, ran.err) == (0, "")
    assert "the flows are kept in" in ran.out
    again = learn("--features", tmp_path / "mine.flows" / "captures.parquet", "-o", tmp_path / "b")
    assert again.code == 0
    tensors = [(tmp_path / name / "tensors.safetensors").read_bytes() for name in ("mine", "b")]
    assert tensors[0] == tensors[1]


def test_too_little_traffic_makes_no_model(tmp_path: Path) -> None:
    capture = small_pcap(tmp_path / "x.pcap", *(syn(40_000 + n) for n in range(30)))
    ran = learn("-r", capture, "-o", tmp_path / "mine")
    (line,) = ran.lines
    assert ran.code == 6
    assert "too little traffic to learn from: 30 flows" in line
    assert not (tmp_path / "mine").exists()


def test_an_interrupted_learning_goes_on(
    flows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*QUICK[:2], "--epochs", 2, *QUICK[4:], "--features", flows)
    assert run("learn", "-q", *options, "-o", tmp_path / "whole" / "mine").code == 0

    class Interrupting(learn_module.Bar):
        def epoch(self, news: EpochNews) -> None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(learn_module, "Bar", Interrupting)
        ran = run("learn", "-q", *options, "-o", tmp_path / "mine")
    assert (ran.code, len(ran.lines)) == (130, 1)
    assert "mine.checkpoint: the training goes on from here with --resume" in ran.err
    assert run("learn", "-q", *options, "-o", tmp_path / "mine", "--resume").code == 0
    for name in ("tensors.safetensors", "manifest.json"):
        assert (tmp_path / "mine" / name).read_bytes() == (
            tmp_path / "whole" / "mine" / name
        ).read_bytes()
    assert not (tmp_path / "mine.checkpoint").exists()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("-i", "lo"), "-i: say for how long with --for or --flows"),
        (("-r", "x.pcap", "--for", "1h"), "--for, --flows: only with -i"),
        (("-r", "x.pcap", "-i", "lo"), "not allowed with argument"),
        (("-r", "x.pcap", "--model", "classifier"), "learns from labelled attacks"),
        (("--features", "x.parquet", "--early-age", "10"), "not with --features"),
        (("-i", "lo", "--for", "1x"), "is not a time like 90s, 30m, 24h or 7d"),
        ((), "one of the arguments"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: tuple[str, ...], what: str, tmp_path: Path
) -> None:
    ran = run("learn", *options, "-o", tmp_path / "mine")
    assert ran.code == 2
    assert what in ran.err


def test_a_place_that_is_no_bundle_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    ran = run("learn", "-i", "lo", "--for", "24h", "-o", tmp_path / "mine")
    assert (ran.code, len(ran.lines)) == (5, 1)


def test_times_have_a_unit() -> None:
    assert [_lasting(text) for text in ("90s", "30m", "24h", "7d", "0.5h")] == [
        90, 1800, 86_400, 604_800, 1800,
    ]  # fmt: skip


def test_names_come_out_of_files(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# ours\nabc # the scanner\n\n10.0.0.1\n")
    assert names_in(["x", str(tmp_path / "list"), "x"]) == ("x", "abc", "10.0.0.1")


def test_a_folder_of_flows_goes_on_or_begins_anew(tmp_path: Path) -> None:
    folder = FlowFolder(tmp_path / "flows", resume=False)
    folder.next_file().touch()
    folder.closed(Progress(3.0, 5, 0, 1))
    folder.next_file().touch()  # cut off
    again = FlowFolder(tmp_path / "flows", resume=True)
    assert (again.progress.flows, [path.name for path in again.files]) == (
        5, ["flows-00001.parquet"],
    )  # fmt: skip
    assert FlowFolder(tmp_path / "flows", resume=False).files == []


def test_two_do_not_capture_to_one_folder(tmp_path: Path) -> None:
    with held(tmp_path / "mine.flows"):
        ran = learn("-i", "lo", "--for", "1s", "-o", tmp_path / "mine", "--resume")
    assert (ran.code, len(ran.lines)) == (5, 1)
    assert "another process captures to it" in ran.err


def test_an_interface_is_learnt_from(link: str, tmp_path: Path) -> None:
    capture = small_pcap(tmp_path / "x.pcap", *(syn(40_000 + n) for n in range(40)))

    done = threading.Event()

    def again_and_again() -> None:
        while not done.wait(0.2):  # the same flows, however late the capture begins
            replay(capture, "--topspeed")

    sending = threading.Thread(target=again_and_again)
    sending.start()
    ran = learn("-i", link, "--for", "2s", "-o", tmp_path / "mine")
    done.set()
    sending.join()
    # All that came is measured, though it is too little to learn from.
    assert ran.code == 6
    assert "too little traffic to learn from: 40 flows" in ran.err
    told = json.loads((tmp_path / "mine.flows" / "progress.json").read_text())
    assert (told["flows"], told["lost"], told["parts"]) == (40, 0, 1)
    assert told["seconds"] >= 2.0
    # Captured for long enough, it is not begun again.
    again = learn("-i", link, "--for", "2s", "-o", tmp_path / "mine", "--resume")
    assert again.err == ran.err


# Without a model


def test_what_stands_out_in_a_capture_is_shown_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = FitConfig(epochs=8, batch=128)
    monkeypatch.setattr(site_module, "site_config", lambda kind, trained: quick)
    ran = run("triage", "--self", "-q", "-r", sample().path, "-l", tmp_path, "--group")
    assert ran.code == 0
    (line,) = ran.lines
    assert line.startswith("flowvane: warning: --self: the model was fitted on the captures")
    events = read_events(tmp_path)
    assert {event["alert"]["metadata"]["model"][0] for event in events} == {"self"}
    counts: dict[str, int] = {}
    for event in events:
        side = "src_ip" if event["src_ip"] == "10.20.30.109" else "dest_ip"
        count = int(event["alert"]["metadata"]["count"][0])
        counts[event[side]] = counts.get(event[side], 0) + count
    assert counts["10.20.30.109"] >= 0.9 * 1036
    assert counts["10.20.30.80"] >= 0.9 * 3000


def test_a_small_capture_is_refused_without_a_model(tmp_path: Path) -> None:
    capture = small_pcap(tmp_path / "x.pcap", *(syn(40_000 + n) for n in range(30)))
    ran = run("triage", "--self", "-r", capture, "-l", tmp_path)
    (line,) = ran.lines
    assert ran.code == 3
    assert "30 flows are too few to fit a model on" in line
    ran = run("triage", "--self", "--model", "nsl-kdd", "-r", capture, "-l", tmp_path)
    assert (ran.code, "not allowed with argument" in ran.err) == (2, True)
