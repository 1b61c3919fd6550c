"""Validates every event of a triage against Suricata's own JSON schemas.

``python -m benchmarks.events CAPTURE|FOLDER… --schemas DIR [--fpr P] [--model NAME] [-l DIR]``
triages the captures as ``flowvane triage`` does, but writes events of all types that there are
(`alert`, `anomaly`, `flow`, and `stats` after each batch), in both styles: ``DIR/eve-7.json`` and
``DIR/eve-8.json``. Each event is then held against the schemas of DIR (``schema-main-7.0.x.json``,
``schema-main-8.0.x.json``) by jsonschema: those of style 7 against both, those of style 8 against
8.0. Prints JSON: events by style, schema and type, and how many of them are valid. Ends with 1
where any is not. Where Tenzir is installed (``--tenzir PROGRAM``), its ``read_suricata`` reads both
files, and what it says is in the report, too.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import jsonschema

from benchmarks.argus import find_captures
from features.flows import FlowBatch
from models.bundle import load
from models.detector import Detector
from sensor.captures import CaptureSpool, Chain, chain
from sensor.errors import InputError
from sensor.eve import Style, encode
from sensor.feed import TYPES, AlertFeed, Decided, EventWriter
from sensor.meter.compiled.meter import CompiledMeter
from sensor.pipeline import measure, score
from sensor.stats import Statistics
from sensor.triage import places_of
from sensor.verdict import DEFAULT_FPR, Verdict

STYLES = {7: ("7.0", "8.0"), 8: ("8.0",)}
"""The schemas that events of each style keep to."""
LINES_AT_ONCE = 2_000
"""Lines that a process validates at a time."""


class Validator(Protocol):
    """What is used of jsonschema's validators."""

    def iter_errors(self, instance: Any) -> Iterator[Any]:
        """What is wrong with an event."""


def validators(folder: Path) -> dict[str, Validator]:
    """A validator for each version of the schema; the files name no draft, so by the latest.

    Raises:
        OSError: a schema is not there.
        jsonschema.SchemaError: one is no schema.
    """
    made: dict[str, Validator] = {}
    for version in ("7.0", "8.0"):
        schema = json.loads((folder / f"schema-main-{version}.x.json").read_bytes())
        kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
        kind.check_schema(schema)
        made[version] = kind(schema)
    return made


def faults(
    event: Mapping[str, Any], by: Mapping[str, Validator], versions: Sequence[str] = STYLES[7]
) -> list[str]:
    """What the schemas of these versions have against an event."""
    return [
        f"{version}: {error.json_path}: {error.message}"
        for version in versions
        for error in by[version].iter_errors(event)
    ]


class Lines:
    """An output that appends to a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, lines: Sequence[bytes]) -> None:
        """Append them."""
        self._file.writelines(lines)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def decisions(
    chains: Sequence[Chain], detector: Detector, fpr: float = DEFAULT_FPR
) -> Iterator[tuple[Decided, Statistics]]:
    """What a triage of the chains decides, batch by batch, and its counters so far."""
    meter = CompiledMeter(chains, detector.schema.meter, detector.clock_us)
    feed = AlertFeed(Verdict(detector, fpr))
    statistics = Statistics(meter.counters, feed)
    for scored in score(measure(meter, detector.schema, detector.clock_us), detector):
        statistics.flows.add(scored.flows)
        yield feed.push(scored), statistics
    yield feed.end(), statistics


def write_events(
    chains: Sequence[Chain], detector: Detector, fpr: float, outputs: Mapping[int, Lines]
) -> None:
    """Write the events of a triage to the output of each style."""

    def places(flows: FlowBatch) -> list[dict[str, str]]:
        return places_of(flows, chains)

    writers = {
        number: EventWriter(output, detector.name, places, TYPES, Style(version=number))
        for number, output in outputs.items()
    }
    last_us = 0
    for decided, statistics in decisions(chains, detector, fpr):
        if decided.scored is not None:
            last_us = int(decided.scored.flows["last_us"].max())
        for number, writer in writers.items():
            writer.write(decided)
            writer.output.write([encode(statistics.event(last_us, Style(version=number)))])


def open_chains(paths: Sequence[Path], spool: CaptureSpool, gap_us: int) -> list[Chain]:
    """The chains of the captures that can be metered."""
    captures = []
    for path in paths:
        try:
            captures.append(spool.open(path))
        except InputError as error:
            print(error, file=sys.stderr)
    return chain(captures, gap_us)


@functools.cache
def _validators(folder: Path) -> dict[str, Validator]:
    return validators(folder)


def check_lines(folder: Path, versions: Sequence[str], lines: list[bytes]) -> Counter[str]:
    """Count the events of lines by ``"TYPE"``, valid ones by ``"VERSION TYPE"``; and faults."""
    by, counts = _validators(folder), Counter[str]()
    for line in lines:
        event = json.loads(line)
        counts[event["event_type"]] += 1
        for version in versions:
            found = faults(event, by, [version])
            counts[f"{version} {event['event_type']}"] += not found
            counts.update(f"fault: {each}" for each in found[:1])
    return counts


def check_file(
    path: Path, folder: Path, versions: Sequence[str], pool: ProcessPoolExecutor
) -> dict[str, Any]:
    """What is in a file of events, and how many of them are valid."""
    counts = Counter[str]()
    with path.open("rb") as file:
        batches = iter(lambda: list(itertools.islice(file, LINES_AT_ONCE)), [])
        check: Callable[[list[bytes]], Counter[str]] = functools.partial(
            check_lines, folder, versions
        )
        for each in pool.map(check, batches):
            counts.update(each)
    types = [name for name in (*TYPES, "stats") if counts[name]]
    return {
        "events": {name: counts[name] for name in types},
        "valid": {
            version: {name: counts[f"{version} {name}"] for name in types} for version in versions
        },
        "faults": {key: count for key, count in counts.items() if key.startswith("fault: ")},
    }


def read_by_tenzir(program: str, path: Path) -> dict[str, Any]:
    """How many events Tenzir reads of a file, by type, and every line that it says of them."""
    pipeline = (
        f'from_file "{path.absolute()}" {{ read_suricata }} '
        "| summarize event_type, n=count() | write_ndjson"
    )
    ran = subprocess.run([program, pipeline], check=False, capture_output=True, text=True)
    counts = [json.loads(line) for line in ran.stdout.splitlines()]
    return {
        "code": ran.returncode,
        "events": {each["event_type"]: each["n"] for each in counts},
        "said": ran.stderr.splitlines()[:20],
    }


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Triage the captures named and check what was written."""
    detector = load(options.model)
    options.log_dir.mkdir(parents=True, exist_ok=True)
    files = {number: options.log_dir / f"eve-{number}.json" for number in STYLES}
    paths = find_captures(options.captures)
    with CaptureSpool() as spool:
        chains = open_chains(paths, spool, detector.schema.meter.idle_timeout_s * 1_000_000)
        outputs = {number: Lines(path) for number, path in files.items()}
        write_events(chains, detector, options.fpr, outputs)
        for output in outputs.values():
            output.close()
    context = multiprocessing.get_context("spawn")
    made: dict[str, Any] = {"captures": len(paths), "model": detector.name, "fpr": options.fpr}
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        for number, versions in STYLES.items():
            made[f"style {number}"] = check_file(files[number], options.schemas, versions, pool)
            if shutil.which(options.tenzir):
                read = read_by_tenzir(options.tenzir, files[number])
                made[f"style {number}"]["tenzir"] = read
    return made


def complete(made: Mapping[str, Any]) -> bool:
    """Whether every event is valid, and Tenzir, where it read them, read all without a word."""
    for number in STYLES:
        found = made[f"style {number}"]
        if any(counts != found["events"] for counts in found["valid"].values()):
            return False
        tenzir = found.get("tenzir")
        if tenzir and (tenzir["code"] or tenzir["said"] or tenzir["events"] != found["events"]):
            return False
    return True


def main() -> int:
    """Triage, check, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("captures", nargs="+", type=Path, help="captures, and folders of them")
    parser.add_argument("--schemas", type=Path, required=True, help="where Suricata's schemas are")
    parser.add_argument("--model", default="nsl-kdd", help="a model that ships (%(default)s)")
    parser.add_argument("--fpr", type=float, default=DEFAULT_FPR, help="(%(default)s)")
    parser.add_argument("-l", "--log-dir", type=Path, default=Path("build/events"))
    parser.add_argument("--jobs", type=int, default=2, help="processes that validate (%(default)s)")
    parser.add_argument("--tenzir", default="tenzir", help="Tenzir's program (%(default)s)")
    made = report(parser.parse_args())
    print(json.dumps(made, indent=1))
    return 0 if complete(made) else 1


if __name__ == "__main__":
    sys.exit(main())
