"""Model bundles: a directory that holds all of a trained model, and nothing executable.

- ``manifest.json``: format version, schema and its digest, encoder, network, clock, provenance;
- ``tensors.safetensors``: weights, head edges and centers, calibration scores, and distributions
  of the calibration rows' features (:mod:`models.reference`; bundles of before have none);
- ``SHA256SUMS``: of the two, in the format of sha256sum(1), checked at every load.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray
from safetensors.numpy import save as save_tensors

from features.encoder import Encoder
from models.detector import Detector
from models.durable import flush, put, sync
from models.kinds import KINDS
from models.kinds.base import ModelKind, Network, Shape
from models.manifest import (
    CALIBRATION,
    FORMAT,
    MANIFEST,
    SUMS,
    TENSORS,
    BundleError,
    Stored,
    misfit,
    read,
    sums,
)
from models.reference import Reference

_WEIGHTS, _FITTED, _REFERENCE = "weights.", "fitted.", "reference."


def _weights(state: Any) -> dict[str, NDArray[Any]]:
    return {
        ".".join(map(str, path)): np.asarray(leaf[...] if hasattr(leaf, "shape") else leaf)
        for path, leaf in nnx.to_flat_state(state)
    }


def save(detector: Detector, directory: Path) -> None:
    """Write a bundle; one that is there already is replaced in one step.

    Raises:
        BundleError: `directory` is there and is no bundle, or cannot be written.
    """
    if directory.exists() and not (directory / MANIFEST).is_file():
        raise BundleError(f"{directory}: exists and is not a model bundle; name another directory")
    tensors = {_WEIGHTS + name: leaf for name, leaf in _weights(detector.state).items()}
    tensors |= {_FITTED + name: leaf for name, leaf in detector.fitted.items()}
    tensors[CALIBRATION] = detector.calibration.scores
    if detector.reference is not None:
        tensors |= {_REFERENCE + name: leaf for name, leaf in detector.reference.tensors().items()}
    manifest = {
        "format": FORMAT,
        "name": detector.name,
        "schema": {"name": detector.schema.name, "digest": detector.schema.digest},
        "clock_us": detector.clock_us,
        "early": asdict(detector.early),
        "encoder": detector.encoder.to_json(),
        "network": {"kind": detector.kind.name, **asdict(detector.config)},
        "provenance": detector.provenance,
    }
    contents = {
        MANIFEST: (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode(),
        TENSORS: save_tensors({k: np.asarray(v, order="C") for k, v in tensors.items()}),
    }
    contents[SUMS] = sums(contents)
    try:
        _replace(directory, contents)
    except OSError as error:
        raise BundleError(f"{directory}: {(error.strerror or str(error)).lower()}") from error


def _replace(directory: Path, contents: dict[str, bytes]) -> None:
    """Write a directory beside its place and move it there, so that it is never half there."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for name, data in contents.items():
            (fresh / name).write_bytes(data)
        fresh.chmod(0o755)
        flush(fresh)
        put(fresh, directory)
        sync(directory.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def load(name_or_directory: str | Path, schema: str | None = None) -> Detector:
    """Load a model that ships, by name, or a bundle, by directory.

    Args:
        name_or_directory: one of :func:`models.manifest.shipped`, or a path.
        schema: name of the schema that the caller has rows of, if only that one will do.

    Raises:
        BundleError: there is no such model, or it is damaged or made for something else.
    """
    return assemble(read(name_or_directory, schema))


def assemble(stored: Stored) -> Detector:
    """The detector of a bundle that was read.

    Raises:
        BundleError: its parts do not fit together.
    """
    try:
        return _assemble(stored)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(misfit(stored.directory, error)) from error


def _assemble(bundle: Stored) -> Detector:
    directory, manifest, tensors = bundle.directory, bundle.manifest, bundle.tensors
    encoder = Encoder.from_json(bundle.schema, manifest["encoder"])
    sizes = dict(manifest["network"])
    if (name := sizes.pop("kind")) not in KINDS:
        raise BundleError(
            f"{directory}: unknown kind of model {name}; this flowvane has {', '.join(KINDS)}"
        )
    kind = KINDS[name]
    config = kind.config_from_json(sizes)
    fitted, reference = (_named(tensors, prefix) for prefix in (_FITTED, _REFERENCE))
    _check(directory, dict.fromkeys(_REFERENCE + name for name in reference), tensors)
    _check(directory, dict.fromkeys(_FITTED + name for name in fitted), tensors)
    after = kind.after_shapes(config, encoder)
    _check(directory, {_FITTED + name: shape for name, shape in after.items()}, tensors)
    return Detector(
        name=bundle.name,
        kind=kind,
        config=config,
        encoder=encoder,
        fitted=fitted,
        network=_network(directory, kind, config, encoder, fitted, tensors),
        calibration=bundle.calibration,
        clock_us=bundle.clock_us,
        early=bundle.early,
        provenance=manifest["provenance"],
        reference=Reference.from_tensors(encoder, reference) if reference else None,
    )


def _named(tensors: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The tensors whose names begin so, without that."""
    return {
        name.removeprefix(prefix): leaf for name, leaf in tensors.items() if name.startswith(prefix)
    }


def _check(
    directory: Path, wanted: Mapping[str, Shape | None], tensors: dict[str, NDArray[Any]]
) -> None:
    """Refuse a bundle that lacks a tensor or has it in another type or shape.

    Args:
        directory: named in the message.
        wanted: the shapes by name; None for any.
        tensors: what there is.
    """
    for name, shape in wanted.items():
        if name not in tensors:
            raise BundleError(f"{directory}: {TENSORS} lacks {name}")
        leaf = tensors[name]
        fits = shape is None or (
            leaf.ndim == len(shape)
            and all(axis in (None, got) for axis, got in zip(shape, leaf.shape, strict=True))
        )
        if leaf.dtype != np.float32 or not fits:
            known = "" if shape is None else str([axis or "any" for axis in shape])
            raise BundleError(
                f"{directory}: {name} is {leaf.dtype}{list(leaf.shape)}, the model wants "
                f"float32{known}"
            )


def _network(
    directory: Path,
    kind: ModelKind[Any],
    config: Any,
    encoder: Encoder,
    fitted: dict[str, NDArray[Any]],
    tensors: dict[str, NDArray[Any]],
) -> Network:
    """The network with the weights out of the bundle."""
    # Shapes only: initial weights would be drawn, compiled for, and thrown away.
    graph, state = nnx.split(
        nnx.eval_shape(lambda: kind.build(config, encoder, fitted, nnx.Rngs(0)))
    )
    leaves = [
        (path, leaf, _WEIGHTS + ".".join(map(str, path))) for path, leaf in nnx.to_flat_state(state)
    ]
    _check(directory, {name: leaf.shape for _, leaf, name in leaves}, tensors)
    flat = [(path, leaf.replace(jnp.asarray(tensors[name]))) for path, leaf, name in leaves]
    network: Network = nnx.merge(graph, nnx.from_flat_state(flat))
    return network
