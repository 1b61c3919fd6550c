"""UNSW-NB15's published training and testing sets.

Source: Moustafa and Slay, "UNSW-NB15: a comprehensive data set for network intrusion
detection systems", MilCIS 2015; the makers' page gives the number of rows of both files.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from features.schema import Kind, Schema
from features.unsw_nb15 import SCHEMA
from training.datasets.base import DataSetError, Table
from training.datasets.files import (
    AGAIN,
    Column,
    Expected,
    OfficialFile,
    find_files,
    not_found,
    read_file,
    read_sheet,
)

HOME = "https://research.unsw.edu.au/projects/unsw-nb15-dataset"
TRAIN_FILE = "UNSW_NB15_training-set.csv"
TEST_FILE = "UNSW_NB15_testing-set.csv"
REBUILT_FILE = "UNSW_NB15_training-set.normal+backdoor.reconstructed.csv"

TRAIN = Expected(rows=175_341, benign=56_000)
TEST = Expected(rows=82_332, benign=37_000)
REBUILT = Expected(rows=57_746, benign=56_000)

ATTACKS: tuple[str, ...] = (
    "analysis", "backdoor", "dos", "exploits", "fuzzers", "generic", "reconnaissance", "shellcode",
    "worms",
)  # fmt: skip

_COLUMNS = (
    Column("id", Kind.COUNT),
    *(Column(feature.name, feature.kind) for feature in SCHEMA.features),
    Column("attack_cat", Kind.CATEGORICAL, optional=True),
    Column("label", Kind.BINARY),
)


class UnswNb15:
    """The two published files, and the benign half of the training set as a part of its own.

    Parts: ``train`` and ``test`` are the files; ``train-normal`` is ``train`` without its
    attacks, which is the same 56,000 rows from the official and from the rebuilt file.

    Copies circulate with the two file names swapped, so a file is known by its number of
    rows. Where there is no training set, its rebuilt rows (normal and backdoor) stand in.
    The numbers of rows are arguments for the sake of small files in tests.
    """

    name = "unsw-nb15"
    title = "UNSW-NB15, the published training and testing sets"
    schema: Schema = SCHEMA
    parts: tuple[str, ...] = ("train", "test", "train-normal")

    def __init__(
        self, *, train: Expected = TRAIN, test: Expected = TEST, rebuilt: Expected = REBUILT
    ) -> None:
        self._train, self._test, self._rebuilt = train, test, rebuilt

    def load(self, directory: Path, part: str) -> Table:
        """Read a part: rows ``[N, 42]``, categories ``normal`` or one of `ATTACKS`.

        Raises:
            DataSetError: a file is missing, or is not what it claims to be.
            ValueError: there is no such part.
        """
        if part not in self.parts:
            raise ValueError(f"{self.name} has no part {part!r}, only {', '.join(self.parts)}")
        file, columns, expected, note = self._open(directory, testing=part == "test")
        sheet = read_sheet(file, columns, header=True)
        category = sheet.words("attack_cat", _category, ("normal", *ATTACKS))
        attack = sheet.numbers["label"] == 1
        wrong = attack != (category != "normal")
        if wrong.any():
            row = int(wrong.argmax())
            raise sheet.error(row, "label", f"disagrees with attack_cat {str(category[row])!r}")
        benign = int(np.count_nonzero(~attack))
        if benign != expected.benign:
            raise DataSetError(
                f"{file.path}: {benign:,} of its {expected.rows:,} rows are benign, officially "
                f"{expected.benign:,} are; {AGAIN}"
            )
        rows, notes = sheet.encode(self.schema)
        source = file.source(len(rows))
        if part == "train-normal":
            rows, attack, category = rows[~attack], attack[~attack], category[~attack]
        return Table(self.schema, rows, attack, category, (source,), note + notes)

    def _open(
        self, directory: Path, *, testing: bool
    ) -> tuple[OfficialFile, list[Column], Expected, tuple[str, ...]]:
        """The file of the wanted set, its columns, its counts, and a note where due."""
        wanted, twin = (self._test, self._train) if testing else (self._train, self._test)
        names = (TEST_FILE, TRAIN_FILE) if testing else (TRAIN_FILE, TEST_FILE)
        set_name, twin_name = ("testing", "training") if testing else ("training", "testing")
        hint = ""
        for path in find_files(directory, names):
            file = read_file(path)
            columns = _columns(file)
            rows = file.lines - 1
            if rows == wanted.rows:
                if path.name.startswith(names[0]):
                    return file, columns, wanted, ()
                note = (
                    f"{path.name} has the {rows:,} rows of the {set_name} set and is read as such: "
                    "copies circulate with swapped names"
                )
                return file, columns, wanted, (note,)
            if rows != twin.rows:
                raise DataSetError(
                    f"{path}: {rows:,} rows, but the training set has {self._train.rows:,} and the "
                    f"testing set {self._test.rows:,}; {AGAIN}"
                )
            hint = f" ({path} has the {rows:,} rows of the {twin_name} set)"
        if testing:
            raise not_found(directory, names[:1], HOME, hint)
        for path in find_files(directory, (REBUILT_FILE,)):
            file = read_file(path)
            columns = _columns(file)
            rows = file.lines - 1
            if rows != self._rebuilt.rows:
                raise DataSetError(
                    f"{path}: {rows:,} rows, but the rebuilt training set has "
                    f"{self._rebuilt.rows:,}; get it again, or {TRAIN_FILE} from {HOME}"
                )
            note = (
                f"{path.name} stands in for the training set: its normal and backdoor rows, "
                "rebuilt from a scaled copy, so times, bytes and rates are slightly rounded"
            )
            return file, columns, self._rebuilt, (note,)
        raise not_found(directory, (TRAIN_FILE, REBUILT_FILE), HOME, hint)


def _columns(file: OfficialFile) -> list[Column]:
    """The file's columns in its own order, by a header that may be padded or in capitals."""
    header = [name.strip().lower() for name in file.first_line()]
    known = {column.name: column for column in _COLUMNS}
    problems = {
        "missing": [name for name in known if name not in header],
        "extra": [name for name in header if name not in known],
        "twice": [name for name, count in Counter(header).items() if count > 1 and name in known],
    }
    if any(problems.values()):
        found = "; ".join(
            f"{what}: {', '.join(repr(name[:30]) for name in names[:5])}"
            + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            for what, names in problems.items()
            if names
        )
        raise DataSetError(
            f"{file.path}: {len(header)} columns, not the official {len(_COLUMNS)}; "
            f"{found}; {AGAIN}"
        )
    return [known[name] for name in header]


def _category(text: str) -> str:
    """One spelling for each category; some copies leave it out for normal rows."""
    term = text.lower()
    return {"": "normal", "nan": "normal", "backdoors": "backdoor"}.get(term, term)
