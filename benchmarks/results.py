"""Evaluates everything and writes ``docs/evaluation.md`` and ``docs/evaluation.json``.

``python -m benchmarks.results DATA [-k FOLDER] [-o DOCS] [--minutes N]``. Records of trainings are
kept in FOLDER, so an interrupted run goes on, and repeats nothing whose code and sizes are the
same. What matters most comes first; ``--minutes`` stops in good time, and the page says what is
missing. Pictures lie beside the records.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.claims import AIMS, CLAIMS, NOT_CHECKED, Aim, Asked
from models.kinds import KINDS
from sensor.caches import keep_compiled
from training.cells import BY_TRIAL, CeilingCell, Cell, Record, TrialCell
from training.contenders import CONTENDERS
from training.datasets import DATASETS
from training.datasets.base import DataSetError
from training.evaluation import News, run
from training.evaluationpictures import Shown, draw
from training.evaluationreport import (
    LABELLED,
    NOTE,
    Groups,
    ceilings_section,
    dataset_section,
    percent,
    plain,
    table,
)
from training.plan import SEEDS, whole
from training.recipes import shipped_kind
from training.records import RecordError, Records
from training.summary import Figure, Key, as_json, ceilings, groups

ROOT = Path(__file__).resolve().parents[1]
Tops = Mapping[CeilingCell, Mapping[str, Figure]]
Results = Sequence[tuple[Cell, Record]]

HEAD = f"""# Evaluation

Written by `make results` (`python -m benchmarks.results`); do not edit. All figures are in
[evaluation.json](evaluation.json); what they mean is in [results.md](results.md).

{NOTE}
Baselines whose time or memory grows with the square of the rows learn from a seeded sample: the
SVMs from 10,000 rows, nearest neighbours from 150,000. The host-wise convolutional VAE takes
consecutive rows of a file for one host's and cannot be compared with the others. UNSW-NB15's
training rows are a rebuilt copy whose times are rounded otherwise than the testing set's: of all
columns as published a detector may learn the rounding, the live ones have both to the millisecond.
"""


def _written(groups_: Groups, asked: Asked) -> str:
    """A figure with its label."""
    group = groups_.get(asked.key)
    pair = group.figures.get(asked.figure) if group else None
    write = percent if asked.figure.endswith(".fpr") else plain
    return f"{asked.label}: {write(pair)}"


def claims_section(found: Groups) -> str:
    """Each project's figure beside ours."""
    lines = [
        [
            claim.who,
            claim.claims,
            "<br>".join(_written(found, asked) for asked in claim.own) or "-",
            "<br>".join(_written(found, asked) for asked in claim.honest) or "-",
            claim.published,
        ]
        for claim in CLAIMS
    ]
    head = ["project", "its figure", "ours, its protocol", "ours, no test label", "published"]
    return (
        "\n## What other projects claim\n\nFive published projects, their figures, and ours under "
        "their protocols and under one that\nan examiner would accept (thresholds from held-out "
        f"benign rows).\n\n{table(head, lines)}\n{NOT_CHECKED}\n"
    )


def _takes(found: Groups, trial: str, features: str, model: str) -> list[str] | None:
    """A line on what accuracy one model has at which threshold."""
    group = found.get(Key(trial, features, model))
    if group is None or not group.seeds:
        return None
    at = [f"all.thresholds.{name}" for name in ("held_out_99", "held_out_95", "oracle_accuracy")]
    cells = [plain(group.figures.get(f"{path}.accuracy")) for path in at]
    return [f"{model}, {trial}, {features}", *cells, percent(group.figures.get(f"{at[-1]}.fpr"))]


def takes_section(found: Groups, tops: Tops) -> str:
    """What an accuracy of 0.9723 on UNSW-NB15 takes."""
    one_class = [name for name, contender in CONTENDERS.items() if not contender.supervised]
    places = [("unsw-nb15", "all"), ("unsw-nb15-halves", "all")]
    lines = [_takes(found, *place, model) for place in places for model in one_class]
    head = ["one-class", "accuracy at 99 %", "at 95 %", f"oracle {LABELLED}",
            f"false positives there {LABELLED}"]  # fmt: skip
    supervised = [
        [f"{cell.model}, repeats {'grouped' if cell.grouped else 'not grouped'}, {cell.features}",
         plain(figures["accuracy"])]
        for cell, figures in tops.items()
        if cell.dataset == "unsw-nb15"
    ]  # fmt: skip
    return (
        "\n## What an accuracy of 0.9723 on UNSW-NB15 takes\n\nThe project drew its threshold "
        "between the plotted losses of normal and anomalous rows. An oracle\nthreshold, the best "
        "for the labels of these very rows, gives one-class scores:\n\n"
        f"{table(head, [line for line in lines if line])}\n"
        "and learning from the labels, under cross-validation within the same rows:\n\n"
        f"{table(['supervised', 'accuracy'], supervised)}"
    )


def _verdict(aim: Aim, mean: float | None) -> tuple[str, str]:
    """What was aimed at, and whether it was reached."""
    if aim.least is None and aim.most is None:
        return "as it is", "-"
    wanted = f"≥ {aim.least:g}" if aim.least is not None else f"≤ {aim.most:g}"
    if mean is None:
        return wanted, "not measured"
    short = aim.least - mean if aim.least is not None else mean - (aim.most or 0.0)
    return wanted, "yes" if short <= 0 else f"no, short by {short:.4f}"


def aims_section(found: Groups) -> str:
    """What was aimed at, and what was reached."""
    lines = []
    for aim in AIMS:
        group = found.get(aim.asked.key)
        pair = group.figures.get(aim.asked.figure) if group else None
        wanted, reached = _verdict(aim, pair[0] if pair else None)
        lines.append([aim.where, aim.asked.label, wanted, plain(pair), reached])
    head = ["data, protocol", "figure", "aim", "measured", "reached"]
    return (
        "\n## Aims\n\nOf the kind that ships for the data set (`training/recipes.py`), but where "
        "supervised; as they "
        f"were set before this evaluation was run.\n\n{table(head, lines)}"
    )


def missing_section(wanted: Sequence[Cell], results: Results, notes: Sequence[str]) -> str:
    """What was not run or has no figures, and why."""
    lines = [f"- {note}\n" for note in dict.fromkeys(notes)]
    for cell, record in results:
        if "left_out" in record:
            model = getattr(cell, "model", "")
            lines.append(f"- {cell.source} with {model}: {record['left_out']}\n")
    there = {cell.path for cell, _ in results}
    lacking = [cell for cell in wanted if cell.path not in there]
    text = f"\n## Left out\n\n{len(there):,} of {len(wanted):,} trainings and tests are in it.\n"
    if lacking:
        models = ", ".join(sorted({str(getattr(cell, "model", "")) for cell in lacking}))
        text += f"The others, of {models}, were not run or lack their files.\n"
    return text + "\n" + "".join(dict.fromkeys(lines))


def page(wanted: Sequence[Cell], results: Results, notes: Sequence[str]) -> str:
    """The whole of ``docs/evaluation.md``."""
    found, tops = groups(results), ceilings(results)
    return (
        HEAD
        + claims_section(found)
        + takes_section(found, tops)
        + aims_section(found)
        + "".join(dataset_section(found, name, [shipped_kind(name)]) for name in DATASETS)
        + ceilings_section(tops)
        + missing_section(wanted, results, notes)
    )


def report(results: Results) -> str:
    """``docs/evaluation.json``: a line for each group; categories of the shipped kind alone."""
    whole_report: dict[str, Any] = as_json(groups(results), ceilings(results))
    for group in whole_report["groups"]:
        group["figures"] = {
            path: pair
            for path, pair in group["figures"].items()
            if not path.startswith("categories.")
            or group["model"] == shipped_kind(BY_TRIAL[group["trial"]].dataset)
        }
    parts = []
    for name, entries in whole_report.items():
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _tell(news: News) -> None:
    """A line about a cell that was just run."""
    if not news.fresh:
        return
    record = news.record or {}
    said = news.note or record.get("left_out")
    if said is None:
        auroc = record["all"]["auroc"] if "all" in record else record["folds"][0]["auroc"]
        said = f"AUROC {auroc:.4f}, {sum(record['seconds'].values()):.0f} s"
    left = "" if news.left_s is None else f"; about {news.left_s / 3600:.1f} h left"
    print(f"[{news.done}/{news.total}] {news.cell.path}: {said}{left}", flush=True)


def _pictures(results: Results, records: Records) -> None:
    """Pictures of first seeds, beside the records."""
    shown = [
        Shown(cell, record, drawn)
        for cell, record in results
        if isinstance(cell, TrialCell) and cell.seed == 0 and not cell.contamination
        for drawn in [records.drawn(cell)]
        if drawn is not None and "left_out" not in record
    ]
    draw(shown, list(KINDS), records.folder / "pictures")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is to be run, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-k", "--keep", type=Path, default=ROOT / "build" / "results")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--dataset", choices=tuple(DATASETS))
    parser.add_argument("--minutes", type=float, help="begin no training after them")
    args = parser.parse_args(arguments)
    keep_compiled()
    records, wanted = Records(args.keep), whole(args.seeds, args.dataset)
    results: list[tuple[Cell, Record]] = []
    notes: list[str] = []
    try:
        for news in run(wanted, args.data, records, minutes=args.minutes):
            _tell(news)
            if news.record is not None:
                results.append((news.cell, news.record))
            elif news.note:
                notes.append(f"{news.cell.source}: {news.note.removeprefix(f'{args.data}: ')}")
    except (DataSetError, RecordError) as error:
        print(f"benchmarks.results: {error}", file=sys.stderr)
        return 1
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "evaluation.md").write_text(page(wanted, results, notes), "utf-8")
    (args.output / "evaluation.json").write_text(report(results), "utf-8")
    _pictures(results, records)
    return 0


if __name__ == "__main__":
    sys.exit(main())
