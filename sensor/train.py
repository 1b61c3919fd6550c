"""`flowvane train` and `flowvane sweep`; imported by those commands only."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rich.table

from features.encoder import NotFinite
from features.measurement import Measurement
from features.registry import SCHEMAS
from features.schema import NEVER_EARLY, EarlyReports, Schema
from models.bundle import save
from models.detector import Detector
from models.kinds import KINDS
from models.kinds.base import ModelKind
from models.manifest import BundleError
from models.recipe import FitConfig
from sensor.errors import ExitCode, ModelError, OutputError, UsageError
from sensor.report import Console
from training.checkpoint import Checkpoint, CheckpointError, CheckpointNotWritten
from training.datasets import DATASETS
from training.datasets.base import DataSet, DataSetError, Table
from training.fit import TooFewRows, fit
from training.loop import Observer
from training.metrics import mean_sd
from training.recipes import sizes
from training.rows import ParquetRows, Rows, RowsError, TableRows
from training.schedules import SCHEDULES
from training.sweep import NoLatent, Point, Result, grid, run_point
from training.trials import (
    LIVE_CLOCK_US,
    PUBLISHED_CLOCK_US,
    TRIALS,
    as_measured,
    chosen_features,
)

_PACKAGES = ("flowvane", "jax", "flax", "optax", "numpy")
_CONFIG_OPTIONS = ("epochs", "learning_rate", "batch", "patience", "schedule")
"""Options that change how a network is trained, by the names of FitConfig."""
_CLOCKS = {"us": 1, "ms": 1000}


# What is asked for


def _data_set(name: str) -> DataSet:
    if name not in DATASETS:
        raise UsageError(f"--dataset {name}: no such data set; there are {', '.join(DATASETS)}")
    return DATASETS[name]


def kind_named(name: str) -> ModelKind[Any]:
    """The kind of model of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in KINDS:
        raise UsageError(f"--model {name}: no such kind of model; there are {', '.join(KINDS)}")
    return KINDS[name]


def _config(args: argparse.Namespace, kind: ModelKind[Any]) -> FitConfig:
    """The kind's way of training, changed as the options say."""
    given = {name: getattr(args, name) for name in _CONFIG_OPTIONS}
    config = replace(kind.training, **{k: v for k, v in given.items() if v is not None})
    if config.schedule not in SCHEDULES:
        raise UsageError(
            f"--schedule {config.schedule}: no such schedule; there are {', '.join(SCHEDULES)}"
        )
    return config


def _network(args: argparse.Namespace, kind: ModelKind[Any]) -> Any:
    """The kind's sizes for the data set, changed as the options say."""
    network = sizes(args.dataset or "", kind)
    if args.latent is None:
        return network
    if not hasattr(network, "latent"):
        raise UsageError(f"--latent: a {kind.name} has no latent space")
    return replace(network, latent=args.latent)


def _tell(notes: Sequence[str], console: Console) -> None:
    for note in notes:
        console.warn(note)


def windows_note(kind: ModelKind[Any], network: Any, dataset: str) -> tuple[str, ...]:
    """What stands for hosts where a data set names none."""
    if kind.window(network) == 1:
        return ()
    return (
        f"{dataset} names no hosts: {kind.name} takes consecutive rows for one host's, so what it "
        "learns is the order of the file, and what it scores depends on it",
    )


# Training


@dataclass(frozen=True)
class _Source:
    """Rows to train on, and all that is said of them.

    Attributes:
        schema, names, clock_us: of the rows, the features that may be used, their times.
        early: when flows that went on were reported, too.
        rows: the source.
        place: what to name when something is wrong with them.
        noted: for the bundle's provenance.
        notes: for the console.
    """

    schema: Schema
    names: tuple[str, ...]
    clock_us: int
    early: EarlyReports
    rows: Rows
    place: str
    noted: dict[str, object]
    notes: tuple[str, ...]


def _table_source(args: argparse.Namespace, kind: ModelKind[Any], network: Any) -> _Source:
    """The rows of a part of a data set."""
    data_set = _data_set(args.dataset)
    part = args.part or data_set.parts[0]
    if part not in data_set.parts:
        raise UsageError(f"--part {part}: {args.dataset} has {', '.join(data_set.parts)}")
    table = data_set.load(args.data, part)
    keep = np.ones(len(table.rows), bool) if kind.supervised else ~table.attack
    rng = np.random.default_rng(args.seed)
    rows = as_measured(table.schema, table.rows[keep], args.features, rng)
    notes = (*table.notes, *windows_note(kind, network, args.dataset))
    return _Source(
        schema=table.schema,
        names=chosen_features(table.schema, args.features),
        clock_us=LIVE_CLOCK_US if args.features == "live" else PUBLISHED_CLOCK_US,
        early=NEVER_EARLY,
        rows=TableRows(rows, table.attack[keep]),
        place=str(args.data),
        noted=_noted(table, part, args, notes),
        notes=notes,
    )


def _noted(
    table: Table, part: str, args: argparse.Namespace, notes: tuple[str, ...]
) -> dict[str, object]:
    """Where the rows of a table came from."""
    return {
        "dataset": args.dataset,
        "part": part,
        "files": [asdict(file) for file in table.files],
        "notes": list(notes),
        "command": _command(
            args, f"--dataset {args.dataset} --part {part} --features {args.features} --data DIR"
        ),
    }


def _file_source(args: argparse.Namespace) -> _Source:
    """The rows of feature files, taken as benign; they are read again in each epoch."""
    schema = SCHEMAS[args.schema]
    rows = ParquetRows(args.rows, schema)
    clock = _clock_of(args.clock, rows.measurement)
    given = f"--schema {args.schema} --clock {clock} --rows FILE..."
    return _Source(
        schema=schema,
        names=chosen_features(schema, "live"),
        clock_us=_CLOCKS[clock],
        early=rows.measurement.early if rows.measurement else NEVER_EARLY,
        rows=rows,
        place=", ".join(map(str, args.rows)),
        noted={"files": digests(args.rows), "notes": [], "command": _command(args, given)},
        notes=(),
    )


def digests(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Names and SHA-256 of files."""
    files = []
    for path in paths:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files.append({"name": path.name, "sha256": digest})
    return files


def _clock_of(wanted: str | None, measurement: Measurement | None) -> str:
    """The clock of feature files: as they say themselves, else as the option does.

    Raises:
        UsageError: the two disagree.
    """
    if measurement is None:
        return wanted or "us"
    clock = next((name for name, us in _CLOCKS.items() if us == measurement.clock_us), None)
    if clock is None or (wanted and wanted != clock):
        raise UsageError(
            f"--clock {wanted}: the files of --rows were measured on times of "
            f"{measurement.clock_us} us"
        )
    return clock


def _command(args: argparse.Namespace, rows: str) -> str:
    """The command that makes the bundle again."""
    changed = {name: getattr(args, name) for name in (*_CONFIG_OPTIONS, "latent")}
    options = "".join(
        f"--{name.replace('_', '-')} {value} "
        for name, value in changed.items()
        if value is not None
    )
    return f"flowvane train --model {args.model} {rows} --seed {args.seed} {options}-o BUNDLE"


def versions() -> dict[str, str]:
    """Of all that makes a model what it is."""
    return {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()}


class Bar(Observer):
    """Moves a progress bar, a step an epoch."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self._advance = advance

    def advance(self, epochs: float) -> None:
        """So much further."""
        self._advance(epochs)


@contextmanager
def _event_log(directory: Path | None) -> Iterator[list[Observer]]:
    """Observers that write TensorBoard's event files, if they are wanted."""
    if directory is None:
        yield []
        return
    from training.events import EventLog
    from training.extras import MissingExtraError

    try:
        log = EventLog(directory)
    except MissingExtraError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise OutputError(f"{directory}: {(error.strerror or str(error)).lower()}") from error
    with log:
        yield [log]


def train(args: argparse.Namespace, console: Console) -> ExitCode:
    """Train on rows of a data set or of feature files and write a bundle."""
    if bool(args.rows) == bool(args.dataset) or bool(args.dataset) != bool(args.data):
        raise UsageError("give either --dataset and --data, or --rows")
    kind = kind_named(args.model)
    network = _network(args, kind)
    try:
        source = _file_source(args) if args.rows else _table_source(args, kind, network)
    except (DataSetError, RowsError) as error:
        console.error(str(error))
        return ExitCode.DATASET
    _tell(source.notes, console)
    checkpoint = checkpoint_of(args)
    try:
        detector = _fit(args, console, kind, network, source, checkpoint)
    except (TooFewRows, NotFinite) as error:
        console.error(f"{source.place}: {error}")
        return ExitCode.DATASET
    except RowsError as error:
        console.error(str(error))
        return ExitCode.DATASET
    detector.provenance |= {**source.noted, "versions": versions()}
    write_bundle(detector, args.output, checkpoint)
    losses = detector.provenance["history"]
    best = min(entry["validation"] for entry in losses)
    console.say(
        f"{args.output}: {kind.name}, {len(detector.features)} features, {len(losses)} epochs, "
        f"held-out loss {best:.3f}, calibrated on {detector.calibration.count} benign rows"
    )
    return ExitCode.OK


def checkpoint_of(args: argparse.Namespace) -> Checkpoint:
    """Where a training is kept, beside its bundle."""
    return Checkpoint(args.output.with_name(args.output.name + ".checkpoint"), args.resume)


def write_bundle(detector: Detector, output: Path, checkpoint: Checkpoint) -> None:
    """Write a trained model; its checkpoint is not needed any more.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        save(detector, output)
    except BundleError as error:
        raise OutputError(str(error)) from error
    checkpoint.remove()


@contextmanager
def checkpoint_told(checkpoint: Checkpoint, output: Path, console: Console) -> Iterator[None]:
    """Tell what is wrong with a training's checkpoint, and where an interrupted one goes on.

    Raises:
        ModelError: it cannot be resumed from.
        OutputError: it cannot be written.
    """
    try:
        yield
    except CheckpointError as error:
        raise ModelError(f"--resume: {error}") from error
    except CheckpointNotWritten as error:
        raise OutputError(f"{output}: no checkpoint beside it: {error}") from error
    except KeyboardInterrupt:
        if checkpoint.path.exists():
            console.warn(f"{checkpoint.path}: the training goes on from here with --resume")
        raise


def _fit(
    args: argparse.Namespace, console: Console, kind: ModelKind[Any], network: Any,
    source: _Source, checkpoint: Checkpoint,
) -> Detector:  # fmt: skip
    """Train, with a progress bar, an event log if wanted, and a checkpoint after each epoch."""
    config = _config(args, kind)
    what = f"training on {source.rows.count} rows"
    with (
        checkpoint_told(checkpoint, args.output, console),
        console.progress(what, config.epochs) as advance,
        _event_log(args.events) as observers,
    ):
        return fit(
            source.schema,
            source.names,
            source.rows,
            name=args.output.name,
            seed=args.seed,
            clock_us=source.clock_us,
            early=source.early,
            kind=kind,
            config=config,
            network=network,
            observers=[Bar(advance), *observers],
            checkpoint=checkpoint,
        )


# Sweeping


def _table(title: str, columns: Sequence[str]) -> rich.table.Table:
    table = rich.table.Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name)
    return table


def _cell(values: Sequence[float]) -> str:
    return "{:.4f} ± {:.4f}".format(*mean_sd(list(values)))


def _write(output: Path | None, report: dict[str, object]) -> None:
    """Write a report as JSON, if it is wanted."""
    if output is None:
        return
    try:
        output.write_text(json.dumps(report, indent=1) + "\n")
    except OSError as error:
        raise OutputError(f"{output}: {(error.strerror or str(error)).lower()}") from error


def sweep(args: argparse.Namespace, console: Console) -> ExitCode:
    """Train and test at every point of a grid; print the table, and write JSON if asked to."""
    _data_set(args.dataset)
    kind = kind_named(args.model)
    network = sizes(args.dataset, kind)
    _tell(windows_note(kind, network, args.dataset), console)
    trial = next(trial for trial in TRIALS if trial.dataset == args.dataset)
    try:
        points = grid(kind.training, network, args.learning_rates, args.epoch_counts, args.latents)
    except NoLatent as error:
        raise UsageError(f"--latents: {kind.name}: {error}") from error
    results: list[tuple[Point, list[Result]]] = []
    with console.progress("training", len(points) * args.seeds) as advance:
        try:
            tables = trial.load(args.data)
            for point in points:
                mine = []
                for seed in range(args.seeds):
                    mine.append(run_point(point, trial, tables, args.features, seed, kind, network))
                    advance(1)
                results.append((point, mine))
        except (DataSetError, TooFewRows) as error:
            place = "" if isinstance(error, DataSetError) else f"{args.data}: "
            console.error(f"{place}{error}")
            return ExitCode.DATASET
    _show_sweep(f"{kind.name}, {trial.title}, {args.seeds} seeds", results, console)
    points_report = [
        {"point": asdict(point), "seeds": [asdict(each) for each in mine]}
        for point, mine in results
    ]
    report = {"model": kind.name, "trial": trial.name, "features": args.features}
    _write(args.output, {**report, "points": points_report})
    return ExitCode.OK


def _show_sweep(title: str, results: list[tuple[Point, list[Result]]], console: Console) -> None:
    """The points, the best held-out loss marked; test figures have no say in it."""
    names = ("learning rate", "epochs", "latent", "held-out loss", "best epoch", "AUROC", "AP")
    table = _table(title, names)
    losses = [mean_sd([each.held_out_loss for each in mine])[0] for _, mine in results]
    for (point, mine), loss in zip(results, losses, strict=True):
        table.add_row(
            f"{point.learning_rate:g}",
            str(point.epochs),
            "-" if point.latent is None else str(point.latent),
            _cell([each.held_out_loss for each in mine]) + (" *" if loss == min(losses) else ""),
            f"{np.mean([each.best_epoch for each in mine]):.1f}",
            _cell([each.outcome.auroc for each in mine]),
            _cell([each.outcome.average_precision for each in mine]),
        )
    console.show(table)
    console.say("* lowest held-out loss; AUROC and AP look at test labels and choose nothing")
