"""The files of integrations/: what they name is what flowvane writes, and they hold together."""

from __future__ import annotations

import functools
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sensor.signatures import SIGNATURES, Kind, signature_id
from tests.helpers import ROOT, excerpt_triage

FOLDER = ROOT / "integrations"
SEARCH = FOLDER / "opensearch"


def events() -> list[dict[str, Any]]:
    return [json.loads(line) for line in excerpt_triage("nsl-kdd")[1].splitlines()]


def paths(value: Any, above: str = "") -> Iterator[str]:
    """The path of each field of an event that is no object itself."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from paths(below, f"{above}{key}.")
    else:
        yield above[:-1]


@functools.cache
def template_fields() -> dict[str, str]:
    """The type of each field that the index template maps, by path."""
    template = json.loads((SEARCH / "index-template.json").read_text())["template"]
    found: dict[str, str] = {}

    def walk(properties: dict[str, Any], above: str) -> None:
        for name, about in properties.items():
            walk(about.get("properties", {}), f"{above}{name}.")
            found[above + name] = about.get("type", "object")

    walk(template["mappings"]["properties"], "")
    return found


def converted(event: dict[str, Any]) -> dict[str, Any]:
    """What the ingest pipeline's `convert` processors make of an event, by target."""
    kinds = {"double": float, "long": int}
    made = {}
    for processor in json.loads((SEARCH / "ingest-pipeline.json").read_text())["processors"]:
        if rule := processor.get("convert"):
            value: Any = event
            for key in rule["field"].split("."):
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                made[rule["target_field"]] = [kinds[rule["type"]](each) for each in value]
            else:
                assert rule["ignore_missing"]
    return made


def test_the_index_template_maps_every_field_of_an_alert() -> None:
    fields = {path for event in events() for path in paths(event)}
    assert fields <= template_fields().keys()


def test_the_ingest_pipeline_lifts_score_and_p_value_to_numbers() -> None:
    for event in events():
        made = converted(event)
        assert made.keys() == {f"flowvane.{name}" for name in ("score", "p_value", "other", "rest")}
        assert made["flowvane.score"] == [float(event["alert"]["metadata"]["score"][0])]
        assert 0 < made["flowvane.p_value"][0] <= 0.01
        assert {template_fields()[name] for name in made} == {"double"}


def test_the_dashboard_is_whole_and_asks_for_fields_that_there_are() -> None:
    lines = (SEARCH / "dashboard.ndjson").read_text().splitlines()
    objects = {(each["type"], each["id"]): each for each in map(json.loads, lines)}
    asked = {"@timestamp"}
    for each in objects.values():
        assert {(one["type"], one["id"]) for one in each["references"]} <= objects.keys()
        if each["type"] == "visualization":
            state = json.loads(each["attributes"]["visState"])
            asked |= {agg["params"]["field"] for agg in state["aggs"] if agg["type"] != "count"}
    (board,) = (each for each in objects.values() if each["type"] == "dashboard")
    panels = json.loads(board["attributes"]["panelsJSON"])
    assert [panel["panelRefName"] for panel in panels] == [
        one["name"] for one in board["references"]
    ]
    assert asked <= template_fields().keys()


def rules() -> dict[int, ElementTree.Element]:
    # The file is ours.
    root = ElementTree.parse(FOLDER / "wazuh" / "flowvane_rules.xml").getroot()  # noqa: S314
    return {int(rule.attrib["id"]): rule for rule in root.iter("rule")}


def test_the_rules_of_wazuh_fit_every_signature() -> None:
    found = rules()
    assert all(100_000 <= number <= 120_000 for number in found)
    for rule in found.values():
        for parents in (*rule.findall("if_sid"), *rule.findall("if_matched_sid")):
            assert {int(one) for one in str(parents.text).split(",")} <= {86601, *found}
    (begins,) = (field.text for field in found[100_900].findall("field"))
    assert all(re.search(str(begins), text) for text in SIGNATURES.values())
    (empty,) = (field.text for field in found[100_903].findall("field"))
    for model in ("nsl-kdd", "unsw-nb15", "of-ours"):
        for kind in Kind:
            is_empty = re.search(str(empty), str(signature_id(model, kind))) is not None
            assert is_empty == (kind is Kind.TCP_EMPTY)


def test_the_rules_of_wazuh_name_fields_of_alerts() -> None:
    fields = set(template_fields())
    for rule in rules().values():
        named = {field.attrib["name"] for field in rule.findall("field")}
        named |= set(re.findall(r"\$\(([\w.]+)\)", rule.findtext("description") or ""))
        assert named <= fields
    snippet = ElementTree.parse(FOLDER / "wazuh" / "ossec.conf").getroot()  # noqa: S314
    assert snippet.findtext("localfile/log_format") == "json"


def test_the_readers_follow_the_same_file() -> None:
    file = "/var/log/flowvane/eve.json"
    beat = yaml.safe_load((FOLDER / "filebeat" / "filebeat.yml").read_text())
    assert beat["filebeat.inputs"][0]["paths"] == [file]
    for path in ("zeek/scripts/main.zeek", "logstash/flowvane.conf", "wazuh/ossec.conf"):
        assert file in (FOLDER / path).read_text()


@pytest.mark.parametrize("folder", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_every_folder_says_how_it_is_checked(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert folder.name == "grafana" or "he check" in text
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (folder / link).exists()
