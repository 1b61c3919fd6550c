"""`flowvane learn --update`."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from models import durable
from models.bundle import load
from sensor import learnupdate
from tests.helpers import run, small_pcap, syn

QUICK = ("--epochs", 1, "--fpr", 0.02)
NAMES = ("manifest.json", "tensors.safetensors", "SHA256SUMS")


def contents(bundle: Path) -> list[bytes]:
    return [(bundle / name).read_bytes() for name in NAMES]


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory, office_flows: Path) -> Path:
    """A folder with flows and a model of them from which a host is excluded."""
    folder = tmp_path_factory.mktemp("learnt")
    flows = Path(shutil.copy(office_flows, folder / "flows.parquet"))
    options = ("--model", "autoencoder", "--exclude", "10.20.30.109")
    ran = run("learn", "-q", *QUICK, *options, "--features", flows, "-o", folder / "office")
    assert ran.code == 0
    return folder


@pytest.fixture
def office(learnt: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learnt / "office", tmp_path / "office"))


def test_a_model_is_updated_and_the_one_before_kept(learnt: Path, office: Path) -> None:
    was = contents(office)
    kept = office.with_name("office.before")
    shutil.copytree(office, kept)  # of an earlier update
    (kept / "older").touch()
    ran = run("learn", *QUICK, "--update", office, "--features", learnt / "flows.parquet",
              "--seed", 1, "--include", "10.20.30.80")  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    assert "office.before" in ran.out
    assert contents(kept) == was
    assert not (kept / "older").exists()
    assert contents(office) != was
    now = load(office)
    assert (now.name, now.kind.name) == ("office", "autoencoder")
    assert now.provenance["site"]["exclude"] == ["10.20.30.109"]
    assert now.provenance["site"]["include"] == ["10.20.30.80"]
    assert now.provenance["update"]["name"] == "office"
    assert not [path for path in office.parent.iterdir() if path.name.startswith(".")]


def test_with_an_output_the_model_before_stays(learnt: Path, office: Path) -> None:
    was, new = contents(office), office.with_name("new")
    ran = run("learn", "-q", *QUICK, "--update", office, "--features", learnt / "flows.parquet",
              "-o", new)  # fmt: skip
    assert ran.code == 0
    assert load(new).name == "new"
    assert contents(office) == was
    assert not office.with_name("office.before").exists()


def test_too_little_traffic_updates_nothing(office: Path) -> None:
    was = contents(office)
    capture = small_pcap(office.with_name("x.pcap"), *(syn(40_000 + n) for n in range(30)))
    ran = run("learn", "-q", "--update", office, "-r", capture)
    assert (ran.code, len(ran.lines)) == (6, 1)
    assert "too little traffic to learn from: 30 flows" in ran.err
    assert contents(office) == was
    assert not office.with_name("office.before").exists()


@pytest.mark.parametrize(
    ("options", "code", "what"),
    [
        (("--model", "vae"), 2, "--model vae: "),
        (("--clock", "ms"), 2, "--clock ms: "),
        (("--schema", "kdd"), 2, "--schema kdd: "),
        (("--early-packets", "5"), 2, "--early-age, --early-packets: "),
        (("--update", "nsl-kdd"), 4, "--update: "),
    ],
)
def test_what_contradicts_the_model_is_refused(
    options: tuple[str, ...], code: int, what: str, office: Path
) -> None:
    ran = run("learn", "--update", office, *options, "-r", "x.pcap")
    assert (ran.code, len(ran.lines)) == (code, 1)
    assert f"flowvane: error: {what}" in ran.err


@pytest.mark.parametrize("cut", ["copy", "swap", "clean"])
def test_cut_off_anywhere_a_whole_model_is_there(
    cut: str, office: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    was, detector = contents(office), load(office)
    detector.provenance["new"] = True
    put, steps = learnupdate.put, iter(["copy", "swap"])

    def cut_off(fresh: Path, place: Path) -> None:
        if next(steps) == cut:
            raise OSError(errno.EIO, "cut off")
        put(fresh, place)

    def cut_clean(path: Path) -> None:
        if path == office.parent:
            raise OSError(errno.EIO, "cut off")

    monkeypatch.setattr(learnupdate, "put", cut_off)
    monkeypatch.setattr(learnupdate, "sync", cut_clean if cut == "clean" else lambda path: None)
    with pytest.raises(learnupdate.OutputError, match="cut off"):
        learnupdate.replace_bundle(detector, office)
    load(office)
    assert (contents(office) == was) == (cut != "clean")
    assert office.with_name("office.before").exists() == (cut != "copy")


def test_without_an_exchange_the_copy_is_there_first(
    office: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(one: Path, other: Path) -> None:
        assert office.with_name("office.before").exists()
        raise OSError(errno.EINVAL, "no such thing here")

    monkeypatch.setattr(durable, "exchange", unable)
    was, detector = contents(office), load(office)
    detector.provenance["new"] = True
    # What a killed update left goes, what another may be at work on stays.
    left, fresh = (office.with_name(f".office.{name}") for name in ("left", "fresh"))
    for each in (left, fresh):
        (each / "old").mkdir(parents=True)
    os.utime(left, (0, 0))
    assert contents(learnupdate.replace_bundle(detector, office)) == was
    assert load(office).provenance["new"]
    assert (left.exists(), fresh.exists()) == (False, True)
