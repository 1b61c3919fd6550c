"""A site's own flows: their features, and who they were between and when.

Who and when is no feature: it decides what a flow's row counts, never what the row says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.schema import FloatArray, Schema
from training.rows import ParquetRows

WHO = ("start", "end", "src_ip", "src_port", "dst_ip", "dst_port", "protocol")
"""Columns of a feature file, beside the features."""
CHUNK_ROWS = 1 << 14
"""Flows that are read at once: addresses and times as text take more room than features do."""
_TIME = "%Y-%m-%dT%H:%M:%S.%f%z"


@dataclass(frozen=True)
class SiteChunk:
    """Some flows.

    Attributes:
        rows: ``[N, F]``.
        who: ``[N]`` rows of :data:`WHO`: times and addresses as text, ports as numbers.
    """

    rows: FloatArray
    who: pd.DataFrame

    @property
    def end_us(self) -> NDArray[np.int64]:
        """When each was last seen, microseconds since the epoch, ``[N]``."""
        return microseconds(self.who["end"])


class SiteRows(Protocol):
    """A source of a site's flows."""

    @property
    def schema(self) -> Schema:
        """Of the rows."""

    @property
    def count(self) -> int:
        """How many there are."""

    def site_chunks(self) -> Iterator[SiteChunk]:
        """All flows, in the same order and chunks every time."""


class SiteFiles(ParquetRows):
    """Flows of feature files as ``flowvane features -o OUT.parquet`` writes them."""

    def __init__(self, paths: Sequence[Path], schema: Schema) -> None:
        """Read `paths`.

        Raises:
            RowsError: as :class:`ParquetRows`.
        """
        super().__init__(paths, schema, CHUNK_ROWS)
        self.schema = schema

    def site_chunks(self) -> Iterator[SiteChunk]:
        """Chunks that end with their file at the latest.

        Raises:
            RowsError: a file is damaged.
        """
        for number, file in enumerate(self._files):
            for columns in self.read(number, file, WHO):
                who = pd.DataFrame({name: columns[name].to_pandas() for name in WHO})
                yield SiteChunk(self.rows_of(columns), who)


@dataclass(frozen=True)
class SiteTable:
    """Flows in memory: rows ``[N, F]`` of a schema and, row by row, who they were between."""

    schema: Schema
    rows: FloatArray
    who: pd.DataFrame

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.rows)

    def site_chunks(self) -> Iterator[SiteChunk]:
        """All at once."""
        yield SiteChunk(self.rows, self.who)


def microseconds(times: pd.Series[str]) -> NDArray[np.int64]:
    """Times as feature files have them, as microseconds since the epoch, ``[N]``."""
    stamps = pd.to_datetime(times, format=_TIME, utc=True)
    return np.asarray(stamps.dt.as_unit("us").astype("int64"), np.int64)


def address_keys(addresses: Sequence[str] | pd.Series[str]) -> NDArray[np.uint64]:
    """A 64-bit key of each address, the same on every run, ``[N]``."""
    return np.asarray(pd.util.hash_array(np.asarray(addresses, object)), np.uint64)
