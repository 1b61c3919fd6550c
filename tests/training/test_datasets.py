"""The loaders against files made here, damaged in every way, and against the real files."""

from __future__ import annotations

import functools
import gzip
import hashlib
import lzma
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features import kdd as kdd_features
from features import unsw_nb15 as unsw_features
from features.schema import Feature, FloatArray, Kind, Schema
from training.datasets import DATASETS, nsl_kdd, unsw_nb15
from training.datasets.base import DataSet, DataSetError, Table
from training.datasets.files import Expected, find_files, read_file

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("FLOWVANE_CORPUS") or ROOT.parent / "shared" / "data")
corpus = pytest.mark.skipif(
    not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}; set FLOWVANE_CORPUS to where it is"
)
NEVER = Expected(rows=1_000_000, benign=0)
"""For the file that a test does not make."""

Cells = list[list[str]]


@dataclass(frozen=True)
class Format:
    """How the published files of a data set are written, so that tests can write small ones."""

    schema: Schema
    make: Callable[[Expected], DataSet]
    file_name: str
    header: tuple[str, ...]
    attacks: tuple[str, ...]
    frame: Callable[[int, list[str], str], list[str]]

    def cells(self, rows: FloatArray, categories: Sequence[str]) -> Cells:
        """Lines of cells, the header's first."""
        lines = [list(self.header)] if self.header else []
        for number, (row, category) in enumerate(zip(rows, categories, strict=True)):
            texts = [
                _text(feature, value)
                for feature, value in zip(self.schema.features, row.tolist(), strict=True)
            ]
            lines.append(self.frame(number, texts, category))
        return lines

    def column(self, name: str) -> int:
        """Number of the cell of a feature."""
        return self.schema.names.index(name) + bool(self.header)

    def small(self, benign: int = 3, attacks: int = 2) -> Cells:
        """A valid file."""
        rows = np.arange(benign + attacks)[:, None] * np.array(
            [
                1.0 if feature.kind in (Kind.COUNT, Kind.CONTINUOUS) else 0.0
                for feature in self.schema.features
            ]
        )
        return self.cells(rows, ["normal"] * benign + list(self.attacks[:attacks]))

    def load(self, directory: Path, benign: int = 3, attacks: int = 2) -> Table:
        """Read a file with these counts as the part to train on."""
        return self.make(Expected(benign + attacks, benign)).load(directory, "train")


def _text(feature: Feature, value: float) -> str:
    if feature.kind is Kind.CATEGORICAL:
        return feature.vocabulary[int(value)]
    return str(int(value)) if feature.kind in (Kind.COUNT, Kind.BINARY) else repr(value)


def _unsw_line(number: int, texts: list[str], category: str) -> list[str]:
    return [str(number + 1), *texts, category.capitalize(), str(int(category != "normal"))]


UNSW = Format(
    schema=unsw_features.SCHEMA,
    make=lambda expected: unsw_nb15.UnswNb15(train=expected, test=NEVER),
    file_name=unsw_nb15.TRAIN_FILE,
    header=("id", *unsw_features.SCHEMA.names, "attack_cat", "label"),
    attacks=unsw_nb15.ATTACKS,
    frame=_unsw_line,
)
KDD = Format(
    schema=kdd_features.SCHEMA,
    make=lambda expected: nsl_kdd.NslKdd(train=expected, test=NEVER),
    file_name=nsl_kdd.TRAIN_FILE,
    header=(),
    attacks=tuple(nsl_kdd.ATTACK_CLASS),
    frame=lambda number, texts, category: [*texts, category, str(number % 22)],
)
FORMATS = {"unsw-nb15": UNSW, "nsl-kdd": KDD}


@pytest.fixture(params=list(FORMATS.values()), ids=list(FORMATS))
def form(request: pytest.FixtureRequest) -> Format:
    chosen: Format = request.param
    return chosen


def encode(cells: Cells, end: str = "\n") -> bytes:
    return "".join(",".join(line) + end for line in cells).encode()


def complaint(call: Callable[[], object]) -> str:
    """The message of the DataSetError that `call` raises: always one line."""
    with pytest.raises(DataSetError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_registry_knows_each_data_set_by_its_name() -> None:
    assert set(DATASETS) == {*FORMATS, "kdd99", "cicids2017"}
    for name, data_set in DATASETS.items():
        assert data_set.name == name
        assert data_set.title
        assert len(set(data_set.parts)) == len(data_set.parts) > 0


def test_there_is_no_other_part(form: Format, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no part 'validate', only train, test"):
        form.make(NEVER).load(tmp_path, "validate")


# Finding and opening


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
@pytest.mark.parametrize("below", ["", "some-set"])
def test_compression_is_told_by_the_first_bytes(
    form: Format, tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], below: str
) -> None:
    path = tmp_path / below / f"{form.file_name}{suffix}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pack(encode(form.small())))
    table = form.load(tmp_path)
    assert table.rows.shape == (5, len(form.schema.features))
    assert table.attack.tolist() == [False] * 3 + [True] * 2
    (source,) = table.files
    assert (source.name, source.rows) == (path.name, 5)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert table.notes == ()


def test_the_directory_itself_comes_before_those_below(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    paths = [tmp_path / "x.gz", tmp_path / "a" / "x", tmp_path / "y"]
    for path in paths:
        path.touch()
    assert find_files(tmp_path, ["x", "y", "z"]) == paths


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda place: place / "absent", "absent: no such directory; give the directory"),
        (lambda place: _write(place / "f", b"x"), "f: is a file, not a directory; give the"),
        (lambda place: place, "or with .gz or .xz appended"),
    ],
)
def test_a_missing_file_is_said(
    form: Format, tmp_path: Path, prepare: Callable[[Path], Path], expected: str
) -> None:
    message = complaint(lambda: form.load(prepare(tmp_path)))
    assert expected in message
    assert str(tmp_path) in message
    if "appended" in expected:
        assert form.file_name in message
        assert "https://" in message


def test_a_directory_called_like_the_file(form: Format, tmp_path: Path) -> None:
    (tmp_path / form.file_name).mkdir()
    assert f"{form.file_name}: is a directory, not a file" in complaint(lambda: form.load(tmp_path))
    # What some unpackers make: the file in a directory of its own name.
    (tmp_path / form.file_name / form.file_name).write_bytes(encode(form.small()))
    assert len(form.load(tmp_path).rows) == 5


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


PACKED_GZ, PACKED_XZ = gzip.compress(b"a,b\n" * 999, mtime=0), lzma.compress(b"a,b\n" * 999)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \r\n\n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (PACKED_GZ[:3], "cut or damaged, gzip"),
        (PACKED_GZ[:-9], "cut or damaged, gzip"),
        (PACKED_GZ[:15] + b"\xff\xff" + PACKED_GZ[17:], "cut or damaged, gzip"),
        (PACKED_GZ[:-6] + b"\x00" + PACKED_GZ[-5:], "cut or damaged, gzip"),
        (PACKED_XZ[:20], "cut or damaged, xz"),
        (PACKED_XZ[:30] + b"\xff" + PACKED_XZ[31:], "cut or damaged, xz"),
        ("a,b\n".encode("utf-16"), "neither UTF-8 text nor gzip nor xz: byte 0 is 0xff"),
        (b"a,b\n1,\x00\x00\n", "damaged: byte 6 is zero"),
    ],
)
def test_a_file_that_cannot_be_opened(tmp_path: Path, data: bytes, expected: str) -> None:
    path = _write(tmp_path / "file.csv", data)
    message = complaint(lambda: read_file(path))
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert "get the official file again" in message


def test_an_unreadable_file_is_said(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in complaint(lambda: read_file(tmp_path / "gone"))


# Reading


@st.composite
def tables(draw: st.DrawFn, form: Format) -> tuple[FloatArray, list[str]]:
    """Rows ``[N, F]`` and their categories."""
    cell: dict[Kind, Callable[[Feature], st.SearchStrategy[float]]] = {
        Kind.CONTINUOUS: lambda _: st.floats(0, 1e15),
        Kind.COUNT: lambda _: st.integers(0, 2**32).map(float),
        Kind.RATE: lambda _: st.floats(0, 1),
        Kind.BINARY: lambda _: st.sampled_from([0.0, 1.0]),
        Kind.CATEGORICAL: lambda feature: st.integers(0, len(feature.vocabulary) - 1).map(float),
    }
    row = st.tuples(*(cell[feature.kind](feature) for feature in form.schema.features))
    rows = draw(st.lists(row, min_size=1, max_size=3))
    category = st.sampled_from(["normal", *form.attacks])
    return np.array(rows), draw(st.lists(category, min_size=len(rows), max_size=len(rows)))


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=25, deadline=None, database=None)
@given(data=st.data())
def test_what_is_written_is_read_back(name: str, data: st.DataObject) -> None:
    form = FORMATS[name]
    rows, categories = data.draw(tables(form))
    packs: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, lzma.compress]
    pack = data.draw(st.sampled_from(packs))
    content = encode(form.cells(rows, categories), data.draw(st.sampled_from(["\n", "\r\n"])))
    benign = categories.count("normal")
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / form.file_name).write_bytes(pack(content))
        table = form.load(Path(directory), benign, len(rows) - benign)
    np.testing.assert_array_equal(table.rows, rows)
    assert table.rows.dtype == np.float64
    assert table.category.tolist() == categories
    assert table.attack.tolist() == [category != "normal" for category in categories]
    np.testing.assert_array_equal(table.benign(), rows[~table.attack])


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=150, deadline=None, database=None)
@given(
    place=st.integers(0, 3000),
    length=st.integers(0, 300),
    patch=st.one_of(st.binary(max_size=6), st.sampled_from([b'"', b",", b"\n", b"\r", b"-", b"e"])),
)
def test_any_damage_is_a_data_set_error_or_harmless(
    name: str, place: int, length: int, patch: bytes
) -> None:
    form = FORMATS[name]
    content = encode(form.small())
    content = content[:place] + patch + content[place + length :]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / form.file_name
        path.write_bytes(content)
        try:
            table = form.load(Path(directory))
        except DataSetError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
        else:
            assert table.rows.shape == (5, len(form.schema.features))
            assert np.isfinite(table.rows).all()
            assert int(table.attack.sum()) == 2


def test_blank_lines_marks_and_quotes_do_not_matter(form: Format, tmp_path: Path) -> None:
    cells = form.small()
    _write(tmp_path / form.file_name, encode(cells))
    plain = form.load(tmp_path)
    quoted = [[f'"{cell}"' for cell in line] for line in cells]
    content = encode(quoted, "\r\n").replace(b"\r\n", b"\r\n\r\n", 2)
    _write(tmp_path / form.file_name, b"\xef\xbb\xbf\r\n" + content + b"\r\n  \r\n")
    again = form.load(tmp_path)
    np.testing.assert_array_equal(again.rows, plain.rows)
    assert again.category.tolist() == plain.category.tolist()


def test_unknown_terms_are_minus_one_and_noted(form: Format, tmp_path: Path) -> None:
    cells = form.small(benign=6)
    service = form.column("service")
    for line, term in zip(cells[-8:], ["w", " x ", "w", "y", "z", "ok", "ok", "ok"], strict=True):
        line[service] = term if term != "ok" else " http "
    _write(tmp_path / form.file_name, encode(cells))
    table = form.load(tmp_path, benign=6)
    codes = table.rows[:, form.schema.names.index("service")]
    http = next(f for f in form.schema.features if f.name == "service").vocabulary.index("http")
    assert codes.tolist() == [-1.0] * 5 + [http] * 3
    (note,) = table.notes
    assert note == (
        f"{form.file_name}: column service: 5 rows have a term outside the vocabulary: "
        "'w', 'x', 'y' and others"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1_0", "is not a finite number"),
        ("0x1F", "is not a finite number"),
        ("12..5", "is not a finite number"),
        ("", "is not a finite number"),
        ("NaN", "is not a finite number"),
        ("inf", "is not a finite number"),
        ("-Infinity", "is not a finite number"),
        ("1e999", "is not a finite number"),
        ("-1", "is negative"),
        ("1.5", "is not a whole number"),
        ("q" * 99, f"{'q' * 37}...' is not a finite number"),
    ],
)
def test_a_cell_that_is_no_count(form: Format, tmp_path: Path, text: str, reason: str) -> None:
    name = {"unsw-nb15": "dpkts", "kdd": "src_bytes"}[form.schema.name]
    cells = form.small()
    cells[-1][form.column(name)] = text
    path = _write(tmp_path / form.file_name, encode(cells))
    message = complaint(lambda: form.load(tmp_path))
    assert message.startswith(f"{path}: line {len(cells)}: column {name}: '{text[:37]}")
    assert f"{reason}; get the official file again" in message


def test_the_line_of_a_bad_cell_counts_blank_lines_too(form: Format, tmp_path: Path) -> None:
    cells = form.small()
    cells[-1][form.column("service")] = "  "
    content = encode(cells).replace(b"\n", b"\n\n")
    _write(tmp_path / form.file_name, content)
    message = complaint(lambda: form.load(tmp_path))
    assert f"line {2 * len(cells) - 1}: column service: '  ' is no term" in message


def test_rates_and_flags_end_at_one(tmp_path: Path) -> None:
    for name in ("serror_rate", "land"):
        cells = KDD.small()
        cells[2][KDD.column(name)] = "2"
        _write(tmp_path / KDD.file_name, encode(cells))
        assert f"line 3: column {name}: '2' is above 1" in complaint(lambda: KDD.load(tmp_path))


@pytest.mark.parametrize("keep", [1, 3, 30, -1])
@pytest.mark.parametrize("row", [-1, -2])
def test_a_row_cut_in_the_middle(form: Format, tmp_path: Path, keep: int, row: int) -> None:
    cells = form.small()
    columns = len(cells[0])
    cells[row] = cells[row][:keep]
    path = _write(tmp_path / form.file_name, encode(cells))
    message = complaint(lambda: form.load(tmp_path))
    assert message.startswith(
        f"{path}: line {len(cells) + 1 + row}: {len(cells[row])} of {columns} columns, the row is "
        "cut"
    )


def test_a_row_that_is_too_long(form: Format, tmp_path: Path) -> None:
    cells = form.small()
    cells[-2].append("7")
    _write(tmp_path / form.file_name, encode(cells))
    assert f"line {len(cells) - 1}: " in (message := complaint(lambda: form.load(tmp_path)))
    assert "the row is too long" in message
    for line in cells[bool(form.header) :]:
        line[:] = [*line[: len(cells[0])], "7"]
    _write(tmp_path / form.file_name, encode(cells))
    assert "columns" in complaint(lambda: form.load(tmp_path))


def test_a_quotation_mark_left_open(form: Format, tmp_path: Path) -> None:
    cells = form.small()
    cells[-2][4] = '"1'
    _write(tmp_path / form.file_name, encode(cells))
    assert f"line {len(cells)}: " in complaint(lambda: form.load(tmp_path))
    # So much text that csv gives up before the end.
    cells[-1][5] = "0" * 200_000
    _write(tmp_path / form.file_name, encode(cells))
    assert "field limit" in complaint(lambda: form.load(tmp_path))


def test_wrong_counts(form: Format, tmp_path: Path) -> None:
    path = _write(tmp_path / form.file_name, encode(form.small()))
    message = complaint(lambda: form.load(tmp_path, benign=6_000))
    assert message.startswith(f"{path}: 5 rows, but ")
    assert "6,002" in message
    assert f"{NEVER.rows:,}" in message
    message = complaint(lambda: form.load(tmp_path, benign=2, attacks=3))
    assert message.startswith(f"{path}: 3 of its 5 rows are ")
    assert "officially 2 are" in message


# UNSW-NB15


def test_unsw_header_may_be_padded_in_capitals_and_in_another_order(tmp_path: Path) -> None:
    cells = UNSW.small()
    _write(tmp_path / UNSW.file_name, encode(cells))
    plain = UNSW.load(tmp_path)
    turned = [line[::-1] for line in cells]
    turned[0] = [f" {name.upper()}\t" for name in turned[0]]
    _write(tmp_path / UNSW.file_name, b"\xef\xbb\xbf" + encode(turned))
    again = UNSW.load(tmp_path)
    np.testing.assert_array_equal(again.rows, plain.rows)
    np.testing.assert_array_equal(again.category, plain.category)


def test_unsw_wrong_columns_are_named(tmp_path: Path) -> None:
    cells = UNSW.small()
    cells[0][1], cells[0][2] = "duration", "id"
    path = _write(tmp_path / UNSW.file_name, encode(cells))
    message = complaint(lambda: UNSW.load(tmp_path))
    assert message.startswith(f"{path}: 45 columns, not the official 45; ")
    assert "missing: 'dur', 'proto'; extra: 'duration'; twice: 'id';" in message
    _write(path, encode(cells[1:]))
    assert "missing: 'id', 'dur', 'proto', 'service', 'state' and 40 more" in complaint(
        lambda: UNSW.load(tmp_path)
    )


def test_unsw_spellings_of_categories(tmp_path: Path) -> None:
    cells = UNSW.small(benign=4)
    for line, text in zip(cells[1:], ["", "NaN", " normal ", "NORMAL", "Backdoors", " DoS "],
                          strict=True):  # fmt: skip
        line[-2] = text
    _write(tmp_path / UNSW.file_name, encode(cells))
    table = UNSW.load(tmp_path, benign=4)
    assert table.category.tolist() == ["normal"] * 4 + ["backdoor", "dos"]
    assert table.notes == ()


@pytest.mark.parametrize(
    ("row", "column", "text", "expected"),
    [
        (2, -2, "Worms", "column label: '0' disagrees with attack_cat 'worms'"),
        (5, -2, "", "column label: '1' disagrees with attack_cat 'normal'"),
        (5, -1, "0", "column label: '0' disagrees with attack_cat 'backdoor'"),
        (5, -1, "2", "column label: '2' is above 1"),
        (5, -2, "Wor", "column attack_cat: 'Wor' is no category"),
    ],
)
def test_unsw_labels_must_agree(
    tmp_path: Path, row: int, column: int, text: str, expected: str
) -> None:
    cells = UNSW.small()
    cells[row][column] = text
    path = _write(tmp_path / UNSW.file_name, encode(cells))
    assert complaint(lambda: UNSW.load(tmp_path)).startswith(f"{path}: line {row + 1}: {expected}")


SMALL = unsw_nb15.UnswNb15(train=Expected(5, 3), test=Expected(7, 3), rebuilt=Expected(4, 3))


def test_unsw_swapped_names(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    _write(tmp_path / "sets" / unsw_nb15.TEST_FILE, encode(UNSW.small()))
    _write(tmp_path / "sets" / f"{unsw_nb15.TRAIN_FILE}.gz", encode(UNSW.small(attacks=4)))
    train, test = SMALL.load(tmp_path, "train"), SMALL.load(tmp_path, "test")
    assert (len(train.rows), train.files[0].name) == (5, unsw_nb15.TEST_FILE)
    assert (len(test.rows), test.files[0].name) == (7, f"{unsw_nb15.TRAIN_FILE}.gz")
    (note,) = train.notes
    assert note == (
        f"{unsw_nb15.TEST_FILE} has the 5 rows of the training set and is read as such: copies "
        "circulate with swapped names"
    )
    assert "the 7 rows of the testing set" in test.notes[0]


def test_unsw_names_as_they_should_be(tmp_path: Path) -> None:
    _write(tmp_path / unsw_nb15.TRAIN_FILE, encode(UNSW.small()))
    _write(tmp_path / unsw_nb15.TEST_FILE, encode(UNSW.small(attacks=4)))
    _write(tmp_path / unsw_nb15.REBUILT_FILE, encode(UNSW.small(attacks=1)))
    for part, rows, name in (("train", 5, unsw_nb15.TRAIN_FILE), ("test", 7, unsw_nb15.TEST_FILE)):
        table = SMALL.load(tmp_path, part)
        assert (len(table.rows), table.files[0].name, table.notes) == (rows, name, ())
    benign = SMALL.load(tmp_path, "train-normal")
    assert benign.files[0].rows == 5
    assert benign.category.tolist() == ["normal"] * 3
    assert not benign.attack.any()
    np.testing.assert_array_equal(benign.rows, SMALL.load(tmp_path, "train").benign())


def test_unsw_testing_set_alone_is_no_training_set(tmp_path: Path) -> None:
    path = _write(tmp_path / unsw_nb15.TRAIN_FILE, encode(UNSW.small(attacks=4)))
    assert len(SMALL.load(tmp_path, "test").rows) == 7
    message = complaint(lambda: SMALL.load(tmp_path, "train"))
    assert unsw_nb15.REBUILT_FILE in message
    assert f"({path} has the 7 rows of the testing set)" in message


def test_unsw_training_set_alone_is_no_testing_set(tmp_path: Path) -> None:
    path = _write(tmp_path / unsw_nb15.TRAIN_FILE, encode(UNSW.small()))
    message = complaint(lambda: SMALL.load(tmp_path, "test"))
    assert f"no file {unsw_nb15.TEST_FILE} (or" in message
    assert f"({path} has the 5 rows of the training set)" in message


def test_unsw_rebuilt_rows_stand_in(tmp_path: Path) -> None:
    path = _write(tmp_path / f"{unsw_nb15.REBUILT_FILE}.gz", encode(UNSW.small(attacks=1)))
    _write(tmp_path / unsw_nb15.TEST_FILE, encode(UNSW.small(attacks=4)))
    table = SMALL.load(tmp_path, "train")
    assert (len(table.rows), table.files[0].name) == (4, path.name)
    assert table.notes[0].startswith(f"{path.name} stands in for the training set: ")
    _write(path, encode(UNSW.small(attacks=2)))
    assert complaint(lambda: SMALL.load(tmp_path, "train")).startswith(f"{path}: 5 rows, but the ")


def test_unsw_rebuilt_rows_do_not_hide_a_damaged_training_set(tmp_path: Path) -> None:
    _write(tmp_path / unsw_nb15.REBUILT_FILE, encode(UNSW.small(attacks=1)))
    path = _write(tmp_path / unsw_nb15.TRAIN_FILE, encode(UNSW.small(benign=1)))
    message = complaint(lambda: SMALL.load(tmp_path, "train"))
    assert message.startswith(
        f"{path}: 3 rows, but the training set has 5 and the testing set 7; get the official"
    )


def test_unsw_header_without_rows(tmp_path: Path) -> None:
    _write(tmp_path / UNSW.file_name, ",".join(UNSW.header).encode())
    assert ": 0 rows, but the training set has 5" in complaint(lambda: UNSW.load(tmp_path))
    # A loader that expects no rows has no use, yet it must not crash.
    assert "not readable as a table" in complaint(lambda: UNSW.load(tmp_path, 0, 0))


# NSL-KDD


def test_kdd_without_the_difficulty(tmp_path: Path) -> None:
    cells = [line[:-1] for line in KDD.small()]
    _write(tmp_path / KDD.file_name, encode(cells))
    assert KDD.load(tmp_path).category.tolist() == ["normal"] * 3 + ["back", "land"]
    cells[-1].pop()
    _write(tmp_path / KDD.file_name, encode(cells))
    assert "line 5: 41 of 42 columns, the row is cut" in complaint(lambda: KDD.load(tmp_path))


def test_kdd_wrong_columns(tmp_path: Path) -> None:
    path = _write(tmp_path / KDD.file_name, b"<html>\n<body>\n")
    assert complaint(lambda: KDD.load(tmp_path)).startswith(
        f"{path}: 1 columns in the first row, not the official 43 (or 42, without the difficulty)"
    )


def test_kdd_parts_are_two_files(tmp_path: Path) -> None:
    data_set = nsl_kdd.NslKdd(train=Expected(5, 3), test=Expected(3, 1))
    _write(tmp_path / nsl_kdd.TRAIN_FILE, encode(KDD.small()))
    _write(tmp_path / nsl_kdd.TEST_FILE, encode(KDD.small(benign=1)))
    assert [len(data_set.load(tmp_path, part).rows) for part in data_set.parts] == [5, 3]
    _write(tmp_path / nsl_kdd.TEST_FILE, encode(KDD.small()))
    assert ": 5 rows, but KDDTrain+.txt has 5 and KDDTest+.txt has 3;" in complaint(
        lambda: data_set.load(tmp_path, "test")
    )


def test_kdd_unknown_attack(tmp_path: Path) -> None:
    cells = KDD.small()
    cells[3][41] = "nept"
    _write(tmp_path / KDD.file_name, encode(cells))
    assert "line 4: column label: 'nept' is no category" in complaint(lambda: KDD.load(tmp_path))


def test_kdd_attack_classes() -> None:
    assert Counter(nsl_kdd.ATTACK_CLASS.values()) == {"dos": 10, "probe": 6, "r2l": 15, "u2r": 8}
    assert "normal" not in nsl_kdd.ATTACK_CLASS


# The real files


@functools.cache
def real(name: str, part: str) -> Table:
    return DATASETS[name].load(CORPUS, part)


@corpus
@pytest.mark.parametrize(
    ("name", "part", "benign", "attacks"),
    [
        ("unsw-nb15", "test", 37_000, 45_332),
        ("nsl-kdd", "train", 67_343, 58_630),
        ("nsl-kdd", "test", 9_711, 12_833),
    ],
)
def test_real_files_are_what_they_should_be(
    name: str, part: str, benign: int, attacks: int
) -> None:
    table = real(name, part)
    assert table.rows.shape == (benign + attacks, len(table.schema.features))
    assert int(table.attack.sum()) == attacks
    assert table.notes == ()
    assert table.rows.min() >= 0


@corpus
def test_real_training_rows_are_official_or_rebuilt() -> None:
    table = real("unsw-nb15", "train")
    benign = real("unsw-nb15", "train-normal")
    assert int((~table.attack).sum()) == 56_000
    np.testing.assert_array_equal(benign.rows, table.benign())
    assert benign.files == table.files
    rebuilt = unsw_nb15.REBUILT_FILE in table.files[0].name
    assert len(table.rows) == (57_746 if rebuilt else 175_341)
    assert len(table.notes) == rebuilt


@corpus
def test_real_unsw_rows_keep_their_formulas() -> None:
    table = real("unsw-nb15", "test")
    at = dict(zip(table.schema.names, table.rows.T, strict=True))
    counts = Counter(table.category.tolist())
    assert (counts["generic"], counts["backdoor"], counts["worms"]) == (18_871, 583, 44)

    def share(found: FloatArray, formula: FloatArray, among: NDArray[np.bool_]) -> float:
        return float(np.isclose(found, formula, rtol=1e-3, atol=2e-6)[among].mean())

    lasting = at["dur"] > 0
    dur = np.where(lasting, at["dur"], 1.0)
    rate = (at["spkts"] + at["dpkts"] - 1) / dur
    assert share(at["rate"], rate, lasting & ~table.attack) >= 0.999
    # 1,251 rows, attacks all of them, have the `dur` of another record: their rate, loads and
    # intervals agree with each other and not with it.
    assert share(at["rate"], rate, lasting) >= 0.984
    for side in "sd":
        packets, size = at[f"{side}pkts"], at[f"{side}bytes"]
        sent = np.maximum(packets, 1)
        # The makers took off a packet of the mean size in whole bytes.
        load = 8 * (size - size // sent) / dur
        assert share(at[f"{side}load"], load, lasting & (packets > 0) & ~table.attack) >= 0.998
        assert (np.abs(at[f"{side}mean"] - size / sent) <= 0.5).all()
    assert share(at["tcprtt"], at["synack"] + at["ackdat"], lasting) == 1.0
    assert at["dur"].max() < 60


@corpus
def test_real_kdd_attacks_fall_into_their_classes() -> None:
    for part, expected in (
        ("train", {"dos": 45_927, "probe": 11_656, "r2l": 995, "u2r": 52}),
        ("test", {"dos": 7_458, "probe": 2_421, "r2l": 2_754, "u2r": 200}),
    ):
        table = real("nsl-kdd", part)
        names = table.category[table.attack].tolist()
        assert Counter(nsl_kdd.ATTACK_CLASS[name] for name in names) == expected
