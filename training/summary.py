"""Records of equal cells put together: mean and standard deviation over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from training.cells import CeilingCell, Cell, Record, TrialCell
from training.metrics import mean_sd

Figure = tuple[float, float]
"""Mean and sample standard deviation."""


@dataclass(frozen=True, order=True)
class Key:
    """All of a cell but its seed."""

    trial: str
    features: str
    model: str
    contamination: float = 0.0


@dataclass(frozen=True)
class Group:
    """What the seeds of a key came to.

    Attributes:
        key: of which cells.
        seeds: how many have figures.
        figures: by path, e.g. ``all.thresholds.held_out_99.recall``.
        auroc: of each seed.
        left_out: why there are none, if there are none.
    """

    key: Key
    seeds: int
    figures: Mapping[str, Figure]
    auroc: tuple[float, ...]
    left_out: str = ""


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Numbers in nested mappings, by their path."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}" if path else name)
    else:
        yield path, float(value)


def flat(record: Record) -> dict[str, float]:
    """A record's figures by path; a category's name may have dots in it, and is last but one."""
    parts = {name: record[name] for name in ("all", "distinct", "categories")}
    return dict(_flat(parts))


def _over(figures: Iterable[Mapping[str, float]]) -> dict[str, Figure]:
    """Mean and deviation of every path; seeds that lack one (a rare category) do not count."""
    values: dict[str, list[float]] = {}
    for each in figures:
        for path, value in each.items():
            values.setdefault(path, []).append(value)
    return {path: mean_sd(found) for path, found in values.items()}


def groups(results: Iterable[tuple[Cell, Record]]) -> dict[Key, Group]:
    """Groups of test cells, in the order in which they first came."""
    found: dict[Key, list[Record]] = {}
    for cell, record in results:
        if isinstance(cell, TrialCell):
            key = Key(cell.trial, cell.features, cell.model, cell.contamination)
            found.setdefault(key, []).append(record)
    return {key: _group(key, records) for key, records in found.items()}


def _group(key: Key, records: list[Record]) -> Group:
    full = [record for record in records if "left_out" not in record]
    return Group(
        key=key,
        seeds=len(full),
        figures=_over(flat(record) for record in full),
        auroc=tuple(record["all"]["auroc"] for record in full),
        left_out="" if full else str(records[0]["left_out"]),
    )


def ceilings(results: Iterable[tuple[Cell, Record]]) -> dict[CeilingCell, dict[str, Figure]]:
    """Mean and deviation over the folds of each ceiling."""
    return {
        cell: _over(record["folds"])
        for cell, record in results
        if isinstance(cell, CeilingCell) and "folds" in record
    }


def as_json(
    found: Mapping[Key, Group], tops: Mapping[CeilingCell, dict[str, Figure]]
) -> dict[str, Any]:
    """Everything, as JSON values: figures are pairs of mean and standard deviation."""
    return {
        "groups": [
            {
                **vars(group.key),
                "seeds": group.seeds,
                "auroc_of_each_seed": [round(value, 5) for value in group.auroc],
                **({"left_out": group.left_out} if group.left_out else {}),
                "figures": {path: _rounded(pair) for path, pair in group.figures.items()},
            }
            for group in found.values()
        ],
        "ceilings": [
            {**vars(cell), "figures": {path: _rounded(pair) for path, pair in figures.items()}}
            for cell, figures in tops.items()
        ],
    }


def _rounded(pair: Figure) -> list[float]:
    return [float(f"{value:.5g}") for value in pair]
