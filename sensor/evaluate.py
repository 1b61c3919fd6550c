"""`flowvane evaluate`; imported by that command only."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.table

from models.kinds import KINDS
from sensor.caches import keep_compiled
from sensor.errors import ExitCode, OutputError, UsageError
from sensor.report import Console
from sensor.train import windows_note
from training.cells import BY_TRIAL, HEADLINE, Cell, Record, TrialCell
from training.contenders import CONTENDERS
from training.datasets import DATASETS
from training.datasets.base import DataSetError
from training.evaluate import TARGET_FPR
from training.evaluation import News, run
from training.evaluationpictures import Shown, draw, links
from training.evaluationreport import NOTE, ceilings_section, dataset_section
from training.extras import MissingExtraError, need
from training.metrics import mean_sd
from training.plan import cells, whole
from training.recipes import sizes
from training.records import RecordError, Records
from training.summary import as_json, ceilings, groups
from training.trials import TRIALS, feature_sets

Results = list[tuple[Cell, Record]]

_AT = ("thresholds", HEADLINE)
_COLUMNS: dict[str, tuple[str, ...]] = {
    "auroc": ("all", "auroc"),
    "average_precision": ("all", "average_precision"),
    "realised_fpr": ("all", *_AT, "fpr"),
    "recall": ("all", *_AT, "recall"),
    "auroc_distinct": ("distinct", "auroc"),
}
"""Figures of the printed table, and where a record has them."""


class _LeftOutError(Exception):
    """Rows are not enough for a trial that an evaluation cannot do without."""


def evaluate(args: argparse.Namespace, console: Console) -> ExitCode:
    """Train and test over seeds; print a table, and write the rest if asked to."""
    wanted = _wanted(args)
    folder = args.output if args.output and args.output.suffix != ".json" else None
    if folder is not None:
        _tell_pictures(console)
    keep_compiled()
    records = Records(folder / "records") if folder else None
    try:
        results = _results(args, wanted, records, console)
    except (DataSetError, _LeftOutError) as error:
        console.error(str(error))
        return ExitCode.DATASET
    except RecordError as error:
        raise OutputError(str(error)) from error
    console.show(_printed(args, results))
    try:
        if folder is not None:
            _write_folder(args, folder, results, Records(folder / "records"), console)
        elif args.output is not None:
            args.output.write_text(json.dumps(_report(args, results), indent=1) + "\n")
    except OSError as error:
        raise OutputError(f"{args.output}: {(error.strerror or str(error)).lower()}") from error
    return ExitCode.OK


def _wanted(args: argparse.Namespace) -> Sequence[Cell]:
    """The cells that were asked for.

    Raises:
        UsageError: there is no such data set, model, or set of features.
    """
    if args.dataset not in DATASETS:
        raise UsageError(
            f"--dataset {args.dataset}: no such data set; there are {', '.join(DATASETS)}"
        )
    if args.model not in CONTENDERS:
        raise UsageError(
            f"--model {args.model}: no such kind of model; there are {', '.join(CONTENDERS)}"
        )
    known = feature_sets(DATASETS[args.dataset].schema)
    for features in args.features:
        if features not in known:
            raise UsageError(f"--features {features}: {args.dataset} has {', '.join(known)}")
    if args.all:
        return whole(args.seeds, args.dataset)
    usual = [trial for trial in TRIALS if trial.dataset == args.dataset and not trial.special]
    shares = [0.0, *args.contaminated]
    return list(cells(usual, args.features, [args.model], shares, args.seeds))


def _tell_pictures(console: Console) -> None:
    """Say now, not after hours, that there will be no pictures."""
    try:
        need("matplotlib", what="pictures")
    except MissingExtraError as error:
        console.warn(f"there will be no pictures: {error}")


def _results(
    args: argparse.Namespace, wanted: Sequence[Cell], records: Records | None, console: Console
) -> Results:
    """Run all cells; warn once of each that cannot be run."""
    for model in dict.fromkeys(getattr(cell, "model", "") for cell in wanted):
        if model in KINDS:
            for note in windows_note(KINDS[model], sizes(args.dataset, KINDS[model]), args.dataset):
                console.warn(note)
    results: Results = []
    told: set[str] = set()
    with console.progress("training", len(wanted)) as advance:
        for news in run(wanted, args.data, records):
            advance(1)
            reason = news.note or (news.record or {}).get("left_out", "")
            if reason:
                _leave_out(args, news, reason, told, console)
            elif news.record is not None:
                results.append((news.cell, news.record))
    return results


def _leave_out(
    args: argparse.Namespace, news: News, reason: str, told: set[str], console: Console
) -> None:
    """Warn that a trial is left out, once.

    Raises:
        _LeftOutError: too few rows are no good reason for it.
    """
    place = "" if news.note else f"{args.data}: "
    too_few = (news.record or {}).get("because") == "TooFewRows"
    name = news.cell.source
    if too_few and not args.all and not BY_TRIAL[name].optional:
        raise _LeftOutError(f"{place}{reason}")
    of_model = f" with {getattr(news.cell, 'model', '')}" if args.all and not news.note else ""
    message = f"{name} is left out{of_model}: {place}{reason}"
    if message not in told:
        told.add(message)
        console.warn(message)


def _figure(record: Record, path: tuple[str, ...]) -> float | None:
    """A number of a record; None if it has none there (too few rows for the threshold)."""
    value: Any = record
    for name in path:
        value = value.get(name)
        if value is None:
            return None
    return float(value)


def _by_group(results: Results) -> dict[tuple[str, str, str, float], list[Record]]:
    """Records of each trial, features, model and contamination."""
    found: dict[tuple[str, str, str, float], list[Record]] = {}
    for cell, record in results:
        if isinstance(cell, TrialCell):
            key = (cell.trial, cell.features, cell.model, cell.contamination)
            found.setdefault(key, []).append(record)
    return found


def _columns(records: Sequence[Record]) -> dict[str, list[float]]:
    """The printed figures of each seed."""
    seeds = {name: [_figure(record, path) for record in records] for name, path in _COLUMNS.items()}
    return {name: [value for value in found if value is not None] for name, found in seeds.items()}


def _printed(args: argparse.Namespace, results: Results) -> rich.table.Table:
    """The table on standard output."""
    what = "all models" if args.all else f"{args.model} on {args.dataset}"
    features = "all" if args.all else " and ".join(args.features)
    title = f"{what}, {features} features, {args.seeds} seeds"
    table = rich.table.Table(title=title, title_justify="left")
    for name in ("trial", *(name.replace("_", " ") for name in _COLUMNS)):
        table.add_column(name)
    for (trial, features, model, share), records in _by_group(results).items():
        name = BY_TRIAL[trial].title
        if args.all or len(args.features) > 1:
            name += f"; {features}"
        name += f"; {model}" if args.all else ""
        name += f"; {100 * share:g} % hidden" if share else ""
        cells_ = [
            "{:.4f} ± {:.4f}".format(*mean_sd(v)) if v else "-" for v in _columns(records).values()
        ]
        table.add_row(name, *cells_)
    return table


def _report(args: argparse.Namespace, results: Results) -> dict[str, Any]:
    """The report as JSON values.

    A trial's own entry has the printed figures of each seed, of the first set of features
    without hidden attacks; ``groups`` has everything.
    """
    report: dict[str, Any] = {
        "target_fpr": TARGET_FPR, "features": args.features[0], "model": args.model,
    }  # fmt: skip
    for (trial, features, model, share), records in _by_group(results).items():
        if (features, model, share) == (args.features[0], args.model, 0.0):
            report[trial] = {"title": BY_TRIAL[trial].title, "seeds": _columns(records)}
    return report | as_json(groups(results), ceilings(results))


def _write_folder(
    args: argparse.Namespace, folder: Path, results: Results, records: Records, console: Console
) -> None:
    """``evaluation.json``, ``evaluation.md`` and ``pictures/*.png``."""
    detailed = [args.model]
    shown = []
    for cell, record in results:
        if isinstance(cell, TrialCell) and cell.seed == 0 and not cell.contamination:
            drawn = records.drawn(cell)
            if drawn is not None:
                shown.append(Shown(cell, record, drawn))
    try:
        pictured = links(draw(shown, detailed, folder / "pictures"), "pictures")
    except MissingExtraError as error:
        console.warn(f"no pictures: {error}")
        pictured = ""
    found = groups(results)
    page = (
        f"# Evaluation on {args.dataset}\n\n{NOTE}\n"
        + dataset_section(found, args.dataset, detailed)
        + ceilings_section(ceilings(results))
        + pictured
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.md").write_text(page, "utf-8")
    report = json.dumps(_report(args, results), indent=1)
    (folder / "evaluation.json").write_text(report + "\n", "utf-8")
