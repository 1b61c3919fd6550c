"""The CICIDS2017 loader against files made here, in every spelling, and against the samples."""

from __future__ import annotations

import functools
import gzip
import lzma
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.cic import PORT_CLASSES, SCHEMA
from training.datasets import DATASETS, cicids2017
from training.datasets.base import DataSetError, Table
from training.datasets.cicids2017 import ATTACKS, CicIds2017, category_of
from training.datasets.files import Expected

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("FLOWVANE_CORPUS") or ROOT.parent / "shared" / "data")
corpus = pytest.mark.skipif(
    not (CORPUS / "cicids2017").is_dir(), reason=f"no CICIDS2017 at {CORPUS}; set FLOWVANE_CORPUS"
)

AT = {name: column for column, name in enumerate(SCHEMA.names)}
MONDAY = "Monday-WorkingHours.pcap_ISCX.csv"
WEB = "Thursday-WorkingHours-Morning-WebAttacks.pcap_ISCX.csv"
INFILTRATION = "Thursday-WorkingHours-Afternoon-Infilteration.pcap_ISCX.csv"
Cells = list[list[str]]

# The header of MachineLearningCVE: padded, and with a column twice.
HEADER = [
    "Fwd Header Length" if name == "Fwd Header Length.1" else name for name in SCHEMA.names
]  # fmt: skip
CVE = [*(f" {name}" for name in HEADER), " Label"]
LABELLING = [
    "Flow ID", " Source IP", " Source Port", " Destination IP", " Destination Port", " Protocol",
    " Timestamp", *(f" {name}" for name in HEADER[1:]), " Label",
]  # fmt: skip


def line(label: str = "BENIGN", **cells: str) -> list[str]:
    """A row of MachineLearningCVE; `cells` by a feature's name with _ for spaces and slashes."""
    row = [str(column + 1) for column in range(len(AT))]
    for name, text in cells.items():
        row[AT[{"rate": "Flow Bytes/s", "packet_rate": "Flow Packets/s"}.get(name, name)]] = text
    return [*row, label]


def labelled(row: list[str]) -> list[str]:
    """The same row as TrafficLabelling has it."""
    port, *rest = row
    ends = ["192.168.10.5", "49188", "8.254.250.126"]
    return ["id", *ends, port, "6", "03/07/2017 08:55:58", *rest]


def encode(cells: Cells, encoding: str = "utf-8") -> bytes:
    return "".join(",".join(row) + "\n" for row in cells).encode(encoding)


def data_set(name: str = MONDAY, rows: int = 2, benign: int = 2) -> CicIds2017:
    return CicIds2017(files={name: Expected(rows, benign)})


def load(directory: Path, data: bytes, rows: int = 2, benign: int = 2) -> Table:
    (directory / MONDAY).write_bytes(data)
    return data_set(rows=rows, benign=benign).load(directory, "monday")


def complaint(call: Callable[[], object]) -> str:
    with pytest.raises(DataSetError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
@pytest.mark.parametrize("spelling", ["MachineLearningCVE", "TrafficLabelling"])
def test_both_spellings_are_the_same_rows(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], spelling: str
) -> None:
    rows = [line(**{"Destination Port": "443"}), line(**{"Destination Port": "60000"})]
    cells = [CVE, *rows]
    if spelling == "TrafficLabelling":
        cells = [LABELLING, *map(labelled, rows)]
        assert len(LABELLING) == 85
    (tmp_path / spelling).mkdir()
    (tmp_path / spelling / f"{MONDAY}{suffix}").write_bytes(pack(encode(cells)))
    table = data_set().load(tmp_path, "monday")
    expected = np.tile(np.arange(1.0, 79.0), (2, 1))
    expected[:, 0] = [PORT_CLASSES.index("https"), PORT_CLASSES.index("dynamic")]
    np.testing.assert_array_equal(table.rows, expected)
    assert table.category.tolist() == ["normal"] * 2
    assert table.notes == ()


def test_a_header_in_capitals_and_another_order(tmp_path: Path) -> None:
    rows = [CVE, line(), line()]
    plain = load(tmp_path, encode(rows))
    # The duplicated columns have one name, so it is their order that tells them apart.
    turned = [row[40:] + row[:40] for row in rows]
    turned[0] = [name.upper() for name in turned[0]]
    again = load(tmp_path, encode(turned))
    keep = [column for name, column in AT.items() if "Fwd Header Length" not in name]
    np.testing.assert_array_equal(again.rows[:, keep], plain.rows[:, keep])


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    header = list(CVE)
    header[0], header[1] = "Port", " Idle Min"
    message = complaint(lambda: load(tmp_path, encode([header, line(), line()])))
    assert "79 columns, neither the 79 of MachineLearningCVE nor the 85 of TrafficLab" in message
    assert "missing: 'Destination Port', 'Flow Duration'; extra: 'port'; twice: 'idle min'" in (
        message
    )


def test_infinite_and_missing_rates_are_counted_and_become_0(tmp_path: Path) -> None:
    rows = [
        line(**{"Flow Duration": "0"}, rate="NaN", packet_rate="Infinity"),
        line(**{"Flow Duration": "0"}, rate="inf", packet_rate=""),
        line(),
    ]
    table = load(tmp_path, encode([CVE, *rows]), 3, 3)
    assert table.rows[:, AT["Flow Bytes/s"]].tolist() == [0, 0, 15]
    assert table.rows[:, AT["Flow Packets/s"]].tolist() == [0, 0, 16]
    assert table.notes == (
        f"{MONDAY}: 2 infinite and 2 missing rates, of flows of no duration, became 0",
    )


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"Flow Duration": "Infinity"}, "column Flow Duration: 'Infinity' is not a finite number"),
        ({"rate": "NaN"}, "column Flow Bytes/s: 'NaN' is not a finite number"),
        ({"Idle Min": ""}, "column Idle Min: '' is not a finite number"),
        ({"Destination Port": "70000"}, "column Destination Port: '70000' is no port"),
        ({"Destination Port": "-1"}, "column Destination Port: '-1' is no port"),
        ({"Destination Port": "8.5"}, "column Destination Port: '8.5' is no port"),
        ({"Flow Duration": "0x1F"}, "column Flow Duration: '0x1F' is not a finite number"),
    ],
)
def test_other_odd_cells_are_errors(tmp_path: Path, cells: dict[str, str], expected: str) -> None:
    message = complaint(lambda: load(tmp_path, encode([CVE, line(), line(**cells)])))
    assert message.startswith(f"{tmp_path / MONDAY}: line 3: {expected}")


def test_negative_values_are_kept_and_noted(tmp_path: Path) -> None:
    cells = {"Fwd Header Length": "-5", "Init_Win_bytes_forward": "-1"}
    table = load(tmp_path, encode([CVE, line(), line(**cells)]))
    assert table.rows[1, AT["Fwd Header Length"]] == -5
    assert table.rows[1, AT["Init_Win_bytes_forward"]] == -1
    assert table.notes == (f"{MONDAY}: negative values kept as published: Fwd Header Length (1)",)


def test_lines_of_commas_are_dropped_and_counted(tmp_path: Path) -> None:
    blank = [""] * len(LABELLING)
    rows = [LABELLING, labelled(line()), blank, labelled(line()), blank, blank]
    table = load(tmp_path, encode(rows))
    assert len(table.rows) == 2
    assert table.notes == (f"{MONDAY}: 3 lines of nothing but commas dropped",)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Web Attack \x96 XSS", "latin-1"),  # the official files: Windows' en dash
        ("Web Attack – XSS", "utf-8"),
        ("Web Attack — XSS", "utf-8"),
        ("Web Attack \ufffd XSS", "utf-8"),
        ("Web Attack ï¿½ XSS", "utf-8"),
        ("Web Attack â€“ XSS", "utf-8"),
        ("Web Attack - XSS", "utf-8"),
        (" web attack  xss", "utf-8"),
    ],
)
def test_spellings_of_a_web_attack(tmp_path: Path, text: str, encoding: str) -> None:
    table = load(tmp_path, encode([CVE, line(), line(text)], encoding), 2, 1)
    assert table.category.tolist() == ["normal", "web attack - xss"]


def test_every_official_label_is_a_category() -> None:
    official = (
        "Bot,DDoS,DoS GoldenEye,DoS Hulk,DoS Slowhttptest,DoS slowloris,FTP-Patator,Heartbleed,"
        "Infiltration,PortScan,SSH-Patator,Web Attack \x96 Brute Force,"
        "Web Attack \x96 Sql Injection,Web Attack \x96 XSS"
    )
    assert tuple(category_of(label) for label in official.split(",")) == ATTACKS
    assert category_of(" BENIGN ") == "normal"


@pytest.mark.parametrize("label", ["Bott", "", "Web Attack \x96 XXS"])
def test_other_labels_are_errors(tmp_path: Path, label: str) -> None:
    data = encode([CVE, line(), line(label)], "latin-1")
    message = complaint(lambda: load(tmp_path, data))
    assert ": line 3: column Label: " in message
    assert "is no category of this data set" in message


def test_wrong_counts(tmp_path: Path) -> None:
    data = encode([CVE, line(), line("Bot")])
    assert ": 2 rows, officially 3;" in complaint(lambda: load(tmp_path, data, 3, 2))
    assert ": 1 of its 2 rows are benign, officially 2 are;" in complaint(
        lambda: load(tmp_path, data)
    )


def test_a_day_is_all_its_files(tmp_path: Path) -> None:
    for name, port in ((MONDAY, "22"), (WEB, "80"), (INFILTRATION, "443")):
        (tmp_path / name).write_bytes(encode([CVE, line(**{"Destination Port": port})]))
    made = CicIds2017(files=dict.fromkeys((MONDAY, WEB, INFILTRATION), Expected(1, 1)))

    def ports(part: str) -> list[str]:
        return [PORT_CLASSES[int(code)] for code in made.load(tmp_path, part).rows[:, 0]]

    assert ports("monday") == ["ssh"]
    assert ports("thursday") == ["http", "https"]
    assert ports("all") == ["ssh", "http", "https"]
    assert [file.name for file in made.load(tmp_path, "thursday").files] == [WEB, INFILTRATION]
    (tmp_path / INFILTRATION).unlink()
    assert f"no file {INFILTRATION} (or with" in complaint(lambda: made.load(tmp_path, "thursday"))
    with pytest.raises(ValueError, match="no part 'sunday', only monday, "):
        made.load(tmp_path, "sunday")


def test_official_counts_add_up() -> None:
    files = cicids2017.FILES.values()
    assert len(files) == 8
    assert sum(counts.rows for counts in files) == 2_830_743
    assert sum(counts.benign for counts in files) == 2_273_097
    assert {name.lower().split("-")[0] for name in cicids2017.FILES} == set(CicIds2017.parts[:5])


def test_the_sample_without_its_repeated_rows(tmp_path: Path) -> None:
    header = [*SCHEMA.names, "Label", "source", "dup_of_earlier"]
    rows = [header, [*line(), "a", "0"], [*line("Bot"), "b", "1"], [*line("DDoS"), "b", "0"]]
    (tmp_path / cicids2017.SAMPLE_FILE).write_bytes(encode(rows))
    made = CicIds2017(sample=Expected(3, 1))
    assert made.load(tmp_path, "sample").category.tolist() == ["normal", "bot", "ddos"]
    distinct = made.load(tmp_path, "sample-distinct")
    assert distinct.category.tolist() == ["normal", "ddos"]
    assert distinct.notes == ("1 rows that repeat an earlier one dropped",)


# The real files


@functools.cache
def real(part: str) -> Table:
    return DATASETS["cicids2017"].load(CORPUS, part)


@corpus
@pytest.mark.parametrize(
    ("part", "rows", "attacks"),
    [("sample", 29_181, 4_551), ("sample-distinct", 28_411, 4_316), ("thursday-web", 7_246, 2_159)],
)
def test_real_samples_are_what_they_should_be(part: str, rows: int, attacks: int) -> None:
    table = real(part)
    assert table.rows.shape == (rows, 78)
    assert int(table.attack.sum()) == attacks
    assert np.isfinite(table.rows).all()


@corpus
def test_real_sample_tells_what_was_mended() -> None:
    notes = real("sample").notes
    assert notes[0].endswith("81 infinite and 15 missing rates, of flows of no duration, became 0")
    assert "Fwd Header Length (24)" in notes[1]
    assert "770 rows that repeat" in real("sample-distinct").notes[-1]
    counts = Counter(real("sample").category.tolist())
    assert (counts["web attack - xss"], counts["dos hulk"], counts["bot"]) == (656, 985, 6)
