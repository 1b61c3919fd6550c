"""Feature files: the same content as CSV and as Parquet, and a name for what cannot be written."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.flows import Ending
from features.measurement import MEASUREMENT_KEY, Measurement
from features.registry import SCHEMAS
from features.schema import EarlyReports, Kind, Schema
from sensor.errors import OutputError, UsageError
from sensor.featurefile import feature_columns, key_columns, open_writer
from sensor.identity import community_ids, flow_ids
from sensor.pipeline import Measured
from tests.helpers import make_flow, make_rows

every_schema = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))


def measured(schema: Schema) -> Measured:
    """Three flows; what no sensor can measure is missing."""
    flows = np.concatenate(
        [
            make_flow(first_us=1_000_000, last_us=2_500_001),
            make_flow(src_ip="2001:db8::1", dst_ip="::1", protocol=58, src_port=0, dst_port=0,
                      ending=Ending.CAPTURE_END),
            make_flow(protocol=99, src_port=0, dst_port=0, ending=Ending.ACTIVE),
        ]
    )  # fmt: skip
    rows = make_rows(schema, 3)
    for at, feature in enumerate(schema.features):
        if feature.kind is Kind.CATEGORICAL:
            rows[:, at] = [0.0, 1.0, -1.0]
        elif feature.kind is Kind.CONTINUOUS:
            rows[:, at] = [0.1, 1e-9, 123456789.123]
        if not feature.live:
            rows[:, at] = np.nan
    return Measured(flows, rows)


MEASUREMENT = Measurement("kdd", "0" * 64, 1000, EarlyReports(ages_s=(0.5, 60.0)))


def write(path: Path, schema: Schema, times: int = 1) -> None:
    writer = open_writer(path, schema)
    for _ in range(times):
        writer.write(feature_columns(measured(schema), schema, ["a.pcap", 'b,"c.pcap', "ü.pcap"]))
    writer.close(MEASUREMENT)


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, rows


def text(value: Any) -> str:
    return "" if value is None else str(value)


@every_schema
def test_columns_are_the_key_and_the_features(schema: Schema, tmp_path: Path) -> None:
    write(tmp_path / "x.csv", schema)
    write(tmp_path / "x.parquet", schema)
    header, _ = read_csv(tmp_path / "x.csv")
    assert header == [*key_columns(schema), *schema.names]
    assert pq.read_schema(tmp_path / "x.parquet").names == header
    assert len(set(header)) == len(header)


@every_schema
@pytest.mark.parametrize("times", [0, 1, 3])
def test_csv_and_parquet_have_the_same_content(schema: Schema, times: int, tmp_path: Path) -> None:
    write(tmp_path / "x.csv", schema, times)
    write(tmp_path / "x.parquet", schema, times)
    _, rows = read_csv(tmp_path / "x.csv")
    table = pq.read_table(tmp_path / "x.parquet")
    assert len(rows) == table.num_rows == 3 * times
    columns = [column.to_pylist() for column in table.columns]
    assert rows == [[text(value) for value in row] for row in zip(*columns, strict=True)]


@every_schema
def test_values_are_those_that_were_measured(schema: Schema, tmp_path: Path) -> None:
    given = measured(schema)
    write(tmp_path / "x.parquet", schema)
    table = pq.read_table(tmp_path / "x.parquet").to_pydict()
    for at, feature in enumerate(schema.features):
        got, expected = table[feature.name], given.rows[:, at]
        if not feature.live:
            assert got == [None] * 3
        elif feature.kind is Kind.CATEGORICAL:
            assert got == [*feature.vocabulary[:2], "(unknown)"]
        else:
            assert got == expected.tolist()
            whole = feature.kind in (Kind.COUNT, Kind.BINARY)
            assert all(isinstance(value, int if whole else float) for value in got)


def test_the_key_names_the_flow(tmp_path: Path) -> None:
    schema = SCHEMAS["kdd"]
    write(tmp_path / "x.csv", schema)
    header, rows = read_csv(tmp_path / "x.csv")
    flows = measured(schema).flows
    keys = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["flow_id"] for row in keys] == [str(number) for number in flow_ids(flows)]
    assert [row["community_id"] for row in keys] == community_ids(flows)
    assert [row["pcap_filename"] for row in keys] == ["a.pcap", 'b,"c.pcap', "ü.pcap"]
    first, second, third = keys
    assert first["start"] == "1970-01-01T00:00:01.000000+0000"
    assert first["end"] == "1970-01-01T00:00:02.500001+0000"
    ends = [first[name] for name in ("src_ip", "src_port", "dst_ip", "dst_port", "protocol")]
    assert ends == ["10.0.0.1", "40000", "10.0.0.2", "80", "TCP"]
    assert second["src_ip"] == "2001:0db8:0000:0000:0000:0000:0000:0001"
    assert [row["protocol"] for row in keys] == ["TCP", "IPv6-ICMP", "099"]
    assert [row["ending"] for row in keys] == ["idle", "capture_end", "active"]
    assert third["src_port"] == "0"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_is_replaced_and_its_folder_made(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"x{suffix}"
    write(path, SCHEMAS["kdd"], times=5)
    once = tmp_path / f"once{suffix}"
    write(once, SCHEMAS["kdd"])
    write(path, SCHEMAS["kdd"])
    assert path.read_bytes() == once.read_bytes()


@pytest.mark.parametrize("name", ["x", "x.txt", "x.CSV.gz", "csv", ".csv", "x.parquet.tmp"])
def test_another_suffix_is_refused_before_anything_is_made(name: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / name
    with pytest.raises(UsageError, match=r"name a file that ends in \.csv or \.parquet") as caught:
        open_writer(path, SCHEMAS["kdd"])
    assert str(path) in str(caught.value)
    assert not path.parent.exists()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("place", ["file/x", "folder", "/proc/flowvane-test/x", "/proc/x"])
def test_a_place_that_cannot_be_written_is_named(suffix: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / f"folder{suffix}").mkdir()
    path = tmp_path / f"{place}{suffix}"
    with pytest.raises(OutputError) as caught:
        open_writer(path, SCHEMAS["kdd"])
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"pip install 'flowvane\[parquet\]'") as caught:
        open_writer(tmp_path / "x.parquet", SCHEMAS["kdd"])
    assert str(tmp_path / "x.parquet") in str(caught.value)
    write(tmp_path / "x.csv", SCHEMAS["kdd"])


def test_parquet_says_how_its_rows_were_measured(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", SCHEMAS["kdd"])
    told = pq.ParquetFile(tmp_path / "x.parquet").metadata.metadata[MEASUREMENT_KEY]
    assert Measurement.from_json(told) == MEASUREMENT
