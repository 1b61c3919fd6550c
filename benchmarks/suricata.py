"""Holds what our `flow` events say of a flow against Suricata's own, on the same captures.

``python -m benchmarks.suricata CAPTURE|FOLDER… [--program SURICATA] [-o docs/agreement-suricata]``
has Suricata (``suricata -r``, its `flow` events with Community IDs) and our compiled meter, on a
clock of 1 us, read each capture apart, matches the flows by protocol, addresses, ports and start,
and writes ``.md`` and ``.json``: for each field in how many matched flows the texts are equal, for
each difference and each flow without a match the cause. Some captures Suricata reads twice, which
shows how much of its `flow_id` is the same on every run.
"""

from __future__ import annotations

import argparse
import base64
import functools
import hashlib
import itertools
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.utils import PcapReader

from benchmarks.argus import clock_steps_back, find_captures
from features.flow import SCHEMA
from models.detector import Scores
from sensor.captures import CaptureSpool, Chain, Part
from sensor.errors import InputError
from sensor.eve import Style, flow_events
from sensor.meter.compiled.meter import CompiledMeter

CONFIG = """\
%YAML 1.1
---
outputs:
  - eve-log: {{enabled: yes, filetype: regular, filename: eve.json, community-id: yes,
      types: [flow]}}
logging: {{default-log-level: error, outputs: [{{console: {{enabled: yes}}}}]}}
stats: {{enabled: no}}
unix-command: {{enabled: no}}
flow: {{memcap: 256mb, prealloc: 100}}
flow-timeouts:
  default: &same {{new: {idle}, established: {idle}, closed: {idle}, bypassed: {idle},
    emergency-new: {idle}, emergency-established: {idle}, emergency-closed: {idle},
    emergency-bypassed: {idle}}}
  tcp: *same
  udp: *same
  icmp: *same
stream: {{memcap: 256mb, prealloc-sessions: 10, checksum-validation: no, midstream: true}}
"""
"""Flow events alone, with our idle timeout for flows of any state, and little made ready."""

Event = Mapping[str, Any]
Key = tuple[Any, ...]
NEAR_S = 1.0
"""How far apart the starts of two flows of the same key may be to be taken for the same."""
TWICE = 25
"""Captures that Suricata reads twice."""
HASH_BITS = 32
"""Of Suricata's `flow_id`: below, its hash of the key; above, 19 bits of the flow's start."""
_START_BITS = 16
_ICMP = {"ICMP": 1, "IPv6-ICMP": 58}
_EXAMPLES = 5

ONE_WAY, ESP = "ICMP without an answer", "ESP"
CLOCK, FRAGMENTS, HEADERS, CUT = "clock", "fragments", "outer headers", "cut packets"
LEFT_OUT, REST = "packets left out", "rest"
CAUSES = {
    ONE_WAY: "An ICMP message that nothing answers, such as an error. The Community ID "
    "specification takes Zeek's handling, and its reference implementation (communityid on PyPI) "
    "has it: type and code in the place of the ports, source first. So have we. Suricata takes "
    "type and 0, and puts the smaller address first. Reckoned so, each of these is Suricata's.",
    ESP: "The specification, its reference implementation and we take addresses and protocol. "
    "Suricata adds the lower 16 bits of the SPI and 0, as ports. Reckoned so, from the `spi` of "
    "its event, each of these is Suricata's.",
    CLOCK: "The capture's times step back; NFStream takes such a packet for as late as the latest.",
    FRAGMENTS: "The capture has fragments: Suricata puts them together, and the datagram has the "
    "time of the one that completed it and the bytes of all; we have the first fragment.",
    HEADERS: "The same number of bytes more for each packet: Suricata counts a packet in a tunnel "
    "from its own IP header on, we count frames.",
    CUT: "The capture cut packets: Suricata counts what was captured, we what was on the wire.",
    LEFT_OUT: "The packets are not the same: one side leaves out some, as malformed.",
    REST: "Anything else.",
}


class SuricataFailedError(Exception):
    """Suricata does not get through a capture."""


@dataclass
class Agreement:
    """Counts over captures.

    Attributes:
        captures, own_flows, suricata_flows, matched: how many.
        turned: matched flows of which Suricata has the other side for the source.
        same_packets: other matched flows with the same number of packets each way.
        unread: captures that one side does not read, by reason.
        compared, equal: matched flows by field.
        differences: by field, then by cause.
        unmatched: flows without a match, of ``"own"`` and of ``"suricata"``, by cause.
        captures_of: where most of these are, by cause.
        examples: a few differences of each field, as text.
        twice, same_ids, start_in_ids: flows that Suricata saw twice; with the same `flow_id` both
            times; with the start in its upper bits both times.
    """

    captures: int = 0
    own_flows: int = 0
    suricata_flows: int = 0
    matched: int = 0
    turned: int = 0
    same_packets: int = 0
    twice: int = 0
    same_ids: int = 0
    start_in_ids: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    equal: Counter[str] = field(default_factory=Counter)
    differences: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    unmatched: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    captures_of: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


# Either side's flows


def program_of(named: str | None = None) -> str | None:
    """Suricata's program: as named, as FLOWVANE_SURICATA says, or in PATH; None: there is none."""
    return shutil.which(named or os.environ.get("FLOWVANE_SURICATA") or "suricata")


def version_of(program: str) -> str:
    """The version as Suricata tells it."""
    told = subprocess.run([program, "-V"], check=True, capture_output=True, text=True).stdout
    return told.strip().removeprefix("This is Suricata version ")


def suricata_flows(program: str, capture: Path) -> list[Event]:
    """Suricata's `flow` events of a capture.

    Raises:
        SuricataFailedError: it refuses the capture.
    """
    with tempfile.TemporaryDirectory(prefix="flowvane-") as folder:
        config = Path(folder) / "suricata.yaml"
        config.write_text(CONFIG.format(idle=SCHEMA.meter.idle_timeout_s), "utf-8")
        no_rules = Path(folder) / "none.rules"
        no_rules.touch()
        ran = subprocess.run(
            [program, "-c", config, "-S", no_rules, "-k", "none", "--runmode", "single",
             "-l", folder, "-r", capture.absolute()],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        written = Path(folder) / "eve.json"
        lines = written.read_bytes().splitlines() if written.exists() else []
    if ran.returncode:
        raise SuricataFailedError("Suricata refuses it")
    return [json.loads(line) for line in lines]


def own_flows(parts: Sequence[tuple[Path, Part]]) -> Iterator[tuple[int, Event]]:
    """Our `flow` event of each flow of parts of captures, and which part it is of."""
    chains = [Chain((part,), (path,)) for path, part in parts]
    meter = CompiledMeter(chains, SCHEMA.meter, clock_us=1)
    for flows in meter.flows():
        nothing = np.zeros(len(flows))
        scores = Scores(nothing, nothing, nothing[:, None], nothing + 1)
        places: list[dict[str, str]] = [{}] * len(flows)
        events = flow_events(
            flows, scores, np.zeros(len(flows), bool), "none", places, Style(version=8)
        )
        yield from zip(flows["origin"].tolist(), events, strict=True)


def _try_suricata(program: str, capture: Path) -> list[Event] | str:
    try:
        return suricata_flows(program, capture)
    except SuricataFailedError as error:
        return str(error)


# What is compared


def key_of(event: Event, *, turned: bool = False) -> Key:
    """What two events on the same flow have in common, beside the start.

    `turned`: as if the other side had begun it; nothing is turned around in ICMP.
    """
    one, two = ((event[f"{side}_ip"], event.get(f"{side}_port", 0)) for side in ("src", "dest"))
    first, second = (two, one) if turned and event["proto"] not in _ICMP else (one, two)
    return (event["proto"], event.get("icmp_type"), event.get("icmp_code"), first, second)


def seconds(time: str) -> float:
    """The seconds since the epoch of a time as events have it; no number beyond the year 9999."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return math.nan


def packets(event: Event) -> tuple[int, int]:
    """Packets each way."""
    return event["flow"]["pkts_toserver"], event["flow"]["pkts_toclient"]


def _of_flow(name: str) -> Callable[[Event], Any]:
    return lambda event: event["flow"].get(name)


FIELDS: dict[str, Callable[[Event], Any]] = {
    "community_id": lambda event: event.get("community_id"),
    "flow.start": _of_flow("start"),
}
"""What is compared in all matched flows."""
FIELDS_OF_SAME: dict[str, Callable[[Event], Any]] = {
    "flow.end": _of_flow("end"),
    "flow.age": _of_flow("age"),
    "flow.bytes_toserver": _of_flow("bytes_toserver"),
    "flow.bytes_toclient": _of_flow("bytes_toclient"),
}
"""What is compared in those with the same number of packets each way."""


def suricatas_id(event: Event) -> tuple[str, str] | None:
    """The Community ID as Suricata reckons it where it leaves the specification, and the cause.

    Args:
        event: Suricata's.
    """
    if event["proto"] == "ESP":
        cause, number, port = ESP, 50, event.get("spi", 0) & 0xFFFF
    elif event["proto"] in _ICMP:
        cause, number, port = ONE_WAY, _ICMP[event["proto"]], event["icmp_type"]
    else:
        return None
    ends = [(ip_address(event["src_ip"]).packed, port), (ip_address(event["dest_ip"]).packed, 0)]
    (one, port_one), (two, port_two) = sorted(ends)
    data = bytes(2) + one + two + bytes((number, 0)) + struct.pack(">HH", port_one, port_two)
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return "1:" + base64.b64encode(digest).decode("ascii"), cause


def pairs(own: Sequence[Event], theirs: Sequence[Event]) -> list[tuple[Event, Event]]:
    """The flows that both have: of the same key, beginning at most :data:`NEAR_S` apart.

    Those that begin at the same time are matched first, and those of which the other side says
    that the other end began them last.
    """
    by_key: dict[Key, list[Event]] = defaultdict(list)
    for event in theirs:
        by_key[key_of(event)].append(event)
    found: list[tuple[Event, Event]] = []
    rest = list(own)
    for turned, apart_s in itertools.product((False, True), (0.0, NEAR_S)):
        left_over = []
        for event in rest:
            candidates = by_key[key_of(event, turned=turned)]
            same = [each for each in candidates if starts_apart(event, each) <= apart_s]
            if same:
                found.append((event, same[0]))
                candidates.remove(same[0])
            else:
                left_over.append(event)
        rest = left_over
    return found


def starts_apart(event: Event, other: Event) -> float:
    """Seconds between the starts of two flows: 0 only if they are told by the same text."""
    one, two = event["flow"]["start"], other["flow"]["start"]
    return 0.0 if one == two else max(abs(seconds(one) - seconds(two)), 1e-6)


@functools.cache
def oddities(capture: Path) -> frozenset[str]:
    """Which of the causes FRAGMENTS and CUT a capture may have."""
    found = set()
    with PcapReader(str(capture)) as reader:
        for packet in reader:
            if packet.wirelen is not None and packet.wirelen > len(packet.original):
                found.add(CUT)
            for layer in packet.iterpayloads():
                fragment = isinstance(layer, IP) and (layer.frag or layer.flags.MF)
                if fragment or isinstance(layer, IPv6ExtHdrFragment):
                    found.add(FRAGMENTS)
    return frozenset(found)


class Comparison:
    """Compares the flows of one capture."""

    def __init__(self, name: str, capture: Path, result: Agreement) -> None:
        """Count what is found of `capture` into `result`, under `name`."""
        self._name, self._capture, self._result = name, capture, result
        self._steps_back = functools.cache(functools.partial(clock_steps_back, capture))

    def count(self, own: Sequence[Event], theirs: Sequence[Event]) -> None:
        """Match and compare the flows of both sides."""
        result, both = self._result, pairs(own, theirs)
        for event, other in both:
            turned = key_of(event) != key_of(other)
            same = not turned and packets(event) == packets(other)
            result.turned += turned
            result.same_packets += same
            for title, read in (FIELDS | (FIELDS_OF_SAME if same else {})).items():
                self._compare(title, event, other, read)
        result.own_flows += len(own)
        result.suricata_flows += len(theirs)
        result.matched += len(both)
        matched = {id(event) for pair in both for event in pair}
        for side, events, others in (("own", own, theirs), ("suricata", theirs, own)):
            keys = {key_of(event) for event in others}
            keys |= {key_of(event, turned=True) for event in others}
            for event in events:
                if id(event) not in matched:
                    cause = _why_alone(event, keys)
                    result.unmatched[side][cause] += 1
                    result.captures_of[cause][self._name] += 1

    def _compare(
        self, title: str, event: Event, other: Event, read: Callable[[Event], Any]
    ) -> None:
        result = self._result
        result.compared[title] += 1
        if read(event) == read(other):
            result.equal[title] += 1
            return
        cause = self._cause(title, event, other)
        result.differences[title][cause] += 1
        if cause == REST or len(result.examples[title]) < _EXAMPLES:
            told = f"own {read(event)}, Suricata {read(other)}, {cause}"
            place = f"{self._name} {key_of(event)} {packets(event)} {packets(other)}"
            result.examples[title].append(f"{place}: {told}")

    def _cause(self, title: str, event: Event, other: Event) -> str:
        """Why the two differ in a field: the first cause that holds."""
        if title == "community_id":
            reckoned = suricatas_id(other)
            return reckoned[1] if reckoned and reckoned[0] == other.get(title) else REST
        bytes_differ = title.startswith("flow.bytes_")
        if self._steps_back() and not bytes_differ:
            return CLOCK
        odd = oddities(self._capture)
        if bytes_differ:
            side = title.removeprefix("flow.bytes_")
            more = event["flow"][f"bytes_{side}"] - other["flow"][f"bytes_{side}"]
            if more > 0 and not more % event["flow"][f"pkts_{side}"] and CUT not in odd:
                return HEADERS
            return next((cause for cause in (FRAGMENTS, CUT) if cause in odd), REST)
        if FRAGMENTS in odd:
            return FRAGMENTS
        return LEFT_OUT if packets(event) != packets(other) else REST


def _why_alone(event: Event, others: set[Key]) -> str:
    """Why a flow has no match, where the other side has flows of these keys."""
    if key_of(event) in others:
        return "cut elsewhere"
    return "ICMP" if event["proto"] in _ICMP else "no counterpart"


UNMATCHED_TEXT = {
    "cut elsewhere": "The other side has flows of these addresses and ports, but none begins then: "
    "Suricata begins a new flow with a SYN after a connection's end, we after 30 minutes.",
    "ICMP": "Suricata counts an ICMP error to the flow that it is about, and has a flow for each "
    "pair of types; NFStream has one for all of ICMP between two addresses.",
    "no counterpart": "The outer or the inner flow of a tunnel; SCTP, of which NFStream reads no "
    "ports, so that the Community ID is another, too; protocols that Suricata makes no flows of, "
    "such as IGMP; packets that one side takes for malformed.",
}


def start_bits(event: Event) -> int:
    """What Suricata's `flow_id` has of a flow's start: 3 bits of seconds, 16 of microseconds."""
    at = datetime.fromisoformat(event["flow"]["start"])
    return (int(at.timestamp()) & 7) << _START_BITS | at.microsecond & 0xFFFF


def compare_ids(first: Sequence[Event], second: Sequence[Event], result: Agreement) -> None:
    """Count how much of `flow_id` two runs of Suricata on the same capture share."""
    for one, two in pairs(first, second):
        ids = one["flow_id"], two["flow_id"]
        result.twice += 1
        result.same_ids += ids[0] == ids[1]
        result.start_in_ids += all(each >> HASH_BITS == start_bits(one) for each in ids)


def compare(program: str, files: Sequence[Path], jobs: int = 8) -> Agreement:
    """Have both read the captures, and count where they agree."""
    result = Agreement()
    parts: list[tuple[Path, Part]] = []
    with CaptureSpool() as spool, ThreadPoolExecutor(jobs) as pool:
        for path in files:
            result.captures += 1
            try:
                parts += [(path, part) for part in spool.open(path).parts]
            except InputError:
                result.unread["we cannot meter it"] += 1
        running = pool.map(_try_suricata, [program] * len(parts), [part.path for _, part in parts])
        own: dict[int, list[Event]] = defaultdict(list)
        for number, event in own_flows(parts):
            own[number].append(event)
        left = TWICE
        for number, ((path, part), theirs) in enumerate(zip(parts, running, strict=True)):
            if isinstance(theirs, str):
                result.unread[theirs] += 1
                continue
            Comparison(path.name, part.path, result).count(own.pop(number, []), theirs)
            if theirs and left:
                left -= 1
                compare_ids(theirs, suricata_flows(program, part.path), result)
    return result


# The report


def report(result: Agreement, program: str) -> dict[str, Any]:
    """The agreement as what is written to JSON."""
    titles = [*FIELDS, *FIELDS_OF_SAME]
    return {
        "suricata": version_of(program),
        "captures": result.captures,
        "unread": dict(sorted(result.unread.items())),
        "own_flows": result.own_flows,
        "suricata_flows": result.suricata_flows,
        "matched": result.matched,
        "turned": result.turned,
        "same_packets": result.same_packets,
        "fields": [
            {
                "field": title,
                "compared": result.compared[title],
                "equal": result.equal[title],
                "differences": dict(result.differences[title].most_common()),
            }
            for title in titles
        ],
        "unmatched": {
            side: dict(result.unmatched[side].most_common()) for side in ("own", "suricata")
        },
        "unmatched_most_in": {
            cause: dict(result.captures_of[cause].most_common(3)) for cause in UNMATCHED_TEXT
        },
        "flow_id": {
            "flows": result.twice, "equal": result.same_ids, "start": result.start_in_ids,
        },
    }  # fmt: skip


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _share(equal: int, compared: int) -> str:
    """In percent, cut off: 100 % is all."""
    return f"{int(equal * 10_000 / compared) / 100:.2f} %" if compared else "-"


def markdown(made: Mapping[str, Any]) -> str:
    """A report of :func:`report` as a page."""
    unread = "; ".join(f"{reason}: {count}" for reason, count in made["unread"].items()) or "none"
    ids = made["flow_id"]
    alone = made["unmatched"]
    lines = [
        "# Agreement with Suricata",
        "",
        "Written by `python -m benchmarks.suricata FOLDER… -o docs/agreement-suricata`; do not "
        "edit.",
        "",
        f"Suricata {made['suricata']} (`suricata -r`, `flow` events with Community IDs, our idle "
        "timeout) and our compiled meter, whose `flow` events these are, on a clock of 1 us, read "
        f"the same {made['captures']:,} captures, each apart. Not read: {unread}.",
        "",
        f"Suricata makes {made['suricata_flows']:,} flows, we {made['own_flows']:,}; "
        f"{made['matched']:,} match by protocol, addresses (as text), ports and ICMP's type and "
        f"code, and begin within a second of each other. Of {made['turned']:,} of them Suricata "
        "has the other side for the source: it turns a flow around that begins with a SYN-ACK, or "
        "whose protocol says who asked, and we take the sender of the first packet; "
        f"{made['same_packets']:,} of the others have the same number of packets each way.",
        "",
        "| field | compared | equal | share | what differs |",
        "|---|---:|---:|---:|---|",
        *(
            f"| `{each['field']}` | {each['compared']:,} | {each['equal']:,} | "
            f"{_share(each['equal'], each['compared'])} | {_counts(each['differences'])} |"
            for each in made["fields"]
        ),
        "",
        "`flow.end`, `flow.age` and bytes are compared where the packets are the same. "
        "The `timestamp` of our events is `flow.end`; Suricata's is when it wrote the event.",
        "",
        *(f"- *{cause}*: {text}" for cause, text in CAUSES.items()),
        "",
        "## flow_id",
        "",
        "Suricata's `flow_id` cannot be had by another program, nor by itself again. In its "
        "sources (`FlowGetId`, `FlowInitConfig`) the lower 32 bits are a hash of the flow's key, "
        "seeded with a number that is drawn at random at every start, and the 19 bits above are of "
        f"the flow's start. Read twice, {ids['flows']:,} flows had the same `flow_id` in "
        f"{ids['equal']:,} cases, and their start in its upper bits in {ids['start']:,}. Ours is "
        "the same on every run. Join on `community_id` and time.",
        "",
        "## Flows without a match",
        "",
        "| cause | own | Suricata's | | most in |",
        "|---|---:|---:|---|---|",
        *(
            f"| {cause} | {alone['own'].get(cause, 0):,} | {alone['suricata'].get(cause, 0):,} | "
            f"{text} | {_counts(made['unmatched_most_in'][cause])} |"
            for cause, text in UNMATCHED_TEXT.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Compare the captures named, print the page and examples, write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("captures", nargs="+", type=Path, help="captures, and folders of them")
    parser.add_argument("--program", help="Suricata's program (FLOWVANE_SURICATA, or in PATH)")
    parser.add_argument("-o", "--output", type=Path, help="write OUTPUT.md and OUTPUT.json")
    parser.add_argument("--jobs", type=int, default=8, help="Suricatas at once (%(default)s)")
    options = parser.parse_args()
    program = program_of(options.program)
    if program is None:
        print("no suricata: integrations/suricata/README.md says where to get it")
        return 2
    result = compare(program, find_captures(options.captures), options.jobs)
    made = report(result, program)
    print(markdown(made))
    for title, examples in result.examples.items():
        print(title, *examples, sep="\n    ")
    if options.output:
        options.output.with_suffix(".md").write_text(markdown(made), "utf-8")
        options.output.with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
