"""The KDD99 loader against files made here and against the real one."""

from __future__ import annotations

import gzip
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.kdd import FLAGS, PROTOCOLS, SCHEMA, SERVICES
from training.datasets import DATASETS, kdd99, nsl_kdd
from training.datasets.base import DataSetError
from training.datasets.files import Expected

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("FLOWVANE_CORPUS") or ROOT.parent / "shared" / "data")
corpus = pytest.mark.skipif(
    not (CORPUS / "kdd99").is_dir(), reason=f"no KDD99 at {CORPUS}; set FLOWVANE_CORPUS"
)

SMALL = kdd99.Kdd99(train=Expected(3, 1), test=Expected(2, 1), full=Expected(4, 2))
# The first line of kddcup.data_10_percent.
LINE = (
    "0,tcp,http,SF,181,5450,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,8,8,0.00,0.00,0.00,0.00,1.00,0.00,"
    "0.00,9,9,1.00,0.00,0.11,0.00,0.00,0.00,0.00,0.00,normal."
)


def lines(*labels: str) -> bytes:
    return "".join(LINE.replace("normal.", label) + "\n" for label in labels).encode()


def complaint(call: Callable[[], object]) -> str:
    with pytest.raises(DataSetError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", [*kdd99.TRAIN_FILES])
@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress)])
def test_a_row_is_read_as_it_is_written(
    tmp_path: Path, name: str, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    (tmp_path / f"{name}{suffix}").write_bytes(pack(lines("normal.", "smurf.", " Back ")))
    table = SMALL.load(tmp_path, "train")
    assert table.category.tolist() == ["normal", "smurf", "back"]
    assert table.attack.tolist() == [False, True, True]
    row = dict(zip(SCHEMA.names, table.rows[0].tolist(), strict=True))
    assert row["protocol_type"] == PROTOCOLS.index("tcp")
    assert row["service"] == SERVICES.index("http")
    assert row["flag"] == FLAGS.index("SF")
    assert (row["src_bytes"], row["dst_bytes"], row["logged_in"]) == (181, 5450, 1)
    assert (row["dst_host_count"], row["dst_host_same_src_port_rate"]) == (9, 0.11)
    assert table.notes == ()
    assert table.files[0].rows == 3


def test_parts_are_three_files(tmp_path: Path) -> None:
    (tmp_path / "kddcup.data_10_percent").write_bytes(lines("normal.", "smurf.", "smurf."))
    (tmp_path / "corrected").write_bytes(lines("normal.", "snmpguess."))
    (tmp_path / "kddcup.data").write_bytes(lines("normal.", "normal.", "spy.", "perl."))
    assert [len(SMALL.load(tmp_path, part).rows) for part in SMALL.parts] == [3, 2, 4]
    with pytest.raises(ValueError, match="no part 'tes', only train, test, full"):
        SMALL.load(tmp_path, "tes")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (lines("normal.", "smurf."), "2 rows, but kddcup.data_10_percent has 3 and corrected has"),
        (lines("normal.", "normal.", "smurf."), "2 of its 3 rows are normal, officially 1 are"),
        (lines("normal.", "smurf.", "smurff."), "line 3: column label: 'smurff.' is no category"),
        (lines("normal.", "smurf.", "back.,7"), "line 3: 43 of 42 columns, the row is too long"),
        (lines("normal.,21", "smurf.,1", "back.,7"), "43 columns in the first row, not the offi"),
        (lines("normal.", "smurf.") + LINE[:30].encode(), "line 3: 10 of 42 columns, the row is c"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "kddcup.data_10_percent"
    path.write_bytes(data)
    message = complaint(lambda: SMALL.load(tmp_path, "train"))
    assert message.startswith(f"{path}: ")
    assert expected in message


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    message = complaint(lambda: SMALL.load(tmp_path, "test"))
    assert "no file corrected (or with .gz or .xz appended)" in message
    assert "https://" in message


def test_classes_are_those_of_nsl_kdd() -> None:
    assert kdd99.ATTACK_CLASS is nsl_kdd.ATTACK_CLASS
    assert kdd99.SCHEMA is nsl_kdd.SCHEMA


@corpus
def test_the_real_file_is_what_it_should_be() -> None:
    table = DATASETS["kdd99"].load(CORPUS, "train")
    assert table.rows.shape == (494_021, 41)
    assert int((~table.attack).sum()) == 97_278
    assert table.notes == ()
    assert np.isfinite(table.rows).all()
    classes = Counter(nsl_kdd.ATTACK_CLASS[name] for name in table.category[table.attack].tolist())
    # kddcup.names's shares: 391,458 dos, 4,107 probe, 1,126 r2l, 52 u2r.
    assert classes == {"dos": 391_458, "probe": 4_107, "r2l": 1_126, "u2r": 52}
