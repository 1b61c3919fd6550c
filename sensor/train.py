"""`flowvane train` and `flowvane evaluate`; imported by those commands only."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import rich.table

from models.bundle import save
from models.kinds import KINDS
from models.kinds.base import ModelKind
from models.manifest import BundleError
from sensor.errors import ExitCode, OutputError, UsageError
from sensor.report import Console
from training.datasets import DATASETS
from training.datasets.base import DataSet, DataSetError, Table
from training.evaluate import (
    LIVE_CLOCK_US,
    PUBLISHED_CLOCK_US,
    TARGET_FPR,
    TRIALS,
    Outcome,
    as_measured,
    chosen_features,
    mean_sd,
    run_seed,
)
from training.fit import TooFewRows, fit
from training.loop import Observer
from training.recipes import sizes
from training.rows import TableRows

_PACKAGES = ("flowvane", "jax", "flax", "optax", "numpy")


def _data_set(name: str) -> DataSet:
    if name not in DATASETS:
        raise UsageError(f"--dataset {name}: no such data set; there are {', '.join(DATASETS)}")
    return DATASETS[name]


def _kind(name: str) -> ModelKind[Any]:
    if name not in KINDS:
        raise UsageError(f"--model {name}: no such kind of model; there are {', '.join(KINDS)}")
    return KINDS[name]


def _tell(notes: tuple[str, ...], console: Console) -> None:
    for note in notes:
        console.warn(note)


def _tell_of_windows(kind: ModelKind[Any], dataset: str, console: Console) -> None:
    """Say what stands for hosts where a data set names none."""
    if kind.window(sizes(dataset, kind)) > 1:
        console.warn(
            f"{dataset} names no hosts: {kind.name} takes consecutive rows for one host's, so "
            "what it learns is the order of the file, and what it scores depends on it"
        )


class _Bar(Observer):
    """Moves a progress bar."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self._advance = advance

    def advance(self, epochs: float) -> None:
        """So much further."""
        self._advance(epochs)


def train(args: argparse.Namespace, console: Console) -> ExitCode:
    """Train on the rows of a part of a data set and write a bundle."""
    data_set, kind = _data_set(args.dataset), _kind(args.model)
    part = args.part or data_set.parts[0]
    if part not in data_set.parts:
        raise UsageError(f"--part {part}: {args.dataset} has {', '.join(data_set.parts)}")
    try:
        table = data_set.load(args.data, part)
    except DataSetError as error:
        console.error(str(error))
        return ExitCode.DATASET
    _tell(table.notes, console)
    _tell_of_windows(kind, args.dataset, console)
    config = kind.training if args.epochs is None else replace(kind.training, epochs=args.epochs)
    keep = np.ones(len(table.rows), bool) if kind.supervised else ~table.attack
    rng = np.random.default_rng(args.seed)
    rows = as_measured(table.schema, table.rows[keep], args.features, rng)
    with console.progress(f"training on {len(rows)} rows", config.epochs) as advance:
        try:
            detector = fit(
                table.schema,
                chosen_features(table.schema, args.features),
                TableRows(rows, table.attack[keep]),
                name=args.output.name,
                seed=args.seed,
                clock_us=LIVE_CLOCK_US if args.features == "live" else PUBLISHED_CLOCK_US,
                kind=kind,
                config=config,
                network=sizes(args.dataset, kind),
                observers=[_Bar(advance)],
            )
        except TooFewRows as error:
            console.error(f"{args.data}: {error}")
            return ExitCode.DATASET
    detector.provenance |= _provenance(table, part, args)
    try:
        save(detector, args.output)
    except BundleError as error:
        raise OutputError(str(error)) from error
    losses = detector.provenance["history"]
    best = min(entry["validation"] for entry in losses)
    console.say(
        f"{args.output}: {kind.name}, {len(detector.features)} features, {len(losses)} epochs, "
        f"held-out loss {best:.3f}, calibrated on {detector.calibration.count} benign rows"
    )
    return ExitCode.OK


def _provenance(table: Table, part: str, args: argparse.Namespace) -> dict[str, object]:
    """What is needed to make the bundle again, beside what `fit` notes."""
    epochs = "" if args.epochs is None else f"--epochs {args.epochs} "
    return {
        "dataset": args.dataset,
        "part": part,
        "files": [asdict(file) for file in table.files],
        "notes": list(table.notes),
        "command": f"flowvane train --model {args.model} --dataset {args.dataset} --part {part} "
        f"--features {args.features} --seed {args.seed} {epochs}--data DIR -o BUNDLE",
        "versions": {name: version(name) for name in _PACKAGES}
        | {"python": platform.python_version()},
    }


def evaluate(args: argparse.Namespace, console: Console) -> ExitCode:
    """Train and test over seeds; print the table, and write JSON if asked to."""
    _data_set(args.dataset)
    kind = _kind(args.model)
    _tell_of_windows(kind, args.dataset, console)
    trials = [trial for trial in TRIALS if trial.dataset == args.dataset]
    table = rich.table.Table(title=f"{kind.name} on {args.dataset}, {args.features} features, "
                             f"{args.seeds} seeds", title_justify="left")  # fmt: skip
    for name in ("trial", *(field.name.replace("_", " ") for field in fields(Outcome))):
        table.add_column(name)
    report: dict[str, object] = {
        "target_fpr": TARGET_FPR, "features": args.features, "model": kind.name,
    }  # fmt: skip
    with console.progress("training", len(trials) * args.seeds) as advance:
        for trial in trials:
            try:
                tables = trial.load(args.data)
            except DataSetError as error:
                if trial.optional:
                    console.warn(f"{trial.name} is left out: {error}")
                    continue
                console.error(str(error))
                return ExitCode.DATASET
            outcomes = []
            for seed in range(args.seeds):
                try:
                    outcomes.append(run_seed(trial, tables, args.features, seed, kind))
                except TooFewRows as error:
                    console.error(f"{args.data}: {error}")
                    return ExitCode.DATASET
                advance(1)
            columns = {
                field.name: [getattr(outcome, field.name) for outcome in outcomes]
                for field in fields(Outcome)
            }
            report[trial.name] = {"title": trial.title, "seeds": columns}
            cells = [f"{mean:.4f} ± {sd:.4f}" for mean, sd in map(mean_sd, columns.values())]
            table.add_row(trial.title, *cells)
    console.show(table)
    if args.output:
        try:
            args.output.write_text(json.dumps(report, indent=1) + "\n")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"{args.output}: {reason}") from error
    return ExitCode.OK
