"""Tables of an evaluation, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from training.cells import BY_TRIAL, CeilingCell
from training.contenders import CONTENDERS
from training.datasets import DATASETS
from training.summary import Figure, Group, Key

Groups = Mapping[Key, Group]

LABELLED = "†"
"""Marks what looks at labels of test rows."""
THRESHOLDS = {
    "held_out_99": "99 % of held-out benign rows",
    "held_out_95": "95 % of held-out benign rows",
    "held_out_92": "92 % of held-out benign rows",
    "training_99": "99 % of the training rows",
    "natural": "its own (supervised)",
    "oracle_accuracy": f"oracle, accuracy {LABELLED}",
    "oracle_f1": f"oracle, F1 {LABELLED}",
}
FEATURES = {
    "all": "all columns, as published",
    "live": "as a live sensor sees them (no TTL-like columns, times to the millisecond)",
    "header": "28 header features, as published",
}
NOTE = (
    "Mean ± sample standard deviation over seeds. Thresholds come from held-out benign rows; what\n"
    f"is marked {LABELLED} looks at labels of test rows, as AUROC, average precision and recall\n"
    "at a given share of false positives do by nature. *Distinct* counts each test row once,\n"
    "however often it occurs. Supervised models learn from labelled attacks and stand beside,\n"
    "not in competition.\n"
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plain(pair: Figure | None) -> str:
    """Mean ± standard deviation."""
    return "-" if pair is None else f"{pair[0]:.4f} ± {pair[1]:.4f}"


def percent(pair: Figure | None) -> str:
    """The same in per cent."""
    return "-" if pair is None else f"{100 * pair[0]:.2f} ± {100 * pair[1]:.2f} %"


Column = tuple[str, str, Callable[[Figure | None], str]]
"""Heading, path of the figure, how it is written."""

RANKING: tuple[Column, ...] = (
    ("AUROC", "all.auroc", plain),
    ("average precision", "all.average_precision", plain),
    ("recall at 1 % false positives", "all.recall_at_0.01", percent),
    ("at 0.1 %", "all.recall_at_0.001", percent),
    ("AUROC, distinct", "distinct.auroc", plain),
    ("average precision, distinct", "distinct.average_precision", plain),
)


def decision(threshold: str, rows: str = "all") -> tuple[Column, ...]:
    """Columns of what is right at a threshold."""
    path = f"{rows}.thresholds.{threshold}"
    return (
        ("accuracy", f"{path}.accuracy", plain),
        ("precision", f"{path}.precision", plain),
        ("recall", f"{path}.recall", plain),
        ("F1", f"{path}.f1", plain),
        ("realised false positives", f"{path}.fpr", percent),
    )


def _named(model: str) -> str:
    return f"{model} (supervised)" if CONTENDERS[model].supervised else model


def _by_model(groups: Sequence[Group], columns: Sequence[Column]) -> str:
    """A line for each group that has figures."""
    return table(
        ["model", "seeds", *(head for head, _, _ in columns)],
        (
            [_named(group.key.model), str(group.seeds)]
            + [write(group.figures.get(path)) for _, path, write in columns]
            for group in groups
            if group.seeds
        ),
    )


def _thresholds(group: Group) -> str:
    """A line for each threshold of one model, with and without repeated rows."""
    lines = []
    for name, title in THRESHOLDS.items():
        for rows in ("all", "distinct"):
            columns = decision(name, rows)
            if columns[0][1] in group.figures:
                cells = [write(group.figures.get(path)) for _, path, write in columns]
                lines.append([title if rows == "all" else "the same, distinct rows", *cells])
    return table(["threshold", *(head for head, _, _ in decision("held_out_99"))], lines)


def _categories(groups: Sequence[Group]) -> str:
    """Rows of each category, and for each group its recall and AUROC."""
    head, names = ["category", "test rows"], dict[str, str]()
    for group in groups:
        features = group.key.features
        head += [f"recall at 99 %, {features}", f"AUROC, {features}"]
        for path, (mean, _) in group.figures.items():
            if path.startswith("categories.") and path.endswith(".rows"):
                names.setdefault(path.removesuffix(".rows"), f"{mean:,.0f}")
    lines = []
    for path, rows in names.items():
        line = [path.removeprefix("categories."), rows]
        for group in groups:
            line += [percent(group.figures.get(f"{path}.recall"))]
            line += [plain(group.figures.get(f"{path}.auroc"))]
        lines.append(line)
    return table(head, lines)


def _hidden(groups: Groups, trial: str) -> str:
    """AUROC by share of hidden attacks; empty if none were hidden."""
    keys = [key for key in groups if key.trial == trial and groups[key].seeds]
    shares = sorted({key.contamination for key in keys})
    if shares in ([], [0.0]):
        return ""
    lines = []
    for features, model in dict.fromkeys((k.features, k.model) for k in keys if k.contamination):
        line = [f"{model}, {features}"]
        for share in shares:
            group = groups.get(Key(trial, features, model, share))
            line.append(plain(group.figures.get("all.auroc")) if group else "-")
        lines.append(line)
    head = [
        "AUROC of",
        *(f"{100 * share:g} % hidden" if share else "none hidden" for share in shares),
    ]
    return (
        "\nAttacks hidden among the training rows (and taken out of the test rows), where they\n"
        f"pass for benign in training, stopping and calibration:\n\n{table(head, lines)}"
    )


def trial_section(groups: Groups, trial: str, detailed: Sequence[str]) -> str:
    """All tables of a trial; empty if nothing of it was run.

    Args:
        groups: of any trials.
        trial: name of one.
        detailed: models whose every threshold and category is told.
    """
    clean = [g for g in groups.values() if g.key.trial == trial and not g.key.contamination]
    if not any(group.seeds for group in clean):
        return ""
    text = [f"\n### {trial}: {BY_TRIAL[trial].title}\n"]
    for features, title in FEATURES.items():
        here = [group for group in clean if group.key.features == features]
        if not any(group.seeds for group in here):
            continue
        text.append(f"\n**Features: {title}**\n\n{_by_model(here, RANKING)}")
        at_99 = (*decision("held_out_99"), (f"oracle accuracy {LABELLED}",
                 "all.thresholds.oracle_accuracy.accuracy", plain))  # fmt: skip
        text.append(
            f"\nAt the threshold of 99 % of held-out benign rows:\n\n{_by_model(here, at_99)}"
        )
        text += [
            f"\n{group.key.model}, every threshold:\n\n{_thresholds(group)}"
            for group in here
            if group.key.model in detailed and group.seeds
        ]
    for model in detailed:
        mine = [group for group in clean if group.key.model == model and group.seeds]
        if mine:
            text.append(f"\n{model}, by category of attack:\n\n{_categories(mine)}")
    text.append(_hidden(groups, trial))
    return "".join(text)


def dataset_section(groups: Groups, dataset: str, detailed: Sequence[str]) -> str:
    """All tables of a data set; empty if nothing of it was run."""
    sections = [
        trial_section(groups, name, detailed)
        for name, trial in BY_TRIAL.items()
        if trial.dataset == dataset
    ]
    body = "".join(sections)
    return f"\n## {DATASETS[dataset].title}\n{body}" if body else ""


def ceilings_section(tops: Mapping[CeilingCell, Mapping[str, Figure]]) -> str:
    """What supervised models reach within the test rows; empty if none was run."""
    if not tops:
        return ""
    lines = [
        [
            f"{cell.dataset}, {cell.part}", cell.features, cell.model,
            "grouped" if cell.grouped else "not grouped",
            *(plain(figures.get(name)) for name in ("accuracy", "f1", "auroc")),
        ]
        for cell, figures in tops.items()
    ]  # fmt: skip
    head = ["rows", "features", "model", "repeats", "accuracy", "F1", "AUROC"]
    return (
        "\n## Supervised ceilings\n\nCross-validation within the test rows, labels and all: mean\n"
        "± standard deviation over 5 folds. *Grouped*: rows that are equal are in one fold. No\n"
        "detector that learns from benign rows alone competes with these.\n\n"
        f"{table(head, lines)}"
    )
