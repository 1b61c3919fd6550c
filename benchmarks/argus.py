"""Holds the UNSW-NB15 features against Argus, which measured the published rows.

``python -m benchmarks.argus CAPTURE|FOLDER… [-o docs/agreement-argus]`` has Argus (Debian packages
argus-server and argus-client) and our compiled meter, on a clock of 1 us, read the same captures,
matches flows by 5-tuple, start time and packet counts, and writes ``.md`` and ``.json``: for each
column the share of equal values, of times within 1 ms and within 10 us, and for each difference
and each flow without a match the cause.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
from scapy.utils import RawPcapReader

from features.flows import unpack_address
from features.unsw_nb15 import SCHEMA
from sensor.captures import CaptureSpool, Chain, Part
from sensor.errors import InputError
from sensor.meter.compiled.meter import CompiledMeter
from sensor.pipeline import measure

ARGUS = ("argus", "-X", "-J", "-S", "60")
"""``-X``: without /etc/argus.conf, which reports every 5 s. ``-J``: with intervals. ``-S 60``: a
record at most 60 s long, as no published row has a `dur` of 60 s or more."""

RA = ("ra", "-X", "-n", "-u", "-p", "6", "-c", ",")
"""``-X``: without /etc/ra.conf, which turns flows around by their port numbers. ``-n``: numbers;
``-u -p 6``: times in seconds since the epoch, to the microsecond; ``-c ,``: fields to be split."""

Key = tuple[str, str, str, str, str]
"""Transport, source, source port, destination, destination port."""

ON_UDP = frozenset({"rtp", "rtcp", "udt"})
"""What Argus prints for UDP whose payload looks like these protocols."""

START_TOLERANCE_S = 0.002
CLOCK_US = 1
"""Argus's clock, and the one that we measure on here."""
TICK_S = 0.001
FINE_S = 0.000_01
"""How far apart times may be: a tick of the millisecond clock, and 10 us."""
_FLOAT_S = 1e-9
"""What the difference of two numbers of whole microseconds may be off."""
ARGUS_AT_ONCE = 24
"""Runs of Argus at a time: each sleeps a second before it ends."""
FILES_AT_ONCE = 40
"""Captures that a process of ours takes at a time."""
ETHERNET = 1


@dataclass(frozen=True)
class Column:
    """A feature, Argus's name of it, how far apart the two may be, and the share we aim at.

    `fine` ones hold a feature a second time, to a closer tolerance.
    """

    feature: str
    argus: str
    tolerance: float = 0.0
    within: str = "equal"
    tcp_only: bool = False
    target: float | None = None
    fine: bool = False

    @property
    def name(self) -> str:
        """Under which it is counted."""
        return f"{self.feature} within {self.within}" if self.fine else self.feature


def _time(feature: str, argus: str, ticks_s: float = 1.0, **more: Any) -> tuple[Column, Column]:
    """A time's column within 1 ms and within 10 us; `ticks_s` is a second in its unit."""
    return (
        Column(feature, argus, (TICK_S + _FLOAT_S) * ticks_s, "1 ms", **more),
        Column(feature, argus, (FINE_S + _FLOAT_S) * ticks_s, "10 us",
               **more | {"target": 0.99, "fine": True}),
    )  # fmt: skip


_TIMES = (
    _time("dur", "dur", target=0.99),
    _time("tcprtt", "tcprtt", tcp_only=True, target=0.99),
    _time("synack", "synack", tcp_only=True, target=0.99),
    _time("ackdat", "ackdat", tcp_only=True, target=0.99),
    _time("sinpkt", "sintpkt", 1e3),
    _time("dinpkt", "dintpkt", 1e3),
    _time("sjit", "sjit", 1e3),
    _time("djit", "djit", 1e3),
)
COLUMNS: tuple[Column, ...] = (
    Column("spkts", "spkts", target=0.99),
    Column("dpkts", "dpkts", target=0.99),
    Column("sbytes", "sbytes", target=0.99),
    Column("dbytes", "dbytes", target=0.99),
    Column("sttl", "sttl", target=0.99),
    Column("dttl", "dttl", target=0.99),
    Column("stcpb", "stcpb", tcp_only=True, target=0.99),
    Column("dtcpb", "dtcpb", tcp_only=True, target=0.99),
    Column("sloss", "sloss", target=0.95),
    Column("dloss", "dloss", target=0.95),
    Column("state", "state", target=0.95),
    Column("smean", "smeansz", 0.51, "rounding"),
    Column("dmean", "dmeansz", 0.51, "rounding"),
    *(coarse for coarse, _ in _TIMES),
)
FINE_COLUMNS: tuple[Column, ...] = tuple(fine for _, fine in _TIMES)
_PARTS_OF_INTERVALS = ("sintpktact", "sintpktidl", "dintpktact", "dintpktidl")
_FIELDS = ("stime", "proto", "saddr", "sport", "daddr", "dport", "flgs",
           *(column.argus for column in COLUMNS), *_PARTS_OF_INTERVALS)  # fmt: skip

SET_UP = frozenset({"tcprtt", "synack", "ackdat"})
JITTER = {"sjit": "sinpkt", "djit": "dinpkt"}
"""Each jitter's mean."""
INTERVALS = frozenset([*JITTER, *JITTER.values()])
_ECN_FLAGS = frozenset("tE")
PRECISION, TOGETHER = "single precision", "equal times"
LATER, ECN, CLOCK, LINK, REST = "later record", "ECN", "clock", "link header", "rest"
DIFFERENCES = (PRECISION, TOGETHER, LATER, ECN, CLOCK, LINK, REST)
"""Causes of a difference, the first that holds; :data:`DIFFERENCE_TEXT` says what each means."""


@dataclass
class Flow:
    """One record of either side; `values` by the feature's name, as text.

    Attributes:
        flags: Argus's; F and f tell of fragments, t and E of ECN that the source set up.
        tunnelled: we found the packets within a tunnel.
        later: Argus has an earlier record of the same addresses and ports.
        together: sides (s, d) of which we saw two packets in a row at the same time.
    """

    key: Key
    start_s: float
    values: dict[str, str]
    flags: str = ""
    tunnelled: bool = False
    later: bool = False
    together: str = ""

    def reversed_key(self) -> Key:
        """The key with source and destination exchanged."""
        transport, source, source_port, target, target_port = self.key
        return transport, target, target_port, source, source_port

    def begins_with(self, other: Flow) -> bool:
        """Whether both begin at the same time, as far as the clocks tell."""
        return abs(self.start_s - other.start_s) < START_TOLERANCE_S

    def counts(self) -> tuple[float, float]:
        """Packets of the source and of the destination."""
        return _number(self.values["spkts"]), _number(self.values["dpkts"])


@dataclass
class Agreement:
    """Counts over captures.

    Attributes:
        captures, argus_flows, own_flows, matched: how many.
        unread: captures that Argus cannot read or that cannot be metered, by reason.
        compared, equal: matched flows by column.
        later_compared, later_equal: those of them that are no first record of Argus's.
        differences: by column, then by cause.
        unmatched: flows without a match, of ``"own"`` and of ``"argus"``, by cause.
        captures_of: where most of a column's differences and of a cause's unmatched flows are.
        examples: a few differences of each column, as text.
    """

    captures: int = 0
    argus_flows: int = 0
    own_flows: int = 0
    matched: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    equal: Counter[str] = field(default_factory=Counter)
    later_compared: Counter[str] = field(default_factory=Counter)
    later_equal: Counter[str] = field(default_factory=Counter)
    differences: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    captures_of: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    unmatched: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def share(self, feature: str) -> float:
        """Share of matched flows in which `feature` agrees, NaN if none was compared."""
        compared = self.compared[feature]
        return self.equal[feature] / compared if compared else math.nan

    def share_of_first(self, feature: str) -> float:
        """:meth:`share` of the first record that Argus makes of a connection in a capture."""
        compared = self.compared[feature] - self.later_compared[feature]
        equal = self.equal[feature] - self.later_equal[feature]
        return equal / compared if compared else math.nan

    def add(self, other: Agreement) -> None:
        """Count `other` in."""
        for name in ("captures", "argus_flows", "own_flows", "matched"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("unread", "compared", "equal", "later_compared", "later_equal"):
            getattr(self, name).update(getattr(other, name))
        for name in ("differences", "captures_of", "unmatched"):
            for key, counts in getattr(other, name).items():
                getattr(self, name)[key].update(counts)
        for feature, texts in other.examples.items():
            self.examples[feature] = [*self.examples[feature], *texts][:12]


class ArgusFailedError(Exception):
    """Argus does not get through a capture."""


def missing_tools() -> list[str]:
    """Which of Argus's programs are not installed."""
    return [tool for tool in (ARGUS[0], RA[0]) if shutil.which(tool) is None]


def argus_flows(capture: Path) -> list[Flow]:
    """The TCP and UDP records that Argus makes of a capture, in order of start.

    Raises:
        ArgusFailedError: Argus refuses the capture or crashes on it.
    """
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records"
        metered = subprocess.run(
            [*ARGUS, "-r", str(capture), "-w", str(records)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if "unsupported device type" in metered.stderr:
            raise ArgusFailedError("Argus does not know the link type")
        if metered.returncode:
            raise ArgusFailedError("Argus crashes")
        printed = subprocess.run(
            [*RA, "-r", str(records), "-s", *_FIELDS, "-", "tcp or udp"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
    # Like grep, ra ends with 1 where it finds nothing.
    if printed.returncode > 1:
        raise ArgusFailedError("ra cannot read what Argus wrote")
    titles_and_rows = list(csv.reader(printed.stdout.splitlines()))
    flows = [_argus_flow(dict(zip(_FIELDS, row, strict=True))) for row in titles_and_rows[1:]]
    flows.sort(key=lambda flow: flow.start_s)
    seen: set[Key] = set()
    for flow in flows:
        flow.later = flow.key in seen or flow.reversed_key() in seen
        seen.add(flow.key)
    return flows


def _argus_flow(row: dict[str, str]) -> Flow:
    transport = "udp" if row["proto"] in ON_UDP else row["proto"]
    source, target = (ip_address(row[name]).compressed for name in ("saddr", "daddr"))
    values = {column.feature: row[column.argus].strip() for column in COLUMNS}
    for side in "sd":
        means = [_number(row[f"{side}intpkt{which}"].strip()) for which in ("", "act", "idl")]
        values[f"{side}jit"] = repr(jitter_without_slip(_number(values[f"{side}jit"]), *means))
    return Flow(
        key=(transport, source, row["sport"], target, row["dport"]),
        start_s=float(row["stime"]),
        values=values,
        flags=row["flgs"],
    )


def jitter_without_slip(jitter: float, mean: float, active: float, idle: float) -> float:
    """The standard deviation of a side's intervals, from what Argus prints as its jitter.

    Of a side with both active and idle intervals g it prints ``sqrt(1000 E[g^2] - E[g]^2)``, a
    slip of units (docs/decisions/0002-unsw-nb15-recorded-every-packet-twice.md).

    Args:
        jitter: as printed.
        mean, active, idle: mean of all intervals, of the active ones, of the idle ones.
    """
    if not (active and idle):
        return jitter
    return math.sqrt(max((jitter**2 + mean**2) / 1000 - mean**2, 0.0))


def jitter_from_rounded_mean(jitter_ms: float, mean_ms: float) -> float:
    """A standard deviation as Argus reckons it: by the mean in us, rounded to single precision.

    It takes ``sqrt(E[g^2] - m^2)``, which is no number where the mean m was rounded up by enough.
    A single interval of 41.724901 s has an m of 41,724,900 us and so a deviation of 9,135 us.
    """
    rounded_ms = float(np.float32(mean_ms * 1e3)) / 1e3
    variance = jitter_ms**2 + mean_ms**2 - rounded_ms**2
    return math.sqrt(variance) if variance >= 0 else math.nan


def own_flows(parts: Sequence[tuple[Path, Part]]) -> Iterator[tuple[int, Flow]]:
    """Each TCP or UDP flow that we make of parts of captures, and which part it is of."""
    chains = [Chain((part,), (path,)) for path, part in parts]
    meter = CompiledMeter(chains, SCHEMA.meter, CLOCK_US)
    wanted = {feature.name: feature for feature in SCHEMA.features}
    for measured in measure(meter, SCHEMA, CLOCK_US):
        for flow, row in zip(measured.flows, measured.rows, strict=True):
            transport = {6: "tcp", 17: "udp"}.get(int(flow["protocol"]))
            if transport is None:
                continue
            version = int(flow["ip_version"])
            source, target = (
                ip_address(unpack_address(flow[f"{side}_ip"], version)).compressed
                for side in ("src", "dst")
            )
            values = {
                name: feature.show(value) if feature.vocabulary else repr(float(value))
                for (name, feature), value in zip(wanted.items(), row, strict=True)
            }
            key = (transport, source, str(flow["src_port"]), target, str(flow["dst_port"]))
            start_s = int(flow["first_us"]) / 1e6
            together = "".join(
                side[0]
                for side in ("src", "dst")
                if flow[f"{side}_packets"] > 1 and flow[f"{side}_piat_min_us"] == 0
            )
            tunnelled = bool(flow["tunnel_id"])
            yield (
                int(flow["origin"]),
                Flow(key, start_s, values, tunnelled=tunnelled, together=together),
            )


def _number(text: str) -> float:
    return float(text) if text else 0.0


def _agrees(column: Column, theirs: str, own: str) -> bool:
    if column.feature == "state":
        return theirs == own
    return abs(_number(theirs) - float(own)) <= column.tolerance


def clock_steps_back(capture: Path) -> bool:
    """Whether a packet of the capture has an earlier time than one before it."""
    latest = -math.inf
    with RawPcapReader(str(capture)) as packets:
        for _, about in packets:
            if hasattr(about, "tshigh"):
                time = (about.tshigh << 32 | about.tslow) / about.tsresol
            else:
                time = about.sec + about.usec / (1e9 if packets.nano else 1e6)
            if time < latest:
                return True
            latest = time
    return False


class Matcher:
    """Matches the flows of one capture and says why some have no match or differ."""

    def __init__(self, name: str, part: Part, theirs: Sequence[Flow], own: Sequence[Flow]) -> None:
        self._name = name
        self._part = part
        self._theirs = theirs
        self._own = own
        self._steps_back: bool | None = None

    def count(self, result: Agreement) -> None:
        """Count the capture into `result`."""
        by_key: dict[Key, list[Flow]] = defaultdict(list)
        own_by_key: dict[Key, list[Flow]] = defaultdict(list)
        for flow in self._theirs:
            by_key[flow.key].append(flow)
        for flow in self._own:
            own_by_key[flow.key].append(flow)
        matched: set[int] = set()
        for flow in self._own:
            same = [
                record
                for record in by_key.get(flow.key, [])
                if record.begins_with(flow) and record.counts() == flow.counts()
            ]
            if len(same) == 1 and id(same[0]) not in matched:
                matched.add(id(same[0]))
                self._compare(same[0], flow, result)
            else:
                self._leave(result, "own", self._cause(flow, by_key))
        for record in self._theirs:
            if id(record) not in matched:
                self._leave(result, "argus", self._cause(record, own_by_key))
        result.argus_flows += len(self._theirs)
        result.own_flows += len(self._own)
        result.matched += len(matched)

    def _leave(self, result: Agreement, side: str, cause: str) -> None:
        result.unmatched[side][cause] += 1
        result.captures_of[cause][self._name] += 1

    def _steps(self) -> bool:
        if self._steps_back is None:
            self._steps_back = clock_steps_back(self._part.path)
        return self._steps_back

    def _cause(self, flow: Flow, others: dict[Key, list[Flow]]) -> str:
        """Why `flow` has no match among `others`, the other side's."""
        same, turned = (others.get(key, []) for key in (flow.key, flow.reversed_key()))
        together = [other for other in same if other.begins_with(flow)]
        fragments = any(set("Ff") & set(other.flags) for other in (flow, *together))
        if fragments:
            return "fragments"
        if flow.tunnelled or any(other.tunnelled for other in together):
            return "tunnel"
        if flow.key[1] == flow.key[3] and ":" in flow.key[1]:
            return "IPv6 loopback"
        if not same and not turned:
            return "no counterpart"
        if self._steps():
            return "clock"
        if any(other.begins_with(flow) for other in turned):
            return "direction"
        return "counts" if together else "cut elsewhere"

    def _compare(self, theirs: Flow, own: Flow, result: Agreement) -> None:
        for column in (*COLUMNS, *FINE_COLUMNS):
            if column.tcp_only and own.key[0] != "tcp":
                continue
            name = column.name
            told, measured = theirs.values[column.feature], own.values[column.feature]
            result.compared[name] += 1
            result.later_compared[name] += theirs.later
            if _agrees(column, told, measured):
                result.equal[name] += 1
                result.later_equal[name] += theirs.later
                continue
            cause = self._difference(theirs, own, column)
            result.differences[name][cause] += 1
            result.captures_of[name][self._name] += 1
            if len(result.examples[name]) < 12:
                place = f"{self._name} {' '.join(own.key)} {own.counts()}, {cause}"
                values = f"Argus {told or '-'}, own {measured}"
                result.examples[name].append(f"{place}: {values}")

    def _difference(self, theirs: Flow, own: Flow, column: Column) -> str:
        feature = column.feature
        if feature in JITTER:
            rounded = jitter_from_rounded_mean(
                float(own.values[feature]), float(own.values[JITTER[feature]])
            )
            told = _number(theirs.values[feature])
            if (
                math.isnan(told) == math.isnan(rounded)
                and not abs(told - rounded) > column.tolerance
            ):
                return PRECISION
        if feature in INTERVALS and feature[0] in own.together:
            return CLOCK if self._steps() else TOGETHER
        if theirs.later:
            return LATER
        asks_for_ecn = bool(_ECN_FLAGS & set(theirs.flags))
        if feature in SET_UP and asks_for_ecn and not _number(theirs.values["synack"]):
            return ECN
        if self._part.link_type != ETHERNET and feature in {"sbytes", "dbytes", "smean", "dmean"}:
            return LINK
        return CLOCK if self._steps() else REST


def compare(files: Sequence[Path]) -> Agreement:
    """Have both read the captures, and count where they agree."""
    result = Agreement()
    parts: list[tuple[Path, Part]] = []
    with CaptureSpool() as spool:
        for path in files:
            result.captures += 1
            try:
                parts += [(path, part) for part in spool.open(path).parts]
            except InputError:
                result.unread["we cannot meter it"] += 1
        with ThreadPoolExecutor(ARGUS_AT_ONCE) as pool:
            theirs = list(pool.map(_try_argus, [part.path for _, part in parts]))
        own: dict[int, list[Flow]] = defaultdict(list)
        for number, flow in own_flows(parts):
            own[number].append(flow)
        for number, (path, part) in enumerate(parts):
            found = theirs[number]
            if isinstance(found, str):
                result.unread[found] += 1
                result.own_flows += len(own[number])
                if own[number]:
                    result.unmatched["own"][found] += len(own[number])
            else:
                Matcher(path.name, part, found, own[number]).count(result)
    return result


def _try_argus(capture: Path) -> list[Flow] | str:
    """Argus's flows of a capture, or why there are none."""
    try:
        return argus_flows(capture)
    except ArgusFailedError as error:
        return str(error)


def compare_all(files: Sequence[Path], jobs: int) -> Agreement:
    """:func:`compare`, a few captures at a time in `jobs` processes."""
    result = Agreement()
    batches = [files[at : at + FILES_AT_ONCE] for at in range(0, len(files), FILES_AT_ONCE)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for done, batch in enumerate(pool.map(compare, batches), 1):
            result.add(batch)
            print(f"\r{done}/{len(batches)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return result


DIFFERENCE_TEXT = {
    PRECISION: "Argus takes the variance from the mean in single precision: of long, nearly equal "
    "intervals it is far off, or no number. Our jitter, reckoned so, is Argus's.",
    TOGETHER: "Two packets of the side have the same time. Argus leaves out intervals of 0.",
    LATER: "Argus has an earlier record of the connection in the capture. TTLs, the state and what "
    "was sent before reach over its records; we begin anew after 60 s, but for set-up times and "
    "intervals.",
    ECN: "Argus takes no set-up times where the SYN asks for ECN.",
    CLOCK: "The capture's times step back; NFStream takes such a packet for as late as the latest.",
    LINK: "Not Ethernet: Argus leaves the link's header out, we count the frame as captured.",
    REST: "Anything else.",
}
UNMATCHED_TEXT = {
    "direction": "Of a flow that begins with a SYN-ACK, a FIN or a RST, Argus may take the other "
    "side for the source; of a connection that it remembers, the side that opened it. We take the "
    "sender of the first packet.",
    "fragments": "Argus counts each fragment as a packet; NFStream the first only.",
    "counts": "Same start, other packet counts: one side ends the record earlier, as in "
    "*cut elsewhere*.",
    "cut elsewhere": "No record of the other side begins at that time: the one before ended at "
    "another packet. Argus makes a record of each DNS transaction, we one of all between the same "
    "ports; and its 60 s and ours may end at other packets.",
    "clock": DIFFERENCE_TEXT[CLOCK],
    "tunnel": "NFStream looks into GTP, CAPWAP and other tunnels, Argus reports the outer flow.",
    "IPv6 loopback": "Both addresses are the same; Argus makes a record of each direction.",
    "no counterpart": "The other side has no flow of these addresses and ports either way: the "
    "outer flow of a tunnel, tunnels that only Argus looks into (GRE, ERSPAN), packets that one "
    "side takes for malformed.",
    "Argus crashes": "Argus ends with a buffer overflow on captures of Linux cooked packets.",
    "Argus does not know the link type": "Raw IP of link types 228 and 229.",
}
COLUMN_TEXT = {
    "stcpb": "In a later record Argus takes the next number that it expects, we the first one: "
    "they differ by a keep-alive's octet, by what was lost, or by a repeated SYN's new number.",
    "dtcpb": "As stcpb; Argus tells it from the last record where no destination packet came.",
    "sttl": "Argus gives the last packet's TTL, we the first one's.",
    "dttl": "As sttl.",
    "sloss": "We count segments that begin before the next expected number; Argus tells reordered "
    "segments apart and counts a repeated SYN that has another number.",
    "dloss": "As sloss.",
    "tcprtt": "A SYN sent again restarts Argus's set-up time; we take the first of each.",
    "synack": "As tcprtt.",
    "ackdat": "As tcprtt.",
    "state": "An unanswered UDP record after the first is REQ to Argus, INT to us; a FIN that is "
    "all of a flow leaves it CON to Argus.",
    "dur": "An ICMP error extends Argus's record of the flow that it is about.",
    "sinpkt": "The first interval of a later record is that since the record before, if less than "
    "120 s. After some 45 s of silence or more Argus may have forgotten the flow, and has no such "
    "interval.",
    "dinpkt": "As sinpkt.",
    "sjit": "As sinpkt. Where a side has both what Argus calls active and idle intervals, its "
    "slip of units is taken out "
    "([decision 2](decisions/0002-unsw-nb15-recorded-every-packet-twice.md)).",
    "djit": "As sjit.",
}


def argus_version() -> str:
    """The version as Argus tells it."""
    told = subprocess.run([ARGUS[0], "-h"], check=False, capture_output=True, text=True)
    return (told.stdout + told.stderr).partition("\n")[0].removeprefix("Argus Version ").strip()


def _column(column: Column, result: Agreement) -> dict[str, Any]:
    name = column.name
    return {
        "column": column.feature,
        "argus": column.argus,
        "within": column.within,
        "target": column.target,
        "compared": result.compared[name],
        "equal": result.equal[name],
        "share": result.share(name),
        "share_of_first": result.share_of_first(name),
        "differences": {cause: result.differences[name][cause] for cause in DIFFERENCES},
        "most_in": dict(result.captures_of[name].most_common(3)),
    }


def report(result: Agreement) -> dict[str, Any]:
    """The agreement as what is written to JSON; shares are from 0 to 1."""
    return {
        "argus": argus_version(),
        "commands": [" ".join(ARGUS), " ".join(RA)],
        "captures": result.captures,
        "unread": dict(sorted(result.unread.items())),
        "argus_flows": result.argus_flows,
        "own_flows": result.own_flows,
        "matched": result.matched,
        "unmatched": {
            side: dict(result.unmatched[side].most_common()) for side in ("own", "argus")
        },
        "unmatched_most_in": {
            cause: dict(result.captures_of[cause].most_common(3)) for cause in UNMATCHED_TEXT
        },
        "columns": [_column(column, result) for column in COLUMNS],
        "fine": [_column(column, result) for column in FINE_COLUMNS],
    }


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _table(columns: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "| feature | Argus's | within | compared | equal | share | of first records | aim | "
        + " | ".join(DIFFERENCES)
        + " | most differences in |"
    )
    yield "|---|---|---|---:|---:|---:|---:|---:|" + "---:|" * len(DIFFERENCES) + "---|"
    for column in columns:
        aim = "" if column["target"] is None else f"{column['target']:.0%}"
        causes = " | ".join(f"{count:,}" for count in column["differences"].values())
        yield (
            f"| {column['column']} | {column['argus']} | {column['within']} | "
            f"{column['compared']:,} | {column['equal']:,} | {column['share']:.2%} | "
            f"{column['share_of_first']:.2%} | {aim} | {causes} | {_counts(column['most_in'])} |"
        )


def markdown(made: dict[str, Any]) -> str:
    """A report of :func:`report` as a page."""
    unread = "; ".join(f"{reason}: {count}" for reason, count in made["unread"].items()) or "none"
    lines = [
        "# Agreement with Argus",
        "",
        "Written by `python -m benchmarks.argus FOLDER… -o docs/agreement-argus`; do not edit.",
        "",
        f"Argus {made['argus']} and our compiled meter, on a clock of 1 us, read the same "
        f"{made['captures']:,} captures:",
        "",
        *(f"    {command} …" for command in made["commands"]),
        "",
        "`-X` keeps Debian's settings out (records every 5 s; flows turned around by their ports), "
        "`-J` asks for intervals, and `-S 60` for records of at most 60 s, as no published row of "
        "UNSW-NB15 lasts longer.",
        "",
        f"Argus makes {made['argus_flows']:,} TCP and UDP flows, we {made['own_flows']:,}; "
        f"{made['matched']:,} match by 5-tuple, start time (within 2 ms) and packet counts. "
        f"Captures left out: {unread}.",
        "",
        *_table(made["columns"]),
        "",
        "The times once more, within 10 us:",
        "",
        *_table(made["fine"]),
    ]
    lines += ["", "Packet counts are equal because flows are matched by them.", ""]
    lines += ["What differs, by the first cause that holds:", ""]
    lines += [f"- *{cause}*: {DIFFERENCE_TEXT[cause]}" for cause in DIFFERENCES]
    lines += ["", "And by column:", ""]
    lines += [f"- `{name}`: {text}" for name, text in COLUMN_TEXT.items()]
    lines += [
        "",
        "## Flows without a match",
        "",
        "| cause | own | Argus's | | most in |",
        "|---|---:|---:|---|---|",
    ]
    own, theirs = made["unmatched"]["own"], made["unmatched"]["argus"]
    for cause in sorted({*own, *theirs}, key=lambda cause: -own.get(cause, 0)):
        lines.append(
            f"| {cause} | {own.get(cause, 0):,} | {theirs.get(cause, 0):,} | "
            f"{UNMATCHED_TEXT[cause]} | {_counts(made['unmatched_most_in'][cause])} |"
        )
    return "\n".join(lines) + "\n"


def find_captures(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and all files in folders among them, in order of name."""
    found: list[Path] = []
    for path in paths:
        found += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return found


def main() -> int:
    """Compare the captures named, print the table and examples, write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("captures", nargs="+", type=Path, help="captures, and folders of them")
    parser.add_argument("-o", "--output", type=Path, help="write OUTPUT.md and OUTPUT.json")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    options = parser.parse_args()
    if missing_tools():
        print("argus and ra are needed: apt-get install argus-server argus-client")
        return 2
    result = compare_all(find_captures(options.captures), options.jobs)
    made = report(result)
    print(markdown(made))
    for feature, examples in result.examples.items():
        print(feature, *examples, sep="\n    ")
    if options.output:
        options.output.with_suffix(".md").write_text(markdown(made))
        options.output.with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
