"""UNSW-NB15's formulas and windows against the published rows.

The features that are functions of other columns are recomputed from those columns over the
82,332 rows of the testing set, and the seven connection windows over the first rows of the raw
file, which has addresses, ports and times. It is the sensor's own code that computes them. Run
from the repository's root::

    python -m benchmarks.published --data DIR -o docs/agreement-published.json

which writes ``docs/agreement-published.md`` as well; DIR holds UNSW_NB15_testing-set.csv and
UNSW-NB15_1.csv, or its first rows as UNSW-NB15_1.first10000.csv (plain, .gz or .xz).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.flows import FlowBatch, empty_flows, pack_address
from features.schema import FloatArray
from features.unsw_nb15 import (
    SCHEMA,
    STATES,
    load_bps,
    mean_size,
    rate_pps,
    state_ttl_class,
    window_keys,
)
from features.windows import BLOCK_FLOWS, BlockCounts, count_equal
from training.datasets import DATASETS
from training.datasets.base import DataSetError, Table
from training.datasets.files import find_files, not_found
from training.datasets.unsw_nb15 import HOME

RAW_FILES = ("UNSW-NB15_1.first10000.csv", "UNSW-NB15_1.csv")
RAW_ROWS = 10_000
FIRST_ROWS = 2_000

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

# ---------------------------------------------------------------------------------------
# Formulas, over rows [N, 42]


def same(published: FloatArray, computed: FloatArray, digits: int = 6) -> BoolArray:
    """Where two columns agree: to six significant digits, of those that are published."""
    return np.isclose(computed, published, rtol=10.0**-digits, atol=1e-6)


def columns(rows: FloatArray) -> dict[str, FloatArray]:
    """The columns of rows ``[N, 42]`` by name, ``[N]`` each."""
    return dict(zip(SCHEMA.names, rows.T, strict=True))


def formulas(rows: FloatArray) -> dict[str, FloatArray]:
    """What the features that are functions of others should be in rows ``[N, 42]``."""
    of = columns(rows)
    return {
        "rate": rate_pps(of["spkts"] + of["dpkts"], of["dur"]),
        "sload": load_bps(of["sbytes"], of["spkts"], of["dur"]),
        "dload": load_bps(of["dbytes"], of["dpkts"], of["dur"]),
        "smean": mean_size(of["sbytes"], of["spkts"]),
        "dmean": mean_size(of["dbytes"], of["dpkts"]),
        "tcprtt": of["synack"] + of["ackdat"],
        "ct_state_ttl": state_ttl_class(of["state"], of["sttl"], of["dttl"]),
    }


def told_duration(rows: FloatArray) -> FloatArray:
    """Seconds that a load was taken over, by bytes and packets; 0 where there is no load."""
    of = columns(rows)
    result = np.zeros(len(rows))
    for side in "ds":
        bits = load_bps(of[f"{side}bytes"], of[f"{side}pkts"], np.ones(len(rows)))
        load = of[f"{side}load"]
        result = np.where((load > 0) & (bits > 0), bits / np.where(load > 0, load, 1.0), result)
    return result


def flaws(rows: FloatArray) -> dict[str, BoolArray]:
    """Rows ``[N, 42]`` that contradict themselves, by what is wrong with them.

    ``loads swapped``: each side has the load of the other one. ``dur is 0``, ``dur is
    another``: rate and loads were taken over one and the same duration, which is not `dur`.
    """
    of, expected = columns(rows), formulas(rows)
    loads = same(of["sload"], expected["sload"]) & same(of["dload"], expected["dload"])
    crossed = same(of["sload"], expected["dload"]) & same(of["dload"], expected["sload"])
    swapped = crossed & ~loads
    told = told_duration(rows)
    agreed = same(of["rate"], rate_pps(of["spkts"] + of["dpkts"], told), digits=5)
    other = ~swapped & agreed & (~same(of["rate"], expected["rate"]) | ~loads)
    return {
        "loads swapped": swapped,
        "dur is 0": other & (of["dur"] == 0),
        "dur is another": other & (of["dur"] > 0),
    }


def mended(rows: FloatArray) -> FloatArray:
    """Rows ``[N, 42]`` without their :func:`flaws`: loads swapped back, `dur` as loads tell it."""
    at = {name: column for column, name in enumerate(SCHEMA.names)}
    wrong, result = flaws(rows), rows.copy()
    swapped = wrong["loads swapped"]
    result[swapped, at["sload"]] = rows[swapped, at["dload"]]
    result[swapped, at["dload"]] = rows[swapped, at["sload"]]
    other = wrong["dur is 0"] | wrong["dur is another"]
    result[other, at["dur"]] = told_duration(rows)[other]
    return result


def most_by_class(rows: FloatArray) -> float:
    """The largest share of `ct_state_ttl` that any function of (state, sttl, dttl) gives."""
    of = pd.DataFrame(columns(rows))
    counts = of.groupby(["state", "sttl", "dttl"])["ct_state_ttl"].value_counts()
    return float(counts.groupby(["state", "sttl", "dttl"]).max().sum() / len(rows))


def compare_formulas(table: Table) -> dict[str, Any]:
    """Shares of the testing set's rows where each column is what its formula gives."""
    rows, wrong = table.rows, flaws(table.rows)
    of, expected = columns(rows), formulas(rows)
    after = mended(rows)
    without = formulas(after)
    benign = ~table.attack
    result = {}
    for name, values in expected.items():
        equal = same(of[name], values)
        # The told duration has the digits of the load that tells it.
        again = same(columns(after)[name], without[name], digits=5)
        result[name] = {
            "all": float(equal.mean()),
            "benign": float(equal[benign].mean()),
            "mended": float((equal | again).mean()),
            "rows_off": int(np.count_nonzero(~equal)),
        }
    return {
        "rows": len(rows),
        "columns": result,
        "flaws": {
            name: {"rows": int(each.sum()), "attacks": int((each & table.attack).sum())}
            for name, each in wrong.items()
        },
        "ct_state_ttl_at_most": most_by_class(rows),
    }


# ---------------------------------------------------------------------------------------
# Windows, over raw rows


@dataclass(frozen=True)
class RawRows:
    """Rows of the raw file.

    Attributes:
        flows: what the windows look at, ``[N]``, and what `ct_state_ttl` does.
        published: the seven windows, ``[N, 7]``.
        attack: ``[N]``.
        copy: how many rows before it are equal to each in all but the category, ``[N]``.
    """

    flows: FlowBatch
    published: FloatArray
    attack: BoolArray
    copy: IntArray

    def take(self, rows: IntArray | BoolArray | slice) -> RawRows:
        """Some of the rows, in the given order."""
        return RawRows(self.flows[rows], self.published[rows], self.attack[rows], self.copy[rows])


WINDOWS = SCHEMA.windows().names
_NAMES = (
    "srcip sport dstip dsport proto state dur sbytes dbytes sttl dttl sloss dloss service sload "
    "dload spkts dpkts swin dwin stcpb dtcpb smeansz dmeansz trans_depth res_bdy_len sjit djit "
    "stime ltime sintpkt dintpkt tcprtt synack ackdat is_sm_ips_ports ct_state_ttl "
    "ct_flw_http_mthd is_ftp_login ct_ftp_cmd ct_srv_src ct_srv_dst ct_dst_ltm ct_src_ltm "
    "ct_src_dport_ltm ct_dst_sport_ltm ct_dst_src_ltm attack_cat label"
).split()
# An application that nDPI would name where Bro names the service.
_APPLICATIONS = {
    "-": b"", "dhcp": b"DHCP", "dns": b"DNS", "ftp": b"FTP_CONTROL", "ftp-data": b"FTP_DATA",
    "http": b"HTTP", "irc": b"IRC", "pop3": b"POP3", "radius": b"Radius", "smtp": b"SMTP",
    "snmp": b"SNMP", "ssh": b"SSH", "ssl": b"TLS",
}  # fmt: skip


def raw_sheet(directory: Path, count: int = RAW_ROWS) -> pd.DataFrame:
    """The first rows of the raw file: its 49 columns, as text.

    Raises:
        DataSetError: the file is missing, or does not have the 49 columns.
    """
    found = find_files(directory, RAW_FILES)
    if not found:
        raise not_found(directory, RAW_FILES, HOME)
    sheet = pd.read_csv(
        found[0],
        header=None,
        dtype=str,
        keep_default_na=False,
        nrows=count + 1,
        encoding="utf-8-sig",
    )
    if sheet.shape[1] != len(_NAMES):
        raise DataSetError(f"{found[0]}: {sheet.shape[1]} columns, not the official {len(_NAMES)}")
    sheet.columns = pd.Index(_NAMES)
    headed = sheet["srcip"].iloc[0].strip().lower() == "srcip"
    return sheet.iloc[int(headed) :].head(count).reset_index(drop=True)


def packed(addresses: Sequence[str]) -> NDArray[np.uint8]:
    """Packed addresses, ``[K, 16]``."""
    return np.stack([np.frombuffer(pack_address(text), np.uint8) for text in addresses])


def raw_rows(sheet: pd.DataFrame) -> RawRows:
    """The rows of a :func:`raw_sheet`, in its order, which is by last time."""
    flows = empty_flows(len(sheet))
    for side in ("src", "dst"):
        flows[f"{side}_ip"] = packed(sheet[f"{side}ip"].tolist())
        flows[f"{side}_ttl"] = sheet[f"{side[0]}ttl"].astype(int)
    # ICMP's types and codes are hexadecimal in some copies.
    flows["src_port"] = [int(text, 0) for text in sheet["sport"]]
    flows["dst_port"] = [int(text, 0) for text in sheet["dsport"]]
    flows["last_us"] = sheet["ltime"].astype(np.int64) * 1_000_000
    flows["application"] = [_APPLICATIONS[name.strip()] for name in sheet["service"]]
    flows["src_payload_bytes"] = 1
    names = [name for name in _NAMES if name != "attack_cat"]
    return RawRows(
        flows=flows,
        published=sheet[list(WINDOWS)].astype(float).to_numpy(),
        attack=sheet["label"].to_numpy() == "1",
        copy=np.asarray(sheet.groupby(names, sort=False).cumcount(), np.int64),
    )


def counted(raw: RawRows, length: int | None = None) -> BoolArray:
    """Where the sensor's windows give the published values, ``[N, 7]``; or blocks of `length`."""
    windows = SCHEMA.windows() if length is None else BlockCounts(WINDOWS, length)
    _, begun = windows.push(raw.flows, window_keys(raw.flows))
    _, rest = windows.flush()
    ours = [np.concatenate([begun[name], rest[name]]) for name in WINDOWS]
    equal: BoolArray = np.stack(ours, axis=1) == raw.published
    return equal


FILLED = tuple(f"59.166.0.{last}" for last in range(10))
"""Source addresses of the first ten rows in some copies: a series, as a spreadsheet fills in."""
FIRST_SOURCES = (
    "59.166.0.0", "59.166.0.0", "59.166.0.6", "59.166.0.5", "59.166.0.3", "59.166.0.0",
    "59.166.0.6", "10.40.182.3", "59.166.0.7", "59.166.0.5",
)  # fmt: skip
"""What they were: the one choice with which all 400 counts by source of the first block agree.

The first six are also in a print of the head of the official file, in which nothing was filled in.
"""


def with_first_sources(raw: RawRows, addresses: Sequence[str] = FIRST_SOURCES) -> RawRows:
    """The rows with their first source addresses restored, if they are the series."""
    if not (raw.flows["src_ip"][: len(FILLED)] == packed(FILLED)).all():
        return raw
    flows = raw.flows.copy()
    flows["src_ip"][: len(addresses)] = packed(addresses)
    return replace(raw, flows=flows)


def without_repeats(raw: RawRows) -> RawRows:
    """The rows without those that labelling repeated.

    An attack record that met several lines of the table of attacks is in the file once for each,
    at times under several categories. It was counted before: `ct_dst_sport_ltm`, the narrowest of
    the windows, tells how many there were.
    """
    there = raw.published[:, WINDOWS.index("ct_dst_sport_ltm")]
    return raw.take(~(raw.attack & (raw.copy > 0) & (raw.copy >= there)))


@dataclass(frozen=True)
class _Cut:
    """One way to cut the rows: the first `start` of them are before it, and those `before`."""

    start: int
    before: IntArray


def _cuts(raw: RawRows, edge: int) -> list[_Cut]:
    """The ways to cut after `edge` rows; the first is as they lie.

    The file has the attacks of a second before or after all others, so where among them they were
    is not known: any of them may have been before the edge.
    """
    last = raw.flows["last_us"]
    if edge == len(last) or last[edge - 1] < last[edge]:
        return [_Cut(edge, np.arange(0))]
    start = int(np.searchsorted(last, last[edge], "left"))
    second = np.arange(start, np.searchsorted(last, last[edge], "right"))
    attacks, others = second[raw.attack[second]], second[~raw.attack[second]]
    result = [_Cut(start, np.arange(start, edge))]
    for number in range(len(attacks) + 1):
        rest = edge - start - number
        if 0 <= rest <= len(others):
            result += [
                _Cut(start, np.array([*others[:rest], *chosen], np.int64))
                for chosen in combinations(attacks, number)
            ]
    return result


def placed(raw: RawRows, by: Sequence[int]) -> IntArray:
    """An order of the rows, ``[N]``, in which attacks are where they were within their second.

    Of all ways to cut blocks of 100 (:func:`_cuts`) it is the one in which the most published
    values of the columns `by` agree: the best path from edge to edge.
    """
    keys = window_keys(raw.flows)
    chosen = np.stack([keys[WINDOWS[column]] for column in by], axis=1).astype(np.uint64)
    published = raw.published[:, list(by)]

    def agreeing(block: IntArray) -> int:
        return int(np.count_nonzero(count_equal(chosen[block]) == published[block]))

    edges = [*range(0, len(raw.flows), BLOCK_FLOWS), len(raw.flows)]
    paths: list[tuple[int, _Cut, list[IntArray]]] = [(0, _Cut(0, np.arange(0)), [])]
    for begin, edge in pairwise(edges):
        longer = []
        for cut in _cuts(raw, edge):
            found = []
            for score, earlier, blocks in paths:
                until = np.append(np.arange(earlier.start, cut.start), cut.before)
                block = np.setdiff1d(until, earlier.before)
                if len(block) == edge - begin:  # or they choose otherwise in the same second
                    found.append((score + agreeing(block), cut, [*blocks, block]))
            if found:
                longer.append(max(found, key=lambda path: path[0]))
        paths = longer
    _, _, blocks = max(paths, key=lambda path: path[0])
    return np.concatenate(blocks)


def placed_held_out(raw: RawRows) -> BoolArray:
    """As :func:`counted`, each column in the order that the six others give."""
    result = np.empty(raw.published.shape, np.bool_)
    for column in range(len(WINDOWS)):
        order = placed(raw, [other for other in range(len(WINDOWS)) if other != column])
        result[order, column] = counted(raw.take(order))[:, column]
    return result


PLACED = "attacks placed within their second"


def compare_windows(raw: RawRows) -> list[dict[str, Any]]:
    """Shares of rows where each window agrees, after each step of undoing, and two controls."""
    restored = with_first_sources(raw)
    once = without_repeats(restored)
    no_second = once.flows.copy()
    no_second["last_us"] = 0
    steps = {
        "as published": counted(raw),
        "first ten sources restored": counted(restored),
        "repeats left out": counted(once),
        PLACED: placed_held_out(once),
        "control: repeats left out, blocks of 99": counted(once, 99),
        "control: repeats left out, all seconds alike": counted(replace(once, flows=no_second)),
    }
    return [
        {
            "step": name,
            "rows": len(equal),
            "columns": dict(zip(WINDOWS, equal.mean(axis=0).tolist(), strict=True)),
            "all_seven_by_1000": [
                float(equal[begin : begin + 1000].all(axis=1).mean())
                for begin in range(0, len(equal), 1000)
            ],
        }
        for name, equal in steps.items()
    ]


# ---------------------------------------------------------------------------------------
# The report


def compare(directory: Path) -> dict[str, Any]:
    """All of the report.

    Raises:
        DataSetError: a file is missing, or is not what it claims to be.
    """
    table = DATASETS["unsw-nb15"].load(directory, "test")
    sheet = raw_sheet(directory)
    raw = raw_rows(sheet)
    states = np.array([STATES.index(name) for name in sheet["state"]], np.float64)
    classes = state_ttl_class(states, raw.flows["src_ttl"], raw.flows["dst_ttl"])
    return {
        "command": "python -m benchmarks.published --data DIR -o docs/agreement-published.json",
        "formulas": compare_formulas(table),
        "raw_ct_state_ttl": float((classes == sheet["ct_state_ttl"].astype(int)).mean()),
        "windows": {
            str(count): compare_windows(raw.take(slice(count))) for count in (FIRST_ROWS, RAW_ROWS)
        },
    }


def _percent(share: float) -> str:
    """A share in percent, cut to two decimals: only all of them are 100."""
    return f"{int(share * 10_000 + 1e-6) / 100:.2f}"


def _formulas_page(report: dict[str, Any]) -> list[str]:
    result, raw = report["formulas"], report["raw_ct_state_ttl"]
    return [
        "## Formulas",
        "",
        f"Shares of the testing set's {result['rows']:,} rows, in percent, that agree to six",
        "digits. *Mended*: with the two loads changed back where they are swapped, and with the",
        "duration that the loads tell where `dur` is not the one behind rate and loads.",
        "",
        "| column | all | rows off | benign | mended |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {name} | {_percent(each['all'])} | {each['rows_off']:,} | "
            f"{_percent(each['benign'])} | {_percent(each['mended'])} |"
            for name, each in result["columns"].items()
        ),
        "",
        "Rows that contradict themselves:",
        "",
        *(
            f"- {name}: {each['rows']:,} rows, {each['attacks']:,} of them attacks"
            for name, each in result["flaws"].items()
        ),
        "",
        "`ct_state_ttl`: no function of state, sttl and dttl can agree with more than "
        f"{_percent(result['ct_state_ttl_at_most'])} %, since",
        "the same three have two values; all rows off are attacks with 0 where others have 3 or 4.",
        f"On the first rows of the raw file the rule agrees with {_percent(raw)} %.",
        "",
    ]


_WINDOWS_TEXT = f"""## Windows

Shares in percent, blocks of 100 records by last time. Each line undoes one more thing
that happened to the file after its makers had counted:

- *first ten sources*: in this copy of the file the first ten source addresses are
  {FILLED[0]} to {FILLED[-1]} in order, as a spreadsheet fills in. Restored are the ten
  with which all counts by source of the first block agree: fitted to the four columns by
  source, `ct_srv_src` among them, so for this block those columns are no evidence.
- *repeats*: an attack that met several lines of the table of attacks is in the file once
  for each. `ct_dst_sport_ltm` tells how many there were, so its own figure is no
  evidence from here on. The shares are of the rows left.
- *attacks placed*: the file has the attacks of a second before or after all its other
  records. Which of them came before a block's edge is chosen so that the most values
  agree: of the six other columns, never of the one reported. All blocks have 100 records.

The controls show what a wrong rule gives; `ct_dst_sport_ltm` is 1 in nearly every row and
agrees with any. The last block of the {RAW_ROWS:,} rows is cut off by their end. *All seven*
are the rows where all columns agree, of each thousand rows.
"""


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = [
        "# Agreement with UNSW-NB15's own rows",
        "",
        f"Written by `{report['command']}`; do not edit.",
        "The sensor's own code recomputes each feature from other columns of the published rows.",
        "Percentages are cut, not rounded: 100.00 is all rows.",
        "",
        *_formulas_page(report),
        *_WINDOWS_TEXT.splitlines(),
        "",
    ]
    for count, steps in report["windows"].items():
        lines += [
            f"First {int(count):,} rows:",
            "",
            f"| | rows | {' | '.join(WINDOWS)} |",
            f"|---|---:|{'---:|' * len(WINDOWS)}",
            *(
                f"| {each['step']} | {each['rows']:,} | "
                f"{' | '.join(_percent(share) for share in each['columns'].values())} |"
                for each in steps
            ),
            "",
            *(
                f"All seven, {each['step']}: {', '.join(map(_percent, each['all_seven_by_1000']))}"
                for each in steps
                if each["step"] == PLACED
            ),
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    """Compare and write both reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="directory of the rows")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the report, .json")
    args = parser.parse_args()
    report = compare(args.data)
    args.output.write_text(json.dumps(report, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(markdown(report))


if __name__ == "__main__":
    main()
