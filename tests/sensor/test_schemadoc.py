from __future__ import annotations

from pathlib import Path

from features.registry import SCHEMAS
from sensor.schemadoc import load_agreement, render

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_of_features_is_current():
    page = (ROOT / "docs" / "features.md").read_text("utf-8")
    wanted = render(SCHEMAS.values(), load_agreement(ROOT / "docs" / "agreement.json"))
    assert page == wanted, "run: flowvane schemas -o docs/features.md"


def test_every_feature_of_every_schema_has_a_row():
    page = render(SCHEMAS.values(), {})
    for schema in SCHEMAS.values():
        section = page.split(f"\n## {schema.name}\n")[1].split("\n## ")[0]
        for feature in schema.features:
            assert f"| `{feature.name}` |" in section


def test_agreements_name_features_that_exist():
    for name, features in load_agreement(ROOT / "docs" / "agreement.json").items():
        assert set(features) <= set(SCHEMAS[name].names)
