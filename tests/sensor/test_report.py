"""What a person sees."""

from __future__ import annotations

import io
import ipaddress
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import rich.console
import rich.table

from sensor.report import TABLE_ROWS, AlertGroups, Console, why
from sensor.verdict import Alerts, GroupReport, Reason
from tests.helpers import NO_REMAINDER, make_flow

REASONS = tuple(Reason(f"feature{number}", f"{number}", "0", 1.0) for number in range(5))


def alert(score: float = 50.0, reasons: tuple[Reason, ...] = REASONS, **flow: Any) -> Alerts:
    return Alerts(make_flow(**flow), np.array([score]), np.array([0.001]), np.ones(1, int),
                  [reasons], [NO_REMAINDER])  # fmt: skip


def grouped(*alerts: Alerts, most: int = 10_000) -> AlertGroups:
    groups = AlertGroups(most)
    for each in alerts:
        groups.add(each)
    return groups


def drawn(table: rich.table.Table) -> str:
    out = io.StringIO()
    rich.console.Console(file=out, width=300).print(table)
    return out.getvalue()


def cells(groups: AlertGroups, rows: int = 100) -> list[list[str]]:
    """The cells of the table's rows, as they are drawn."""
    lines = [line for line in drawn(groups.table(rows)).splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def counted(groups: AlertGroups) -> tuple[int, int]:
    """How many groups the title says are shown, and there are."""
    shown, there_are = re.findall(r"\d+", str(groups.table().title))
    return int(shown), int(there_are)


# Groups


def test_a_port_scan_is_one_row() -> None:
    scan = [alert(50 + port / 1000, src_ip="10.0.0.9", dst_port=port) for port in range(1, 1001)]
    (row,) = cells(grouped(*scan))
    score, p, flows, source, destination, what, reasons = row
    assert (score, p, flows, source) == ("51.0", "0.001", "1000", "10.0.0.9")
    assert destination == "10.0.0.2 ports 1-1000"
    assert what == "TCP"
    assert reasons == "; ".join(f"feature{n} {n} (expected 0)" for n in range(3))


def test_a_flood_from_many_sources_is_one_row() -> None:
    flood = [alert(src_ip=f"198.51.100.{n % 250}", src_port=n) for n in range(1000)]
    (row,) = cells(grouped(*flood, alert(99.0, src_ip="198.51.100.7")))
    assert row[0] == "99.0"
    assert row[2:5] == ["1001", "250 sources", "10.0.0.2:80"]


def test_a_few_sources_are_rows_of_their_own() -> None:
    few = [alert(n, src_ip=f"198.51.100.{n}") for n in range(1, 5)]
    assert [row[3] for row in cells(grouped(*few))] == [f"198.51.100.{n}" for n in (4, 3, 2, 1)]
    assert len(cells(grouped(*few, alert(5, src_ip="198.51.100.5")))) == 1


def test_services_hosts_and_protocols_are_kept_apart() -> None:
    groups = grouped(
        alert(4, dst_ip="10.0.0.2"),
        alert(3, dst_ip="10.0.0.3"),
        alert(2, dst_ip="10.0.0.2", protocol=17),
        alert(1, src_ip="10.0.0.5", dst_ip="10.0.0.2"),
    )
    assert [(row[3], row[4], row[5]) for row in cells(groups)] == [
        ("10.0.0.1", "10.0.0.2:80", "TCP"),
        ("10.0.0.1", "10.0.0.3:80", "TCP"),
        ("10.0.0.1", "10.0.0.2:80", "UDP"),
        ("10.0.0.5", "10.0.0.2:80", "TCP"),
    ]


def test_a_group_shows_its_worst_alert() -> None:
    mild, worst = (Reason(name, "1", "2", 1.0) for name in ("mild", "worst"))
    groups = grouped(
        alert(5, (mild,)), alert(9, (worst,), application="HTTP.Evil"), alert(7, (mild,))
    )
    (row,) = cells(groups)
    assert row == ["9.0", "0.001", "3", "10.0.0.1", "10.0.0.2:80", "TCP HTTP.Evil",
                   "worst 1 (expected 2)"]  # fmt: skip


def test_an_alert_that_counts_several_is_so_many() -> None:
    one = alert(src_ip="10.0.0.9", dst_port=22)
    update = GroupReport(1, "update", "pair", 40, 41, 0, 20, 443)
    (row,) = cells(grouped(one, replace(one, reports=[update])))
    assert row[2:5] == ["41", "10.0.0.9", "10.0.0.2 ports 20-443"]


def test_the_most_anomalous_groups_come_first_and_the_rest_is_counted() -> None:
    groups = grouped(*(alert(n, dst_ip=f"10.0.1.{n}") for n in range(1, 40)))
    assert counted(groups) == (TABLE_ROWS, 39)
    assert [float(row[0]) for row in cells(groups, TABLE_ROWS)] == [
        float(n) for n in range(39, 29, -1)
    ]
    assert counted(grouped(alert())) == (1, 1)
    assert counted(grouped()) == (0, 0)


def test_protocols_without_ports_show_none() -> None:
    icmp = alert(protocol=1, src_port=0, dst_port=0, application="ICMP")
    other = alert(1, protocol=99, src_port=0, dst_port=0)
    rows = cells(grouped(icmp, other))
    assert [row[4:6] for row in rows] == [["10.0.0.2", "ICMP ICMP"], ["10.0.0.2", "099"]]


@pytest.mark.parametrize("address", ["2001:db8::1", "2001:abcd::1", "2001:db8:0:1234::1"])
def test_addresses_are_shown_as_they_are(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    Console().show(grouped(alert(src_ip=address, dst_ip=address)).table())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    parts = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    cells = ["".join(folded) for folded in zip(*parts, strict=True)]
    full = ipaddress.IPv6Address(address).exploded
    assert cells[3:5] == [full, f"{full}:80"]


def test_a_name_with_brackets_is_no_markup() -> None:
    odd = Reason("[red]name[/red]", "[bold]", "[/]", 1.0)
    (row,) = cells(grouped(alert(reasons=(odd,), application="A[b]c")))
    assert row[5:] == ["TCP A[b]c", "[red]name[/red] [bold] (expected [/])"]


def test_an_alert_without_reasons_is_shown() -> None:
    (row,) = cells(grouped(alert(reasons=())))
    assert row[-1] == ""


def test_a_reason_is_a_short_sentence() -> None:
    assert why(Reason("dur", "9.5", "0.1", 4.0)) == "dur 9.5 (expected 0.1)"
    amount = Reason("dur", "9.5", "0.1", 4.0, 99.0, "0..2.5", 0.0, 2.5)
    assert why(amount) == "dur 9.5 (expected 0.1, usual 0..2.5)"
    assert why(Reason("proto", "udp", "tcp", 4.0, 3.0, "tcp|udp")) == "proto udp (expected tcp)"


# Memory


def test_forged_sources_do_not_fill_the_memory() -> None:
    groups = AlertGroups(most=100)
    for number in range(5000):
        source = f"10.{number % 200}.{number // 200}.1"
        groups.add(alert(src_ip=source, dst_port=number % 60_000))
    assert counted(groups)[1] <= 101
    rows = cells(groups, 10_000)
    assert sum(int(row[2]) for row in rows) == 5000  # each counts, whichever group it is in


def test_many_destinations_do_not_fill_the_memory() -> None:
    groups = AlertGroups(most=100)
    for number in range(5000):  # a sweep over a network
        groups.add(alert(dst_ip=f"10.{number % 200}.{number // 200}.1"))
    assert counted(groups)[1] <= 200
    assert sum(int(row[2]) for row in cells(groups, 10_000)) == 5000


# Console


def test_problems_go_to_standard_error_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.error("x.pcap: is empty")
    console.warn("y.pcap: " + "very " * 60 + "long")
    console.say("result")
    out, err = capsys.readouterr()
    assert out == "result\n"
    first, second = err.splitlines()
    assert first == "flowvane: error: x.pcap: is empty"
    assert second.startswith("flowvane: warning: y.pcap: very very")
    assert second.endswith("long")


@pytest.mark.parametrize(
    "name",
    [
        "[bold]x[/bold].pcap", "[/].pcap", "a\\[b].pcap", "back\\", ":warning:.pcap",
        "12:abcd:56.pcap", "link=[link=http://x]y", "ümläut.pcap", "%s {0}.pcap",
    ],
)  # fmt: skip
def test_names_are_printed_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.error(f"{name}: is empty")
    console.warn(f"{name}: is empty")
    console.say(f"{name}: done")
    out, err = capsys.readouterr()
    assert out == f"{name}: done\n"
    assert err == f"flowvane: error: {name}: is empty\nflowvane: warning: {name}: is empty\n"


@pytest.mark.parametrize("name", ["two\nlines.pcap", "a\rb.pcap", "esc\x1b[31mred.pcap"])
def test_a_name_cannot_make_a_line_of_its_own(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Console().error(f"{name}: is empty")
    _, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert "\x1b" not in err


def test_a_name_that_is_no_text_is_printed_somehow(capsys: pytest.CaptureFixture[str]) -> None:
    name = b"caf\xe9.pcap".decode("utf-8", "surrogateescape")
    Console().error(f"{name}: is empty")
    Console().say(f"{name}: done")
    out, err = capsys.readouterr()
    assert err.startswith("flowvane: error: caf")
    assert out.startswith("caf")


def test_no_progress_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    with console.progress("working", 3) as advance:
        advance(1)
    assert list(console.track([1, 2, 3], "working")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


def test_a_table_is_wide_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Console().show(grouped(alert()).table())
    out, _ = capsys.readouterr()
    assert max(map(len, out.splitlines())) > 100
    assert "10.0.0.2:80" in out


@pytest.mark.parametrize("text", [r"a\\[b]", "[red]x[/red]", ":smile:", r"\[", "x" * 300])
def test_what_is_told_is_told_to_the_letter(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.say(text)
    console.error(text)
    console.warn(text)
    out, err = capsys.readouterr()
    assert out == f"{text}\n"
    assert err == f"flowvane: error: {text}\nflowvane: warning: {text}\n"
