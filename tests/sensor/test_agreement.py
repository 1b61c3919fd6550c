"""The column *agreement* of docs/features.md: composed of what was measured, and current."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from benchmarks import agreement
from features.registry import SCHEMAS
from tests.helpers import ROOT

ARGUS = {
    "columns": [
        {"column": "dur", "within": "1 ms", "compared": 2000, "equal": 1999, "share": 0.9995},
        {"column": "spkts", "within": "equal", "compared": 3, "equal": 3, "share": 1.0},
        {"column": "stcpb", "within": "equal", "compared": 0, "equal": 0, "share": math.nan},
    ],
    "fine": [
        {"column": "dur", "within": "10 us", "compared": 2000, "equal": 1990, "share": 0.995},
        {"column": "tcprtt", "within": "10 us", "compared": 0, "equal": 0, "share": math.nan},
    ],
}
PUBLISHED: dict[str, Any] = {
    "formulas": {
        "rows": 1000,
        "columns": {
            "rate": {"all": 0.98455, "mended": 1.0},
            "smean": {"all": 1.0, "mended": 1.0},
        },
    },
    "windows": {
        "200": [{"step": "as published", "rows": 200, "columns": {"ct_srv_src": 0.1}}],
        "1000": [
            {"step": "as published", "rows": 1000, "columns": {"ct_srv_src": 0.5}},
            {"step": "order restored", "rows": 900, "columns": {"ct_srv_src": 0.999_99}},
            {"step": "control: wrong blocks", "rows": 900, "columns": {"ct_srv_src": 0.2}},
        ],
    },
}
CIC = {
    "matched": 608,
    "columns": [{"column": "Flow Duration", "published": 0.25, "tick": 1.0, "zero": 0.125}],
}
NFSTREAM = {
    "matched_by": ["first_us", "src_ip", "dst_ip", "src_port", "dst_port", "protocol"],
    "schemas": {
        "unsw-nb15": {
            "report": {
                "reference_flows": 1000,
                "own_flows": 900,
                "matched": 800,
                "fields": {
                    "src_packets": {"equal": 800},
                    "src_bytes": {"equal": 700},
                    "last_us": {"equal": 750},
                    "ending": {"equal": 800},
                },
            }
        }
    },
}


def first_part(reports: dict[str, Any], schema: str, feature: str) -> str:
    return agreement.compose(reports)[schema][feature].rsplit("; ", 1)[0]


@pytest.mark.parametrize(
    ("name", "report", "feature", "text"),
    [
        ("argus", ARGUS, "dur", "Argus 99.95 % of 2,000 flows within 1 ms, 99.50 % within 10 us"),
        ("argus", ARGUS, "spkts", "Argus 100 % of 3 flows"),
        ("published", PUBLISHED, "rate",
         "published rows 98.45 % of 1,000, 100 % with rows mended that contradict themselves"),
        ("published", PUBLISHED, "smean", "published rows 100 % of 1,000"),
        ("published", PUBLISHED, "ct_srv_src",
         "published rows 50.00 % of 1,000 as published, 99.99 % of 900 with order restored"),
        ("cicids2017", CIC, "Flow Duration",
         "published rows 100 % of 608 within 1 us, 25.00 % uncorrected (12.50 % are 0)"),
        # Of 1,000 flows 800 have a match, and all fields that smean is made of are equal in 700.
        ("nfstream", NFSTREAM, "smean", "NFStream's fields equal in 70.00 % of 1,000 flows"),
        ("nfstream", NFSTREAM, "proto", "NFStream's fields equal in 80.00 % of 1,000 flows"),
    ],
)  # fmt: skip
def test_what_a_report_says_of_a_feature(
    name: str, report: dict[str, Any], feature: str, text: str
) -> None:
    schema = "cicids2017" if report is CIC else "unsw-nb15"
    assert first_part({name: report}, schema, feature) == text


def test_nothing_is_said_where_nothing_was_compared() -> None:
    texts = agreement.compose({"argus": ARGUS, "nfstream": NFSTREAM})["unsw-nb15"]
    assert "Argus" not in texts["stcpb"]
    # dmean's fields were not compared; TTLs NFStream does not have.
    assert "NFStream" not in texts["dmean"]
    assert "NFStream" not in texts["sttl"]


def test_reports_may_name_columns_in_a_list_or_by_name() -> None:
    by_name = {
        part: {entry["column"]: entry for entry in entries} for part, entries in ARGUS.items()
    }
    assert agreement.argus(by_name) == agreement.argus(ARGUS)


@pytest.mark.parametrize("name", ["argus", "published", "cicids2017"])
def test_a_feature_that_does_not_exist_is_an_error(name: str) -> None:
    report = json.loads(json.dumps({"argus": ARGUS, "published": PUBLISHED, "cicids2017": CIC}))
    wrong = json.loads(
        json.dumps(report[name])
        .replace('"dur"', '"dura"').replace('"rate"', '"rates"')
        .replace('"Flow Duration"', '"Flow Duratio"')
    )  # fmt: skip
    with pytest.raises(agreement.UnknownFeatureError, match=r"has no feature (dura|rates|Flow)"):
        agreement.compose({name: wrong})


def test_a_schema_that_does_not_exist_is_an_error() -> None:
    wrong = {**NFSTREAM, "schemas": {"unsw": NFSTREAM["schemas"]["unsw-nb15"]}}
    with pytest.raises(agreement.UnknownFeatureError, match="unsw"):
        agreement.compose({"nfstream": wrong})


@pytest.mark.parametrize("reports", [{}, {"argus": ARGUS}], ids=["none", "one"])
def test_every_feature_has_a_word(reports: dict[str, Any]) -> None:
    texts = agreement.compose(reports)
    assert {name: list(features) for name, features in texts.items()} == {
        name: list(schema.names) for name, schema in SCHEMAS.items()
    }
    assert all(text for features in texts.values() for text in features.values())


def test_percentages_are_cut() -> None:
    assert [agreement.percent(share) for share in (0.0, 0.29, 0.999_999, 1.0)] == [
        "0.00 %", "29.00 %", "99.99 %", "100 %",
    ]  # fmt: skip


def test_fields_are_those_that_the_measure_reads() -> None:
    unsw = SCHEMAS["unsw-nb15"]
    load = unsw.features[unsw.names.index("sload")]
    assert agreement.fields_read(load) == {"src_bytes", "src_packets", "first_us", "last_us"}
    assert agreement.fields_read(unsw.features[unsw.names.index("ct_srv_src")]) == set()


def test_the_file_is_current() -> None:
    docs = ROOT / "docs"
    wanted = agreement.as_json(agreement.compose(agreement.read_reports(docs)))
    found = (docs / "agreement.json").read_text("utf-8")
    assert found == wanted, "run: python -m benchmarks.agreement, then flowvane schemas"
