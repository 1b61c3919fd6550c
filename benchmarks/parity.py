"""Holds the flows of our meters against stock NFStreamer's, flow by flow and field by field.

``python -m benchmarks.parity CAPTURE|FOLDER… [--schema NAME…] [--meter NAME] [-o OUTPUT]`` runs
plain NFStreamer (no plugin, bytes of whole frames, statistics, 20 packets dissected, one meter)
and our meter on the same readable copies of the captures, with a schema's timeouts, matches the
flows by capture, addresses, ports, protocol, VLAN, tunnel and first time, in whatever order they
come, and counts for each field of the flow record that NFStream has too in how many flows the
two are equal. Writes what it counted as OUTPUT.json and OUTPUT.md.

The compiled meter's times are microseconds, of which NFStream has the milliseconds: they are cut
for the comparison. Times between packets it measures on NFStream's clock here, as for a model
that was trained on it, so that they have to be equal, too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib.recfunctions import repack_fields
from numpy.typing import NDArray

from benchmarks.nfstream_reference import INTERVALS, REFERENCE_DTYPE, TIMES
from features.flows import NEVER, Ending, FlowBatch, unpack_address
from features.registry import SCHEMAS
from features.schema import MeterSettings
from sensor.captures import CaptureSpool, Chain, chain
from sensor.errors import InputError
from sensor.meter.base import Meter
from sensor.meter.compiled.meter import CompiledMeter
from sensor.meter.frames import CHAIN_DONE, FLOWS, FRAME
from sensor.meter.stock import StockMeter

MATCHED_BY = ("origin", "src_ip", "dst_ip", "src_port", "dst_port", "protocol", "ip_version",
              "vlan_id", "tunnel_id", "first_us")  # fmt: skip
"""What two records of the same flow have in common; all of it is equal in every matched flow."""
COMPARED = tuple(name for name in REFERENCE_DTYPE.names or () if name not in MATCHED_BY)
"""What is compared in matched flows."""

REFERENCE_CLOCK_US = 1000
"""NFStream's times are whole milliseconds."""
_RELATIVE = 1e-9
"""Relative difference at which floats count as equal: the two may sum in another order."""
_MOST_EXAMPLES = 5


@dataclass
class FieldAgreement:
    """In how many matched flows a field is equal, and where it is not."""

    equal: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Report:
    """What a comparison found.

    Attributes:
        reference_flows, own_flows: flows of either side.
        matched: flows that both have (:data:`MATCHED_BY`).
        only_reference, only_own: examples of flows that one side has alone.
        identical: matched flows in which every field is equal.
        fields: by field of the flow record.
    """

    reference_flows: int
    own_flows: int
    matched: int
    identical: int
    only_reference: list[str]
    only_own: list[str]
    fields: dict[str, FieldAgreement]

    @property
    def complete(self) -> bool:
        """Whether both sides have the same flows with the same fields."""
        return self.reference_flows == self.own_flows == self.matched == self.identical


def reference(chains: Sequence[Chain], settings: MeterSettings) -> tuple[FlowBatch, list[str]]:
    """Plain NFStreamer's flows, dtype ``REFERENCE_DTYPE``, and a line a chain that it fails on.

    The origin of a flow is the index of its chain.
    """
    bodies: list[bytes] = []
    problems: list[str] = []
    start = 0
    while start < len(chains):
        # One process for many chains; after one whose meter died, another for the rest.
        start += _run_reference(chains, start, settings, bodies, problems)
    return np.frombuffer(b"".join(bodies), REFERENCE_DTYPE), problems


def _run_reference(
    chains: Sequence[Chain],
    start: int,
    settings: MeterSettings,
    bodies: list[bytes],
    problems: list[str],
) -> int:
    """Meter the chains from `start` on; return how many are dealt with."""
    job = {
        **asdict(settings),
        "origins": list(range(start, len(chains))),
        "chains": [[str(part.path.absolute()) for part in each.parts] for each in chains[start:]],
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.nfstream_reference"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )
    done = 0
    try:
        with cast(IO[bytes], child.stdin) as pipe:
            pipe.write(json.dumps(job).encode())
        with cast(IO[bytes], child.stdout) as pipe:
            while len(head := pipe.read(FRAME.size)) == FRAME.size:
                kind, length = FRAME.unpack(head)
                body = pipe.read(length)
                if kind == FLOWS:
                    bodies.append(body)
                    continue
                if kind != CHAIN_DONE:
                    problems.append(f"{_named(chains[start + done])}: {body.decode()}")
                done += 1
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if start + done < len(chains):
        problems.append(f"{_named(chains[start + done])}: NFStream's meter died")
        done += 1
    return done


def _named(part: Chain) -> str:
    return ", ".join(dict.fromkeys(path.name for path in part.captures))


def own_rows(batches: Iterable[FlowBatch]) -> FlowBatch:
    """The fields of FlowBatches that NFStream has too, on its clock: dtype ``REFERENCE_DTYPE``."""
    names = list(REFERENCE_DTYPE.names or ())
    parts = [repack_fields(batch[names]) for batch in batches]
    rows: FlowBatch = np.concatenate([np.empty(0, REFERENCE_DTYPE), *parts]).astype(REFERENCE_DTYPE)
    for name in TIMES:
        times = rows[name]
        cut = times // REFERENCE_CLOCK_US * REFERENCE_CLOCK_US
        rows[name] = np.where(times == NEVER, NEVER, cut)
    # NFStream knows an idle and an active end only, and has the former at the capture's end.
    rows["ending"] = np.where(rows["ending"] == Ending.ACTIVE, Ending.ACTIVE, Ending.IDLE)
    return rows


def _matched(left: FlowBatch, right: FlowBatch) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of both sides that are the same flow, ``[M]`` each.

    Of several flows with equal keys the n-th of one side is the n-th of the other, counted in
    the order of last times and packets.
    """
    right_rows = _numbered(right)
    pairs = [(row, right_rows[key]) for key, row in _numbered(left).items() if key in right_rows]
    both = np.array(pairs, np.intp).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _numbered(rows: FlowBatch) -> dict[tuple[bytes, int], int]:
    """The row of each key of :data:`MATCHED_BY` and number among those with the same key."""
    keys = packed(rows)
    seen: Counter[bytes] = Counter()
    found: dict[tuple[bytes, int], int] = {}
    for row in np.lexsort([rows[name] for name in ("dst_packets", "src_packets", "last_us")]):
        found[keys[row], seen[keys[row]]] = int(row)
        seen[keys[row]] += 1
    return found


def packed(rows: FlowBatch, names: Sequence[str] = MATCHED_BY) -> list[bytes]:
    """The octets of some fields of each row, as one string; equal fields, equal strings."""
    octets = np.ascontiguousarray(repack_fields(rows[list(names)]))
    strings: list[bytes] = octets.view(f"S{octets.dtype.itemsize}").tolist()
    return strings


def tolerance(name: str, clock_us: int) -> float:
    """How far apart a field may be, in its unit, for the clock of the meter.

    On a finer clock than NFStream's the times between packets are exact, where NFStream's are
    off by up to a tick each, and their sample standard deviation by up to sqrt(2) ticks.
    """
    if clock_us >= REFERENCE_CLOCK_US or name not in INTERVALS:
        return 0.0
    return REFERENCE_CLOCK_US * (2**0.5 if "stddev" in name else 1.0)


def compare(
    reference_rows: FlowBatch,
    meter_batches: Iterable[FlowBatch],
    clock_us: int = REFERENCE_CLOCK_US,
    origins: Sequence[str] = (),
) -> Report:
    """Match the flows of a meter with NFStream's, and count equal fields.

    Args:
        reference_rows: dtype ``REFERENCE_DTYPE``, in any order.
        meter_batches: FlowBatches, in any order.
        clock_us: what the meter has measured times between packets on.
        origins: what the captures are called, for the examples.
    """
    own = own_rows(meter_batches)
    ours_at, theirs_at = _matched(own, reference_rows)
    mine, theirs = own[ours_at], reference_rows[theirs_at]
    same = np.ones(len(mine), np.bool_)
    fields = {name: FieldAgreement() for name in COMPARED}
    for name in COMPARED:
        equal = _equal(mine[name], theirs[name], tolerance(name, clock_us))
        same &= equal
        fields[name].equal = int(equal.sum())
        fields[name].examples = [
            f"{_shown(theirs[row], origins)}: NFStream {theirs[name][row]}, own {mine[name][row]}"
            for row in np.flatnonzero(~equal)[:_MOST_EXAMPLES]
        ]
    return Report(
        reference_flows=len(reference_rows),
        own_flows=len(own),
        matched=len(mine),
        identical=int(same.sum()),
        only_reference=_left(reference_rows, theirs_at, origins),
        only_own=_left(own, ours_at, origins),
        fields=fields,
    )


def _equal(mine: NDArray[Any], theirs: NDArray[Any], allowed: float) -> NDArray[np.bool_]:
    if mine.dtype.kind == "f":
        close: NDArray[np.bool_] = np.isclose(mine, theirs, rtol=_RELATIVE, atol=allowed)
        return close
    equal: NDArray[np.bool_] = mine == theirs
    return equal


def _left(rows: FlowBatch, matched: NDArray[np.intp], origins: Sequence[str]) -> list[str]:
    """Examples of the rows that are not matched."""
    alone = np.setdiff1d(np.arange(len(rows)), matched)
    return [_shown(rows[row], origins) for row in alone[:_MOST_EXAMPLES]]


def _shown(row: Any, origins: Sequence[str]) -> str:
    ends = [
        f"{unpack_address(row[f'{side}_ip'], int(row['ip_version']))} {row[f'{side}_port']}"
        for side in ("src", "dst")
    ]
    origin = int(row["origin"])
    place = origins[origin] if origin < len(origins) else str(origin)
    return (
        f"{place}: protocol {row['protocol']}, {' > '.join(ends)} at {row['first_us'] / 1e6:.3f}, "
        f"{row['src_packets']} and {row['dst_packets']} packets"
    )


def captures_in(paths: Iterable[Path]) -> Iterator[Path]:
    """The files named, and all files in the folders named, in order."""
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.is_file())
        else:
            yield path


@dataclass
class Measured:
    """One schema's comparison, for the report that is written."""

    settings: dict[str, int]
    captures: int
    packets: int
    refused: list[str]
    problems: list[str]
    report: Report


MakeMeter = Callable[[Sequence[Chain], MeterSettings], Meter]

METERS: dict[str, MakeMeter] = {
    "compiled": partial(CompiledMeter, clock_us=REFERENCE_CLOCK_US),
    "stock": StockMeter,
}
"""Our meters, by the names under which they are compared."""


def measure(
    spool: CaptureSpool,
    paths: Iterable[Path],
    settings: MeterSettings,
    make_meter: MakeMeter = METERS["compiled"],
) -> Measured:
    """Open captures, run both sides with these timeouts, compare."""
    chains: list[Chain] = []
    refused, opened = [], 0
    for path in captures_in(paths):
        try:
            capture = spool.open(path)
        except InputError as error:
            refused.append(f"{path.name}: {str(error).removeprefix(f'{path}: ')}")
            continue
        opened += 1
        chains += chain([capture], settings.idle_timeout_s * 1_000_000)
    rows, problems = reference(chains, settings)
    meter = make_meter(chains, settings)
    names = [_named(each) for each in chains]
    report = compare(rows, meter.flows(), meter.clock_us, names)
    return Measured(
        settings=asdict(settings),
        captures=opened,
        packets=sum(each.packets for each in chains),
        refused=refused,
        problems=problems + meter.counters.problems,
        report=report,
    )


def as_json(measured: dict[str, Measured], meter: str) -> str:
    """The file of figures: by schema, for each field how many flows were equal."""
    text = {
        "reference": f"NFStream {version('nfstream')}",
        "meter": meter,
        "matched_by": list(MATCHED_BY),
        "schemas": {name: asdict(each) for name, each in measured.items()},
    }
    return json.dumps(text, indent=1) + "\n"


_HEAD = """# Agreement with NFStream

Written by `python -m benchmarks.parity CAPTURE|FOLDER…`; do not edit.

Plain `NFStreamer` (version {version}; no plugin, `accounting_mode=0`, `statistical_analysis=True`,
`n_dissections=20`, one meter) and our *{meter}* meter read the same captures with the same
timeouts. Flows are matched by capture, addresses, ports, protocol, IP version, VLAN, tunnel and
first time, in any order; what is counted is in how many matched flows a field is equal (floats to
nine digits).
{about}
"""

_ABOUT = {
    "compiled": """\
The compiled meter has a flow table of its own, in its own order, and measures times, intervals,
sizes, windows and flags itself; packets, bytes, names and fingerprints it takes from NFStream's
engine. Its times are microseconds, cut to NFStream's milliseconds here; times between packets are
measured on NFStream's clock, as for the models that ship.""",
    "stock": """\
The stock meter takes these fields from an NFStreamer with a plugin, so of it the comparison says
that the plugin, the way to this process and the copying change nothing.""",
}
"""What the comparison says of each of :data:`METERS`."""


def as_markdown(measured: dict[str, Measured], meter: str) -> str:
    """The same as a page."""
    lines = [_HEAD.format(version=version("nfstream"), meter=meter, about=_ABOUT[meter])]
    lines += [
        "| schema | idle, active timeout | captures | packets | flows of NFStream | own | matched "
        "| identical |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, each in measured.items():
        report, settings = each.report, each.settings
        lines.append(
            f"| {name} | {settings['idle_timeout_s']}, {settings['active_timeout_s']} s | "
            f"{each.captures:,} | {each.packets:,} | {report.reference_flows:,} | "
            f"{report.own_flows:,} | {report.matched:,} | {report.identical:,} |"
        )
    lines += ["", "Matched flows in which the field is equal, in percent:", ""]
    lines += [f"| field | {' | '.join(measured)} |", f"|---|{'---:|' * len(measured)}"]
    for name in COMPARED:
        # Cut, not rounded: 100 is all of them.
        shares = [
            f"{100_000 * each.report.fields[name].equal // max(each.report.matched, 1) / 1000:.3f}"
            for each in measured.values()
        ]
        lines.append(f"| {name} | {' | '.join(shares)} |")
    for name, each in measured.items():
        lines += _differences(name, each)
    refused = list(dict.fromkeys(line for each in measured.values() for line in each.refused))
    if refused:
        lines += ["", "Captures that are not read:", "", *(f"- {line}" for line in refused)]
    return "\n".join(lines) + "\n"


def _differences(name: str, each: Measured) -> list[str]:
    """What is to be told beside the shares."""
    told = [f"failed: {line}" for line in each.problems]
    told += [f"only NFStream has {line}" for line in each.report.only_reference]
    told += [f"only our meter has {line}" for line in each.report.only_own]
    for column, found in each.report.fields.items():
        told += [f"`{column}` differs: {line}" for line in found.examples]
    return ["", f"{name}:", "", *(f"- {line}" for line in told)] if told else []


def main() -> int:
    """Compare the captures named, write both reports; 1 if any flow or field differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("captures", nargs="+", type=Path, metavar="CAPTURE|FOLDER")
    parser.add_argument("--schema", nargs="+", choices=list(SCHEMAS), default=list(SCHEMAS))
    parser.add_argument("--meter", choices=list(METERS), default="compiled")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("docs/agreement-nfstream"),
        help="without .json and .md",
    )  # fmt: skip
    options = parser.parse_args()
    meter = METERS[options.meter]
    measured: dict[str, Measured] = {}
    of_settings: dict[MeterSettings, Measured] = {}
    with CaptureSpool() as spool:
        for name in options.schema:
            settings = SCHEMAS[name].meter
            if settings not in of_settings:
                of_settings[settings] = measure(spool, options.captures, settings, meter)
            measured[name] = of_settings[settings]
            report = measured[name].report
            print(f"{name}: {report.matched:,} of {report.reference_flows:,} flows matched, "
                  f"{report.identical:,} identical")  # fmt: skip
    options.output.with_suffix(".json").write_text(as_json(measured, options.meter), "utf-8")
    options.output.with_suffix(".md").write_text(as_markdown(measured, options.meter), "utf-8")
    return 0 if all(each.report.complete for each in measured.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
