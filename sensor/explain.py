"""`flowvane explain`; imported by that command only."""

from __future__ import annotations

import argparse

from models.detector import Detector
from sensor.errors import ExitCode, UsageError
from sensor.explore import load_part, named_data_set, write_page
from sensor.report import Console
from training.datasets.base import DataSetError
from training.explainpage import NothingToExplainError, choose, render


def explain(args: argparse.Namespace, detector: Detector, console: Console) -> ExitCode:
    """Write a page about a detector's alerts on a part of a data set."""
    data_set = named_data_set(args)
    if data_set.schema.digest != detector.schema.digest:
        raise UsageError(
            f"--model {args.model}: made for the schema {detector.schema.name}, but "
            f"{data_set.name} has {data_set.schema.name}"
        )
    try:
        part, table = load_part(data_set, args, console)
    except DataSetError as error:
        console.error(str(error))
        return ExitCode.DATASET
    try:
        rows, background = choose(detector, table, args.fpr, args.rows, args.seed)
    except NothingToExplainError as error:
        console.error(f"{args.data}: {error}")
        return ExitCode.DATASET
    what = f"{data_set.name}, {part}, at a false-positive rate of {args.fpr:g}"
    total = sum(map(len, rows.values()))
    with console.progress(f"explaining {total} rows", len(rows)) as advance:
        page, found = render(
            detector, rows, background, what=what, walks=args.walks, seed=args.seed, tell=advance
        )
    write_page(page, args.output)
    for name, comparison in found.items():
        for (one, other), figures in comparison.agreement.items():
            console.say(
                f"alerts of {name}: {one} and {other}: {figures.flows} flows, Spearman "
                f"{figures.spearman:.3f}, Kendall {figures.kendall:.3f}, top five "
                f"{figures.top:.3f}"
            )
        falls = ", ".join(f"{fall:.3f} by {way}" for way, fall in comparison.falls.items())
        console.say(f"alerts of {name}: score that goes with five features: {falls}")
        mean, largest = comparison.gap
        console.say(
            f"alerts of {name}: completeness error, relative to the score: {mean:.1e} on average, "
            f"{largest:.1e} at most"
        )
    return ExitCode.OK
