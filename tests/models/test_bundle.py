"""A bundle is the model, whole and unchanged, or it is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from features.registry import SCHEMAS
from models.bundle import load, save
from models.detector import Detector
from models.manifest import MANIFEST, SUMS, TENSORS, BundleError, shipped
from tests.helpers import MODELS, PAIRS, ROOT, TOY, make_rows, toy, untrained, windows

FILES = (MANIFEST, TENSORS, SUMS)
FIRST_TRAINING = ("beta", "noise", "unseen")
"""What the first format noted of the training, and the second among the sizes."""
KINDS = (
    *MODELS,
    *(f"trained {variant}" for variant in ("gaussian", "guarded-vae", "classifier")),
    *(f"untrained {variant} {schema}" for variant, schema in PAIRS),
)
"""Every model that ships, some freshly trained, and every variant and schema."""


@pytest.fixture(autouse=True)
def toy_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema of what is freshly trained."""
    monkeypatch.setitem(SCHEMAS, TOY.name, TOY)


def detector_of(kind: str) -> Detector:
    match kind.split():
        case ["trained", variant]:
            return toy(variant)
        case ["untrained", variant, schema]:
            return untrained(schema, variant)
    return load(kind)


every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A small bundle to be damaged."""
    save(untrained("unsw-nb15", "histogram"), tmp_path / "bundle")
    return tmp_path / "bundle"


def sign(bundle: Path) -> None:
    """Make the sums right again, so that what lies behind them is looked at."""
    lines = [
        f"{hashlib.sha256((bundle / name).read_bytes()).hexdigest()}  {name}\n"
        for name in (MANIFEST, TENSORS)
    ]
    (bundle / SUMS).write_text("".join(lines))


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    sign(bundle)


def change_tensors(bundle: Path, change: Callable[[dict[str, NDArray[Any]]], object]) -> None:
    tensors = load_tensors((bundle / TENSORS).read_bytes())
    change(tensors)
    (bundle / TENSORS).write_bytes(save_tensors(tensors))
    sign(bundle)


def complaint(bundle: str | Path, schema: str | None = None) -> str:
    """The message of the BundleError: one line that names the bundle."""
    with pytest.raises(BundleError) as caught:
        load(bundle, schema)
    message = str(caught.value)
    assert message.startswith(f"{bundle}: ")
    assert "\n" not in message
    return message


# Saved and loaded


@every_kind
def test_a_loaded_model_scores_bit_for_bit_as_the_saved_one(kind: str, tmp_path: Path) -> None:
    detector = detector_of(kind)
    save(detector, tmp_path / "bundle")
    again = load(tmp_path / "bundle", detector.schema.name)
    for field in ("name", "kind", "config", "clock_us", "provenance"):
        assert getattr(again, field) == getattr(detector, field)
    assert again.schema is detector.schema
    assert again.features == detector.features
    rows = make_rows(detector.schema, 40, seed=2)
    rows[0, again.columns[-1]] = -1.0  # an unknown term
    rows = windows(rows, detector.window)
    for got, expected in zip(
        dataclasses.astuple(again.score(rows)),
        dataclasses.astuple(detector.score(rows)),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(again.expected(rows), detector.expected(rows))


@every_kind
def test_saving_again_writes_the_same_bytes(kind: str, tmp_path: Path) -> None:
    detector = detector_of(kind)
    save(detector, tmp_path / "one")
    save(load(tmp_path / "one"), tmp_path / "two")
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert {path.name for path in (tmp_path / "one").iterdir()} == set(FILES)


def test_sums_are_those_of_sha256sum(bundle: Path) -> None:
    lines = (bundle / SUMS).read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256((bundle / name).read_bytes()).hexdigest()}  {name}"
        for name in (MANIFEST, TENSORS)
    ]


def test_a_bundle_is_replaced_whole(bundle: Path) -> None:
    (bundle / "left over").touch()
    save(untrained("kdd", "gaussian"), bundle)
    assert load(bundle).name == "untrained-gaussian"
    assert {path.name for path in bundle.iterdir()} == set(FILES)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]  # no temporary ones


def test_missing_folders_above_a_bundle_are_made(tmp_path: Path) -> None:
    save(untrained("kdd", "gaussian"), tmp_path / "a" / "b" / "bundle")
    assert load(tmp_path / "a" / "b" / "bundle").name == "untrained-gaussian"


@pytest.mark.parametrize("content", [None, "file.txt"])
def test_what_is_no_bundle_is_not_replaced(tmp_path: Path, content: str | None) -> None:
    place = tmp_path / "mine"
    place.mkdir()
    if content:
        (place / content).write_text("precious")
    with pytest.raises(BundleError, match="mine: exists and is not a model bundle"):
        save(untrained("kdd", "gaussian"), place)
    assert [path.name for path in place.iterdir()] == ([content] if content else [])


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(BundleError, match="mine: exists and is not a model bundle"):
        save(untrained("kdd", "gaussian"), tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "bundle", Path("/proc/flowvane-test/bundle")):
        with pytest.raises(BundleError, match=f"^{place}: "):
            save(untrained("kdd", "gaussian"), place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# What ships


def test_the_models_that_ship_are_known_by_name() -> None:
    assert shipped() == tuple(sorted(MODELS))
    for name, schema in MODELS.items():
        detector = load(name, schema)
        assert detector.name == name
        assert detector.schema is SCHEMAS[schema]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_ships_is_small_and_says_where_it_came_from(name: str) -> None:
    place = ROOT / "models" / "pretrained" / name
    assert {path.name for path in place.iterdir()} == set(FILES)
    assert sum(path.stat().st_size for path in place.iterdir()) < 1_000_000
    detector = load(name)
    # What a sensor measures, and no more: the model must not need what is not there.
    assert all(feature.live for feature in detector.features)
    assert not any(feature.testbed for feature in detector.features)
    assert detector.clock_us == 1000
    assert detector.calibration.smallest_p < 0.001
    assert {"dataset", "part", "files", "command", "versions", "fit", "rows"} <= set(
        detector.provenance
    )


def test_nothing_is_pickled() -> None:
    banned = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
    found = []
    for package in ("features", "models", "training", "sensor", "examples"):
        for path in (ROOT / package).rglob("*.py"):
            with path.open("rb") as source:
                for token in tokenize.tokenize(source.readline):
                    name = token.string
                    if token.type == tokenize.NAME and (name in banned or "pickle" in name):
                        found.append(f"{path}:{token.start[0]}: {name}")
    assert not found


# Refused


def test_an_unknown_name_lists_what_ships() -> None:
    message = complaint("no-such-model")
    assert "no such model" in message
    for name in shipped():
        assert name in message


def test_a_file_is_no_bundle(bundle: Path) -> None:
    assert "no such model" in complaint(bundle / MANIFEST)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    message = complaint(bundle)
    assert "not a model bundle" in message
    assert f"{name} is missing" in message


@pytest.mark.parametrize("name", FILES)
def test_a_directory_in_place_of_a_file_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    (bundle / name).mkdir()
    complaint(bundle)


@pytest.mark.parametrize("name", [MANIFEST, TENSORS])
def test_any_changed_byte_is_noticed(bundle: Path, name: str) -> None:
    good = (bundle / name).read_bytes()
    rng = np.random.default_rng(1)
    offsets = {0, 1, 7, 8, len(good) - 1, *rng.integers(0, len(good), 60).tolist()}
    for offset in sorted(offsets):
        bad = bytearray(good)
        bad[offset] ^= int(rng.integers(1, 256))
        (bundle / name).write_bytes(bad)
        assert f"{name} is not what {SUMS} says" in complaint(bundle)
    (bundle / name).write_bytes(good)
    load(bundle)


def test_any_changed_byte_of_the_sums_is_noticed(bundle: Path) -> None:
    good = (bundle / SUMS).read_bytes()
    accepted = []
    for offset in range(len(good)):
        for flip in (0x01, 0x20, 0x80, 0xFF):
            bad = bytearray(good)
            bad[offset] ^= flip
            (bundle / SUMS).write_bytes(bad)
            try:
                load(bundle)
            except BundleError as error:
                assert str(error).startswith(f"{bundle}: ")
            else:
                accepted.append((offset, bytes(good[offset : offset + 1]), flip))
    assert not accepted


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_file_is_noticed(bundle: Path, name: str, share: float) -> None:
    good = (bundle / name).read_bytes()
    (bundle / name).write_bytes(good[: int(len(good) * share)])
    complaint(bundle)


def test_another_format_is_named(bundle: Path) -> None:
    change_manifest(bundle, lambda manifest: manifest.update(format=3))
    message = complaint(bundle)
    assert "bundle format 3" in message
    assert "reads format 2" in message


def test_a_bundle_of_the_first_format_scores_as_it_did(tmp_path: Path) -> None:
    new = load(_saved(tmp_path, untrained("unsw-nb15", "histogram")))

    def older(manifest: dict[str, Any]) -> None:
        network = manifest["network"]
        manifest["provenance"] = {"fit": {name: network.pop(name) for name in FIRST_TRAINING}}
        network["kind"] = "dense-vae"
        manifest.update(format=1, usual_kl=float(new.fitted["usual_kl"]))

    def older_names(tensors: dict[str, NDArray[Any]]) -> None:
        tensors.pop("fitted.usual_kl")
        for name in list(tensors):
            old = name.replace("fitted.", "heads.").replace(".to_heads.", ".outputs.")
            tensors[old] = tensors.pop(name)

    change_manifest(tmp_path / "bundle", older)
    change_tensors(tmp_path / "bundle", older_names)
    again, rows = load(tmp_path / "bundle"), make_rows(new.schema, 30)
    assert again.config == new.config
    np.testing.assert_array_equal(again.score(rows).score, new.score(rows).score)


def _saved(tmp_path: Path, detector: Detector) -> Path:
    save(detector, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_another_version_of_the_schema_is_named(bundle: Path) -> None:
    change_manifest(bundle, lambda manifest: manifest["schema"].update(digest="0" * 64))
    assert "another version of schema unsw-nb15" in complaint(bundle)


def test_the_digest_changes_with_what_a_column_means() -> None:
    schema = SCHEMAS["kdd"]
    first, *rest = schema.features
    others = [
        dataclasses.replace(schema, features=(dataclasses.replace(first, **change), *rest))
        for change in ({"unit": "ms"}, {"meaning": "something else"}, {"name": "other"})
    ]
    others.append(dataclasses.replace(schema, features=(*rest, first)))
    patient = dataclasses.replace(schema.meter, idle_timeout_s=schema.meter.idle_timeout_s + 1)
    others.append(dataclasses.replace(schema, meter=patient))
    digests = {other.digest for other in others}
    assert len(digests) == len(others)
    assert schema.digest not in digests
    assert dataclasses.replace(schema, title="new title").digest == schema.digest


def test_an_unknown_schema_lists_the_known_ones(bundle: Path) -> None:
    change_manifest(bundle, lambda manifest: manifest["schema"].update(name="other"))
    message = complaint(bundle)
    assert "schema other, which this flowvane does not have" in message
    for name in SCHEMAS:
        assert name in message


def test_a_schema_that_the_caller_does_not_have_is_named(bundle: Path) -> None:
    assert "made for schema unsw-nb15, not kdd" in complaint(bundle, "kdd")
    load(bundle, "unsw-nb15")
    with pytest.raises(BundleError, match="made for schema kdd, not unsw-nb15"):
        load("nsl-kdd", "unsw-nb15")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda manifest: manifest["network"].update(kind="transformer"), "transformer"),
        (lambda manifest: manifest["network"].update(heads="cauchy"), "cauchy"),
        (lambda manifest: manifest["network"].update(colour=3), "colour"),
        (lambda manifest: manifest["network"].update(latent=7), "weights."),
        (lambda manifest: manifest["network"].update(hidden=[8, 16]), "weights."),
        (lambda manifest: manifest["encoder"]["numeric"][0].update(name="nope"), "nope"),
        (lambda manifest: manifest["encoder"]["numeric"][0].update(kind="nope"), "nope"),
        (lambda manifest: manifest["encoder"]["categories"][0]["terms"].append("nope"), ""),
        (lambda manifest: manifest["encoder"]["numeric"].pop(), "heads"),
        (lambda manifest: manifest.pop("encoder"), "encoder"),
        (lambda manifest: manifest.pop("format"), "format"),
        (lambda manifest: manifest.update(schema=None), ""),
        (lambda manifest: manifest.update(encoder=[]), ""),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    bundle: Path, change: Callable[[dict[str, Any]], object], expected: str
) -> None:
    change_manifest(bundle, change)
    assert expected in complaint(bundle)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b"\xff", b"{", b'"text"', b"7"])
@pytest.mark.parametrize("name", [MANIFEST, TENSORS])
def test_signed_nonsense_is_refused(bundle: Path, name: str, content: bytes) -> None:
    (bundle / name).write_bytes(content)
    sign(bundle)
    complaint(bundle)


def _shapes() -> dict[str, tuple[int, ...]]:
    """Tensors of `bundle`, the dense autoencoder with histograms, with the edges of one amount."""
    layers = ("encode1", "encode2", "latent", "decode1", "decode2", "to_heads")
    return {
        "calibration.scores": (1,),
        "fitted.centers": (1,),
        "fitted.cuts.3": (1,),
        "fitted.usual_kl": (),
        **{f"weights.{layer}.bias": (1,) for layer in layers},
        **{f"weights.{layer}.kernel": (1, 1) for layer in layers},
    }


SHAPES = _shapes()
leaves = pytest.mark.parametrize("leaf", SHAPES)


@leaves
def test_a_missing_tensor_is_named(bundle: Path, leaf: str) -> None:
    change_tensors(bundle, lambda tensors: tensors.pop(leaf))
    assert leaf.split(".", 1)[1] in complaint(bundle)


@leaves
def test_a_tensor_of_another_type_is_named(bundle: Path, leaf: str) -> None:
    for dtype in ("float64", "float16", "int32"):
        change_tensors(bundle, lambda t, dtype=dtype: t.update({leaf: t[leaf].astype(dtype)}))
        message = complaint(bundle)
        assert leaf.split(".", 1)[1] in message
        assert dtype in message


@leaves
def test_a_tensor_with_one_more_axis_is_named(bundle: Path, leaf: str) -> None:
    change_tensors(bundle, lambda t: t.update({leaf: np.expand_dims(t[leaf], -1)}))
    assert leaf.split(".", 1)[1] in complaint(bundle)


@pytest.mark.parametrize("leaf", [leaf for leaf, shape in SHAPES.items() if len(shape) > 1])
def test_a_flattened_tensor_is_named(bundle: Path, leaf: str) -> None:
    change_tensors(bundle, lambda t: t.update({leaf: t[leaf].ravel()}))
    assert leaf.split(".", 1)[1] in complaint(bundle)


# Any number of calibration scores will do; edges and centers must agree, one cannot say which errs.
@pytest.mark.parametrize(
    "leaf",
    [leaf for leaf, shape in SHAPES.items() if shape and leaf != "calibration.scores"],
)
def test_a_tensor_with_a_row_less_is_named(bundle: Path, leaf: str) -> None:
    change_tensors(bundle, lambda t: t.update({leaf: t[leaf][1:]}))
    named = leaf if leaf.startswith("weights.") else "heads"
    assert named in complaint(bundle)


def test_scores_that_are_no_calibration_are_refused(bundle: Path) -> None:
    for bad in ([], [1.0, np.nan]):
        change_tensors(
            bundle, lambda t, bad=bad: t.update({"calibration.scores": np.array(bad, np.float32)})
        )
        assert "calibration" in complaint(bundle)
