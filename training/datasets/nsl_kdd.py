"""NSL-KDD: KDD Cup 1999 without its repeated rows.

Source: Tavallaee, Bagheri, Lu and Ghorbani, "A detailed analysis of the KDD CUP 99 data
set", CISDA 2009; the numbers of rows are those of the published files.
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
    OfficialFile,
    find_files,
    not_found,
    read_file,
    read_sheet,
)

HOME = "https://www.unb.ca/cic/datasets/nsl.html"
TRAIN_FILE = "KDDTrain+.txt"
TEST_FILE = "KDDTest+.txt"

TRAIN = Expected(rows=125_973, benign=67_343)
TEST = Expected(rows=22_544, benign=9_711)

_ATTACKS_OF_CLASS = {
    "dos": "back land neptune pod smurf teardrop apache2 mailbomb processtable udpstorm",
    "probe": "ipsweep nmap portsweep satan mscan saint",
    "r2l": (
        "ftp_write guess_passwd imap multihop phf spy warezclient warezmaster named sendmail "
        "snmpgetattack snmpguess worm xlock xsnoop"
    ),
    "u2r": "buffer_overflow loadmodule perl rootkit httptunnel ps sqlattack xterm",
}
ATTACK_CLASS: dict[str, str] = {
    attack: group for group, attacks in _ATTACKS_OF_CLASS.items() for attack in attacks.split()
}
"""KDD's class of each attack: its `training_attack_types` and, for attacks that only the test
data have, the contest's grouping. Some papers move httptunnel to r2l or worm to dos; the
contest's shares of the test data (u2r 0.07 %, r2l 5.20 %) need them where they are here."""

_FEATURES = tuple(Column(feature.name, feature.kind) for feature in SCHEMA.features)
_LABEL = Column("label", Kind.CATEGORICAL)
_DIFFICULTY = Column("difficulty", Kind.COUNT)


class NslKdd:
    """The full training and test files; the category of an attack is its name.

    The numbers of rows are arguments for the sake of small files in tests.
    """

    name = "nsl-kdd"
    title = "NSL-KDD, the full training and test files"
    schema: Schema = SCHEMA
    parts: tuple[str, ...] = ("train", "test")

    def __init__(self, *, train: Expected = TRAIN, test: Expected = TEST) -> None:
        self._expected = {"train": (TRAIN_FILE, train), "test": (TEST_FILE, test)}

    def load(self, directory: Path, part: str) -> Table:
        """Read a part: rows ``[N, 41]``, categories ``normal`` or a key of `ATTACK_CLASS`.

        Raises:
            DataSetError: a file is missing, or is not what it claims to be.
            ValueError: there is no such part.
        """
        if part not in self.parts:
            raise ValueError(f"{self.name} has no part {part!r}, only {', '.join(self.parts)}")
        name, expected = self._expected[part]
        found = find_files(directory, (name,))
        if not found:
            raise not_found(directory, (name,), HOME)
        file = read_file(found[0])
        columns = _columns(file)
        if file.lines != expected.rows:
            official = " and ".join(
                f"{other} has {counts.rows:,}" for other, counts in self._expected.values()
            )
            raise DataSetError(f"{file.path}: {file.lines:,} rows, but {official}; {AGAIN}")
        sheet = read_sheet(file, columns, header=False)
        category = sheet.words("label", str.lower, ("normal", *ATTACK_CLASS))
        attack = category != "normal"
        benign = int(np.count_nonzero(~attack))
        if benign != expected.benign:
            raise DataSetError(
                f"{file.path}: {benign:,} of its {expected.rows:,} rows are normal, officially "
                f"{expected.benign:,} are; {AGAIN}"
            )
        rows, notes = sheet.encode(self.schema)
        return Table(self.schema, rows, attack, category, (file.source(len(rows)),), notes)


def _columns(file: OfficialFile) -> tuple[Column, ...]:
    """The columns, of which the last may be absent: some copies leave out the difficulty."""
    columns = (*_FEATURES, _LABEL, _DIFFICULTY)
    found = len(file.first_line())
    if found not in (len(columns), len(columns) - 1):
        raise DataSetError(
            f"{file.path}: {found} columns in the first row, not the official {len(columns)} (or "
            f"{len(columns) - 1}, without the difficulty); {AGAIN}"
        )
    return columns[:found]
