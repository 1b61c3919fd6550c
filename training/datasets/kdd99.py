"""KDD Cup 1999: the ten-per-cent file, the whole of the training data, the corrected test data.

Source: Hettich and Bay, "KDD Cup 1999 Data", The UCI KDD Archive, 1999; the numbers of rows
are those of the published files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from features.kdd import SCHEMA
from features.schema import Kind, Schema
from training.datasets.base import DataSetError, Table
from training.datasets.files import (
    AGAIN,
    Column,
    Expected,
    find_files,
    not_found,
    read_file,
    read_sheet,
)
from training.datasets.nsl_kdd import ATTACK_CLASS

HOME = "https://kdd.ics.uci.edu/databases/kddcup99/kddcup99.html"
TRAIN_FILES = ("kddcup.data_10_percent", "kddcup.data_10_percent_corrected")
TEST_FILES = ("corrected",)
FULL_FILES = ("kddcup.data", "kddcup.data.corrected")
"""The training files circulate under two names each."""

TRAIN = Expected(rows=494_021, benign=97_278)
TEST = Expected(rows=311_029, benign=60_593)
FULL = Expected(rows=4_898_431, benign=972_781)

_COLUMNS = (
    *(Column(feature.name, feature.kind) for feature in SCHEMA.features),
    Column("label", Kind.CATEGORICAL),
)


class Kdd99:
    """Parts: ``train`` is the ten-per-cent file, ``test`` the corrected one, ``full`` the whole.

    The category of an attack is its name, without the dot that ends a label. Most rows repeat
    another one: smurf and neptune alone are 79 % of ``train``. The numbers of rows are
    arguments for the sake of small files in tests.
    """

    name = "kdd99"
    title = "KDD Cup 1999, ten per cent of the training data and the corrected test data"
    schema: Schema = SCHEMA
    parts: tuple[str, ...] = ("train", "test", "full")

    def __init__(
        self, *, train: Expected = TRAIN, test: Expected = TEST, full: Expected = FULL
    ) -> None:
        self._expected = {
            "train": (TRAIN_FILES, train),
            "test": (TEST_FILES, test),
            "full": (FULL_FILES, full),
        }

    def load(self, directory: Path, part: str) -> Table:
        """Read a part: rows ``[N, 41]``, categories ``normal`` or a key of `ATTACK_CLASS`.

        Raises:
            DataSetError: a file is missing, or is not what it claims to be.
            ValueError: there is no such part.
        """
        if part not in self.parts:
            raise ValueError(f"{self.name} has no part {part!r}, only {', '.join(self.parts)}")
        names, expected = self._expected[part]
        found = find_files(directory, names)
        if not found:
            raise not_found(directory, names, HOME)
        file = read_file(found[0])
        width = len(file.first_line())
        if width != len(_COLUMNS):
            raise DataSetError(
                f"{file.path}: {width} columns in the first row, not the official "
                f"{len(_COLUMNS)}; {AGAIN}"
            )
        if file.lines != expected.rows:
            official = " and ".join(
                f"{files[0]} has {counts.rows:,}" for files, counts in self._expected.values()
            )
            raise DataSetError(f"{file.path}: {file.lines:,} rows, but {official}; {AGAIN}")
        sheet = read_sheet(file, _COLUMNS, header=False)
        category = sheet.words("label", _label, ("normal", *ATTACK_CLASS))
        attack = category != "normal"
        benign = int(np.count_nonzero(~attack))
        if benign != expected.benign:
            raise DataSetError(
                f"{file.path}: {benign:,} of its {expected.rows:,} rows are normal, officially "
                f"{expected.benign:,} are; {AGAIN}"
            )
        rows, notes = sheet.encode(self.schema)
        return Table(self.schema, rows, attack, category, (file.source(len(rows)),), notes)


def _label(text: str) -> str:
    return text.lower().removesuffix(".")
