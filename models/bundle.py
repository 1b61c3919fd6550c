"""Model bundles: a directory that holds all of a trained model, and nothing executable.

- ``manifest.json``: format version, schema and its digest, encoder, network, clock, provenance;
- ``tensors.safetensors``: weights, head edges and centers, calibration scores;
- ``SHA256SUMS``: of the two, in the format of sha256sum(1), checked at every load.
"""

from __future__ import annotations

import json
import shutil
import tempfile
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
from models.heads import FAMILIES, Heads
from models.manifest import (
    CALIBRATION,
    FORMAT,
    MANIFEST,
    SUMS,
    TENSORS,
    BundleError,
    Stored,
    check_list,
    misfit,
    read,
    sums,
)
from models.vae import Vae, VaeConfig

_WEIGHTS, _HEADS = "weights.", "heads."


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
    tensors |= {_HEADS + name: leaf for name, leaf in detector.heads.tensors().items()}
    tensors[CALIBRATION] = detector.calibration.scores
    manifest = {
        "format": FORMAT,
        "name": detector.name,
        "schema": {"name": detector.schema.name, "digest": detector.schema.digest},
        "clock_us": detector.clock_us,
        "encoder": detector.encoder.to_json(),
        "network": {"kind": "dense-vae", **asdict(detector.config)},
        "usual_kl": detector.usual_kl,
        "provenance": detector.provenance,
    }
    contents = {
        MANIFEST: (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode(),
        TENSORS: save_tensors({k: np.ascontiguousarray(v) for k, v in tensors.items()}),
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
        if directory.exists():
            old = fresh.with_name(fresh.name + ".old")
            directory.rename(old)
            fresh.rename(directory)
            shutil.rmtree(old)
        else:
            fresh.rename(directory)
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
    network = dict(manifest["network"])
    if (kind := network.pop("kind")) != "dense-vae":
        raise BundleError(f"{directory}: unknown network kind {kind}")
    network["hidden"] = tuple(network["hidden"])
    config = VaeConfig(**network)
    if config.heads not in FAMILIES:
        raise BundleError(f"{directory}: unknown family of heads {config.heads}")
    stored = {
        name.removeprefix(_HEADS): leaf for name, leaf in tensors.items() if name.startswith(_HEADS)
    }
    for name in stored:
        check_list(directory, _HEADS + name, tensors[_HEADS + name])
    heads = FAMILIES[config.heads].from_tensors(encoder, stored)
    # Shapes only: initial weights would be drawn, compiled for, and thrown away.
    graph, state = nnx.split(nnx.eval_shape(lambda: build(config, encoder, heads)))
    flat = []
    for path, leaf in nnx.to_flat_state(state):
        name = ".".join(map(str, path))
        if _WEIGHTS + name not in tensors:
            raise BundleError(f"{directory}: {TENSORS} lacks {_WEIGHTS}{name}")
        value = tensors[_WEIGHTS + name]
        if value.shape != leaf.shape or value.dtype != leaf.dtype:
            raise BundleError(
                f"{directory}: {_WEIGHTS}{name} is {value.dtype}{list(value.shape)}, the network "
                f"wants {leaf.dtype}{list(leaf.shape)}"
            )
        flat.append((path, leaf.replace(jnp.asarray(value))))
    return Detector(
        name=bundle.name,
        encoder=encoder,
        heads=heads,
        config=config,
        model=nnx.merge(graph, nnx.from_flat_state(flat)),
        usual_kl=float(manifest["usual_kl"]),
        calibration=bundle.calibration,
        clock_us=bundle.clock_us,
        provenance=manifest["provenance"],
    )


def build(config: VaeConfig, encoder: Encoder, heads: Heads, seed: int = 0) -> Vae:
    """An untrained network of the right shape for `encoder` and `heads`."""
    sizes = tuple(column.size for column in encoder.categories)
    return Vae(config, len(encoder.numeric), sizes, heads.width, rngs=nnx.Rngs(seed))
