"""`flowvane schemas`: the declarations of all features as a Markdown page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from features.schema import Feature, Medium, Schema

AGREEMENT = Path("docs/agreement.json")
"""Measured agreements by schema and feature: ``{"unsw-nb15": {"dur": "…"}}``."""

_HEAD = """# Features

Generated from the declarations in `features/` by `flowvane schemas -o docs/features.md`; a test
checks that this page is current. *Live* says whether a sensor measures the feature, *model* whether
the models for real networks use it. *Agreement* is what was measured against parties that no one
here wrote, in percent that are cut, not rounded: Argus and NFStream on public captures, and the
published rows; *hand-computed captures* are those of `tests/sensor/test_wire*.py`. The column is
composed by `python -m benchmarks.agreement` from the reports in `docs/agreement-*.json`, whose
pages say how each was measured.
"""


def load_agreement(path: Path = AGREEMENT) -> dict[str, dict[str, str]]:
    """The measured agreements, none where there is no file."""
    if not path.is_file():
        return {}
    data: dict[str, dict[str, str]] = json.loads(path.read_text("utf-8"))
    return data


def render(schemas: Iterable[Schema], agreement: Mapping[str, Mapping[str, str]]) -> str:
    """The page."""
    return _HEAD + "".join(_section(schema, agreement.get(schema.name, {})) for schema in schemas)


def _section(schema: Schema, agreement: Mapping[str, str]) -> str:
    live = len(schema.select(live=True))
    used = len(schema.select(live=True, testbed=False))
    lines = [
        f"\n## {schema.name}\n",
        f"{schema.title}. {len(schema.features)} features, {live} live, {used} in live models. "
        f"{_measured(schema)}\n",
        "| feature | kind | unit | rule | source | live | model | agreement |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(feature, agreement.get(feature.name, "")) for feature in schema.features),
    ]
    return "\n".join(lines) + "\n"


def _measured(schema: Schema) -> str:
    if schema.medium is not Medium.PACKETS:
        return f"Measured from {schema.medium} alone, which cuts the flows; no packet meter can."
    return (
        f"Flows are cut after {schema.meter.idle_timeout_s} s without a packet and after "
        f"{schema.meter.active_timeout_s} s in all."
    )


def _row(feature: Feature, agreement: str) -> str:
    live = "yes" if feature.live else f"no: {feature.unavailable}"
    model = f"no: {feature.testbed}" if feature.testbed else "yes" if feature.live else "no"
    cells = (
        f"`{feature.name}`", feature.kind.value, feature.unit, feature.meaning, feature.source,
        live, model, agreement,
    )  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
