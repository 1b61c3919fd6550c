"""Runs the cells of an evaluation one after the other, and says how long it will take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from time import monotonic

from training.cells import BY_TRIAL, Cell, Record, TrialCell, left_out
from training.datasets.base import DataSetError, Table
from training.records import Records


@dataclass(frozen=True)
class News:
    """What became of a cell.

    Attributes:
        cell, record: which, and what it came to; None where its data are not there.
        fresh: it was run just now.
        done, total: cells so far, and in all.
        left_s: an estimate of the seconds until all are done, None if nobody knows yet.
        note: why there is no record.
    """

    cell: Cell
    record: Record | None
    fresh: bool
    done: int
    total: int
    left_s: float | None
    note: str = ""


class _Clock:
    """Guesses how long cells take by others of the same model, else by all."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    @staticmethod
    def _sort(cell: Cell) -> str:
        return str(getattr(cell, "model", ""))

    def add(self, cell: Cell, seconds: float) -> None:
        self._seconds[self._sort(cell)].append(seconds)

    def left(self, cells: Sequence[Cell]) -> float | None:
        if not self._seconds:
            return None
        known = {sort: fmean(seconds) for sort, seconds in self._seconds.items()}
        usual = fmean(known.values())
        return sum(known.get(self._sort(cell), usual) for cell in cells)


def _optional(cell: Cell) -> bool:
    return isinstance(cell, TrialCell) and BY_TRIAL[cell.trial].optional


def run(
    cells: Sequence[Cell],
    data: Path,
    records: Records | None = None,
    *,
    minutes: float | None = None,
) -> Iterator[News]:
    """Run cells, or find their records.

    Args:
        cells: in this order.
        data: the directory of the data sets.
        records: where they are kept, if they are.
        minutes: no new cell is begun after them; records that are there are still found.

    Raises:
        DataSetError: files are missing or wrong, unless a trial is optional.
        RecordError: a record cannot be read or written.
    """
    found = {cell: records.find(cell) if records else None for cell in cells}
    clock, begun = _Clock(), monotonic()
    for cell, record in found.items():
        if record is not None and "seconds" in record:
            clock.add(cell, sum(record["seconds"].values()))
    waiting = [cell for cell, record in found.items() if record is None]
    tables: dict[str, tuple[Table, ...] | DataSetError] = {}
    for done, cell in enumerate(cells, start=1):
        record, note = found[cell], ""
        fresh = record is None
        if fresh:
            if minutes is not None and monotonic() - begun >= 60 * minutes:
                continue
            start = monotonic()
            record, note = _run(cell, data, records, tables)
            waiting.remove(cell)
            if record is not None:
                clock.add(cell, monotonic() - start)
        yield News(cell, record, fresh, done, len(cells), clock.left(waiting), note)


def _run(
    cell: Cell,
    data: Path,
    records: Records | None,
    tables: dict[str, tuple[Table, ...] | DataSetError],
) -> tuple[Record | None, str]:
    """A cell's record, or why there is none."""
    if cell.source not in tables:
        try:
            tables[cell.source] = cell.load(data)
        except DataSetError as error:
            tables[cell.source] = error
    loaded = tables[cell.source]
    if isinstance(loaded, DataSetError):
        if _optional(cell):
            return None, str(loaded)
        raise loaded
    record, drawn = left_out(cell, loaded)
    if records is not None:
        record = records.keep(cell, record, drawn)
    return record, ""
