"""The command: what it says, what it writes and the code it ends with."""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from features.registry import SCHEMAS
from features.schema import EarlyReports, Kind
from models.bundle import load, save
from models.kinds import KINDS
from models.kinds.vae import VaeConfig
from models.manifest import MANIFEST, SUMS, TENSORS, shipped
from sensor import train as train_module
from sensor.featurefile import KEY_COLUMNS
from tests.helpers import (
    ARP,
    MODELS,
    PACKET_SCHEMAS,
    SCRATCH,
    VARIANTS,
    Ran,
    about,
    excerpt_triage,
    make_rows,
    read_events,
    run,
    sample,
    small_pcap,
    syn,
    untrained,
)
from training.baselines import BASELINES
from training.cells import CeilingCell, Drawn, TrialCell
from training.datasets import DATASETS
from training.datasets.base import DataSetError, Table
from training.datasets.files import Expected
from training.datasets.kdd99 import Kdd99
from training.datasets.nsl_kdd import TEST_FILE, TRAIN_FILE, NslKdd
from training.fit import NoAttacks
from training.loop import EpochNews
from training.metrics import figures
from training.recipes import RECIPES

SYNS = tuple(syn(port) for port in range(2000, 2010))
LATER_US = 1_768_467_600_000_000 + 86_400_000_000
"""A day after the other captures, so that it continues none of them."""


def triage(log_dir: Path, *arguments: object) -> Ran:
    # Nearly every flow is an alert at this rate, so alerts tell what was read.
    return run("triage", "-l", log_dir, "--fpr", "0.999", *arguments)


def the_line(ran: Ran, code: int, named: object) -> str:
    """The only line on standard error, an error that names `named`."""
    assert ran.code == code
    (line,) = ran.lines
    assert line.startswith("flowvane: error: ")
    assert str(named) in line
    return line


def counts(ran: Ran) -> tuple[int, int, int]:
    """Flows, packets and captures of the summary line."""
    found = re.search(r"in (\d+) flows, (\d+) packets .* (\d+) captures;", ran.out)
    assert found
    return int(found[1]), int(found[2]), int(found[3])


# Help


COMMANDS = ("triage", "features", "models", "explore", "explain", "train", "evaluate")


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_is_given(command: str | None) -> None:
    ran = run(*([command] if command else []), "--help")
    assert ran.code == 0
    assert ran.err == ""
    assert ran.out.startswith(f"usage: flowvane {command or ''}")
    if command is None:
        assert all(name in ran.out for name in COMMANDS)


def test_the_version_is_told() -> None:
    ran = run("--version")
    assert ran.code == 0
    assert re.fullmatch(r"flowvane \d+\.\d+\.\d+\S*\n", ran.out)


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("nonsense",), ("triage",), ("triage", "-r"), ("triage", "-r", "x", "--fpr", "often"),
        ("features", "-r", "x"), ("features", "-r", "x", "-o", "x.csv", "--schema", "nonsense"),
        ("train",), ("train", "--dataset", "nsl-kdd"), ("evaluate", "--seeds", "many"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_code_2(arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert "flowvane" in ran.lines[-1]
    assert "error: " in ran.lines[-1]


# The command as it is installed


def installed(*arguments: object) -> subprocess.CompletedProcess[str]:
    """``flowvane ARGUMENTS`` as a process of its own, as the installer made it."""
    script = Path(sys.executable).with_name("flowvane")
    return subprocess.run(
        [script, *map(str, arguments)], capture_output=True, text=True, timeout=90, check=False
    )


def test_the_installed_command_does_the_same(tmp_path: Path) -> None:
    said, expected = excerpt_triage("nsl-kdd")
    done = installed("triage", "-r", sample().excerpt, "-l", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "eve.json").read_bytes() == expected
    # The same table; below it only the time and the place differ.
    assert done.stdout.splitlines()[:-1] == said.out.splitlines()[:-1]


def test_the_default_is_a_model_that_ships(tmp_path: Path) -> None:
    ran = run("triage", "-r", small_pcap(tmp_path / "x.pcap", *SYNS), "-l", tmp_path)
    assert ran.code == 0
    assert "; model nsl-kdd, " in ran.out


def test_quiet_leaves_the_summary_only(tmp_path: Path) -> None:
    path = small_pcap(tmp_path / "x.pcap", *SYNS)
    assert len(triage(tmp_path, "-r", path).out.splitlines()) > 3
    ran = triage(tmp_path, "-q", "-r", path)
    (line,) = ran.out.splitlines()
    assert line.endswith(f"alerts in {tmp_path / 'eve.json'}")


def test_alerts_go_to_the_current_folder_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pcap(tmp_path / "x.pcap", *SYNS)
    monkeypatch.chdir(tmp_path)
    ran = run("triage", "-r", "x.pcap", "--fpr", "0.999")
    assert ran.code == 0
    assert {event["pcap_filename"] for event in read_events(tmp_path)} == {"x.pcap"}


# Captures that cannot be read, or not in full


def cut(path: Path, octets: int) -> Path:
    path.write_bytes(path.read_bytes()[:-octets])
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


UNREAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing.pcap": (lambda path: path, "no such file"),
    "folder.pcap": (folder, "is a directory"),
    "empty.pcap": (lambda path: written(path, b""), "is empty"),
    "text.pcap": (lambda path: written(path, b"Dear Sir,\n"), "is a text file"),
    "noise.pcap": (lambda path: written(path, bytes(range(256))), "not a pcap"),
    "file-below.pcap/x": (lambda path: written(path.parent, b"\0") / "x", "not a directory"),
    "header.pcap": (lambda p: cut(small_pcap(p), 10), "the file header is cut"),
    "packed.pcap.gz": (lambda path: written(path, gzip.compress(b"")), "is empty"),
}
PARTLY: dict[str, tuple[Callable[[Path], Path], str]] = {
    "cut.pcap": (
        lambda p: cut(small_pcap(p, *SYNS, start_us=LATER_US), 7),
        "cut within a packet at offset 654; 9 packets before it are used",
    ),
    "packed-cut.pcap.gz": (
        lambda p: cut(written(p, gzip.compress(small_pcap(p, *SYNS).read_bytes())), 12),
        "the compressed data is damaged",
    ),
}
"""Ten SYNs of 54 octets behind 16 each: the tenth begins at 24 + 9 * 70."""
UNEVENTFUL: dict[str, tuple[Callable[[Path], Path], str]] = {
    "arp.pcap": (
        lambda p: small_pcap(p, ARP, ARP, start_us=2 * LATER_US - 1_768_467_600_000_000),
        "has no IP traffic in its 2 packets: nothing to score",
    ),
    "bare.pcap": (lambda p: small_pcap(p), "has no packets: nothing to score"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_capture_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    make, reason = UNREAD[name]
    path = make(tmp_path / name)
    ran = triage(tmp_path / "log", "-r", path)
    assert reason in the_line(ran, 3, f"error: {path}: ")
    assert read_events(tmp_path / "log") == []


@pytest.mark.parametrize("name", UNEVENTFUL)
def test_a_capture_with_nothing_to_score_is_no_error(name: str, tmp_path: Path) -> None:
    make, reason = UNEVENTFUL[name]
    path = make(tmp_path / name)
    ran = triage(tmp_path / "log", "-r", path)
    assert ran.code == 0
    assert ran.lines == [f"flowvane: warning: {path}: {reason}"]
    assert read_events(tmp_path / "log") == []


def test_the_packets_before_a_cut_count(tmp_path: Path) -> None:
    make, reason = PARTLY["cut.pcap"]
    path = make(tmp_path / "x.pcap")
    ran = triage(tmp_path / "cut", "-r", path)
    assert the_line(ran, 3, path).endswith(f"{path}: {reason}")
    assert counts(ran) == (9, 9, 1)
    # The events are those of a capture that ends there.
    small_pcap(path, *SYNS[:9], start_us=LATER_US)
    whole = triage(tmp_path / "whole", "-r", path)
    assert whole.code == 0
    assert read_events(tmp_path / "cut") == read_events(tmp_path / "whole") != []


@pytest.mark.parametrize("place", ["first", "last"])
def test_the_good_files_of_a_call_are_read_whatever_the_others_are(
    place: str, tmp_path: Path
) -> None:
    good = small_pcap(tmp_path / "good.pcap", *SYNS)
    alone = triage(tmp_path / "alone", "-r", good)
    assert alone.code == 0
    wanted = {**UNREAD, "cut.pcap": PARTLY["cut.pcap"], **UNEVENTFUL}
    others = {name: make(tmp_path / name) for name, (make, _) in wanted.items()}
    paths = [good, *others.values()] if place == "first" else [*others.values(), good]
    ran = triage(tmp_path / "log", "-r", *paths)
    assert ran.code == 3
    for name, (_, reason) in wanted.items():
        line = about(ran.lines, others[name])
        level = "warning" if name in UNEVENTFUL else "error"
        assert line.startswith(f"flowvane: {level}: {others[name]}: ")
        assert reason in line
    assert len(ran.lines) == len(wanted)
    of_good = [e for e in read_events(tmp_path / "log") if e["pcap_filename"] == str(good)]
    assert of_good == read_events(tmp_path / "alone") != []
    # Beside the ten flows of the good one the nine of the one that was cut; two ARP packets.
    assert counts(ran)[:2] == (19, 21)


@pytest.mark.parametrize("command", ["triage", "features"])
def test_a_link_that_goes_round_in_circles_is_named(command: str, tmp_path: Path) -> None:
    loop = tmp_path / "loop.pcap"
    loop.symlink_to(loop)
    output = ("-l", tmp_path) if command == "triage" else ("-o", tmp_path / "x.csv")
    the_line(run(command, *output, "-r", loop), 3, loop)


def test_a_name_of_two_lines_is_told_in_one(tmp_path: Path) -> None:
    ran = triage(tmp_path, "-r", tmp_path / "two\nlines.pcap")
    assert ran.code == 3
    assert len(ran.lines) == 1


@pytest.mark.parametrize("command", ["triage", "features"])
def test_a_name_that_is_no_utf8_is_read_or_told_of(command: str, tmp_path: Path) -> None:
    # As file systems with names of another time have them. In a process that can be given up.
    path = small_pcap(tmp_path / os.fsdecode(b"caf\xe9.pcap"), *SYNS)
    output = {"triage": ("-l", tmp_path, "--fpr", 0.999), "features": ("-o", tmp_path / "x.csv")}
    done = installed(command, "-r", path, *output[command])
    if done.returncode == 0:
        assert done.stderr == ""
        written = tmp_path / ("eve.json" if command == "triage" else "x.csv")
        assert len(written.read_bytes().splitlines()) > 5
    else:
        (line,) = done.stderr.splitlines()
        assert done.returncode == 3
        assert line.startswith(f"flowvane: error: {tmp_path / 'caf'}")


def test_names_with_colons_and_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a:abcd:b.pcap", "[bold]c.pcap", ":warning:.pcap")]
    ran = triage(tmp_path, "-r", *paths)
    assert ran.lines == [f"flowvane: error: {path}: no such file or directory" for path in paths]


# The rate


@pytest.mark.parametrize("fpr", ["0", "-0.5", "1", "2", "nan", "inf"])
def test_a_rate_that_is_none_is_refused(fpr: str, tmp_path: Path) -> None:
    path = small_pcap(tmp_path / "x.pcap", *SYNS)
    ran = run("triage", "-r", path, "-l", tmp_path / "log", f"--fpr={fpr}")
    assert "between 0 and 1" in the_line(ran, 2, f"--fpr {fpr}")
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("model", MODELS)
def test_a_rate_below_what_the_calibration_tells_is_refused(model: str, tmp_path: Path) -> None:
    path = small_pcap(tmp_path / "x.pcap", *SYNS)
    smallest = load(model).calibration.least_p
    ran = run(
        "triage", "-r", path, "-l", tmp_path / "log", "--model", model, "--fpr", smallest * 0.99
    )
    line = the_line(ran, 2, "--fpr ")
    assert model in line
    assert f"{smallest:.2g}" in line
    assert not (tmp_path / "log").exists()
    allowed = run("triage", "-r", path, "-l", tmp_path, "--model", model, "--fpr", smallest)
    assert allowed.code == 0


# Models


def test_the_models_that_ship_are_listed() -> None:
    ran = run("models")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(shipped())
    for line, (name, schema) in zip(lines, sorted(MODELS.items()), strict=True):
        detector = load(name)
        assert f"schema {schema}, {len(detector.features)} features" in line
        assert f"calibrated on {detector.calibration.count} benign flows" in line


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    save(untrained("kdd", "gaussian"), tmp_path / "bundle")
    return tmp_path / "bundle"


def sign(bundle: Path) -> None:
    sums = [f"{hashlib.sha256((bundle / n).read_bytes()).hexdigest()}  {n}\n"
            for n in (MANIFEST, TENSORS)]  # fmt: skip
    (bundle / SUMS).write_text("".join(sums))


def damage(bundle: Path) -> None:
    data = bytearray((bundle / TENSORS).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / TENSORS).write_bytes(data)


def other_schema(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["schema"]["name"] = "somebody-elses"
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    sign(bundle)


def other_digest(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["schema"]["digest"] = "0" * 64
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    sign(bundle)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damage, f"{TENSORS} is not what {SUMS} says"),
        (other_schema, "made for schema somebody-elses, which this flowvane does not have"),
        (other_digest, "another version of schema kdd"),
        (lambda bundle: (bundle / SUMS).unlink(), f"{SUMS} is missing"),
        (shutil.rmtree, "no such model; the models that ship are nsl-kdd, unsw-nb15"),
    ],
)
def test_a_model_that_cannot_be_used_is_named(
    spoil: Callable[[Path], object], reason: str, bundle: Path, tmp_path: Path
) -> None:
    path = small_pcap(tmp_path / "x.pcap", *SYNS)
    assert triage(tmp_path, "-r", path, "--model", bundle).code == 0
    spoil(bundle)
    ran = triage(tmp_path / "log", "-r", path, "--model", bundle)
    assert reason in the_line(ran, 4, f"error: {bundle}: ")
    assert not (tmp_path / "log").exists()


def test_an_unknown_model_lists_what_ships(tmp_path: Path) -> None:
    ran = triage(tmp_path / "log", "-r", small_pcap(tmp_path / "x", *SYNS), "--model", "nonsense")
    assert all(name in the_line(ran, 4, "nonsense: no such model") for name in shipped())


# Logs that cannot be written


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/flowvane-test", "occupied"])
def test_a_log_that_cannot_be_opened_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "occupied" / "eve.json").mkdir(parents=True)
    ran = triage(tmp_path / place, "-r", small_pcap(tmp_path / "x.pcap", *SYNS))
    the_line(ran, 5, f"error: {tmp_path / place / 'eve.json'}: cannot be opened for writing")


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "eve.json").symlink_to("/dev/full")
    ran = triage(tmp_path, "-r", small_pcap(tmp_path / "x.pcap", *SYNS))
    line = the_line(ran, 5, tmp_path / "eve.json")
    assert "no space left on device" in line


# Features


@functools.cache
def feature_file(suffix: str) -> Path:
    """KDD's features of the excerpt's halves."""
    path = SCRATCH / f"features{suffix}"
    ran = run("features", "-r", *sample().halves, "-o", path, "--schema", "kdd", "--clock", "ms")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith(f" of 2 captures in {path}\n")
    return path


def test_features_are_the_same_as_csv_and_parquet() -> None:
    with feature_file(".csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    table = pq.read_table(feature_file(".parquet"))
    assert header == table.column_names == [*KEY_COLUMNS, *SCHEMAS["kdd"].names]
    columns = [column.to_pylist() for column in table.columns]
    again = [["" if v is None else str(v) for v in row] for row in zip(*columns, strict=True)]
    assert rows == again
    assert len(rows) > 1000


@pytest.mark.parametrize("schema", PACKET_SCHEMAS)
def test_every_schema_is_measured(schema: str, tmp_path: Path) -> None:
    path = small_pcap(tmp_path / "x.pcap", *SYNS)
    ran = run("features", "-r", path, "-o", tmp_path / "x.csv", "--schema", schema)
    assert (ran.code, ran.err) == (0, "")
    header, *rows = csv.reader((tmp_path / "x.csv").read_text().splitlines())
    assert header == [*KEY_COLUMNS, *SCHEMAS[schema].names]
    assert len(rows) == len(SYNS)
    unmeasured = {feature.name for feature in SCHEMAS[schema].features if not feature.live}
    for row in rows:
        missing = {name for name, value in zip(header, row, strict=True) if value == ""}
        assert missing == unmeasured


def test_features_are_those_of_the_flows_that_triage_alerts_on() -> None:
    flows = {row["flow_id"]: row for row in pq.read_table(feature_file(".parquet")).to_pylist()}
    _, eve = excerpt_triage("nsl-kdd")
    features = {feature.name: feature for feature in SCHEMAS["kdd"].features}
    seen = 0
    for line in eve.splitlines():
        event = json.loads(line)
        flow = flows[event["flow_id"]]
        for name in ("src_ip", "src_port", "dst_ip", "dst_port"):
            assert flow[name] == event[name.replace("dst", "dest")]
        assert flow["end"] == event["timestamp"]
        assert flow["community_id"] == event["community_id"]
        for reason in event["alert"]["metadata"]["features"]:
            name, observed = re.fullmatch(r"(\w+) observed=(\S+) .*", reason).groups()  # type: ignore[union-attr]
            value, kind = flow[name], features[name].kind
            assert observed == (str(value) if kind is not Kind.RATE else f"{value:.3g}")
            seen += 1
    assert seen > 3000


def test_the_default_schema_is_that_of_unsw(tmp_path: Path) -> None:
    path = small_pcap(tmp_path / "x.pcap", *SYNS)
    ran = run("features", "-r", path, "-o", tmp_path / "new" / "x.csv")
    assert ran.code == 0
    header, *rows = csv.reader((tmp_path / "new" / "x.csv").read_text().splitlines())
    assert header == [*KEY_COLUMNS, *SCHEMAS["unsw-nb15"].names]
    assert len(rows) == 10
    by_name = dict(zip(header, rows[0], strict=True))
    # A SYN without an answer: one packet of 54 octets there, none back.
    expected = {
        "spkts": "1", "dpkts": "0", "sbytes": "54", "dbytes": "0", "proto": "tcp", "state": "REQ",
        "dur": "0.0", "smean": "54", "src_port": "2000", "protocol": "TCP",
    }  # fmt: skip
    assert {name: by_name[name] for name in expected} == expected
    unmeasured = {feature.name for feature in SCHEMAS["unsw-nb15"].features if not feature.live}
    assert {name for name, value in by_name.items() if value == ""} == unmeasured


def test_features_of_the_good_files_are_written_whatever_the_others_are(tmp_path: Path) -> None:
    good, output = small_pcap(tmp_path / "good.pcap", *SYNS), tmp_path / "x.csv"
    wanted = {**UNREAD, "cut.pcap": PARTLY["cut.pcap"]}
    others = {name: make(tmp_path / name) for name, (make, _) in wanted.items()}
    ran = run("features", "-r", *others.values(), good, "-o", output)
    assert ran.code == 3
    for name, (_, reason) in wanted.items():
        assert reason in about(ran.lines, others[name])
    assert len(ran.lines) == len(wanted)
    assert len(output.read_text().splitlines()) == 1 + 10 + 9


@pytest.mark.parametrize("name", ["x", "x.txt", "x.csv.gz"])
def test_a_feature_file_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    path = small_pcap(tmp_path / "x.pcap", *SYNS)
    the_line(run("features", "-r", path, "-o", tmp_path / name), 2, tmp_path / name)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("place", ["file/x", "/proc/flowvane-test/x"])
def test_a_feature_file_that_cannot_be_opened_is_named(
    place: str, suffix: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / f"{place}{suffix}"
    ran = run("features", "-r", small_pcap(tmp_path / "x.pcap", *SYNS), "-o", path)
    the_line(ran, 5, f"error: {path}: ")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_feature_file_that_cannot_be_written_is_named(suffix: str, tmp_path: Path) -> None:
    output = tmp_path / f"x{suffix}"
    output.symlink_to("/dev/full")
    ran = run("features", "-r", small_pcap(tmp_path / "x.pcap", *SYNS), "-o", output)
    the_line(ran, 5, output)


# Training


TRAINED = 600


def kdd_lines(count: int, attacks: int, seed: int) -> str:
    """A file as KDDTrain+ is: 41 features, a label, a difficulty."""
    schema = SCHEMAS["kdd"]
    lines = []
    for number, row in enumerate(make_rows(schema, count + attacks, seed).tolist()):
        cells = [
            feature.vocabulary[int(value)]
            if feature.kind is Kind.CATEGORICAL
            else str(int(value) if feature.kind is not Kind.RATE else value)
            for feature, value in zip(schema.features, row, strict=True)
        ]
        lines.append(",".join([*cells, "normal" if number < count else "neptune", "20"]) + "\n")
    return "".join(lines)


@pytest.fixture
def kdd_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small files of NSL-KDD, the data set's counts and network made to fit them."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / TRAIN_FILE).write_text(kdd_lines(TRAINED, 50, seed=0))
    (tmp_path / "data" / TEST_FILE).write_text(kdd_lines(80, 40, seed=1))
    small = NslKdd(train=Expected(TRAINED + 50, TRAINED), test=Expected(120, 80))
    monkeypatch.setitem(DATASETS, "nsl-kdd", small)
    network = VaeConfig(heads="gaussian", hidden=(16, 8), latent=3)
    monkeypatch.setitem(RECIPES, ("nsl-kdd", "vae"), network)
    return tmp_path / "data"


def train(data: Path, output: Path, *more: object) -> Ran:
    return run("train", "--dataset", "nsl-kdd", "--data", data, "-o", output, "--epochs", 1, *more)


def test_a_model_is_trained_made_again_and_used(kdd_data: Path, tmp_path: Path) -> None:
    model = tmp_path / "models" / "mine"
    ran = train(kdd_data, model, "--seed", 5)
    assert (ran.code, ran.err) == (0, "")
    detector = load(model)
    (line,) = ran.out.splitlines()
    assert line.startswith(f"{model}: vae, {len(detector.features)} features, 1 epochs, held-out ")
    assert line.endswith(", calibrated on 120 benign rows")
    noted = detector.provenance
    assert detector.name == "mine"
    assert detector.features == load("nsl-kdd").features
    assert noted["rows"] == {"train": 420, "validation": 60, "calibration": 120}
    (file,) = noted["files"]
    data = (kdd_data / TRAIN_FILE).read_bytes()
    assert file == {
        "name": TRAIN_FILE, "rows": TRAINED + 50, "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    assert {"flowvane", "jax", "numpy", "python"} <= set(noted["versions"])
    # What is noted is all it takes to make it again, byte for byte.
    command = (
        noted["command"].replace("DIR", str(kdd_data)).replace("BUNDLE", str(tmp_path / "mine"))
    )
    assert command.startswith("flowvane train ")
    assert run(*command.split()[1:], "--epochs", "1").code == 0
    for name in (MANIFEST, TENSORS, SUMS):
        assert (tmp_path / "mine" / name).read_bytes() == (model / name).read_bytes()
    # And it finds fault with flows.
    capture = small_pcap(tmp_path / "x.pcap", *SYNS)
    assert triage(tmp_path, "-r", capture, "--model", model).code == 0
    events = read_events(tmp_path)
    assert events
    for event in events:
        assert event["alert"]["metadata"]["model"] == ["mine"]
        assert 1_100_000 <= event["alert"]["signature_id"] <= 1_999_999


def test_the_command_that_is_noted_is_the_one_given(kdd_data: Path, tmp_path: Path) -> None:
    # Epochs decide the outcome as much as the seed does.
    train(kdd_data, tmp_path / "mine", "--seed", 5)
    assert "--epochs 1" in load(tmp_path / "mine").provenance["command"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_is_used(variant: str, tmp_path: Path) -> None:
    save(untrained("kdd", variant), tmp_path / "mine")
    capture = small_pcap(tmp_path / "x.pcap", *SYNS)
    ran = triage(tmp_path, "-r", capture, "--model", tmp_path / "mine", "--fpr", 0.99)
    assert (ran.code, ran.err) == (0, "")
    # Without training, a classifier may take anything for benign.
    assert read_events(tmp_path) or VARIANTS[variant][0].supervised


def test_a_supervised_kind_is_trained_on_the_attacks_too(
    kdd_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, ("nsl-kdd", "classifier"), VARIANTS["classifier"][1])
    ran = train(kdd_data, tmp_path / "mine", "--model", "classifier")
    assert (ran.code, ran.err) == (0, "")
    detector = load(tmp_path / "mine")
    assert detector.kind is KINDS["classifier"]
    assert len(detector.features) == 20
    assert sum(detector.provenance["rows"].values()) == TRAINED + 50
    assert detector.calibration.count < 130  # benign ones alone


@pytest.mark.usefixtures("fake_seeds")
def test_what_stands_for_hosts_is_told(kdd_data: Path) -> None:
    ran = run("evaluate", "--dataset", "nsl-kdd", "--data", kdd_data, "--model", "host-conv-vae")
    (line,) = ran.lines
    assert line.startswith("flowvane: warning: nsl-kdd names no hosts: ")


def test_an_interrupted_training_is_resumed(
    kdd_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model", "autoencoder", "--dataset", "nsl-kdd", "--data", kdd_data, "--epochs", 3)
    whole, mine = tmp_path / "whole" / "mine", tmp_path / "mine"
    assert run("train", *options, "-o", whole).code == 0

    class Interrupting(train_module.Bar):
        def epoch(self, news: EpochNews) -> None:
            if news.number == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "Bar", Interrupting)
        ran = run("train", *options, "-o", mine)
    checkpoint = tmp_path / "mine.checkpoint"
    (line,) = ran.lines
    assert (ran.code, line.startswith(f"flowvane: warning: {checkpoint}: ")) == (130, True)
    assert line.endswith("goes on from here with --resume")
    assert not mine.exists()
    # Another training does not go on from there.
    other = run("train", *options, "-o", mine, "--seed", 9, "--resume")
    assert "of another training" in the_line(other, 4, checkpoint)
    ran = run("train", *options, "-o", mine, "--resume")
    assert (ran.code, ran.err) == (0, "")
    assert not checkpoint.exists()
    for name in (MANIFEST, TENSORS, SUMS):
        assert (mine / name).read_bytes() == (whole / name).read_bytes()
    ran = run("train", *options, "-o", mine, "--resume")
    assert "no checkpoint to resume from" in the_line(ran, 4, checkpoint)


def test_options_of_the_training_are_noted(kdd_data: Path, tmp_path: Path) -> None:
    options = ("--model", "autoencoder", "--learning-rate", "0.002", "--batch", "64",
               "--patience", "1", "--schedule", "cosine", "--latent", "3")  # fmt: skip
    assert train(kdd_data, tmp_path / "mine", *options, "--events", tmp_path / "events").code == 0
    detector = load(tmp_path / "mine")
    assert detector.config.latent == 3
    noted = detector.provenance["fit"]
    assert (noted["learning_rate"], noted["batch"], noted["patience"]) == (0.002, 64, 1)
    assert noted["schedule"] == "cosine"
    for name, value in zip(options[::2], options[1::2], strict=True):
        assert f"{name} {value} " in detector.provenance["command"]
    assert list((tmp_path / "events").glob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--model", "classifier", "--latent", "3"), "--latent: a classifier has no latent space"),
        (("--schedule", "sawtooth"), "--schedule sawtooth: no such schedule; there are constant"),
        (("--rows", "x.parquet"), "give either --dataset and --data, or --rows"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: tuple[str, ...], what: str, kdd_data: Path, tmp_path: Path
) -> None:
    the_line(train(kdd_data, tmp_path / "new", *options), 2, what)
    assert not (tmp_path / "new").exists()


def test_neither_rows_nor_a_data_set_are_refused(tmp_path: Path) -> None:
    assert "or --rows" in the_line(run("train", "-o", tmp_path / "new"), 2, "give either")


@pytest.mark.parametrize("kind", ["autoencoder", "host-conv-vae"])
def test_a_model_is_trained_on_feature_files(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "flows.parquet"
    assert run("features", "-r", sample().excerpt, "--schema", "kdd", "-o", rows).code == 0
    monkeypatch.setitem(RECIPES, ("", kind), VARIANTS[kind][1])
    ran = run("train", "--rows", rows, "--schema", "kdd", "--model", kind, "--epochs", 1,
              "-o", tmp_path / "mine")  # fmt: skip
    assert (ran.code, ran.err) == (0, "")  # hosts are known: nothing to warn of
    detector = load(tmp_path / "mine")
    assert (detector.schema.name, detector.clock_us) == ("kdd", 1)
    assert detector.provenance["files"][0]["name"] == "flows.parquet"
    ran = triage(tmp_path, "-r", sample().halves[0], "--model", tmp_path / "mine", "--fpr", 0.1)
    assert ran.code == 0
    assert read_events(tmp_path)


def test_flows_are_reported_early_where_the_model_was_trained_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "flows.parquet"
    ran = run("features", "-r", sample().excerpt, "--schema", "flow", "-o", rows,
              "--early-packets", 8, 4, "--early-age", 0.5)  # fmt: skip
    assert ran.code == 0
    endings = pd.read_parquet(rows, columns=["ending"])["ending"]
    assert (endings == "early").any()
    monkeypatch.setitem(RECIPES, ("", "autoencoder"), VARIANTS["autoencoder"][1])
    ran = run("train", "--rows", rows, "--model", "autoencoder", "--epochs", 1,
              "-o", tmp_path / "mine")  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    detector = load(tmp_path / "mine")
    assert detector.early == EarlyReports(ages_s=(0.5,), packets=(4, 8))
    ran = triage(tmp_path, "-r", sample().excerpt, "--model", tmp_path / "mine", "--fpr", 0.2)
    assert f" in {len(endings)} flows" in ran.out
    ids = Counter(event["flow_id"] for event in read_events(tmp_path))
    assert max(ids.values()) > 1  # once while it went on, and at its end
    ran = triage(tmp_path, "-r", sample().excerpt, "--model", tmp_path / "mine", "--fpr", 0.2,
                 "--meter", "stock")  # fmt: skip
    assert "stock NFStreamer meters: flows are reported when they end" in ran.err


def test_schemas_of_data_sets_know_no_early_reports(tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    ran = run("features", "-r", sample().excerpt, "-o", out, "--early-age", 5)
    assert "those of flow may be before" in the_line(ran, 2, "--early-age, --early-packets: ")
    many = range(1, 10)
    ran = run("features", "-r", sample().excerpt, "-o", out, "--early-packets", *many)
    assert "8 at most" in the_line(ran, 2, "--early-age, --early-packets: ")
    assert not out.exists()


def test_the_clock_is_that_of_the_rows(tmp_path: Path) -> None:
    rows = tmp_path / "flows.parquet"
    assert run("features", "-r", sample().excerpt, "--schema", "kdd", "-o", rows).code == 0
    ran = run("train", "--rows", rows, "--schema", "kdd", "--clock", "ms", "-o", tmp_path / "new")
    assert "were measured on times of 1 us" in the_line(ran, 2, "--clock ms: ")


def test_rows_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("none")
    for name, what in (("x.parquet", "is not a Parquet file"), ("y.parquet", "no such file")):
        ran = run("train", "--rows", tmp_path / name, "-o", tmp_path / "new")
        assert what in the_line(ran, 6, f"error: {tmp_path / name}: ")


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_an_unknown_kind_lists_those_there_are(command: str, tmp_path: Path) -> None:
    ran = run(command, "--dataset", "nsl-kdd", "--data", tmp_path, "-o", tmp_path / "x",
              "--model", "nonsense")  # fmt: skip
    line = the_line(ran, 2, "--model nonsense")
    assert all(name in line for name in KINDS)


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_an_unknown_data_set_lists_those_there_are(command: str, tmp_path: Path) -> None:
    ran = run(command, "--dataset", "nonsense", "--data", tmp_path, "-o", tmp_path / "x")
    line = the_line(ran, 2, "--dataset nonsense")
    assert all(name in line for name in DATASETS)


def test_an_unknown_part_lists_those_there_are(tmp_path: Path) -> None:
    ran = run("train", "--dataset", "unsw-nb15", "--data", tmp_path, "-o", tmp_path / "x",
              "--part", "nonsense")  # fmt: skip
    assert "train, test, train-normal" in the_line(ran, 2, "--part nonsense")


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("place", ["missing", "empty", "file"])
def test_data_that_is_not_there_is_named(
    command: str, dataset: str, place: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    ran = run(command, "--dataset", dataset, "--data", tmp_path / place, "-o", tmp_path / "new")
    the_line(ran, 6, f"error: {tmp_path / place}: ")
    assert not (tmp_path / "new").exists()


def test_data_that_is_not_official_is_named(kdd_data: Path, tmp_path: Path) -> None:
    path = kdd_data / TRAIN_FILE
    path.write_text(path.read_text()[:-900])
    the_line(train(kdd_data, tmp_path / "new"), 6, path)
    assert not (tmp_path / "new").exists()


def test_too_few_rows_are_the_data_sets_fault(kdd_data: Path, tmp_path: Path) -> None:
    ran = train(kdd_data, tmp_path / "new", "--part", "test")
    assert "80 benign rows are too few" in the_line(ran, 6, kdd_data)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("place", ["file/mine", "/proc/flowvane-test/mine"])
def test_a_bundle_that_cannot_be_written_is_named(
    place: str, kdd_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    the_line(train(kdd_data, tmp_path / place), 5, f"error: {tmp_path / place}: ")


def test_a_folder_that_is_no_bundle_is_left_alone(kdd_data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    ran = train(kdd_data, tmp_path / "mine")
    assert ran.code in (2, 5)
    assert "not a model bundle" in the_line(ran, ran.code, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(
    "arguments", [("--epochs", "0"), ("--epochs", "-1"), ("--seed", "-1")], ids=" ".join
)
def test_a_number_that_makes_no_sense_is_refused(
    arguments: tuple[str, str], kdd_data: Path, tmp_path: Path
) -> None:
    ran = run(
        "train", "--dataset", "nsl-kdd", "--data", kdd_data, "-o", tmp_path / "new", *arguments
    )
    assert ran.code == 2
    assert arguments[0] in ran.lines[-1]


# Evaluating


@pytest.fixture
def fake_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that the test knows, instead of minutes of training."""

    def run_cell(self: TrialCell, tables: Any) -> tuple[dict[str, Any], Drawn]:
        score, attack = np.arange(100.0), np.arange(100) % 2 == 1
        found = figures(score, attack, {"held_out_99": 90.0})
        found |= {"auroc": 0.9 + 0.02 * self.seed, "average_precision": 0.8}
        record = {
            "seconds": {"learn": 0.1}, "history": [{"train": 2.0, "validation": 1.0}] * 2,
            "all": found, "distinct": found,
            "categories": {"smurf": {"rows": 50, "recall": 0.5, "auroc": 0.7}},
        }  # fmt: skip
        return record, Drawn(score, attack, np.empty((0, 0)), np.empty(0, np.str_))

    monkeypatch.setattr(TrialCell, "run", run_cell)


@pytest.mark.usefixtures("fake_seeds")
def test_an_evaluation_reports_mean_and_deviation(kdd_data: Path, tmp_path: Path) -> None:
    ran = run("evaluate", "--dataset", "nsl-kdd", "--data", kdd_data, "--seeds", 3,
              "-o", tmp_path / "out.json")  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    assert "vae on nsl-kdd, live features, 3 seeds" in ran.out
    assert "0.9200 ± 0.0200" in ran.out  # of 0.90, 0.92, 0.94
    assert "0.8000 ± 0.0000" in ran.out
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["target_fpr"] == 0.01
    assert report["features"] == "live"
    np.testing.assert_allclose(report["nsl-kdd"]["seeds"]["auroc"], [0.9, 0.92, 0.94])


@pytest.mark.usefixtures("fake_seeds")
def test_a_report_that_cannot_be_written_is_named(kdd_data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "out.json"
    ran = run("evaluate", "--dataset", "nsl-kdd", "--data", kdd_data, "--seeds", 1, "-o", output)
    the_line(ran, 5, output)


@pytest.mark.usefixtures("fake_seeds")
def test_an_evaluations_folder_has_tables_pictures_and_records(
    kdd_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("evaluate", "--dataset", "nsl-kdd", "--data", kdd_data, "--seeds", 2,
                 "--features", "all", "header", "--contaminated", "0.05", "-o", tmp_path / "out",
                 )  # fmt: skip
    ran = run(*arguments)
    assert (ran.code, ran.err) == (0, "")
    assert "header; 5 % hidden" in ran.out
    page = (tmp_path / "out" / "evaluation.md").read_text()
    assert "| vae | 2 | 0.9100 ± 0.0141 | 0.8000 ± 0.0000 |" in page
    assert "| smurf | 50 | 50.00 ± 0.00 % | 0.7000 ± 0.0000 |" in page
    assert "| AUROC of | none hidden | 5 % hidden |" in page
    linked = re.findall(r"\((pictures/[^)]*)\)", page)
    assert len(linked) == 2 * 5  # two curves; scores, confusion, losses; for two sets of features
    assert all((tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG" for name in linked)
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [group["contamination"] for group in report["groups"]] == [0.0, 0.05] * 2
    np.testing.assert_allclose(report["groups"][0]["figures"]["all.auroc"], [0.91, 0.014142])
    # All is found again, nothing run again.
    monkeypatch.setattr(TrialCell, "run", None)
    assert run(*arguments).out == ran.out


@pytest.mark.usefixtures("fake_seeds")
def test_an_evaluation_without_matplotlib_has_no_pictures_and_says_so(
    kdd_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = run("evaluate", "--dataset", "nsl-kdd", "--data", kdd_data, "--seeds", 1,
              "-o", tmp_path / "out")  # fmt: skip
    assert ran.code == 0
    assert "pip install 'flowvane[research]'" in ran.lines[0]
    assert "pictures/" not in (tmp_path / "out" / "evaluation.md").read_text()


@pytest.mark.usefixtures("fake_seeds")
def test_all_of_an_evaluation_is_everything_of_its_data_set(
    kdd_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = [{"accuracy": 0.9, "f1": 0.9, "auroc": 0.9}]
    monkeypatch.setattr(
        CeilingCell, "run", lambda self, tables: ({"seconds": {"learn": 0.1}, "folds": folds}, None)
    )
    ran = run("evaluate", "--dataset", "nsl-kdd", "--data", kdd_data, "--seeds", 1, "--all",
              "-o", tmp_path / "out.json")  # fmt: skip
    assert ran.code == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert {group["model"] for group in report["groups"]} >= {*KINDS, *BASELINES}
    assert {cell["model"] for cell in report["ceilings"]} == {"gradient-boosting", "random-forest"}


@pytest.mark.parametrize(
    "arguments", [("--features", "header"), ("--contaminated", "1.5"), ("--contaminated", "0")]
)
def test_what_cannot_be_evaluated_is_refused(arguments: tuple[str, str], tmp_path: Path) -> None:
    ran = run("evaluate", "--dataset", "unsw-nb15", "--data", tmp_path, *arguments)
    assert ran.code == 2
    assert arguments[0] in ran.lines[-1]


def test_trials_without_attacks_to_learn_from_are_left_out(
    kdd_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: Any) -> Any:
        raise NoAttacks("0 attacks are too few")

    monkeypatch.setattr(TrialCell, "run", without)
    ran = run("evaluate", "--dataset", "nsl-kdd", "--data", kdd_data, "--model", "classifier")
    assert ran.code == 0
    (line,) = ran.lines
    assert line == f"flowvane: warning: nsl-kdd is left out: {kdd_data}: 0 attacks are too few"


@pytest.mark.usefixtures("fake_seeds")
@pytest.mark.parametrize("missing", ["test", "train"])
def test_an_optional_trial_is_left_out_with_a_warning(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Partly(Kdd99):
        def load(self, directory: Path, part: str) -> Table:
            if part == missing:
                raise DataSetError(f"no file of part {part}")
            return Table(self.schema, *(np.empty(0),) * 3, ())  # type: ignore[arg-type]

    monkeypatch.setitem(DATASETS, "kdd99", Partly())
    ran = run("evaluate", "--dataset", "kdd99", "--data", tmp_path, "--seeds", 1)
    assert f"no file of part {missing}" in ran.err
    if missing == "test":
        assert ran.code == 0
        (line,) = ran.lines
        assert "warning: kdd99 is left out: " in line
        assert "half of the ten per cent" in ran.out
        assert "to the corrected test data" not in ran.out
    else:
        the_line(ran, 6, "error: ")


def test_a_sweep_marks_the_lowest_held_out_loss(kdd_data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    ran = run("sweep", "--dataset", "nsl-kdd", "--data", kdd_data, "--model", "autoencoder",
              "--learning-rates", "0.003", "1e-6", "--epochs", 2, "--latents", 3, "-o", output,
              )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split("│") for line in ran.out.splitlines() if line.startswith("│")]
    assert [(row[1].strip(), row[3].strip(), "*" in row[4]) for row in rows] == [
        ("0.003", "3", True), ("1e-06", "3", False),
    ]  # fmt: skip
    report = json.loads(output.read_text())
    assert (report["model"], report["trial"]) == ("autoencoder", "nsl-kdd")
    first, second = (point["seeds"][0]["held_out_loss"] for point in report["points"])
    assert first < second
    ran = run("sweep", "--dataset", "nsl-kdd", "--data", kdd_data, "--model", "classifier",
              "--latents", 3)  # fmt: skip
    the_line(ran, 2, "--latents: classifier: ")


@pytest.mark.usefixtures("fake_seeds")
@pytest.mark.parametrize("seeds", ["0", "-1"])
def test_no_seeds_are_refused(seeds: str, kdd_data: Path) -> None:
    ran = run("evaluate", "--dataset", "nsl-kdd", "--data", kdd_data, f"--seeds={seeds}")
    assert ran.code == 2
    assert "--seeds" in ran.lines[-1]


def test_too_few_rows_to_evaluate_are_the_data_sets_fault(
    kdd_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kdd_data / TRAIN_FILE).write_text(kdd_lines(100, 50, seed=0))
    small = NslKdd(train=Expected(150, 100), test=Expected(120, 80))
    monkeypatch.setitem(DATASETS, "nsl-kdd", small)
    ran = run("evaluate", "--dataset", "nsl-kdd", "--data", kdd_data, "--seeds", 1)
    assert "100 benign rows are too few" in the_line(ran, 6, kdd_data)
