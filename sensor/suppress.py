"""Suppression: a file of rules for alerts that nobody wants to see (docs/suppression.md).

A rule is a set of conditions that must all hold; an alert is suppressed by the first rule that
fits it, and counted there. The file is read anew when it has changed.
"""

from __future__ import annotations

import ipaddress
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from features.flows import FlowBatch, address_keys
from sensor.errors import UsageError

Mask = NDArray[np.bool_]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PROTOCOL_NUMBERS = {
    "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58,
    "icmpv6": 58, "ospf": 89, "sctp": 132, "udplite": 136,
}  # fmt: skip
_V4_BITS = 96
"""An IPv4 address is the last 32 of 128 bits (:data:`features.flows.FLOW_DTYPE`)."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """Conditions on an alert; a condition with nothing in it holds always.

    Attributes:
        name: what its count is told under.
        line: where it stands in the file.
        source, destination, either: networks of an address; of `either`, one of the two.
        ports: destination ports, ``[65536]``.
        protocols: IP protocol numbers, ``[256]``.
        applications: nDPI's names, lower case; ``tls`` is also ``TLS.Google``.
        models: names.
        until_us: the rule holds for flows whose last packet came before.
        comment: for people.
    """

    name: str
    line: int
    source: tuple[Network, ...] = ()
    destination: tuple[Network, ...] = ()
    either: tuple[Network, ...] = ()
    ports: Mask | None = None
    protocols: Mask | None = None
    applications: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    until_us: int | None = None
    comment: str = ""

    def holds(self, flows: FlowBatch, model: str) -> Mask:
        """Whether all conditions hold for each of ``[B]`` flows; the cheap ones are asked first."""
        held = np.full(len(flows), not self.models or model in self.models)
        for condition in self._conditions():
            if not held.any():
                break
            held &= condition(flows)
        return held

    def _conditions(self) -> list[Callable[[FlowBatch], Mask]]:
        asked: list[Callable[[FlowBatch], Mask]] = []
        if (until := self.until_us) is not None:
            asked.append(lambda flows: np.asarray(flows["last_us"] < until))
        if (ports := self.ports) is not None:
            asked.append(lambda flows: np.asarray(ports[flows["dst_port"]]))
        if (protocols := self.protocols) is not None:
            asked.append(lambda flows: np.asarray(protocols[flows["protocol"]]))
        if self.source:
            asked.append(lambda flows: _within(flows, "src_ip", self.source))
        if self.destination:
            asked.append(lambda flows: _within(flows, "dst_ip", self.destination))
        if self.either:
            asked.append(
                lambda flows: (
                    _within(flows, "src_ip", self.either) | _within(flows, "dst_ip", self.either)
                )
            )
        if self.applications:
            asked.append(self._of_application)
        return asked

    def _of_application(self, flows: FlowBatch) -> Mask:
        """Whether nDPI's name, or a part of it up to a dot, is one of the rule's."""
        names = [name.decode().lower() for name in flows["application"].tolist()]
        known = {name: self._is_named(name or "unknown") for name in set(names)}
        return np.array([known[name] for name in names], bool)

    def _is_named(self, name: str) -> bool:
        return any(name == own or name.startswith(own + ".") for own in self.applications)


def _within(flows: FlowBatch, name: str, networks: Sequence[Network]) -> Mask:
    """Whether an address field of ``[B]`` flows is in any of the networks."""
    keys, versions = address_keys(flows[name]), flows["ip_version"]
    found = np.zeros(len(flows), bool)
    for network in networks:
        before = _V4_BITS if network.version == 4 else 0
        bits = (1 << 128) - (1 << (128 - before - network.prefixlen))
        mask = np.frombuffer(bits.to_bytes(16, "big"), np.uint64)
        own = b"\0" * 10 + b"\xff\xff" if network.version == 4 else b""
        wanted = np.frombuffer(own + network.network_address.packed, np.uint64)
        same = (keys & mask) == wanted
        found |= same[:, 0] & same[:, 1] & (versions == network.version)
    return found


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a file, in their order."""

    rules: tuple[Rule, ...] = ()

    def match(self, flows: FlowBatch, model: str) -> NDArray[np.int64]:
        """The index of the first rule that fits each of ``[B]`` flows, -1 where none does."""
        which = np.full(len(flows), -1, np.int64)
        for number, rule in enumerate(self.rules):
            which[(which < 0) & rule.holds(flows, model)] = number
        return which


# Reading


class _Bad(Exception):
    """Something is wrong in a line."""

    def __init__(self, node: yaml.Node, what: str) -> None:
        super().__init__(what)
        self.line: int = node.start_mark.line + 1


def _scalars(node: yaml.Node) -> list[yaml.ScalarNode]:
    """A value, or a list of values."""
    each = node.value if isinstance(node, yaml.SequenceNode) else [node]
    for one in each:
        if not isinstance(one, yaml.ScalarNode) or not one.value:
            raise _Bad(one, "give a value, or a list of values")
    if not each:
        raise _Bad(node, "the list is empty")
    return list(each)


def _networks(node: yaml.Node) -> tuple[Network, ...]:
    return tuple(map(_network, _scalars(node)))


def _network(node: yaml.ScalarNode) -> Network:
    try:
        return ipaddress.ip_network(node.value)
    except ValueError as error:
        raise _Bad(node, f"{error}; give an address or a network, as 10.0.0.0/8") from error


def _number(node: yaml.Node, text: str, most: int, what: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > most or text != str(int(text)):
        raise _Bad(node, f"{text!r} is not {what}")
    return int(text)


def _ports(node: yaml.Node) -> Mask:
    table = np.zeros(1 << 16, bool)
    for one in _scalars(node):
        low, dash, high = (part.strip() for part in one.value.partition("-"))
        bounds = [
            _number(one, text, 65535, "a port, or ports as 8000-8100")
            for text in (low, high if dash else low)
        ]
        if bounds[0] > bounds[1]:
            raise _Bad(one, f"{one.value}: the first port is above the last")
        table[bounds[0] : bounds[1] + 1] = True
    return table


def _protocols(node: yaml.Node) -> Mask:
    table = np.zeros(256, bool)
    for one in _scalars(node):
        number = PROTOCOL_NUMBERS.get(one.value.lower())
        if number is None:
            known = f"a protocol: {', '.join(PROTOCOL_NUMBERS)}, or a number up to 255"
            number = _number(one, one.value, 255, known)
        table[number] = True
    return table


def _names(node: yaml.Node) -> frozenset[str]:
    return frozenset(one.value for one in _scalars(node))


def _until(node: yaml.Node) -> int:
    """The end of a day, or a time; of UTC, unless it says otherwise."""
    text = _text(node)
    try:
        time = datetime.fromisoformat(text)
        if len(text) <= len("2026-12-31"):
            time += timedelta(days=1)
    except (ValueError, OverflowError) as error:
        raise _Bad(node, f"{text!r} is not a date, as 2026-12-31") from error
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return round(time.timestamp()) * 1_000_000


def _text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or not node.value:
        raise _Bad(node, "give one value")
    text: str = node.value
    return text


_KEYS: dict[str, tuple[str, Callable[[yaml.Node], Any]]] = {
    "name": ("name", _text),
    "comment": ("comment", _text),
    "source": ("source", _networks),
    "destination": ("destination", _networks),
    "either": ("either", _networks),
    "port": ("ports", _ports),
    "protocol": ("protocols", _protocols),
    "application": ("applications", lambda node: frozenset(map(str.lower, _names(node)))),
    "model": ("models", _names),
    "until": ("until_us", _until),
}
"""The keys of a rule: the attribute of :class:`Rule`, and how its value is read."""
_CONDITIONS = frozenset(_KEYS) - {"name", "comment", "until"}


def _rule(node: yaml.Node) -> Rule:
    if not isinstance(node, yaml.MappingNode):
        raise _Bad(node, f"a rule is a mapping of {', '.join(_KEYS)}")
    given: dict[str, Any] = {}
    keys: set[str] = set()
    for key, value in node.value:
        if key.value not in _KEYS:
            near = [f"; is it {name}?" for name in get_close_matches(str(key.value), _KEYS, 1)]
            raise _Bad(key, f"there is no {key.value!r}{''.join(near)}")
        if key.value in keys:
            raise _Bad(key, f"{key.value} is there twice")
        keys.add(key.value)
        name, read = _KEYS[key.value]
        try:
            given[name] = read(value)
        except _Bad as error:
            error.args = (f"{key.value}: {error}",)
            raise
    if not keys & _CONDITIONS:
        raise _Bad(node, f"the rule fits every alert; give {', '.join(sorted(_CONDITIONS))}")
    line = node.start_mark.line + 1
    return Rule(**{"name": f"line {line}", **given, "line": line})


def _all_rules(node: yaml.Node) -> tuple[Rule, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise _Bad(node, "a list of rules is wanted, each beginning with a dash")
    return tuple(map(_rule, node.value))


def parse(text: str, name: str) -> Rules:
    """The rules in a text.

    Args:
        text: YAML: a list of rules; nothing at all is no rule.
        name: of the file, for messages.

    Raises:
        UsageError: the text is wrong; the message begins ``NAME:LINE:``.
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if node is None:
            return Rules()
        rules = _all_rules(node)
    except _Bad as error:
        raise UsageError(f"{name}:{error.line}: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{name}:{line}: no YAML: {error.problem or error.context}") from error
    except RecursionError as error:
        raise UsageError(f"{name}:1: no YAML: nested too deep") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise UsageError(f"{name}:{line}: no YAML: {error.reason}") from error
    lines: dict[str, int] = {}
    for rule in rules:
        if lines.setdefault(rule.name, rule.line) != rule.line:
            raise UsageError(
                f"{name}:{rule.line}: line {lines[rule.name]} has the name {rule.name!r} already"
            )
    return Rules(rules)


def load(path: Path) -> Rules:
    """The rules in a file.

    Raises:
        UsageError: it cannot be read, or is wrong; the message begins with the file's name.
    """
    try:
        octets = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    try:
        text = octets.decode()
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: no UTF-8") from error
    return parse(text, str(path))


# In use

_State = tuple[int, int, int]


@dataclass(slots=True)
class Suppression:
    """The rules of a file in use: read anew when it changes, and what each has suppressed.

    A file that has become wrong or has gone is told once, and the rules before it go on.

    Attributes:
        path: of the file.
        counts: alerts suppressed, by the name of the rule, whichever state of the file it was in.
    """

    path: Path
    counts: Counter[str] = field(default_factory=Counter)
    _rules: Rules = field(init=False)
    _state: _State | None = field(init=False)

    def __post_init__(self) -> None:
        """Read the file.

        Raises:
            UsageError: as :func:`load`.
        """
        self._state = self._look()
        self._rules = load(self.path)

    def _look(self) -> _State | None:
        """What tells one state of the file from another."""
        try:
            now = os.stat(self.path)  # noqa: PTH116 (asked every second)
        except OSError:
            return None
        return now.st_ino, now.st_size, now.st_mtime_ns

    def reload(self) -> None:
        """Read the file anew; what is matched from then on is matched with what it says now.

        Raises:
            UsageError: as :func:`load`; the rules before it go on.
        """
        self._state = self._look()
        self._rules = load(self.path)  # one reference: in use from one batch to the next

    def poll(self) -> str | None:
        """Read the file anew if it has changed; a line about that, else None.

        Raises:
            UsageError: it has, and is wrong or gone: once for each state of the file. The rules
                before it go on, which the message says.
        """
        if self._look() == self._state:
            return None
        try:
            self.reload()
        except UsageError as error:
            raise UsageError(f"{error}; the rules before it go on") from error
        return f"{self.path}: read anew, rules: {len(self._rules.rules)}"

    def kept(self, flows: FlowBatch, model: str) -> Mask:
        """Which of ``[B]`` alerts are not suppressed; the others are counted."""
        rules = self._rules
        which = rules.match(flows, model)
        for number, count in enumerate(np.bincount(which[which >= 0])):
            if count:
                self.counts[rules.rules[number].name] += int(count)
        return which < 0
