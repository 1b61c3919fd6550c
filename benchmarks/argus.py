"""Holds the UNSW-NB15 features against Argus, flow by flow.

``python -m benchmarks.argus CAPTURE… [-o docs/agreement-argus.md]`` runs ``argus -J -S 60`` and
``ra`` on each capture (Debian packages argus-server and argus-client), meters the same captures,
matches flows by 5-tuple, start time and packet counts, and writes the share of equal values a
column. The options: ``-J`` for packet performance (losses, jitter, intervals), ``-S 60`` for
UNSW-NB15's records of at most 60 s.
"""

from __future__ import annotations

import argparse
import csv
import math
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.flows import unpack_address
from features.unsw_nb15 import SCHEMA
from sensor.captures import Capture, CaptureSpool, Chain
from sensor.errors import InputError
from sensor.meter.stock import StockMeter
from sensor.pipeline import measure

Key = tuple[str, str, str, str, str]
"""Protocol, source, source port, destination, destination port."""

START_TOLERANCE_S = 0.002
TICK_S = 0.001_1
"""One tick of the millisecond clock, and what a float in a table may be off."""


@dataclass(frozen=True)
class Column:
    """A feature, Argus's column for it, and how far apart the two may be."""

    feature: str
    argus: str
    tolerance: float = 0.0
    tcp_only: bool = False


COLUMNS: tuple[Column, ...] = (
    Column("dur", "dur", TICK_S),
    Column("state", "state"),
    Column("sbytes", "sbytes"),
    Column("dbytes", "dbytes"),
    Column("sttl", "sttl"),
    Column("dttl", "dttl"),
    Column("sloss", "sloss"),
    Column("dloss", "dloss"),
    Column("stcpb", "stcpb", tcp_only=True),
    Column("dtcpb", "dtcpb", tcp_only=True),
    Column("tcprtt", "tcprtt", TICK_S, tcp_only=True),
    Column("synack", "synack", TICK_S, tcp_only=True),
    Column("ackdat", "ackdat", TICK_S, tcp_only=True),
    Column("sinpkt", "sintpkt", 1.1),
    Column("dinpkt", "dintpkt", 1.1),
    Column("smean", "smeansz", 0.51),
    Column("dmean", "dmeansz", 0.51),
)
_ARGUS_FIELDS = (
    "stime", "proto", "saddr", "sport", "daddr", "dport", "spkts", "dpkts",
    *(column.argus for column in COLUMNS),
)  # fmt: skip


@dataclass
class Agreement:
    """Counts over all captures."""

    argus_flows: int = 0
    own_flows: int = 0
    matched: int = 0
    refused: list[str] = field(default_factory=list)
    equal: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    differences: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def share(self, feature: str) -> float:
        """Share of matched flows in which `feature` agrees, NaN if none was compared."""
        compared = self.compared[feature]
        return self.equal[feature] / compared if compared else math.nan


def argus_records(capture: Path) -> list[dict[str, str]] | None:
    """The TCP and UDP flow records that Argus makes of a capture; None if it fails on it."""
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records"
        metered = subprocess.run(
            ["argus", "-X", "-J", "-S", "60", "-r", str(capture), "-w", str(records)],
            check=False, capture_output=True,
        )  # fmt: skip
        if metered.returncode or not records.exists():
            return None
        printed = subprocess.run(
            ["ra", "-n", "-u", "-p", "6", "-c", ",", "-r", str(records), "-s", *_ARGUS_FIELDS,
             "-", "tcp or udp"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
    lines = printed.stdout.splitlines()
    if printed.returncode and not lines:
        return None
    if lines and not lines[0][:1].isdigit():
        lines = lines[1:]
    return [dict(zip(_ARGUS_FIELDS, row, strict=True)) for row in csv.reader(lines)]


def own_records(captures: Sequence[Capture]) -> Iterator[tuple[int, Key, float, dict[str, str]]]:
    """Capture's index, key, start in s and features as text of each TCP or UDP flow."""
    chains = [Chain((capture.parts[0],), (capture.path,)) for capture in captures]
    meter = StockMeter(chains, SCHEMA.meter)
    for measured in measure(meter, SCHEMA, meter.clock_us):
        for flow, row in zip(measured.flows, measured.rows, strict=True):
            protocol = {6: "tcp", 17: "udp"}.get(int(flow["protocol"]))
            if protocol is None:
                continue
            version = int(flow["ip_version"])
            address = [unpack_address(flow[f"{side}_ip"], version) for side in ("src", "dst")]
            ports = [str(flow[f"{side}_port"]) for side in ("src", "dst")]
            key = (protocol, address[0], ports[0], address[1], ports[1])
            values = {
                feature.name: feature.show(value) if feature.vocabulary else repr(float(value))
                for feature, value in zip(SCHEMA.features, row, strict=True)
            }
            yield int(flow["origin"]), key, int(flow["first_us"]) / 1e6, values


def _number(text: str) -> float:
    return float(text) if text.strip() else 0.0


def _agrees(column: Column, theirs: str, own: str) -> bool:
    if column.feature == "state":
        return theirs.strip() == own
    return abs(_number(theirs) - float(own)) <= column.tolerance


def compare(captures: Sequence[Capture]) -> Agreement:
    """Run both on the captures and count where they agree."""
    result = Agreement()
    theirs: dict[tuple[int, Key], list[dict[str, str]]] = defaultdict(list)
    for number, capture in enumerate(captures):
        records = argus_records(capture.parts[0].path)
        if records is None:
            result.refused.append(capture.path.name)
            continue
        for record in records:
            result.argus_flows += 1
            key = (record["proto"], record["saddr"], record["sport"], record["daddr"],
                   record["dport"])  # fmt: skip
            theirs[number, key].append(record)
    for number, key, start, own in own_records(captures):
        result.own_flows += 1
        same = [
            record
            for record in theirs.get((number, key), [])
            if abs(float(record["stime"]) - start) < START_TOLERANCE_S
            and _number(record["spkts"]) == float(own["spkts"])
            and _number(record["dpkts"]) == float(own["dpkts"])
        ]
        if len(same) != 1:
            continue
        result.matched += 1
        for column in COLUMNS:
            if column.tcp_only and key[0] != "tcp":
                continue
            text = same[0][column.argus]
            result.compared[column.feature] += 1
            if _agrees(column, text, own[column.feature]):
                result.equal[column.feature] += 1
                continue
            name = captures[number].path.name
            result.differences[column.feature][name] += 1
            if len(result.examples[column.feature]) < 12:
                place = f"{name} {' '.join(key)} ({own['spkts']}/{own['dpkts']} packets)"
                result.examples[column.feature].append(
                    f"{place}: Argus {text.strip() or '-'}, own {own[column.feature]}"
                )
    return result


def table(result: Agreement) -> str:
    """The agreement as a Markdown table."""
    lines = [
        f"Argus {result.argus_flows:,} TCP and UDP flows, own {result.own_flows:,}; matched by "
        f"5-tuple, start time and packet counts: {result.matched:,}. Captures that Argus reads "
        f"nothing from: {len(result.refused)}.",
        "",
        "| feature | Argus | compared | agree | share | within |",
        "|---|---|---|---|---|---|",
    ]
    for column in COLUMNS:
        within = {0.0: "equal", TICK_S: "1 ms", 1.1: "1 ms", 0.51: "rounding"}[column.tolerance]
        lines.append(
            f"| {column.feature} | {column.argus} | {result.compared[column.feature]:,} | "
            f"{result.equal[column.feature]:,} | {result.share(column.feature):.4f} | {within} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Compare the captures named, print the table and examples, write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("captures", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if not (shutil.which("argus") and shutil.which("ra")):
        print("argus and ra are needed: apt-get install argus-server argus-client")
        return 2
    captures = []
    with CaptureSpool() as spool:
        for path in options.captures:
            try:
                capture = spool.open(path)
            except InputError as error:
                print(error)
                continue
            if capture.parts:
                captures.append(capture)
        result = compare(captures)
    text = table(result)
    print(text)
    for feature, examples in result.examples.items():
        print(feature, result.differences[feature].most_common(5))
        for example in examples:
            print("   ", example)
    if options.output:
        options.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
