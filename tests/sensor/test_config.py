"""The configuration: what is taken, what is refused and how that is told, and what is written."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import hypothesis.strategies as st
import jsonschema
import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given, settings

from sensor import cli
from sensor.config import defaults, describe, write
from sensor.config.build import deciders_of, outputs_of, spec_of
from sensor.config.check import accepts, check
from sensor.config.command import taps
from sensor.config.keys import (
    ITEM,
    Config,
    EveLog,
    Pattern,
    Section,
    arms,
    declared,
    path_text,
    pattern_of,
    plain,
)
from sensor.config.source import KeyPath, Source, leaves, read_config, read_value, scalar_text
from sensor.errors import ConfigError, ExitCode
from sensor.eve import Style
from sensor.grouping import Schedule
from sensor.meter.compiled.interface import CaptureSettings, Tap
from sensor.outputs.spec import OutputSpec
from tests.helpers import ROOT, run, untrained

NAME = "x.yaml"
EVE_LOG = ("outputs", ITEM, "eve-log")
KNOWN = {
    ("interfaces", ITEM, "interface"): ["eth0", "wlan0.5", "a", "0", "no", "any"],
    (*EVE_LOG, "filemode"): [640, 0, 777, 600],
    (*EVE_LOG, "rotate-interval"): [None, "hour", "30s"],
    (*EVE_LOG, "identity"): ["flowvane", "a-b", "1"],
    ("learn", "for"): ["24h", "90s", "1w"],
    ("metrics", "listen"): ["127.0.0.1:9469", "[::1]:1"],
}
"""Values of keys whose pattern is narrower than hypothesis' text."""
TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8
)
VALIDATOR = jsonschema.Draft202012Validator(describe.as_schema())


def load(text: str) -> Config:
    return check(read_config(text, NAME))


def wrong(text: str) -> list[str]:
    """What is told of a configuration, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert all(line.startswith(f"{NAME}:") for line in caught.value.lines)
    return [line.removeprefix(f"{NAME}:") for line in caught.value.lines]


# Any configuration


def values_of(kind: Any, pattern: Pattern) -> st.SearchStrategy[Any]:
    """Values that a key takes, as a file gives them."""
    if pattern in KNOWN:
        return st.sampled_from(KNOWN[pattern])
    return st.one_of([values_of_one(arm, pattern) for arm in arms(kind)])


def values_of_one(kind: Any, pattern: Pattern) -> st.SearchStrategy[Any]:
    if kind is type(None):
        return st.none()
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is list:
        item = declared()[(*pattern, ITEM)]
        least = 0 if pattern == ("interfaces",) else 1
        return st.lists(values_of(item.kind, item.pattern), min_size=least, max_size=2)
    if issubclass(kind, Section):
        return mappings(kind, pattern)
    if kind in (bool, str):
        return st.booleans() if kind is bool else TEXT
    return numbers(kind, declared()[pattern].field.metadata)


def numbers(kind: type, limits: list[Any]) -> st.SearchStrategy[Any]:
    """Numbers that `limits` allow."""
    least = next((each.ge for each in limits if isinstance(each, Ge)), None)
    most = next((each.le for each in limits if isinstance(each, Le)), None)
    if kind is int:
        return st.integers(least, most or 10**18 - 1)
    above = next((each.gt for each in limits if isinstance(each, Gt)), None)
    below = next((each.lt for each in limits if isinstance(each, Lt)), None)
    return st.floats(
        above if least is None else least, most if below is None else below,
        exclude_min=least is None, exclude_max=below is not None,
        allow_nan=False, allow_infinity=False,
    )  # fmt: skip


def mappings(kind: type[Section], pattern: Pattern) -> st.SearchStrategy[dict[str, Any]]:
    needed, optional = {}, {}
    for field in kind.model_fields.values():
        assert field.alias
        # A mapping without keys is no event type; written out it has them all.
        there = field.is_required() or field.alias == "stats"
        values = values_of(field.annotation, (*pattern, field.alias))
        (needed if there else optional)[field.alias] = values
    return st.fixed_dictionaries(needed, optional=optional)


def fitting(data: dict[str, Any]) -> dict[str, Any]:
    """The same without what does not fit together."""
    data = dict(data)
    if "interfaces" in data:
        by_name = {each["interface"]: each for each in data["interfaces"]}
        data["interfaces"] = list(by_name.values())
    if data.get("interfaces") and "zeek-conn" in data:
        data["zeek-conn"] = {**data["zeek-conn"], "filename": None}
    if data.get("learn", {}).get("enabled"):
        data["zeek-conn"] = {}
        data["model"] = f"./{data.get('model', 'site')}"
        if data["learn"].get("meanwhile") == data["model"]:
            del data["learn"]["meanwhile"]
    if data.get("alert-budget") is not None:
        data["false-positive-rate"] = None
    elif data.get("false-positive-rate", 0.5) is None:
        data["false-positive-rate"] = 0.5
    for output in data.get("outputs", []):
        eve_log = output.get("eve-log", {})
        if "types" in eve_log:
            named = {"stats" if isinstance(one, dict) else one: one for one in eve_log["types"]}
            if "alert" in named:
                named.pop("anomaly", None)
            eve_log["types"] = list(named.values())
    return data


CONFIGS = mappings(Config, ()).map(fitting)


def key_paths(node: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The paths of all keys of mappings."""
    for part, below in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(part, str):
            yield (*path, part)
        if isinstance(below, dict | list):
            yield from key_paths(below, (*path, part))


class TestAny:
    @settings(max_examples=25, deadline=None)
    @given(CONFIGS)
    def test_configuration_is_read_as_it_was_written(self, data: dict[str, Any]) -> None:
        config = check(Source(data))
        assert load(write.as_yaml(config)) == config

    @settings(max_examples=25, deadline=None)
    @given(CONFIGS)
    def test_configuration_is_what_its_flat_lines_set(self, data: dict[str, Any]) -> None:
        config = check(Source(data))
        source = Source()
        for line in write.as_lines(config):
            source.assign(line)
        assert check(source) == config

    @settings(max_examples=25, deadline=None)
    @given(CONFIGS)
    def test_configuration_keeps_to_the_json_schema(self, data: dict[str, Any]) -> None:
        VALIDATOR.validate(data)
        VALIDATOR.validate(plain(check(Source(data))))

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_name_with_a_letter_too_many_is_refused(self, data: st.DataObject) -> None:
        given = plain(check(Source(data.draw(CONFIGS))))
        path = data.draw(st.sampled_from(list(key_paths(given))))
        at = data.draw(st.integers(0, len(path[-1])))
        odd = path[-1][:at] + data.draw(st.sampled_from("abcxyz-")) + path[-1][at:]
        node = given
        for part in path[:-1]:
            node = node[part]
        node[odd] = node.pop(path[-1])
        with pytest.raises(ConfigError) as caught:
            check(Source(given))
        told = f"configuration: {path_text((*path[:-1], odd))}: unknown key"
        assert f"{told}; did you mean {path[-1]}?" in caught.value.lines
        assert not VALIDATOR.is_valid(given)


@given(st.none() | st.booleans() | st.integers(-(10**17), 10**17) | TEXT
       | st.floats(allow_nan=False, allow_infinity=False))  # fmt: skip
def test_any_value_is_read_as_it_was_written(value: Any) -> None:
    again = read_value(scalar_text(value))
    assert again == value
    assert type(again) is type(value)


@given(TEXT)
def test_any_text_is_a_configuration_or_a_problem(text: str) -> None:
    try:
        check(read_config(text, NAME))
    except ConfigError as error:
        assert all(line.startswith(NAME) for line in error.lines)


# What is refused


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("sensor-nam: x", ["1: sensor-nam: unknown key; did you mean sensor-name?"]),
        (
            "\n\noutputs:\n  - eve-log:\n      filetyp: regular\n",
            ["5: outputs[0].eve-log.filetyp: unknown key; did you mean filetype?"],
        ),
        (
            "outputs: [{eve-log: {filetype: regulr}}]",
            [
                "1: outputs[0].eve-log.filetype: must be regular, unix_stream, unix_dgram, redis "
                "or syslog, not regulr; did you mean regular?"
            ],
        ),
        ("threads: 2", ["1: threads: unknown key here; there is interfaces[].threads"]),
        (
            "grouping: {zzz: 1}",
            ["1: grouping.zzz: unknown key; known here: enabled, first-update, "
             "longest-interval, quiet"],
        ),
        ("linger: soon", ["1: linger: must be a number from 0 on, not soon"]),
        ("linger: -1", ["1: linger: must be a number from 0 on, not -1"]),
        ("linger: .nan", ["1: linger: must be a number from 0 on, not .nan"]),
        ("most-flows: 1.0", ["1: most-flows: must be a whole number from 1 on, not 1.0"]),
        ("most-flows: '1'", ['1: most-flows: must be a whole number from 1 on, not "1"']),
        ("most-flows: yes", ["1: most-flows: must be a whole number from 1 on, not yes"]),
        ("most-flows: 010", ["1: most-flows: must be a whole number from 1 on, not 010"]),
        (
            "sensor-name: no",
            ["1: sensor-name: must be text or null, not no; put text that looks like that into "
             "quotes"],
        ),
        (
            "interfaces: [{interface: eth0}, {threads: 2}]",
            ["1: interfaces[1].interface: must be given: the name of an interface, 15 characters "
             "at most"],
        ),
        ("interfaces: eth0", ["1: interfaces: must be a list, not eth0"]),
        (
            "interfaces:\n - interface: eth0\n - interface: eth0",
            ["3: interfaces[1].interface: eth0 is named twice"],
        ),
        (
            "interfaces: [{interface: eth0, buffer: 2048}]",
            ["1: interfaces[0].buffer: must be a whole number from 1 to 2047, not 2048"],
        ),
        ("model: a\nmodel: b", ["2: model: is given twice; first in line 1"]),
        (
            "metrics: &a {}\ngrouping: *a",
            ["2: grouping: anchors and aliases are not supported"],
        ),
        (
            "alert-budget: 5\nfalse-positive-rate: 0.1",
            ["2: false-positive-rate: give either false-positive-rate or alert-budget"],
        ),
        (
            "outputs: [{eve-log: {types: [alert, flow, alert]}}]",
            ["1: outputs[0].eve-log.types[2]: alert is named twice"],
        ),
        (
            "outputs: [{eve-log: {types: [alert, anomaly]}}]",
            ["1: outputs[0].eve-log.types[1]: give alert or anomaly, not both"],
        ),
        (
            "outputs: [{eve-log: {redis: {password: 12}}}]",
            ["1: outputs[0].eve-log.redis.password: must be text or null"],
        ),
        (
            "outputs: [{eve-log: {filemode: 680}}]",
            ["1: outputs[0].eve-log.filemode: must be octal digits, not 680"],
        ),
        ("model: !!python/object:os.system x",
         ["1: model: the tag tag:yaml.org,2002:python/object:os.system is not supported"]),
        ("- a", ["1: must be a mapping of keys"]),
        ("[a]: b", ["1: a key must be a name"]),
        ("1: b", ["1: 1: unknown key; known here: " + ", ".join(
            field.alias or "" for field in Config.model_fields.values())]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_line_path_and_nearest_name(text: str, lines: list[str]) -> None:
    assert wrong(text) == lines


def test_all_that_is_wrong_is_told_in_the_order_of_the_file() -> None:
    told = wrong("modl: x\nlinger: x\nmodel: a\nmodel: b\nmost-flows: 0\n")
    assert [line.split(":")[0] for line in told] == ["1", "2", "4", "5"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"a: [", ":1: is not YAML: "),
        (b"model: a\n\tb: c", ":2: is not YAML: "),
        (b"model: a\nx: \xff", ":2: is not UTF-8"),
        (b"model: a\nx: \x01", ":2: has a character that YAML does not allow"),
        (b"[" * 1000, ":1: is nested too deeply"),
        (b"--- {}\n--- {}", ":2: is not YAML: "),
    ],
)
def test_what_is_no_yaml_is_one_line(content: bytes, line: str, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(content)
    ran = run("config", "check", path)
    assert ran.code == ExitCode.USAGE
    assert len(ran.lines) == 1
    assert ran.err.startswith(f"flowvane: error: {path}{line}")


def test_an_empty_file_is_all_defaults() -> None:
    assert load("") == load("# nothing\n") == Config()


def test_values_as_suricatas_users_write_them() -> None:
    config = load(
        "%YAML 1.1\n---\n"
        "interfaces:\n  - interface: eth0\n    disable-promisc: yes\n"
        "false-positive-rate: 1e-3\nlinger: 5\npidfile: /run/x.pid\n"
        "outputs:\n  - eve-log:\n      filetype: regular\n      filename: alerts.json\n"
        "default-log-dir: /var/log/flowvane/\n"
    )
    assert config.interfaces[0].disable_promisc
    assert config.rate == 1e-3
    assert config.linger == 5.0
    assert config.default_log_dir == "/var/log/flowvane/"
    assert config.outputs[0].eve_log.filename == "alerts.json"


# What is declared


def test_every_key_has_a_meaning_and_a_value_or_keys_below() -> None:
    for key in declared().values():
        assert key.field.description, key.text
        assert accepts(key), key.text


def test_defaults_are_what_their_keys_take() -> None:
    assert Config.model_validate(plain(Config())) == Config()


def test_files_that_ship_are_current() -> None:
    for path, text in (
        ("docs/configuration.md", describe.as_page()),
        ("systemd/flowvane.schema.json", describe.schema_text()),
        ("systemd/flowvane.yaml", write.as_yaml(Config())),
    ):
        assert (ROOT / path).read_text("utf-8") == text, f"{path} is not current: run make docs"


def test_the_example_in_the_file_that_ships_is_taken() -> None:
    text = (ROOT / "systemd" / write.CONFIG_FILE).read_text("utf-8")
    config = load(
        re.sub(r"^#(?=  )", "", text, flags=re.M).replace("interfaces: []", "interfaces:")
    )
    assert [each.interface for each in config.interfaces] == ["eth0"]


def test_the_page_has_every_key() -> None:
    page = describe.as_page()
    for key in declared().values():
        if key.pattern[-1] != ITEM:
            above = path_text(key.pattern[:-1])
            section = page.split(f"\n## {f'`{above}`' if above else 'Top level'}\n")[1]
            assert f"\n| `{key.pattern[-1]}` |" in section.split("\n## ")[0]


def test_the_command_line_has_the_defaults_of_the_configuration() -> None:
    config = Config()
    assert config.model == defaults.MODEL
    helped = run("run", "--help").out
    shown = re.sub(r"\s+", " ", helped)
    for value in (config.model, config.rate, config.most_flows, config.linger, config.stop_within,
                  defaults.THREADS, defaults.BUFFER_MIB):  # fmt: skip
        assert f"({value})" in shown
    triage = cli.build_parser().parse_args(["triage", "-r", "x"])
    assert (triage.model, triage.fpr) == (config.model, config.rate)


# The command


def dumped(*arguments: object) -> dict[str, str]:
    """What `run --dump-config` shows."""
    ran = run("run", "--dump-config", *arguments)
    assert (ran.code, ran.err) == (ExitCode.OK, "")
    return dict(line.split(" = ", 1) for line in ran.out.splitlines())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_text(
        "interfaces:\n  - {interface: eth0, threads: 2}\n  - {interface: eth1, buffer: 8}\n"
        "linger: 1\nmodel: unsw-nb15\n"
    )
    return path


def test_options_hold_over_set_and_set_over_the_file(file: Path) -> None:
    shown = dumped("-c", file, "--set", "linger=2", "--set", "most-flows=9", "--linger", "3")
    assert (shown["linger"], shown["most-flows"], shown["model"]) == ("3.0", "9", "unsw-nb15")


def test_interfaces_on_the_command_line_keep_what_the_file_says_of_them(file: Path) -> None:
    shown = dumped("-c", file, "-i", "eth1", "eth2", "--threads", "4")
    of = {name: value for name, value in shown.items() if name.startswith("interfaces.")}
    assert of == {
        "interfaces.0.interface": "eth1", "interfaces.0.threads": "4",
        "interfaces.0.buffer": "8", "interfaces.0.disable-promisc": "no",
        "interfaces.1.interface": "eth2", "interfaces.1.threads": "4",
        "interfaces.1.buffer": "64", "interfaces.1.disable-promisc": "no",
    }  # fmt: skip


def test_what_the_file_says_wrong_of_an_interface_is_told_with_its_line(file: Path) -> None:
    file.write_text("interfaces:\n  - interface: eth0\n    threds: 2\n")
    ran = run("run", "-T", "-c", file, "-i", "eth9", "eth0")
    assert ran.err == (
        f"flowvane: error: {file}:3: interfaces[1].threds: unknown key; did you mean threads?\n"
    )


def test_a_rate_on_the_command_line_is_in_place_of_a_budget(tmp_path: Path) -> None:
    shown = dumped("--set", "alert-budget=5", "--fpr", "0.2")
    assert (shown["alert-budget"], shown["false-positive-rate"]) == ("null", "0.2")


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("linger", "must be KEY=VALUE, KEY like a.0.b"),
        ("=5", "must be KEY=VALUE, KEY like a.0.b"),
        ("outputs.0.eve-log.filetyp=x",
         "outputs[0].eve-log.filetyp: unknown key; did you mean filetype?"),
        ("outputs.5.eve-log.filename=x", "outputs: has 1 items; the next one would be number 1"),
        ("model.name=x", "model: must be the name of a model that ships, or a bundle's folder, not "
         "a mapping"),
        ("linger=[", "linger: is not YAML: "),
        ("outputs.x=1", "outputs: must be a list, not a mapping"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_setting_is_told_with_it(setting: str, reason: str) -> None:
    ran = run("run", "-T", "--set", "model=nsl-kdd", "--set", setting)
    assert ran.code == ExitCode.USAGE
    assert ran.lines[0].startswith(f"flowvane: error: --set {setting}: {reason}")


def test_settings_in_a_list_add_to_its_default() -> None:
    source = Source()
    source.assign("outputs[0].eve-log.types[1]=flow")
    assert check(source).outputs[0].eve_log.types == ["alert", "flow"]


def test_a_configuration_is_tested_with_its_model(file: Path, tmp_path: Path) -> None:
    ran = run("run", "-T", "-v", "-c", file)
    assert (ran.code, ran.err) == (ExitCode.OK, "")
    assert ran.out.splitlines() == [
        f"interfaces[0].interface = eth0 ({file}:2)", f"interfaces[0].threads = 2 ({file}:2)",
        f"interfaces[1].interface = eth1 ({file}:3)", f"interfaces[1].buffer = 8 ({file}:3)",
        f"model = unsw-nb15 ({file}:5)", f"linger = 1.0 ({file}:4)",
        "the configuration is good; model unsw-nb15",
    ]  # fmt: skip
    assert run("run", "-T", "--model", tmp_path / "none").code == ExitCode.MODEL
    assert run("run", "-T", "--fpr", "1e-12").code == ExitCode.USAGE


def test_a_log_on_the_command_line_is_in_place_of_interfaces_and_the_other_way(
    file: Path, tmp_path: Path
) -> None:
    shown = dumped("-c", file, "--zeek-conn", "conn.log", "--from-start")
    assert shown["zeek-conn.filename"] == "conn.log"
    assert shown["zeek-conn.from-start"] in ("yes", "true")
    assert not any(key.startswith("interfaces.") for key in shown)
    other = tmp_path / "zeek.yaml"
    other.write_text("zeek-conn: {filename: conn.log}\n")
    shown = dumped("-c", other, "-i", "eth0")
    assert shown["interfaces.0.interface"] == "eth0"
    assert shown["zeek-conn.filename"] == "null"
    assert run("run", "-i", "eth0", "--zeek-conn", "conn.log").code == ExitCode.USAGE
    assert wrong("interfaces: [{interface: eth0}]\nzeek-conn:\n  filename: conn.log\n") == [
        "3: zeek-conn.filename: give either interfaces or a log of Zeek's"
    ]


def test_without_an_interface_there_is_nothing_to_run() -> None:
    ran = run("run")
    assert ran.code == ExitCode.USAGE
    assert len(ran.lines) == 1
    assert "no interface" in ran.err


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    ran = run("run", "-c", tmp_path / "none.yaml", "-i", "x")
    assert ran.code == ExitCode.USAGE
    assert ran.err == (
        f"flowvane: error: {tmp_path}/none.yaml: cannot be read: no such file or directory\n"
    )


def test_the_command_writes_what_ships_and_finds_it_good(tmp_path: Path) -> None:
    for part, name in (("dump", "flowvane.yaml"), ("schema", "flowvane.schema.json")):
        shipped = (ROOT / "systemd" / name).read_text("utf-8")
        assert run("config", part).out == shipped
        assert run("config", part, "-o", tmp_path / name).code == ExitCode.OK
        assert (tmp_path / name).read_text("utf-8") == shipped
    ran = run("config", "check", tmp_path / "flowvane.yaml")
    assert (ran.code, ran.err) == (ExitCode.OK, "")
    assert run("config", "docs", "-o", tmp_path / "no" / "where").code == ExitCode.OUTPUT


def test_a_dump_has_what_was_set() -> None:
    ran = run("config", "dump", "--set", "linger=7")
    assert load(ran.out).linger == 7.0


def test_each_interface_is_captured_as_it_says() -> None:
    config = load(
        "interfaces: [{interface: a, threads: 3, buffer: 2, disable-promisc: on}, {interface: b}]"
    )
    assert taps(config) == [
        Tap("a", CaptureSettings(2 << 20, promiscuous=False), 3), Tap("b", CaptureSettings(), 1),
    ]  # fmt: skip


def test_patterns_are_paths_without_numbers() -> None:
    for path, _ in leaves(plain(Config())):
        assert pattern_of(path) in declared() or path[-1] == 0


# What becomes of it


def test_outputs_are_what_their_keys_say() -> None:
    config = load(
        "sensor-name: probe\neve-version: 8\noutputs:\n"
        "  - eve-log: {filename: a.json, filemode: 600, types: [alert, stats]}\n"
        "  - eve-log: {enabled: no}\n"
        "  - eve-log: {filetype: syslog, facility: auth, level: Warning, community-id: no,\n"
        "      types: [flow, stats: {interval: 30}]}\n"
        "  - eve-log: {filetype: redis, redis: {mode: stream, key: k,\n"
        "      pipelining: {batch-size: 7}}}\n"
    )
    file, syslog, redis = outputs_of(config)
    assert (file.spec.filename, oct(file.spec.filemode)) == ("a.json", "0o600")
    assert (file.types, file.stats_every_s) == ({"alert"}, 8.0)
    assert file.style == Style(8, "probe", community_id=True)
    assert (syslog.types, syslog.stats_every_s) == ({"flow"}, 30.0)
    assert syslog.style == Style(8, "probe", community_id=False)
    assert (syslog.spec.facility, syslog.spec.level) == ("auth", "Warning")
    assert (redis.spec.filetype, redis.spec.redis.mode) == ("redis", "stream")
    assert (redis.spec.redis.key, redis.spec.redis.pipelining.batch_size) == ("k", 7)


def test_the_defaults_of_outputs_are_the_same_on_both_sides() -> None:
    assert dataclasses.replace(spec_of(EveLog()), level="info") == OutputSpec()


@settings(max_examples=25, deadline=None)
@given(CONFIGS)
def test_any_outputs_can_be_made(data: dict[str, Any]) -> None:
    config = check(Source(data))
    enabled = [output for output in config.outputs if output.eve_log.enabled]
    assert len(outputs_of(config)) == len(enabled)


def test_what_decides_on_alerts_is_what_the_keys_say(tmp_path: Path) -> None:
    detector, rules = untrained("kdd", "gaussian"), tmp_path / "rules.yaml"
    rules.write_text("- port: 80\n")
    bare = deciders_of(load("{false-positive-rate: 0.2, recalibrate: no}"), detector)
    assert bare[1:] == (None, None, None, None)
    assert deciders_of(load("recalibrate: yes"), detector).recalibration is not None
    assert deciders_of(load("false-positive-rate: 0.2"), detector).verdict.fpr == 0.2
    config = load(
        f"alert-budget: 7\nsuppress: {rules}\n"
        "grouping: {enabled: yes, first-update: 5, longest-interval: 600, quiet: 60}\n"
    )
    decided = deciders_of(config, detector)
    assert decided.verdict.fpr == 0.01
    assert decided.budget is not None
    assert (decided.budget.per_hour, decided.budget.threshold) == (7, 0.01)
    assert decided.suppression is not None
    assert decided.suppression.path == rules
    assert decided.groups is not None
    assert decided.groups.schedule == Schedule(5, 3, 600, 60)


def test_suppression_rules_are_tested_with_the_configuration(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("- {prt: 80}\n")
    ran = run("run", "-T", "--set", f"suppress={rules}")
    assert ran.code == ExitCode.USAGE
    assert ran.err == f"flowvane: error: {rules}:1: there is no 'prt'; is it port?\n"
