"""Official files: found by name, opened whatever their compression, and read cell by cell.

What every loader shares is here, so that a loader says only what its files are called, which
columns they have and how many rows. Every failure is a `DataSetError` of one line.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.schema import FloatArray, Kind, Schema
from training.datasets.base import DataSetError, SourceFile

AGAIN = "get the official file again"
"""What to do about a file that is not the official one."""

_WHERE = "give the directory that holds the data-set files"
_SUFFIXES = ("", ".gz", ".xz")
_DECOMPRESSORS: tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", "gzip", gzip.decompress),
    (b"\xfd7zXZ\x00", "xz", lzma.decompress),
)
_BOM = b"\xef\xbb\xbf"
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)

_MISSING = ["", "NaN", "nan"]
_LOOSE = re.compile(r"\s*([+-]?(inf|infinity)|nan)?\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Expected:
    """How many rows an official file has, and how many of them are benign."""

    rows: int
    benign: int


@dataclass(frozen=True)
class Column:
    """One column of a file: `kind` says which cells are valid.

    `optional`: an empty category cell is valid, too. `loose`: any number is, negative,
    infinite or missing ones, too; the loader says what becomes of them.
    """

    name: str
    kind: Kind
    optional: bool = False
    loose: bool = False


def find_files(directory: Path, names: Sequence[str]) -> list[Path]:
    """Files called one of `names`, as they are or with ``.gz`` or ``.xz`` appended.

    Looks in `directory`, then in its subdirectories, one level down and in order of name.
    Files of the first name come first.

    Raises:
        DataSetError: there is no such directory, or it cannot be listed.
    """
    try:
        below = sorted(place for place in directory.iterdir() if os.path.isdir(place))
    except FileNotFoundError as error:
        raise DataSetError(f"{directory}: no such directory; {_WHERE}") from error
    except NotADirectoryError as error:
        raise DataSetError(f"{directory}: is a file, not a directory; {_WHERE}") from error
    except OSError as error:
        raise DataSetError(f"{directory}: cannot be listed: {error.strerror}; {_WHERE}") from error
    return [
        path
        for name in names
        for place in (directory, *below)
        for path in (place / f"{name}{suffix}" for suffix in _SUFFIXES)
        # Not Path.is_file, which fails in a foreign subdirectory that may not be entered.
        if os.path.isfile(path)
    ]


def not_found(directory: Path, names: Sequence[str], home: str, hint: str = "") -> DataSetError:
    """The error for `names` that `find_files` did not find; `home` is where to get them."""
    for name in names:
        for suffix in _SUFFIXES:
            path = directory / f"{name}{suffix}"
            if os.path.isdir(path):
                return DataSetError(f"{path}: is a directory, not a file; move it away; {AGAIN}")
    looked = " or ".join(names)
    return DataSetError(
        f"{directory}: no file {looked} (or with .gz or .xz appended) there or one directory "
        f"below{hint}; get it from {home}"
    )


@dataclass(frozen=True)
class OfficialFile:
    """A file's content, unpacked and without a byte-order mark; surely UTF-8 and not empty."""

    path: Path
    sha256: str
    """Of the file as it is on disk."""
    data: bytes

    @cached_property
    def lines(self) -> int:
        """How many lines are not blank."""
        return sum(1 for line in self.data.splitlines() if line.strip())

    def cells(self) -> Iterator[tuple[int, list[str]]]:
        """Number, from 1, and cells of each line that is not blank.

        Raises:
            DataSetError: a quotation mark is never closed.
        """
        reader = csv.reader(io.StringIO(self.data.decode(), newline=""))
        try:
            for cells in reader:
                if len(cells) > 1 or (cells and cells[0].strip()):
                    yield reader.line_num, cells
        except csv.Error as error:
            raise DataSetError(f"{self.path}: line {reader.line_num}: {error}; {AGAIN}") from error

    def first_line(self) -> list[str]:
        """Cells of the first line that is not blank."""
        return next(self.cells(), (0, list[str]()))[1]

    def source(self, rows: int) -> SourceFile:
        """The record of having read `rows` rows from it."""
        return SourceFile(self.path.name, self.sha256, rows)


def read_file(path: Path, *, encoding: str = "utf-8") -> OfficialFile:
    """Read a file that is plain, gzip or xz, which its first bytes tell, not its name.

    What is not UTF-8 is taken to be in `encoding`, if another one is given.

    Raises:
        DataSetError: it cannot be read, is empty, is cut or damaged, or is not UTF-8 text.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataSetError(f"{path}: cannot be read: {error.strerror}") from error
    data = raw
    for magic, format_name, decompress in _DECOMPRESSORS:
        if raw.startswith(magic):
            try:
                data = decompress(raw)
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                raise DataSetError(
                    f"{path}: cut or damaged, {format_name} cannot unpack it: {error}; {AGAIN}"
                ) from error
    data = data.removeprefix(_BOM)
    if not data.strip():
        raise DataSetError(f"{path}: the file is empty; {AGAIN}")
    try:
        data = _as_utf8(data, encoding)
    except UnicodeDecodeError as error:
        raise DataSetError(
            f"{path}: neither UTF-8 text nor gzip nor xz: byte {error.start} is "
            f"0x{data[error.start]:02x}; unpack or convert it, or {AGAIN}"
        ) from error
    # A download that was torn and resumed leaves blocks of zeros, which are valid UTF-8.
    if (hole := data.find(0)) >= 0:
        raise DataSetError(f"{path}: damaged: byte {hole} is zero; {AGAIN}")
    return OfficialFile(path, hashlib.sha256(raw).hexdigest(), data)


def _as_utf8(data: bytes, encoding: str) -> bytes:
    try:
        data.decode()
    except UnicodeDecodeError:
        if encoding == "utf-8":
            raise
        return data.decode(encoding).encode()
    return data


@dataclass(frozen=True)
class Sheet:
    """The checked cells of a file of ``N`` rows.

    Attributes:
        numbers: a ``[N]`` array for each column of numbers.
        terms: for each category column, ``[N]`` codes and the stripped terms they stand for.
    """

    file: OfficialFile
    columns: tuple[Column, ...]
    header: bool
    numbers: dict[str, FloatArray]
    terms: dict[str, tuple[NDArray[np.intp], tuple[str, ...]]]

    def words(
        self, name: str, clean: Callable[[str], str], allowed: Collection[str]
    ) -> NDArray[np.str_]:
        """Cells of a category column as `clean` makes them, ``[N]``.

        Raises:
            DataSetError: one of them is then not in `allowed`.
        """
        codes, terms = self.terms[name]
        words = [clean(term) for term in terms]
        unknown = np.array([word not in allowed for word in words])[codes]
        if unknown.any():
            raise self.error(int(unknown.argmax()), name, "is no category of this data set")
        return np.array(words, dtype=np.str_)[codes]

    def error(self, row: int, name: str, reason: str) -> DataSetError:
        """The error for the cell in column `name` of a row, counted from 0."""
        return _cell_error(self.file, self.columns, self.header, row, name, reason)

    def encode(self, schema: Schema) -> tuple[FloatArray, tuple[str, ...]]:
        """Rows ``[N, F]`` in the schema's columns, and a note for each with unknown terms."""
        rows = np.empty((self.file.lines - self.header, len(schema.features)))
        notes = []
        for column, feature in enumerate(schema.features):
            if feature.kind is not Kind.CATEGORICAL:
                rows[:, column] = self.numbers[feature.name]
                continue
            code_of = {term: code for code, term in enumerate(feature.vocabulary)}
            codes, terms = self.terms[feature.name]
            rows[:, column] = np.array([code_of.get(term, -1) for term in terms])[codes]
            unknown = list(dict.fromkeys(term for term in terms if term not in code_of))
            if unknown:
                count = np.count_nonzero(rows[:, column] < 0)
                shown = ", ".join(_quote(term) for term in unknown[:3])
                notes.append(
                    f"{self.file.path.name}: column {feature.name}: {count:,} rows have a term "
                    f"outside the vocabulary: {shown}{' and others' if len(unknown) > 3 else ''}"
                )
        return rows, tuple(notes)


def read_sheet(file: OfficialFile, columns: Sequence[Column], *, header: bool) -> Sheet:
    """Read all rows; `columns` are the file's, in its order.

    Raises:
        DataSetError: a row has too few or too many columns, or a cell is not valid: a number
            that is none, infinite, negative or not of its kind, or a category left empty.
    """
    columns = tuple(columns)
    types = {
        number: "str" if column.kind is Kind.CATEGORICAL else "float64"
        for number, column in enumerate(columns)
    }
    body = file.data.lstrip()
    if header:
        body = body.partition(b"\n" if b"\n" in body else b"\r")[2]
    missing: dict[Any, list[str]] = {
        number: _MISSING for number, column in enumerate(columns) if column.loose
    }
    try:
        frame = pd.read_csv(
            io.BytesIO(body), header=None, dtype=types, na_filter=bool(missing),
            na_values=missing or None, keep_default_na=False, low_memory=False,
        )  # fmt: skip
    except ValueError as error:  # pandas's own errors are ValueErrors
        raise _unreadable(file, columns, header, str(error)) from error
    if frame.shape != (file.lines - header, len(columns)):
        raise _unreadable(file, columns, header, f"read as {frame.shape} rows and columns")
    numbers: dict[str, FloatArray] = {}
    terms: dict[str, tuple[NDArray[np.intp], tuple[str, ...]]] = {}
    for number, column in enumerate(columns):
        if column.kind is Kind.CATEGORICAL:
            codes, distinct = pd.factorize(frame[number])
            stripped = tuple(str(term).strip() for term in distinct)
            if "" in stripped and not column.optional:
                row = int(np.argmax(np.array([not term for term in stripped])[codes]))
                raise _cell_error(file, columns, header, row, column.name, "is no term")
            terms[column.name] = codes, stripped
        else:
            values: FloatArray = frame[number].to_numpy()
            for wrong, reason in () if column.loose else _faults(column.kind, values):
                if wrong.any():
                    row = int(wrong.argmax())
                    raise _cell_error(file, columns, header, row, column.name, reason)
            numbers[column.name] = values
    return Sheet(file, columns, header, numbers, terms)


def _faults(kind: Kind, values: FloatArray) -> Iterator[tuple[NDArray[np.bool_], str]]:
    """Which of `values` ``[N]`` break each rule of their kind, with the rule's complaint."""
    yield ~np.isfinite(values), "is not a finite number"
    yield values < 0, "is negative"
    if kind in (Kind.COUNT, Kind.BINARY):
        yield values != np.floor(values), "is not a whole number"
    if kind in (Kind.RATE, Kind.BINARY):
        yield values > 1, "is above 1"


def _cell_error(
    file: OfficialFile,
    columns: Sequence[Column],
    header: bool,
    row: int,
    name: str,
    reason: str,
) -> DataSetError:
    line, cells = next(islice(file.cells(), row + header, None))
    if len(cells) != len(columns):
        return _width_error(file, line, len(cells), len(columns))
    text = cells[[column.name for column in columns].index(name)]
    return DataSetError(
        f"{file.path}: line {line}: column {name}: {_quote(text)} {reason}; {AGAIN}"
    )


def _width_error(file: OfficialFile, line: int, found: int, expected: int) -> DataSetError:
    what = "the row is cut" if found < expected else "the row is too long"
    return DataSetError(f"{file.path}: line {line}: {found} of {expected} columns, {what}; {AGAIN}")


def _unreadable(
    file: OfficialFile, columns: Sequence[Column], header: bool, cause: str
) -> DataSetError:
    """Look for the place, slowly: pandas does not tell the column, nor always the line."""
    for line, cells in islice(file.cells(), int(header), None):
        if len(cells) != len(columns):
            return _width_error(file, line, len(cells), len(columns))
        for column, text in zip(columns, cells, strict=True):
            if column.loose and _LOOSE.fullmatch(text):
                continue
            if column.kind is not Kind.CATEGORICAL and not _NUMBER.fullmatch(text):
                return DataSetError(
                    f"{file.path}: line {line}: column {column.name}: {_quote(text)} is not a "
                    f"finite number; {AGAIN}"
                )
    return DataSetError(f"{file.path}: not readable as a table: {' '.join(cause.split())}; {AGAIN}")


def _quote(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
