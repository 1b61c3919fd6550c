"""`flowvane explore`; imported by that command only."""

from __future__ import annotations

import argparse
from pathlib import Path

from sensor.errors import ExitCode, OutputError, UsageError
from sensor.report import Console
from training.datasets import DATASETS
from training.datasets.base import DataSet, DataSetError, Table
from training.explorepage import SECTIONS, render
from training.extras import MissingExtraError, need


def explore(args: argparse.Namespace, console: Console) -> ExitCode:
    """Write a page about a part of a data set."""
    data_set = named_data_set(args)
    try:
        part, table = load_part(data_set, args, console)
    except DataSetError as error:
        console.error(str(error))
        return ExitCode.DATASET
    with console.progress(f"exploring {len(table.rows)} rows", SECTIONS) as advance:
        page = render(data_set, part, table, args.seed, advance)
    write_page(page, args.output)
    console.say(
        f"{args.output}: {data_set.name}, part {part}, {len(table.rows)} rows, "
        f"{len(page) / 1e6:.1f} MB"
    )
    return ExitCode.OK


def named_data_set(args: argparse.Namespace) -> DataSet:
    """The data set that a command which draws pictures was told.

    Raises:
        UsageError: there is no such data set or part, or no matplotlib: before minutes of work.
    """
    if args.dataset not in DATASETS:
        raise UsageError(
            f"--dataset {args.dataset}: no such data set; there are {', '.join(DATASETS)}"
        )
    data_set = DATASETS[args.dataset]
    if args.part and args.part not in data_set.parts:
        raise UsageError(f"--part {args.part}: {args.dataset} has {', '.join(data_set.parts)}")
    try:
        need("matplotlib", what="pictures")
    except MissingExtraError as error:
        raise UsageError(str(error)) from error
    return data_set


def write_page(page: str, path: Path) -> None:
    """Write a page, and the folder that it is to be in.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, "utf-8")
    except OSError as error:
        raise OutputError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def load_part(data_set: DataSet, args: argparse.Namespace, console: Console) -> tuple[str, Table]:
    """The part that was asked for; else the first one that can be read.

    Raises:
        DataSetError: that part cannot be read, or none can; it is about the first then.
    """
    if args.part:
        return args.part, data_set.load(args.data, args.part)
    problems: list[DataSetError] = []
    for part in data_set.parts:
        try:
            table = data_set.load(args.data, part)
        except DataSetError as error:
            problems.append(error)
            continue
        if problems:
            console.warn(f"part {data_set.parts[0]} is left out: {problems[0]}")
        return part, table
    raise problems[0]
