"""What a bundle says of itself, and whether it is whole; nothing here needs JAX.

So a capture can be metered for a model while the libraries that score are still being loaded.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from features.measurement import early_from_json
from features.registry import SCHEMAS
from features.schema import NEVER_EARLY, EarlyReports, Schema
from models.calibration import Calibration

FORMAT = 2
MANIFEST, TENSORS, SUMS = "manifest.json", "tensors.safetensors", "SHA256SUMS"
CALIBRATION = "calibration.scores"
"""The tensor of calibration scores."""


class BundleError(Exception):
    """A bundle cannot be used; the message names it and says what disagrees."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A bundle as it was read: whole, and for a schema that is known.

    Attributes:
        directory: where it was read from.
        manifest: what it says of itself.
        schema: that of the rows it scores.
        tensors: its tensors by name; whether they fit the model is not looked at yet.
        calibration: held-out benign scores, those among the tensors.
    """

    directory: Path
    manifest: dict[str, Any]
    schema: Schema
    tensors: dict[str, NDArray[Any]]
    calibration: Calibration

    @property
    def name(self) -> str:
        """Of the model, as alerts give it."""
        return str(self.manifest["name"])

    @property
    def early(self) -> EarlyReports:
        """When flows that went on were reported, too, for the training rows."""
        told = self.manifest.get("early")
        early = NEVER_EARLY if told is None else early_from_json(told)
        if early and not self.schema.early_reports:
            raise ValueError(f"schema {self.schema.name} knows no early reports")
        return early

    @property
    def clock_us(self) -> int:
        """Resolution of the times that the training rows were measured with."""
        return int(self.manifest["clock_us"])


def shipped() -> tuple[str, ...]:
    """Names of the models that come with the program."""
    places = files("models").joinpath("pretrained").iterdir()
    return tuple(sorted(place.name for place in places if place.joinpath(MANIFEST).is_file()))


def read(name_or_directory: str | Path, schema: str | None = None) -> Stored:
    """Read a model that ships, by name, or a bundle, by directory.

    Args:
        name_or_directory: one of :func:`shipped`, or a path.
        schema: name of the schema that the caller has rows of, if only that one will do.

    Raises:
        BundleError: there is no such model, or it is damaged or made for something else.
    """
    directory = Path(name_or_directory)
    names = shipped()
    if str(name_or_directory) in names:
        with as_file(files("models").joinpath("pretrained", str(name_or_directory))) as place:
            return _read(place, schema)
    if not directory.is_dir():
        raise BundleError(
            f"{name_or_directory}: no such model; the models that ship are "
            f"{', '.join(names) or 'none'}, or give a bundle directory"
        )
    return _read(directory, schema)


def _read(directory: Path, wanted: str | None) -> Stored:
    contents = _read_checked(directory)
    try:
        manifest = json.loads(contents[MANIFEST])
        tensors = load_tensors(contents[TENSORS])
        manifest, tensors = _upgraded(manifest, tensors)
        schema = _schema(directory, manifest, wanted)
        check_list(directory, CALIBRATION, tensors[CALIBRATION])
        calibration = Calibration(tensors[CALIBRATION])
        stored = Stored(directory, manifest, schema, tensors, calibration)
        _ = stored.name, stored.clock_us, stored.early
    except (KeyError, TypeError, ValueError, SafetensorError, struct.error) as error:
        raise BundleError(misfit(directory, error)) from error
    return stored


def check_list(directory: Path, name: str, leaf: NDArray[Any]) -> None:
    """Refuse a tensor that is not a list of float32.

    Raises:
        BundleError: it is not; the message names it.
    """
    if leaf.dtype != np.float32 or leaf.ndim != 1:
        raise BundleError(
            f"{directory}: {name} is {leaf.dtype}{list(leaf.shape)}, not a list of float32"
        )


def misfit(directory: Path, error: Exception) -> str:
    """What is said of a bundle whose parts do not fit together."""
    return f"{directory}: the bundle does not fit together: {error}"


def _read_checked(directory: Path) -> dict[str, bytes]:
    try:
        known = (directory / SUMS).read_bytes()
        contents = {name: (directory / name).read_bytes() for name in (MANIFEST, TENSORS)}
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise BundleError(f"{directory}: not a model bundle: {missing} is missing") from error
    except OSError as error:
        raise BundleError(f"{directory}: {(error.strerror or str(error)).lower()}") from error
    for name, data in contents.items():
        if _sum_line(name, data) not in known:
            raise BundleError(
                f"{directory}: {name} is not what {SUMS} says: the bundle is damaged or was "
                "changed; get it again or train it again"
            )
    if known != sums(contents):
        raise BundleError(f"{directory}: {SUMS} is damaged or was changed; get the bundle again")
    return contents


def _sum_line(name: str, data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


def sums(contents: dict[str, bytes]) -> bytes:
    """The checksums of some files, in the format of sha256sum(1)."""
    return b"".join(_sum_line(name, data) for name, data in contents.items())


def _upgraded(
    manifest: dict[str, Any], tensors: dict[str, NDArray[Any]]
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A bundle of format 1, which knew dense variational autoencoders only, as one of format 2."""
    if manifest["format"] != 1:
        return manifest, tensors
    if (kind := manifest["network"]["kind"]) != "dense-vae":
        raise ValueError(f"unknown network kind {kind}")
    fit = manifest["provenance"]["fit"]
    training = {name: fit[name] for name in ("beta", "noise", "unseen")}
    network = {**manifest["network"], **training, "kind": "vae"}
    names = {"heads.": "fitted.", "weights.outputs.": "weights.to_heads."}
    renamed = {}
    for name, leaf in tensors.items():
        for old, new in names.items():
            name = new + name.removeprefix(old) if name.startswith(old) else name
        renamed[name] = leaf
    renamed["fitted.usual_kl"] = np.asarray(manifest["usual_kl"], np.float32)
    return {**manifest, "format": FORMAT, "network": network}, renamed


def _schema(directory: Path, manifest: dict[str, Any], wanted: str | None) -> Schema:
    if manifest["format"] != FORMAT:
        raise BundleError(
            f"{directory}: bundle format {manifest['format']}, but this flowvane reads format "
            f"{FORMAT}: train the model again"
        )
    name, digest = manifest["schema"]["name"], manifest["schema"]["digest"]
    if wanted is not None and name != wanted:
        raise BundleError(f"{directory}: made for schema {name}, not {wanted}")
    if name not in SCHEMAS:
        raise BundleError(
            f"{directory}: made for schema {name}, which this flowvane does not have "
            f"(it has {', '.join(SCHEMAS)})"
        )
    if SCHEMAS[name].digest != digest:
        raise BundleError(
            f"{directory}: made for another version of schema {name}: the meaning of its "
            "features has changed since; train the model again"
        )
    return SCHEMAS[name]
