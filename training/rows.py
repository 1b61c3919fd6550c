"""Rows to train on: in memory or read again in every epoch, and how they are split.

A source gives the same rows in the same order each time. What is held out, and the sample that
is looked at as a whole, stay in memory; training rows come chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.encoder import Encoder
from features.history import previous_rows, windows_of
from features.measurement import MEASUREMENT_KEY, Measurement
from features.schema import FloatArray, Kind, Schema
from models.kinds.base import ModelKind, RowSet
from models.recipe import FitConfig

CHUNK_ROWS = 1 << 16
"""Rows that are read and trained on at once from a source that is not in memory."""
SAMPLE_ROWS = 1 << 18
"""Training rows, drawn at random, from which heads, forests and prototypes are fitted at most."""
RUN_ROWS = 256
"""Consecutive rows that a model of windows keeps together when rows are split: a window never
reaches from rows of one use into those of another."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of a source.

    Attributes:
        rows: ``[N, F]``.
        attack: ``[N]`` bool.
        hosts: ``[N]`` uint64 keys of source addresses, all alike where nobody knows.
    """

    rows: FloatArray
    attack: NDArray[np.bool_]
    hosts: NDArray[np.uint64]

    def part(self, chosen: NDArray[Any]) -> Chunk:
        """Some of the rows, by mask or number."""
        return Chunk(self.rows[chosen], self.attack[chosen], self.hosts[chosen])


class RowsError(Exception):
    """A file of rows cannot be used; the message names it and says why."""


class Rows(Protocol):
    """A source of rows."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def knows_hosts(self) -> bool:
        """Whether it tells source addresses; if not, consecutive rows pass for one host's."""

    def chunks(self) -> Iterator[Chunk]:
        """All rows, in the same order and chunks every time."""


class TableRows:
    """Rows of an array, which may be a memory-mapped one."""

    def __init__(
        self,
        rows: FloatArray,
        attack: NDArray[np.bool_] | None = None,
        hosts: NDArray[np.uint64] | None = None,
        chunk: int | None = None,
    ) -> None:
        """Give `rows` ``[N, F]`` in chunks of `chunk`, all at once if that is not given."""
        self._rows, self._attack, self._hosts = rows, attack, hosts
        self._chunk = chunk or max(len(rows), 1)

    @property
    def count(self) -> int:
        """Length of the array."""
        return len(self._rows)

    @property
    def knows_hosts(self) -> bool:
        """Whether hosts were given."""
        return self._hosts is not None

    def chunks(self) -> Iterator[Chunk]:
        """Slices of the array."""
        for begin in range(0, self.count, self._chunk):
            here = slice(begin, begin + self._chunk)
            rows = np.asarray(self._rows[here], np.float64)
            nobody = np.zeros(len(rows))
            yield Chunk(
                rows,
                nobody.astype(bool) if self._attack is None else self._attack[here],
                nobody.astype(np.uint64) if self._hosts is None else self._hosts[here],
            )


class ParquetRows:
    """Feature files as ``flowvane features -o OUT.parquet`` writes them, taken as benign."""

    knows_hosts = True

    def __init__(self, paths: Sequence[Path], schema: Schema, chunk: int = CHUNK_ROWS) -> None:
        """Read the columns of `schema` from `paths`, in their order.

        Raises:
            RowsError: pyarrow is missing; a file is not there, not Parquet, or lacks a column;
                the files were not all measured alike, or by another version of the schema.
        """
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise RowsError(
                "reading Parquet needs pyarrow: pip install 'flowvane[parquet]'"
            ) from error
        self._paths, self._schema, self._chunk = list(paths), schema, chunk
        self._files = []
        for path in paths:
            try:
                file = pq.ParquetFile(path)
            except OSError as error:
                raise RowsError(f"{path}: {(error.strerror or str(error)).lower()}") from error
            except pa.ArrowInvalid as error:
                raise RowsError(f"{path}: is not a Parquet file") from error
            missing = [n for n in (*schema.names, "src_ip") if n not in file.schema_arrow.names]
            if missing:
                raise RowsError(
                    f"{path}: is no feature file of schema {schema.name}: lacks {missing[0]}"
                )
            self._files.append(file)
        self.measurement = _measured_alike(self._paths, self._files, schema)

    @property
    def count(self) -> int:
        """As the files' own metadata say."""
        return sum(int(file.metadata.num_rows) for file in self._files)

    def chunks(self) -> Iterator[Chunk]:
        """Chunks that end with their file at the latest.

        Raises:
            RowsError: a file is damaged.
        """
        for number, file in enumerate(self._files):
            for columns in self.read(number, file, ["src_ip"]):
                rows = self.rows_of(columns)
                hosts = _hosts(columns["src_ip"].to_pylist(), number)
                yield Chunk(rows, np.zeros(len(rows), bool), hosts)

    def rows_of(self, columns: Mapping[str, Any]) -> FloatArray:
        """Rows ``[N, F]`` of columns as :meth:`read` gives them."""
        return np.column_stack([_column(columns[f.name], f) for f in self._schema.features])

    def read(self, number: int, file: Any, more: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The columns of the schema and some `more` of a file, chunk by chunk.

        Raises:
            RowsError: the file is damaged.
        """
        import pyarrow as pa

        names = list(dict.fromkeys([*self._schema.names, *more]))
        try:
            for batch in file.iter_batches(self._chunk, columns=names):
                yield {name: batch.column(name) for name in names}
        except (OSError, pa.ArrowException) as error:
            raise RowsError(f"{self._paths[number]}: damaged: {error}") from error


def _measured_alike(
    paths: Sequence[Path], files: Sequence[Any], schema: Schema
) -> Measurement | None:
    """How the rows of all files were measured, None if none of them says.

    Raises:
        RowsError: they differ, or the schema has changed since.
    """
    first: Measurement | None = None
    for number, (path, file) in enumerate(zip(paths, files, strict=True)):
        told = (file.metadata.metadata or {}).get(MEASUREMENT_KEY)
        try:
            measured = None if told is None else Measurement.from_json(told)
        except ValueError as error:
            raise RowsError(f"{path}: damaged: {error}") from error
        if measured is not None and (measured.schema, measured.digest) != (
            schema.name, schema.digest,
        ):  # fmt: skip
            raise RowsError(
                f"{path}: measured by another version of schema {schema.name}: the meaning of its "
                "features has changed since; write it again with flowvane features"
            )
        if number == 0:
            first = measured
        elif measured != first:
            raise RowsError(
                f"{path}: measured otherwise than {paths[0]} (--clock or early reports): files "
                "that are trained on together must be measured alike"
            )
    return first


def _column(values: Any, feature: Any) -> FloatArray:
    """A column as a model takes it: vocabulary codes, NaN for what was not measured."""
    if feature.kind is Kind.CATEGORICAL:
        import pyarrow as pa
        import pyarrow.compute as pc

        codes = pc.index_in(values, value_set=pa.array(feature.vocabulary)).fill_null(-1)
        return np.asarray(codes.to_numpy(zero_copy_only=False), np.float64)
    return np.asarray(values.cast("float64").to_numpy(zero_copy_only=False), np.float64)


def _hosts(addresses: Sequence[str], number: int) -> NDArray[np.uint64]:
    """Keys of addresses; those of different files are different hosts."""
    import pandas as pd

    array = np.array([f"{number} {address}" for address in addresses], dtype=object)
    return np.asarray(pd.util.hash_array(array), np.uint64)


# Splitting


class Role(IntEnum):
    """What a row is for."""

    TRAIN = 0
    SAMPLE = 1
    """Trained on, and in the sample."""
    VALIDATION = 2
    CALIBRATION = 3
    ASIDE = 4
    """For nothing."""


def split_roles(count: int, config: FitConfig, seed: int, run: int = 1) -> NDArray[np.uint8]:
    """The role of each row, ``[count]``, drawn at random by `seed` for `run` rows together."""
    runs = -(-count // run)
    order = np.random.default_rng(seed).permutation(runs)
    stop = min(int(runs * config.validation), config.most_validation // run)
    keep = stop + min(int(runs * config.calibration), config.most_calibration // run)
    roles = np.full(runs, Role.TRAIN, np.uint8)
    roles[order[:stop]] = Role.VALIDATION
    roles[order[stop:keep]] = Role.CALIBRATION
    roles[order[keep : keep + SAMPLE_ROWS // run]] = Role.SAMPLE
    return np.repeat(roles, run)[:count]


def run_length(window: int, count: int) -> int:
    """How many consecutive rows stay together for a model of `window` rows."""
    return 1 if window == 1 else max(min(RUN_ROWS, count // 50), window)


@dataclass(frozen=True)
class Gathered:
    """Rows of one role, as a model sees them.

    Attributes:
        chunk: the rows.
        history: ``[N]`` uint64, alike for rows that a window may join.
    """

    chunk: Chunk
    history: NDArray[np.uint64]

    def encoded(self, kind: ModelKind[Any], config: Any, encoder: Encoder) -> RowSet:
        """Encoded, those that count chosen and weighed by `kind`."""
        used = self.chunk.rows[:, encoder.schema.index(encoder.names)]
        prepared = kind.prepare(config, used)
        before = previous_rows(self.history, kind.window(config) - 1)
        return RowSet(
            encoded=encoder.encode(self.chunk.rows),
            at=prepared.at.astype(np.int32),
            before=before[prepared.at],
            attack=self.chunk.attack[prepared.at],
            weight=prepared.weight.astype(np.float32),
        )

    def windows(self, window: int) -> FloatArray:
        """Windows ``[N, W, F]`` of all of them."""
        return windows_of(self.chunk.rows, previous_rows(self.history, window - 1))


def select(
    chunk: Chunk, roles: NDArray[np.uint8], first: int, run: int, wanted: Sequence[Role]
) -> Gathered:
    """The rows of a chunk that have one of the `wanted` roles.

    Args:
        chunk: whose first row is number `first` of its source.
        roles: of all rows of the source.
        first: see above.
        run: rows that were split together.
        wanted: roles.
    """
    numbers = np.arange(first, first + len(chunk.rows))
    mask = np.isin(roles[numbers], wanted)
    runs = (numbers[mask] // run).astype(np.uint64) + np.uint64(1)
    # An odd factor gives each run another key; it is spread over all bits, as hosts are.
    history = chunk.hosts[mask] ^ (runs * np.uint64(0x9E3779B97F4A7C15))
    return Gathered(chunk.part(mask), history)


def gather(
    source: Rows, roles: NDArray[np.uint8], run: int, wanted: Sequence[Role]
) -> Iterator[Gathered]:
    """The rows of some roles, chunk by chunk."""
    first = 0
    for chunk in source.chunks():
        yield select(chunk, roles, first, run, wanted)
        first += len(chunk.rows)


def joined(parts: Sequence[Gathered]) -> Gathered:
    """Rows of several chunks together; a window still ends where its chunk began."""
    # As for runs in `select`: another odd factor gives each chunk other keys.
    keys = np.arange(len(parts), dtype=np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    histories = [part.history ^ key for part, key in zip(parts, keys, strict=True)]
    return Gathered(
        Chunk(
            np.concatenate([part.chunk.rows for part in parts]),
            np.concatenate([part.chunk.attack for part in parts]),
            np.concatenate([part.chunk.hosts for part in parts]),
        ),
        np.concatenate(histories),
    )
