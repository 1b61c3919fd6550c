"""What the sensor measures of the XSS capture is what the makers of CICIDS2017 published."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from benchmarks.agreement_cic import (
    Agreement,
    compare,
    frames,
    markdown,
    match,
    measure,
    published_rows,
    until_first_fin,
)
from examples import traffic
from features.cic import SCHEMA
from tests.helpers import DATA

ARCHIVE = DATA / "pcaps" / "attacks.tar.xz"
corpus = pytest.mark.skipif(
    not (ARCHIVE.is_file() and (DATA / "cicids2017").is_dir()),
    reason=f"no CICIDS2017 and captures at {DATA}; set FLOWVANE_CORPUS",
)

A = traffic.Host("02:00:00:00:00:01", "10.0.0.1")
B = traffic.Host("02:00:00:00:00:02", "10.0.0.2")


def test_a_flow_is_cut_after_its_first_fin(tmp_path: Path) -> None:
    packets = [
        (1, traffic.tcp_frame(A, B, 1, 80, "S")),
        (2, traffic.tcp_frame(B, A, 80, 1, "FA")),
        (3, traffic.tcp_frame(A, B, 1, 80, "FA")),
        (4, traffic.tcp_frame(A, B, 2, 80, "S")),
        (5, traffic.udp_frame(A, B, 1, 80, b"x")),
        (6, traffic.tcp_frame(B, A, 80, 1, "A")),
    ]
    traffic.write_pcap(tmp_path / "a.pcap", packets)
    kept = until_first_fin(frames(tmp_path / "a.pcap"))
    assert kept == [packets[number] for number in (0, 1, 3, 4)]


@pytest.fixture(scope="module")
def agreement(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, int, list[Agreement]]:
    """Flows, matched flows, and how their columns agree."""
    path = tmp_path_factory.mktemp("xss") / "WebattackXSS.pcap"
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name.endswith(path.name) else None
            if content:
                path.write_bytes(content.read())
                break
    flows, measured = measure(until_first_fin(frames(path)))
    rows, ports = published_rows(DATA)
    pairs, left = match(flows, rows, ports)
    ours, theirs = (list(side) for side in zip(*pairs, strict=True))
    result = compare(measured[ours], rows[theirs])
    assert "| Flow Duration |" in markdown(
        result, dict.fromkeys(("packets", "cut", "flows", "matched", "uncut_flows",
                               "uncut_matched"), 0), left,
    )  # fmt: skip
    return len(flows), len(pairs), result


@corpus
def test_nine_flows_of_ten_have_their_row(agreement: tuple[int, int, list[Agreement]]) -> None:
    flows, matched, _ = agreement
    assert (flows, matched) == (661, 608)


@corpus
def test_every_column_that_a_model_may_use_agrees(
    agreement: tuple[int, int, list[Agreement]],
) -> None:
    used = SCHEMA.select(live=True, testbed=False)
    for each in agreement[2]:
        if each.column in used:
            # A corrected mean is of a total that the file gives in three digits.
            assert max(each.tick, each.published) >= 0.99, each.column


@corpus
def test_what_is_left_out_would_not_agree(agreement: tuple[int, int, list[Agreement]]) -> None:
    shares = {each.column: each for each in agreement[2]}
    # Counts of flags against the first packet's, subflows against totals.
    for name in ("FIN Flag Count", "SYN Flag Count", "ACK Flag Count", "Subflow Fwd Packets"):
        assert shares[name].tick <= 0.01, name
    # Corrected by remeasure: the gap before the FIN, the ratio cut to an integer.
    for name in ("Idle Max", "Active Max", "Down/Up Ratio"):
        assert shares[name].published < 0.2 <= shares[name].tick, name
