"""Composes the column *agreement* of docs/features.md from what was measured.

``python -m benchmarks.agreement [-o docs/agreement.json]`` reads the reports of the other
commands beside its output (``agreement-argus.json``, ``agreement-published.json``,
``agreement-cicids2017.json``, ``agreement-nfstream.json``) and the tables of captures worked out
by hand (tests/sensor/test_wire*.py), and writes one short text a feature: who outside agrees with
it, in how much of what was compared, and whether captures worked out by hand hold it. A report
that is not there is left out and named; one that tells of a feature that does not exist is an
error.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.flows import empty_flows
from features.registry import SCHEMAS
from features.schema import Feature, FlowView, Kind

ROOT = Path(__file__).resolve().parents[1]
KDD_EVIDENCE = ROOT / "tests" / "features" / "test_kdd_evidence.py"
CHECKED_BY = {
    "argus": "benchmarks.argus",
    "published": "benchmarks.published",
    "cicids2017": "benchmarks.agreement_cic",
    "nfstream": "benchmarks.parity",
}
"""The reports, in the order in which they are told, and the commands that write them."""

Report = Mapping[str, Any]
Texts = dict[str, str]
"""What is said of each feature of a schema."""


class UnknownFeatureError(ValueError):
    """A report tells of a feature that its schema does not have."""


def percent(share: float) -> str:
    """A share in percent, cut after two decimals: 100 % is all of them."""
    return f"{math.floor(share * 10_000 + 1e-6) / 100:.2f} %" if share < 1 else "100 %"


def by_feature(columns: Any) -> Iterator[tuple[str, Report]]:
    """The entries of a report's columns, whether it keeps them as a list or by name."""
    if isinstance(columns, Mapping):
        yield from columns.items()
        return
    for entry in columns:
        yield entry.get("column") or entry["feature"], entry


def argus(report: Report) -> dict[str, Texts]:
    """What Argus makes of the same captures."""
    texts = {}
    for name, entry in by_feature(report["columns"]):
        if entry["compared"]:
            within = "" if entry["within"] == "equal" else f" within {entry['within']}"
            texts[name] = f"Argus {percent(entry['share'])} of {entry['compared']:,} flows{within}"
    for name, entry in by_feature(report["fine"]):
        if entry["compared"]:
            texts[name] += f", {percent(entry['share'])} within {entry['within']}"
    return {"unsw-nb15": texts}


def published(report: Report) -> dict[str, Texts]:
    """Published rows: formulas on all of them, counts of neighbours on the raw file's first rows.

    The counts are told as they are, and with all that happened to the file afterwards undone:
    the last of the report's steps that is no control.
    """
    formulas = report["formulas"]
    texts = {}
    for name, entry in by_feature(formulas["columns"]):
        text = f"published rows {percent(entry['all'])} of {formulas['rows']:,}"
        if entry["mended"] != entry["all"]:
            text += f", {percent(entry['mended'])} with rows mended that contradict themselves"
        texts[name] = text
    longest = max(report["windows"], key=int)
    steps = [step for step in report["windows"][longest] if not step["step"].startswith("control")]
    first, last = steps[0], steps[-1]
    for name, share in first["columns"].items():
        texts[name] = (
            f"published rows {percent(share)} of {first['rows']:,} {first['step']}, "
            f"{percent(last['columns'][name])} of {last['rows']:,} with {last['step']}"
        )
    return {"unsw-nb15": texts}


def cicids2017(report: Report) -> dict[str, Texts]:
    """The makers' rows of a capture; how many agree because there is nothing is told, too."""
    texts = {}
    for name, entry in by_feature(report["columns"]):
        text = f"published rows {percent(entry['tick'])} of {report['matched']:,} within 1 us"
        if entry["tick"] != entry["published"]:
            text += f", {percent(entry['published'])} uncorrected"
        if entry["zero"]:
            text += f" ({percent(entry['zero'])} are 0)"
        texts[name] = text
    return {"cicids2017": texts}


class _Reading:
    """Flows that note which of their fields are read."""

    def __init__(self) -> None:
        self.read: set[str] = set()
        self._flows = empty_flows(1)

    def __getitem__(self, field: str) -> NDArray[np.generic]:
        self.read.add(field)
        values: NDArray[np.generic] = self._flows[field]
        return values

    def __len__(self) -> int:
        return 1


def fields_read(feature: Feature) -> set[str]:
    """The fields of the flow record that a feature is computed from; none of windows."""
    flows = _Reading()
    if feature.measure is not None:
        windows = {feature.name: np.zeros(1)}
        feature.measure(FlowView(flows, windows, 1000))  # type: ignore[arg-type]
    return flows.read


def nfstream(report: Report) -> dict[str, Texts]:
    """Features that are computed from fields that NFStream has, too.

    The least of the fields' shares is told. ``ending`` is left out: NFStream knows two ends.
    """
    result: dict[str, Texts] = {}
    for name, measured in report["schemas"].items():
        found = measured["report"]
        flows = max(found["reference_flows"], found["own_flows"])
        equal = {field: entry["equal"] for field, entry in found["fields"].items()}
        equal |= dict.fromkeys(report["matched_by"], found["matched"])
        del equal["ending"]
        if name not in SCHEMAS:
            raise UnknownFeatureError(f"agreement-nfstream.json: no schema is called {name}")
        texts = {}
        for feature in SCHEMAS[name].features:
            read = fields_read(feature)
            if read and read <= equal.keys():
                share = min(equal[field] for field in read) / flows
                texts[feature.name] = (
                    f"NFStream's fields equal in {percent(share)} of {flows:,} flows"
                )
        result[name] = texts
    return result


READERS = {"argus": argus, "published": published, "cicids2017": cicids2017, "nfstream": nfstream}


def kdd_evidence(source: Path = KDD_EVIDENCE) -> dict[str, Texts]:
    """KDD's features that the tests of the published rows name."""
    named = {
        node.value
        for node in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    names = [name for name in SCHEMAS["kdd"].select(live=True) if name in named]
    return {"kdd": dict.fromkeys(names, "tests on the published rows")}


def by_hand() -> dict[str, Texts]:
    """Features for which the test_wire files expect a value other than 0 or a constant.

    Where they expect nothing but 0, that is the feature's definition
    (tests/sensor/test_wire_coverage.py).
    """
    tables = importlib.import_module("tests.sensor.wire_tables")
    texts: dict[str, Texts] = {}
    for schema, features in tables.expectations().items():
        kinds = {feature.name: feature.kind for feature in SCHEMAS[schema].features}
        texts[schema] = {
            name: "hand-computed captures"
            if tables.tells(values, category=kinds[name] is Kind.CATEGORICAL)
            else "0 by definition"
            for name, values in features.items()
        }
    return texts


def compose(reports: Mapping[str, Report]) -> dict[str, Texts]:
    """One text for each feature of each schema.

    Args:
        reports: by name, see :data:`CHECKED_BY`; some may be missing.

    Raises:
        UnknownFeatureError: a report tells of a feature that does not exist.
    """
    told = [(name, READERS[name](reports[name])) for name in READERS if name in reports]
    told += [("kdd_evidence", kdd_evidence()), ("test_wire", by_hand())]
    parts: dict[str, dict[str, list[str]]] = {
        name: {feature.name: [] for feature in schema.features} for name, schema in SCHEMAS.items()
    }
    for source, found in told:
        for schema_name, texts in found.items():
            if unknown := texts.keys() - parts[schema_name].keys():
                raise UnknownFeatureError(
                    f"{source}: {schema_name} has no feature {', '.join(sorted(unknown))}"
                )
            for name, text in texts.items():
                parts[schema_name][name].append(text)
    for name, schema in SCHEMAS.items():
        for feature in schema.features:
            if not feature.live:
                parts[name][feature.name].append("not measured")
    return {
        schema_name: {name: "; ".join(texts) for name, texts in features.items()}
        for schema_name, features in parts.items()
    }


def read_reports(folder: Path) -> dict[str, Report]:
    """The reports that there are, by name.

    Raises:
        json.JSONDecodeError: one is no JSON.
    """
    paths = {name: folder / f"agreement-{name}.json" for name in CHECKED_BY}
    return {
        name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.is_file()
    }


def as_json(texts: Mapping[str, Texts]) -> str:
    """What is written."""
    return json.dumps(texts, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Read the reports, write the file; name the reports that are missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "agreement.json")
    options = parser.parse_args()
    reports = read_reports(options.output.parent)
    for name in CHECKED_BY.keys() - reports.keys():
        print(f"no agreement-{name}.json: run python -m {CHECKED_BY[name]}", file=sys.stderr)
    texts = compose(reports)
    options.output.write_text(as_json(texts), "utf-8")
    empty = sum(not text for features in texts.values() for text in features.values())
    print(f"{sum(map(len, texts.values()))} features, {empty} without a word")
    return 0


if __name__ == "__main__":
    sys.exit(main())
