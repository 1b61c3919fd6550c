"""Sources of rows, and how they are split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.encoder import Encoder
from features.measurement import MEASUREMENT_KEY, Measurement
from features.schema import NEVER_EARLY
from models.kinds import KINDS
from models.kinds.host_conv_vae import HostConvVaeConfig
from models.recipe import FitConfig
from tests.helpers import TOY, run, sample, toy_rows
from training import rows as rows_module
from training.rows import (
    ParquetRows,
    Role,
    RowsError,
    TableRows,
    gather,
    joined,
    run_length,
    split_roles,
)

steady = settings(max_examples=30, deadline=None, database=None, derandomize=True)


def test_a_table_comes_in_chunks_of_the_same_rows() -> None:
    rows, attack = toy_rows(100), np.arange(100) % 3 == 0
    hosts = np.arange(100).astype(np.uint64)
    source = TableRows(rows, attack, hosts, chunk=30)
    for _ in range(2):
        chunks = list(source.chunks())
        assert [len(chunk.rows) for chunk in chunks] == [30, 30, 30, 10]
        np.testing.assert_array_equal(np.concatenate([c.rows for c in chunks]), rows)
        np.testing.assert_array_equal(np.concatenate([c.attack for c in chunks]), attack)
        np.testing.assert_array_equal(np.concatenate([c.hosts for c in chunks]), hosts)


def test_a_mapped_file_is_a_table(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", toy_rows(100).astype(np.float32))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    (chunk,) = TableRows(mapped).chunks()
    assert chunk.rows.dtype == np.float64
    assert not chunk.attack.any()


@steady
@given(count=st.integers(1, 3000), run=st.integers(1, 40), seed=st.integers(0, 9))
def test_rows_of_a_run_share_a_role(count: int, run: int, seed: int) -> None:
    config = FitConfig(validation=0.1, calibration=0.2)
    roles = split_roles(count, config, seed, run)
    assert len(roles) == count
    for begin in range(0, count, run):
        assert len(set(roles[begin : begin + run].tolist())) == 1
    runs = -(-count // run)
    held_out = np.count_nonzero(roles[::run] == Role.VALIDATION)
    assert held_out == int(runs * 0.1)
    assert np.count_nonzero(roles[::run] == Role.CALIBRATION) == int(runs * 0.2)


def test_no_more_is_held_out_and_sampled_than_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "SAMPLE_ROWS", 50)
    config = FitConfig(most_validation=10, most_calibration=20)
    roles = split_roles(1000, config, seed=0)
    counts = {role: int(np.count_nonzero(roles == role)) for role in Role}
    assert counts == {
        Role.VALIDATION: 10, Role.CALIBRATION: 20, Role.SAMPLE: 50, Role.TRAIN: 920,
        Role.ASIDE: 0,
    }  # fmt: skip


@pytest.mark.parametrize("chunk", [1000, 137])
def test_a_window_stays_within_its_host_its_use_and_its_chunk(chunk: int) -> None:
    rng = np.random.default_rng(0)
    count, window = 1000, 4
    hosts = rng.integers(0, 3, count).astype(np.uint64)
    rows = toy_rows(count)
    rows[:, 0] = np.arange(count) + 1.0  # tells rows apart
    run = run_length(window, count)
    roles = split_roles(count, FitConfig(), 0, run)
    source = TableRows(rows, hosts=hosts, chunk=chunk)
    windows = joined(list(gather(source, roles, run, [Role.CALIBRATION]))).windows(window)
    assert len(windows) == np.count_nonzero(roles == Role.CALIBRATION)
    several = 0
    for one in windows[:, :, 0]:
        numbers = one[np.isfinite(one)].astype(int) - 1
        several += len(numbers) > 1
        assert (np.diff(numbers) > 0).all()
        for told in (hosts, roles, np.arange(count) // run, np.arange(count) // chunk):
            assert len(set(told[numbers].tolist())) == 1
    assert several > len(windows) / 2


def test_windows_of_encoded_rows_are_those_of_rows() -> None:
    kind, config = KINDS["host-conv-vae"], HostConvVaeConfig(window=3)
    encoder = Encoder.fit(TOY, TOY.names, toy_rows())
    source = TableRows(toy_rows(200))
    (part,) = gather(source, np.zeros(200, np.uint8), 200, [Role.TRAIN])
    batch = part.encoded(kind, config, encoder).batch(np.array([0, 1, 150]))
    windows = part.windows(3)[[0, 1, 150]]
    assert batch.present.tolist() == [[False, False], [False, True], [True, True]]
    expected = encoder.encode(windows[2])
    np.testing.assert_array_equal(batch.before.amounts[2], expected.amounts[:2])
    np.testing.assert_array_equal(batch.encoded.amounts[2], expected.amounts[2])


# Files


@pytest.fixture(scope="module")
def feature_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "flows.parquet"
    ran = run("features", "-r", sample().excerpt, "--schema", "kdd", "-o", path)
    assert (ran.code, ran.err) == (0, "")
    return path


def test_feature_files_give_the_rows_that_were_measured(feature_file: Path) -> None:
    import pandas as pd

    from features.registry import SCHEMAS

    schema = SCHEMAS["kdd"]
    table = pd.read_parquet(feature_file)
    source = ParquetRows([feature_file, feature_file], schema, chunk=100)
    assert source.count == 2 * len(table)
    whole = [np.concatenate([getattr(c, name) for c in source.chunks()])
             for name in ("rows", "hosts")]  # fmt: skip
    rows, hosts = whole
    assert max(len(chunk.rows) for chunk in source.chunks()) == 100
    at = schema.index(["src_bytes", "protocol_type"])
    np.testing.assert_array_equal(rows[: len(table), at[0]], table["src_bytes"])
    terms = [schema.features[at[1]].vocabulary[int(code)] for code in rows[: len(table), at[1]]]
    assert terms == table["protocol_type"].tolist()
    # A host is an address within a file.
    first = hosts[: len(table)]
    assert len(np.unique(first)) == table["src_ip"].nunique()
    assert len(np.unique(hosts)) == 2 * table["src_ip"].nunique()


def test_files_that_are_none_are_named(feature_file: Path, tmp_path: Path) -> None:
    from features.registry import SCHEMAS

    (tmp_path / "text.parquet").write_text("no parquet")
    for path, schema, what in (
        (tmp_path / "missing.parquet", "kdd", "no such file"),
        (tmp_path / "text.parquet", "kdd", "is not a Parquet file"),
        (feature_file, "unsw-nb15", "is no feature file of schema unsw-nb15: lacks "),
    ):
        with pytest.raises(RowsError, match=f"^{path}: .*{what}"):
            ParquetRows([path], SCHEMAS[schema])


def rewritten(path: Path, metadata: dict[bytes, bytes], to: Path) -> Path:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(metadata), to)
    return to


def test_files_say_how_they_were_measured(feature_file: Path, tmp_path: Path) -> None:
    from features.registry import SCHEMAS

    schema = SCHEMAS["kdd"]
    as_told = ParquetRows([feature_file], schema).measurement
    assert as_told == Measurement.of(schema, 1, NEVER_EARLY)
    silent = rewritten(feature_file, {}, tmp_path / "silent.parquet")
    assert ParquetRows([silent], schema).measurement is None
    for other, what in (
        (Measurement.of(schema, 1000, NEVER_EARLY), "measured otherwise than"),
        (replace(as_told, digest="0" * 64), "measured by another version of schema kdd"),
        (None, "damaged: "),
    ):
        told = b"{}" if other is None else other.to_json().encode()
        path = rewritten(feature_file, {MEASUREMENT_KEY: told}, tmp_path / "other.parquet")
        with pytest.raises(RowsError, match=f"^{path}: {what}"):
            ParquetRows([feature_file, path], schema)
    with pytest.raises(RowsError, match="measured otherwise than"):
        ParquetRows([feature_file, silent], schema)
