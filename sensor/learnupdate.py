"""`flowvane learn --update`: what comes from the bundle before, and how it is replaced."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from features.schema import EarlyReports
from models.bundle import assemble, save
from models.detector import Detector
from models.durable import flush, put, sync
from models.manifest import MANIFEST, BundleError, read
from sensor.errors import ModelError, OutputError, UsageError
from training.site import Choice

_AT_WORK_S = 3600.0
"""An update takes seconds to put a bundle in its place."""


def detector_before(bundle: Path) -> Detector:
    """The model that is updated.

    Raises:
        ModelError: there is none, or it cannot be used.
    """
    try:
        # As an absolute path it is never taken for the name of a model that ships.
        return assemble(read(bundle.absolute()))
    except BundleError as error:
        raise ModelError(f"--update: {error}") from error


def settle(args: argparse.Namespace, before: Detector, clock: str, given: EarlyReports) -> None:
    """Set the options of `args` to what the model before was measured and made with.

    Args:
        args: options; those that were not given are None.
        before: the model.
        clock: the name of its clock.
        given: early reports that were asked for.

    Raises:
        UsageError: an option contradicts it.
        OutputError: there is no room for what is kept of it.
    """
    fixed = {"schema": before.schema.name, "clock": clock, "model": before.kind.name}
    for name, value in fixed.items():
        wanted = getattr(args, name)
        if wanted is not None and wanted != value:
            raise UsageError(
                f"--{name} {wanted}: {args.update} has {value}, which an update keeps; learn a "
                "new model without --update"
            )
        setattr(args, name, value)
    if given and given != before.early:
        raise UsageError(
            f"--early-age, --early-packets: {args.update} was learnt with "
            f"{before.early or 'none'}, which an update keeps; learn a new model without --update"
        )
    if args.output is None:
        args.output = args.update
    kept = kept_at(args.update)
    if in_place(args) and kept.exists() and not (kept / MANIFEST).is_file():
        raise OutputError(f"{kept}: exists and is not a model bundle; move it away")


def in_place(args: argparse.Namespace) -> bool:
    """Whether the model before is replaced."""
    return bool(args.update is not None and args.output.resolve() == args.update.resolve())


def choice_after(before: Detector, exclude: Sequence[str], include: Sequence[str]) -> Choice:
    """What a person decides now, and what was decided for the model before and still holds."""
    site = before.provenance.get("site", {})
    now = {*exclude, *include}
    kept = {
        key: tuple(name for name in site.get(key, ()) if name not in now)
        for key in ("exclude", "include")
    }
    return Choice(
        (*exclude, *kept["exclude"]), (*include, *kept["include"]),
        earlier=frozenset(kept["exclude"] + kept["include"]),
    )  # fmt: skip


# Replacing


def kept_at(bundle: Path) -> Path:
    """Where the model before is kept."""
    place = bundle.resolve()
    return place.with_name(place.name + ".before")


def _sweep(place: Path) -> None:
    """Remove what an update that was killed left beside a bundle, once none can be at work there.

    Raises:
        OSError: it cannot be looked for.
    """
    before = time.time() - _AT_WORK_S
    for left in place.parent.iterdir():
        ours = left.name.startswith(f".{place.name}.") and left.is_dir()
        if ours and left.stat().st_mtime < before:
            shutil.rmtree(left)


def replace_bundle(detector: Detector, bundle: Path) -> Path:
    """Put a model in the place of one that is kept as ``BUNDLE.before``, whose path is returned.

    The copy is there before the place changes hands, and that is one step: whenever it is cut
    off, a whole bundle is at `bundle`. On a file system that cannot exchange two directories
    there is a moment in which only the copy is there.

    Raises:
        OutputError: it cannot be written; the model before is where it was.
    """
    place, kept = bundle.resolve(), kept_at(bundle)
    try:
        _sweep(place)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as beside:
            old, fresh = Path(beside, "old"), Path(beside, "fresh")
            shutil.copytree(place, old)
            save(detector, fresh)
            flush(old)
            put(old, kept)
            put(fresh, place)
            sync(place.parent)
    except BundleError as error:
        raise OutputError(str(error)) from error
    except OSError as error:
        raise OutputError(f"{bundle}: {(error.strerror or str(error)).lower()}") from error
    return kept
