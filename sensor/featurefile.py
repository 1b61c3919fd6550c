"""`flowvane features`: the features themselves, one row a flow, as CSV or Parquet."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from features.flows import Ending
from features.measurement import MEASUREMENT_KEY, Measurement
from features.schema import Kind, Medium, Schema
from sensor.errors import OutputError, UsageError
from sensor.eve import PROTOCOL_NAMES, timestamp
from sensor.identity import address_texts, community_ids, flow_ids
from sensor.pipeline import Measured

KEY_COLUMNS = (
    "flow_id", "community_id", "pcap_filename", "start", "end", "ending", "src_ip", "src_port",
    "dst_ip", "dst_port", "protocol",
)  # fmt: skip
"""What names the flow, before the schema's own columns (which may repeat some of it)."""


def key_columns(schema: Schema) -> tuple[str, ...]:
    """Those of rows of a schema: a connection of Zeek's has its uid in the place of a capture."""
    if schema.medium is Medium.PACKETS:
        return KEY_COLUMNS
    return tuple("uid" if name == "pcap_filename" else name for name in KEY_COLUMNS)


_WHOLE = frozenset({Kind.COUNT, Kind.BINARY})


class FeatureWriter(Protocol):
    """Writes feature rows to a file."""

    def write(self, columns: dict[str, list[Any]]) -> None:
        """Append rows, given as named columns of equal length."""

    def close(self, measurement: Measurement) -> None:
        """Finish the file; say in it how the rows were measured, where it has a place for that."""


class CsvWriter:
    """RFC 4180 text with a header; a feature that could not be measured is empty."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(names)

    def write(self, columns: dict[str, list[Any]]) -> None:
        """Append rows."""
        self._writer.writerows(zip(*columns.values(), strict=True))

    def close(self, measurement: Measurement) -> None:
        """Finish the file, which has no place for the measurement."""
        self._file.close()


GROUP_ROWS = 8192
"""Rows of a Parquet row group at least, but for the last: a group costs 20 kB of its own."""


class ParquetWriter:
    """Apache Parquet, in groups of rows; a feature that could not be measured is null.

    The file's metadata say how the rows were measured.
    """

    def __init__(self, path: Path, names: tuple[str, ...], schema: Schema) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise UsageError(
                f"{path}: writing Parquet needs pyarrow: pip install 'flowvane[parquet]'"
            ) from error
        kinds = {f.name: f.kind for f in schema.features}
        special = {"flow_id": pa.int64(), "src_port": pa.int32(), "dst_port": pa.int32()}
        fields = []
        for name in names:
            kind = kinds.get(name)
            if kind in _WHOLE:
                fields.append((name, pa.int64()))
            elif kind is Kind.CATEGORICAL or (kind is None and name not in special):
                fields.append((name, pa.string()))
            else:
                fields.append((name, special.get(name, pa.float64())))
        self._pa, self._schema = pa, pa.schema(fields)
        self._writer = pq.ParquetWriter(path, self._schema)
        self._waiting: list[Any] = []

    def write(self, columns: dict[str, list[Any]]) -> None:
        """Append rows."""
        self._waiting.append(self._pa.Table.from_pydict(columns, self._schema))
        if sum(len(table) for table in self._waiting) >= GROUP_ROWS:
            self._write_waiting()

    def _write_waiting(self) -> None:
        if self._waiting:
            self._writer.write_table(self._pa.concat_tables(self._waiting).combine_chunks())
            self._waiting = []

    def close(self, measurement: Measurement) -> None:
        """Finish the file; its metadata have the measurement."""
        self._write_waiting()
        self._writer.add_key_value_metadata({MEASUREMENT_KEY: measurement.to_json()})
        self._writer.close()


def open_writer(path: Path, schema: Schema) -> FeatureWriter:
    """The writer for the suffix of `path`.

    Raises:
        UsageError: the suffix is neither .csv nor .parquet, or pyarrow is missing.
        OutputError: the file cannot be opened.
    """
    names = (*key_columns(schema), *(f"{name}" for name in schema.names))
    makers: dict[str, Any] = {
        ".csv": lambda: CsvWriter(path, names),
        ".parquet": lambda: ParquetWriter(path, names, schema),
    }
    if path.suffix not in makers:
        raise UsageError(f"{path}: name a file that ends in .csv or .parquet")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer: FeatureWriter = makers[path.suffix]()
    except OSError as error:
        raise OutputError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    return writer


def feature_columns(measured: Measured, schema: Schema, seen_in: list[str]) -> dict[str, list[Any]]:
    """Named columns of the flows' keys and features, in file order.

    Args:
        measured: the flows and their rows.
        schema: of the rows.
        seen_in: the capture of each flow, or what Zeek calls it.
    """
    flows = measured.flows
    sources, destinations = address_texts(flows)
    columns: dict[str, list[Any]] = {
        "flow_id": flow_ids(flows),
        "community_id": community_ids(flows),
        key_columns(schema)[2]: seen_in,
        "start": [timestamp(time) for time in flows["first_us"]],
        "end": [timestamp(time) for time in flows["last_us"]],
        "ending": [Ending(code).name.lower() for code in flows["ending"]],
        "src_ip": sources,
        "src_port": flows["src_port"].tolist(),
        "dst_ip": destinations,
        "dst_port": flows["dst_port"].tolist(),
        "protocol": [PROTOCOL_NAMES.get(int(p), f"{p:03d}") for p in flows["protocol"]],
    }
    for at, feature in enumerate(schema.features):
        values = measured.rows[:, at]
        if feature.kind is Kind.CATEGORICAL:
            columns[feature.name] = feature.show_all(values.tolist())
        else:
            number = int if feature.kind in _WHOLE else float
            columns[feature.name] = [None if np.isnan(v) else number(v) for v in values]
    return columns
