"""Suppression rules: how they are read, and which alerts they fit."""

from __future__ import annotations

import ipaddress
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from features.flows import FlowBatch, unpack_address
from sensor.errors import UsageError
from sensor.suppress import PROTOCOL_NUMBERS, Suppression, parse
from tests.helpers import ROOT, make_flow


def fits(rule: dict[str, Any], flow: FlowBatch, model: str = "m") -> bool:
    return bool(parse(yaml.safe_dump([rule]), "x").match(flow, model)[0] == 0)


# As a matcher that is written for no speed


def listed(value: Any) -> list[str]:
    return [str(one) for one in (value if isinstance(value, list) else [value])]


def inside(address: str, value: Any) -> bool:
    return any(
        ipaddress.ip_address(address) in ipaddress.ip_network(text) for text in listed(value)
    )


def plainly(rule: dict[str, Any], flow: Any, model: str) -> bool:
    """Whether a rule as written fits a flow, a condition after the other."""
    src, dst = (
        unpack_address(flow[name], int(flow["ip_version"])) for name in ("src_ip", "dst_ip")
    )
    port, protocol = int(flow["dst_port"]), int(flow["protocol"])
    application = (bytes(flow["application"]).decode() or "Unknown").lower()
    seen = datetime.fromtimestamp(int(flow["last_us"]) / 1e6, UTC)
    checks = {
        "source": lambda value: inside(src, value),
        "destination": lambda value: inside(dst, value),
        "either": lambda value: inside(src, value) or inside(dst, value),
        "port": lambda value: any(
            int(text.split("-")[0]) <= port <= int(text.split("-")[-1]) for text in listed(value)
        ),
        "protocol": lambda value: any(
            PROTOCOL_NUMBERS.get(text, -1) == protocol or text == str(protocol)
            for text in listed(value)
        ),
        "application": lambda value: any(
            f"{application}.".startswith(f"{text.lower()}.") for text in listed(value)
        ),
        "model": lambda value: model in listed(value),
        "until": lambda value: seen.date().isoformat() <= str(value),
        "name": lambda value: True,
        "comment": lambda value: True,
    }
    return all(checks[key](value) for key, value in rule.items())


v4 = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.1.2.3", "192.0.2.7", "0.0.0.0"])  # noqa: S104
v6 = st.sampled_from(["2001:db8::1", "2001:db8:0:1::1", "::1", "::ffff:10.0.0.1", "::"])
ports = st.sampled_from([0, 1, 53, 80, 443, 8000, 8050, 65535])
applications = st.sampled_from(["", "Unknown", "TLS", "TLS.Google", "DNS.Google", "HTTP", "TLSX"])


@st.composite
def networks(draw: st.DrawFn) -> str:
    address = draw(v4 | v6)
    bits = draw(st.sampled_from([0, 1, 8, 24, 31, 32] + [64, 127, 128] * (":" in address)))
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))


def one_or_more(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return values | st.lists(values, min_size=1, max_size=3)


port_ranges = st.tuples(ports, ports).map(lambda pair: "{}-{}".format(*sorted(pair)))
rules = st.fixed_dictionaries({}, optional={
    "source": one_or_more(networks()), "destination": one_or_more(networks()),
    "either": one_or_more(networks()), "port": one_or_more(ports | port_ranges),
    "protocol": one_or_more(st.sampled_from(["tcp", "udp", "icmp", 6, 47])),
    "application": one_or_more(st.sampled_from(["TLS", "tls.google", "DNS", "Unknown", "http"])),
    "model": one_or_more(st.sampled_from(["m", "other"])),
    "until": st.sampled_from(["2026-01-14", "2026-01-15", "2026-01-16"]),
    "comment": st.just("as agreed: #17"),
}).filter(lambda rule: rule.keys() - {"until", "comment"})  # fmt: skip


@st.composite
def flows(draw: st.DrawFn) -> FlowBatch:
    address = draw(st.sampled_from([v4, v6]))
    src = draw(address)
    return make_flow(
        src_ip=src, dst_ip=draw(address), ip_version=6 if ":" in src else 4,
        dst_port=draw(ports), protocol=draw(st.sampled_from([1, 6, 17, 47])),
        application=draw(applications), last_us=1_768_467_600_000_000 + draw(
            st.sampled_from([-86_400, 0, 54_000 - 1, 54_000, 86_400])) * 1_000_000,
    )  # fmt: skip


@settings(max_examples=150, deadline=None, database=None)
@given(written=st.lists(rules, max_size=4), each=st.lists(flows(), min_size=1, max_size=6))
def test_rules_match_as_they_read(written: list[dict[str, Any]], each: list[FlowBatch]) -> None:
    # Some networks come out mapped: an address of version 6 that holds one of version 4.
    batch = np.concatenate(each)
    found = parse(yaml.safe_dump(written), "x").match(batch, "m").tolist()
    assert found == [
        next((at for at, rule in enumerate(written) if plainly(rule, flow, "m")), -1)
        for flow in batch
    ]


# By hand


@pytest.mark.parametrize(
    ("rule", "fit"),
    [
        ({"source": "10.0.0.0/8"}, True),
        ({"source": "10.0.0.1"}, True),
        ({"source": "10.0.0.2"}, False),
        ({"source": ["192.0.2.0/24", "10.0.0.0/31"]}, True),
        ({"source": "::/0"}, False),  # an IPv4 address is none of IPv6
        ({"either": "10.0.0.2"}, True),
        ({"destination": "10.0.0.1"}, False),
        ({"port": 80}, True),
        ({"port": "70-79"}, False),
        ({"port": [443, "70 - 80"]}, True),
        ({"port": 40000}, False),  # the source's
        ({"protocol": "TCP"}, True),
        ({"protocol": [17, 6]}, True),
        ({"application": "HTTP"}, True),
        ({"application": "http.google"}, True),
        ({"application": "Google"}, False),
        ({"model": "m"}, True),
        ({"model": "n"}, False),
        ({"port": 80, "until": "2026-01-15"}, True),
        ({"port": 80, "until": "2026-01-14"}, False),
        ({"port": 80, "until": "2026-01-15T09:00:02"}, True),
        ({"port": 80, "until": "2026-01-15T09:00:02+01:00"}, False),
        ({"port": 80, "source": "10.0.0.2"}, False),
    ],
)
def test_conditions_by_hand(rule: dict[str, Any], fit: bool) -> None:
    assert fits(rule, make_flow(application="HTTP.Google")) is fit


def test_an_address_of_version_6_that_holds_one_of_version_4_is_not_that_one() -> None:
    flow = make_flow(src_ip="::ffff:10.0.0.1", dst_ip="::1", ip_version=6)
    assert not fits({"source": "10.0.0.0/8"}, flow)
    assert fits({"source": "::ffff:10.0.0.1"}, flow)
    assert fits({"source": "::/0"}, flow)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- source: 10.0.0.1/8", ":1: source: 10.0.0.1/8 has host bits set; give an address"),
        ("\n- port: 80\n- port: 65536", ":3: port: '65536' is not a port"),
        ("- port: 90-80", ":1: port: 90-80: the first port is above the last"),
        ("- port: 0x50", ":1: port: '0x50' is not a port"),
        ("- port: 010", ":1: port: '010' is not a port"),
        ("- port: -80", ":1: port: '' is not a port"),
        ("- port: []", ":1: port: the list is empty"),
        ("- port:", ":1: port: give a value"),
        ("- port:\n    - 80\n    - [443]", ":3: port: give a value"),
        ("- port: 80\n  port: 81", ":2: port is there twice"),
        ("- protocol: tpc", ":1: protocol: 'tpc' is not a protocol: icmp, igmp, tcp"),
        ("- protocol: 256", ":1: protocol: '256' is not"),
        ("- port: 80\n  until: soon", ":2: until: 'soon' is not a date, as 2026-12-31"),
        ("- port: 80\n  until: 9999-12-31", ":2: until: '9999-12-31' is not a date"),
        ("- port: 80\n  until: [2026-01-01]", ":2: until: give one value"),
        ("- port: 80\n\n  sorce: 10.0.0.1", ":3: there is no 'sorce'; is it source?"),
        ("- 80: x", ":1: there is no '80'"),
        ("- comment: all of it", ":1: the rule fits every alert; give application, dest"),
        ("- {}", ":1: the rule fits every alert"),
        ("- until: 2026-12-31", ":1: the rule fits every alert"),
        ("- 10.0.0.1", ":1: a rule is a mapping of name, comment"),
        ("source: 10.0.0.1", ":1: a list of rules is wanted"),
        ("- port: 80\n- {port: 81", ":2: no YAML: "),
        ("- port: 80\n---\n- port: 81", ":2: no YAML: "),
        ("- port: 80\n\t- x", ":2: no YAML: "),
        ("- name: a\n  port: 1\n- name: a\n  port: 2", ":3: line 1 has the name 'a' already"),
        ("- port: 80\n- name: \x07", ":2: no YAML: "),
        ("[" * 1_500, ":1: no YAML: "),
        ("- &a\n  port: *a", ":1: port: give a value"),
        ("- !!python/object:os.system {port: 80}\n- x", ":2: a rule is a mapping"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(text, "rules.yaml")
    assert str(error.value).startswith(f"rules.yaml{message}")
    assert "\n" not in str(error.value)


@settings(max_examples=100, deadline=None, database=None)
@given(text=st.text(st.sampled_from("-: []{}\n#&*!|>'\"%@`port80tcp"), max_size=40))
def test_any_text_is_rules_or_is_refused(text: str) -> None:
    try:
        parse(text, "rules.yaml")
    except UsageError as error:
        assert str(error).startswith("rules.yaml:")


def test_an_empty_file_suppresses_nothing() -> None:
    for text in ("", "# none yet\n", "[]"):
        assert parse(text, "x").match(make_flow(), "m").tolist() == [-1]


def test_no_alerts_are_matched_by_nothing() -> None:
    rule = "- {source: 10.0.0.0/8, application: TLS, port: 80}"
    assert parse(rule, "x").match(make_flow()[:0], "m").tolist() == []


def test_the_example_of_the_page_is_right() -> None:
    page = (ROOT / "docs" / "suppression.md").read_text("utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    names = [rule.name for rule in parse(example, "x").rules]
    assert len(names) >= 3


# In use

BATCH = np.concatenate([make_flow(dst_port=port) for port in (80, 81, 80, 443)])


def rewrite(path: Path, text: str) -> None:
    """Replace a file at once, as an editor does; it differs in its inode at least."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_alerts_are_counted_by_the_first_rule_that_fits(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("- {name: web, port: 80}\n- {port: 80-81}\n")
    suppression = Suppression(path)
    assert suppression.kept(BATCH, "m").tolist() == [False, False, False, True]
    assert suppression.kept(BATCH[3:], "m").tolist() == [True]
    assert suppression.kept(BATCH[:0], "m").tolist() == []
    assert suppression.counts == {"web": 2, "line 2": 1}


def test_a_changed_file_is_in_use_at_once_and_counts_go_on(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("- {name: web, port: 80}\n")
    suppression = Suppression(path)
    suppression.kept(BATCH, "m")
    assert suppression.poll() is None
    rewrite(path, "- {name: web, port: [80, 443]}\n")
    assert suppression.poll() == f"{path}: read anew, rules: 1"
    assert suppression.poll() is None
    assert suppression.kept(BATCH, "m").tolist() == [False, True, False, False]
    assert suppression.counts == {"web": 5}
    with path.open("a") as file:  # in place
        file.write("- {name: more, port: 81}\n")
    assert suppression.poll() == f"{path}: read anew, rules: 2"


def test_a_broken_file_is_told_once_and_the_old_rules_go_on(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("- {name: web, port: 80}\n")
    suppression = Suppression(path)
    rewrite(path, "- {name: web, prt: 80}\n")
    with pytest.raises(UsageError) as error:
        suppression.poll()
    assert str(error.value) == (
        f"{path}:1: there is no 'prt'; is it port?; the rules before it go on"
    )
    assert suppression.poll() is None
    with pytest.raises(UsageError, match=":1: there is no 'prt'"):
        suppression.reload()
    path.unlink()
    with pytest.raises(UsageError, match="no such file or directory; the rules before it go on"):
        suppression.poll()
    assert suppression.poll() is None
    assert suppression.kept(BATCH, "m").tolist() == [False, True, False, True]
    path.write_text("[]\n")
    assert suppression.poll() == f"{path}: read anew, rules: 0"
    assert suppression.kept(BATCH, "m").all()


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: no such file or directory"):
        Suppression(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="is a directory"):
        Suppression(tmp_path)
    path = tmp_path / "rules.yaml"
    path.write_bytes(b"- port: 80\n- name: caf\xe9\n")
    with pytest.raises(UsageError, match=r"rules.yaml:2: no UTF-8"):
        Suppression(path)
    shutil.copy(path, tmp_path / "copy")
    os.truncate(path, 0)
    assert Suppression(path).poll() is None
