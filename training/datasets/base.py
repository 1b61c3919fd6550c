"""What a data set is to the rest of the program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.schema import FloatArray, Schema


class DataSetError(Exception):
    """A file is not what it claims to be; the message names the file, the place and the cause."""


@dataclass(frozen=True)
class SourceFile:
    """One file that rows were read from: what is needed to find the very same file again."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class Table:
    """Labelled rows in a schema's columns.

    Attributes:
        schema: whose columns `rows` has.
        rows: ``[N, F]`` float64; categories as vocabulary codes, -1 for a term outside.
        attack: ``[N]`` bool.
        category: ``[N]`` the data set's own attack category, ``"normal"`` for benign rows.
        files: where the rows came from.
        notes: one line for each thing that was found odd and mended, e.g. unknown terms.
    """

    schema: Schema
    rows: FloatArray
    attack: NDArray[np.bool_]
    category: NDArray[np.str_]
    files: tuple[SourceFile, ...]
    notes: tuple[str, ...] = ()

    def benign(self) -> FloatArray:
        """The benign rows, ``[N0, F]``."""
        return self.rows[~self.attack]


class DataSet(Protocol):
    """A data set declares its name, schema and parts; loading checks the files against them."""

    name: str
    title: str
    schema: Schema
    parts: tuple[str, ...]
    """Names of the parts, e.g. ``("train", "test")``; the first is the one to train on."""

    def load(self, directory: Path, part: str) -> Table:
        """Read a part from the files in `directory`, which have their official names.

        Raises:
            DataSetError: a file is missing, or is not what it claims to be.
            ValueError: there is no such part.
        """
