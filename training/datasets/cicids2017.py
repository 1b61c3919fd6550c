"""CICIDS2017: the makers' CSV files of flows, in both of their spellings, and samples of them.

Source: Sharafaldin, Lashkari and Ghorbani, "Toward generating a new intrusion detection
dataset and intrusion traffic characterization", ICISSP 2018. The numbers of rows are those of
the published files; those of the eight add up to the 2,830,743 rows and 2,273,097 benign rows
that the literature gives for the whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.cic import SCHEMA, port_codes
from features.schema import FloatArray, Kind, Schema
from training.datasets.base import DataSetError, SourceFile, Table
from training.datasets.files import (
    AGAIN,
    Column,
    Expected,
    OfficialFile,
    Sheet,
    find_files,
    not_found,
    read_file,
    read_sheet,
)

HOME = "https://www.unb.ca/cic/datasets/ids-2017.html"

FILES: dict[str, Expected] = {
    "Monday-WorkingHours.pcap_ISCX.csv": Expected(529_918, 529_918),
    "Tuesday-WorkingHours.pcap_ISCX.csv": Expected(445_909, 432_074),
    "Wednesday-workingHours.pcap_ISCX.csv": Expected(692_703, 440_031),
    "Thursday-WorkingHours-Morning-WebAttacks.pcap_ISCX.csv": Expected(170_366, 168_186),
    "Thursday-WorkingHours-Afternoon-Infilteration.pcap_ISCX.csv": Expected(288_602, 288_566),
    "Friday-WorkingHours-Morning.pcap_ISCX.csv": Expected(191_033, 189_067),
    "Friday-WorkingHours-Afternoon-PortScan.pcap_ISCX.csv": Expected(286_467, 127_537),
    "Friday-WorkingHours-Afternoon-DDos.pcap_ISCX.csv": Expected(225_745, 97_718),
}
"""The eight official files, spelt as they are, and their rows."""
SAMPLE_FILE = "cicids2017.sample29k.csv"
SAMPLE = Expected(29_181, 24_630)
THURSDAY_WEB_FILE = "Thursday-WebAttacks.84columns.csv"
THURSDAY_WEB = Expected(7_246, 5_087)

ATTACKS: tuple[str, ...] = (
    "bot", "ddos", "dos goldeneye", "dos hulk", "dos slowhttptest", "dos slowloris",
    "ftp-patator", "heartbleed", "infiltration", "portscan", "ssh-patator",
    "web attack - brute force", "web attack - sql injection", "web attack - xss",
)  # fmt: skip

LABEL = "Label"
RATES = ("Flow Bytes/s", "Flow Packets/s")
"""What the tool divides by a duration of 0."""

_AGAIN_COLUMN = "Fwd Header Length.1"
_EXTRA = {
    "flow id": Kind.CATEGORICAL, "source ip": Kind.CATEGORICAL, "source port": Kind.COUNT,
    "destination ip": Kind.CATEGORICAL, "protocol": Kind.COUNT, "timestamp": Kind.CATEGORICAL,
    "source": Kind.CATEGORICAL, "dup_of_earlier": Kind.BINARY,
}  # fmt: skip
"""Columns beside the schema's: those of TrafficLabelling, and two of the sample."""
_DASH = re.compile(r"^web attack\W+", re.IGNORECASE)


@dataclass(frozen=True)
class _Read:
    """The rows of one file that are rows at all, and what was noticed."""

    rows: FloatArray
    category: NDArray[np.str_]
    duplicate: NDArray[np.bool_]
    source: SourceFile
    notes: tuple[str, ...]


class CicIds2017:
    """A part is a day, ``all`` eight files, or one of the samples.

    ``sample`` is the project's sample of 29,181 rows, ``sample-distinct`` the same without the
    rows that repeat an earlier one, ``thursday-web`` the 7,246 rows with addresses and ports.
    Files of either spelling serve: MachineLearningCVE's 79 columns or TrafficLabelling's 85.

    Rows are as published (what is wrong with them: :mod:`features.cic`), but for two things,
    which are noted. A rate that is infinite or missing, which is that of a flow of no duration,
    becomes 0, as the tool itself has it in ``Fwd Packets/s``. Lines of nothing but commas, of
    which TrafficLabelling's Thursday morning has 288,602, are dropped. Anything else that is
    not finite is an error. ``all`` takes 1.8 GB of memory, and as much again while loading.
    The numbers of rows are arguments for the sake of small files in tests.
    """

    name = "cicids2017"
    title = "CICIDS2017, flows of five days by CICFlowMeter"
    schema: Schema = SCHEMA
    parts: tuple[str, ...] = (
        "monday", "tuesday", "wednesday", "thursday", "friday", "all", "sample",
        "sample-distinct", "thursday-web",
    )  # fmt: skip

    def __init__(
        self,
        *,
        files: Mapping[str, Expected] = FILES,
        sample: Expected = SAMPLE,
        thursday_web: Expected = THURSDAY_WEB,
    ) -> None:
        self._files = dict(files)
        self._samples = {
            "sample": {SAMPLE_FILE: sample},
            "sample-distinct": {SAMPLE_FILE: sample},
            "thursday-web": {THURSDAY_WEB_FILE: thursday_web},
        }

    def load(self, directory: Path, part: str) -> Table:
        """Read a part: rows ``[N, 78]``, categories ``normal`` or one of `ATTACKS`.

        Raises:
            DataSetError: a file is missing, or is not what it claims to be.
            ValueError: there is no such part.
        """
        if part not in self.parts:
            raise ValueError(f"{self.name} has no part {part!r}, only {', '.join(self.parts)}")
        wanted = self._samples.get(part) or {
            name: expected
            for name, expected in self._files.items()
            if part == "all" or name.lower().startswith(part)
        }
        reads = [_read(directory, name, expected) for name, expected in wanted.items()]
        notes = [note for read in reads for note in read.notes]
        rows = np.concatenate([read.rows for read in reads])
        category = np.concatenate([read.category for read in reads])
        if part == "sample-distinct":
            keep = ~np.concatenate([read.duplicate for read in reads])
            notes.append(f"{len(rows) - int(keep.sum()):,} rows that repeat an earlier one dropped")
            rows, category = rows[keep], category[keep]
        files = tuple(read.source for read in reads)
        return Table(SCHEMA, rows, category != "normal", category, files, tuple(notes))


def _read(directory: Path, name: str, expected: Expected) -> _Read:
    found = find_files(directory, (name,))
    if not found:
        raise not_found(directory, (name,), HOME)
    # The label of the web attacks has an en dash, in Windows' code page.
    file = read_file(found[0], encoding="cp1252")
    sheet = read_sheet(file, _columns(file), header=True)
    real, notes = _real(sheet)
    if len(real) != expected.rows:
        raise DataSetError(
            f"{file.path}: {len(real):,} rows, officially {expected.rows:,}; {AGAIN}"
        )
    category = sheet.words(LABEL, category_of, ("", "normal", *ATTACKS))[real]
    if (category == "").any():
        row = int(real[int((category == "").argmax())])
        raise sheet.error(row, LABEL, "is no category of this data set")
    benign = int(np.count_nonzero(category == "normal"))
    if benign != expected.benign:
        raise DataSetError(
            f"{file.path}: {benign:,} of its {expected.rows:,} rows are benign, officially "
            f"{expected.benign:,} are; {AGAIN}"
        )
    rows, mended = _rows(sheet, real)
    duplicate = sheet.numbers.get("dup_of_earlier")
    return _Read(
        rows,
        category,
        np.zeros(len(rows), np.bool_) if duplicate is None else duplicate[real] == 1,
        file.source(len(rows)),
        (*notes, *mended),
    )


def _real(sheet: Sheet) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Numbers of the rows that are more than commas, and a note if there are others."""
    codes, terms = sheet.terms[LABEL]
    empty = np.array([not term for term in terms])[codes]
    for values in sheet.numbers.values():
        empty &= np.isnan(values)
    count = int(np.count_nonzero(empty))
    note = f"{sheet.file.path.name}: {count:,} lines of nothing but commas dropped"
    return np.flatnonzero(~empty), (note,) if count else ()


def _rows(sheet: Sheet, real: NDArray[np.intp]) -> tuple[FloatArray, tuple[str, ...]]:
    """Rows ``[N, 78]`` of the rows that are `real`, and what was mended in them."""
    name = sheet.file.path.name
    rows = np.empty((len(real), len(SCHEMA.features)))
    notes = []
    mended: Counter[str] = Counter()
    negative: list[str] = []
    for column, feature in enumerate(SCHEMA.features):
        known = feature.name in sheet.numbers
        values = sheet.numbers[feature.name if known else "Fwd Header Length"][real]
        odd = ~np.isfinite(values)
        if feature.name in RATES:
            odd &= sheet.numbers["Flow Duration"][real] == 0
            mended["missing"] += int(np.isnan(values[odd]).sum())
            mended["infinite"] += int(np.isinf(values[odd]).sum())
            values = np.where(odd, 0.0, values)
            odd = ~np.isfinite(values)
        if odd.any():
            row = int(real[int(odd.argmax())])
            raise sheet.error(row, feature.name, "is not a finite number")
        if feature.kind is Kind.CATEGORICAL:
            wrong = (values < 0) | (values > 65535) | (values != np.floor(values))
            if wrong.any():
                row = int(real[int(wrong.argmax())])
                raise sheet.error(row, feature.name, "is no port")
            values = port_codes(values)
        # -1 says that there was no window, so it is no error.
        below = int(np.count_nonzero(values < (-1 if "Init_Win" in feature.name else 0)))
        if below:
            negative.append(f"{feature.name} ({below:,})")
        rows[:, column] = values
    if mended.total():
        notes.append(
            f"{name}: {mended['infinite']:,} infinite and {mended['missing']:,} missing rates, of "
            "flows of no duration, became 0"
        )
    if negative:
        notes.append(f"{name}: negative values kept as published: {', '.join(negative)}")
    if _AGAIN_COLUMN not in sheet.numbers:
        notes.append(f"{name}: without the second Fwd Header Length, so the first serves for both")
    return rows, tuple(notes)


def _columns(file: OfficialFile) -> list[Column]:
    """The file's columns in its own order, by a header that may be padded or in capitals."""
    known = {name.lower(): name for name in (*SCHEMA.names, LABEL)}
    found: list[str] = []
    for text in file.first_line():
        name = " ".join(text.split()).lower()
        again = name == "fwd header length" and name in found
        found.append(_AGAIN_COLUMN.lower() if again else name)
    optional = {*_EXTRA, _AGAIN_COLUMN.lower()}
    _check_header(file, found, known, optional)
    return [_column(name, known) for name in found]


def _column(name: str, known: Mapping[str, str]) -> Column:
    kind = Kind.CATEGORICAL if name == LABEL.lower() else _EXTRA.get(name, Kind.CONTINUOUS)
    category = kind is Kind.CATEGORICAL
    return Column(known.get(name, name), kind, optional=category, loose=not category)


def _check_header(
    file: OfficialFile, found: Sequence[str], known: Mapping[str, str], optional: set[str]
) -> None:
    problems = {
        "missing": [name for low, name in known.items() if low not in {*found, *optional}],
        "extra": [name for name in found if name not in {*known, *optional}],
        "twice": [name for name, count in Counter(found).items() if count > 1],
    }
    if not any(problems.values()):
        return
    told = "; ".join(
        f"{what}: {', '.join(repr(name[:30]) for name in names[:5])}"
        + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        for what, names in problems.items()
        if names
    )
    raise DataSetError(
        f"{file.path}: {len(found)} columns, neither the 79 of MachineLearningCVE nor the 85 of "
        f"TrafficLabelling; {told}; {AGAIN}"
    )


def category_of(text: str) -> str:
    """One spelling for each label: a web attack's dash comes as one of many, or mangled."""
    label = " ".join(text.lower().split())
    if label == "benign":
        return "normal"
    # Whatever became of the dash is outside ASCII, and all of the labels are within.
    return _DASH.sub("web attack - ", label.encode("ascii", "ignore").decode())
