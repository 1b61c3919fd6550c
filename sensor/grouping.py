"""A burst of alerts told as one: the first at once, then how many more there were.

Alerts of the same source, destination and kind (:class:`sensor.signatures.Kind`) are a *group*. Its
first alert is an event at once. Later ones are counted, and told by an `update` event at growing
intervals, and by an `end` event when none came for a while. Each of those events is about the most
anomalous of the alerts that it counts. The counts of all events of a group add up to its alerts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.flows import FLOW_DTYPE, FlowBatch
from sensor.identity import flow_ids
from sensor.signatures import kinds_of
from sensor.verdict import Found, GroupReport

_KEY = np.dtype([
    ("origin", FLOW_DTYPE["origin"]), ("src_ip", FLOW_DTYPE["src_ip"]),
    ("dst_ip", FLOW_DTYPE["dst_ip"]), ("kind", "u1"),
])  # fmt: skip
_ORIGIN, _DST, _KIND = 4, 20, 36
"""Where in a key's octets the origin ends, and the destination and the kind begin."""
_SWEEP_US = 1_000_000
"""How often groups are looked through for those about which there is something to tell."""

Name = tuple[str, bytes]
"""Of a group: what its alerts share, in a word and in octets of a key."""
Told = tuple[Found, GroupReport]
"""One alert, and what it says of its group."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a group is told of, in seconds.

    Attributes:
        first_s: from the first alert to the first update.
        factor: what each next interval is longer by.
        most_s: the longest interval.
        quiet_s: a group ends when no alert came for so long.
    """

    first_s: float = 10.0
    factor: float = 3.0
    most_s: float = 3600.0
    quiet_s: float = 300.0


@dataclass(slots=True)
class _Group:
    """What is kept of a group: of its flows one, the most anomalous since it was told of."""

    by: str
    number: int
    since_us: int
    latest_us: int
    due_us: int
    wait_us: int
    pair: bytes
    low_port: int = 65535
    high_port: int = 0
    total: int = 0
    pending: int = 0
    worst: Found | None = None

    def add(self, found: Found, members: list[int], now_us: int) -> None:
        """Count alerts."""
        ports = found.flows["dst_port"][members]
        self.low_port = min(self.low_port, int(ports.min()))
        self.high_port = max(self.high_port, int(ports.max()))
        self.total += len(members)
        self.pending += len(members)
        self.latest_us = now_us
        at = members[int(found.score[members].argmax())]
        if self.worst is None or found.score[at] > self.worst.score[0]:
            self.worst = found.take(np.array([at]))

    def tell(self, event: str) -> list[Told]:
        """An event on what has come since the last one, if anything has."""
        if self.worst is None:
            return []
        report = GroupReport(
            self.number, event, self.by, self.pending, self.total, self.since_us,
            self.low_port, self.high_port,
        )  # fmt: skip
        told = [(self.worst, report)]
        self.pending, self.worst = 0, None
        return told


@dataclass(slots=True)
class Groups:
    """The groups under way, in bounded memory; about 3 kB each.

    One source may turn to many destinations, and many (forged) sources to one. From `wide` groups
    on that share a source and kind, or a destination and kind, others that do are one group
    together. When there are `most` groups, what fits none is counted by its kind alone. So no
    alert is lost count of, only told less finely; `coarse` says how many.

    Times given to the methods are microseconds of one clock, any that does not go back.

    Attributes:
        coarse: alerts counted by their kind alone, as there was no room for a group.
    """

    schedule: Schedule = Schedule()
    most: int = 4096
    wide: int = 20
    coarse: int = 0
    _groups: dict[Name, _Group] = field(default_factory=dict)
    _fan: Counter[Name] = field(default_factory=Counter)
    _sweep_us: int | None = None

    def __len__(self) -> int:
        return len(self._groups)

    def push(
        self, found: Found, now_us: int, admit: Callable[[], bool] = lambda: True
    ) -> tuple[list[Told], NDArray[np.bool_]]:
        """Take ``[A]`` alerts.

        Args:
            found: the alerts, in order.
            now_us: the time.
            admit: asked before a group begins; the alerts are dropped if it says no.

        Returns:
            What there is to tell now, and which alerts were taken, ``[A]``.
        """
        told: list[Told] = []
        taken = np.ones(len(found), bool)
        later: dict[Name, list[int]] = {}
        for key, members in _members(found.flows).items():
            name = self._name(key)
            group = self._groups.get(name)
            if group is None and not admit():
                taken[members] = False
                continue
            if name[0] == "kind":
                self.coarse += len(members)
            if group is None:
                group = self._begin(name, key, found.flows[members[:1]], now_us)
                group.add(found, members[:1], now_us)
                told += group.tell("first")
                members = members[1:]
            later.setdefault(name, []).extend(members)
        for name, members in later.items():
            if members:
                self._groups[name].add(found, members, now_us)
        return told + self.due(now_us), taken

    def due(self, now_us: int) -> list[Told]:
        """What there is to tell by now of groups that go on or have ended."""
        if self._sweep_us is not None and now_us - self._sweep_us < _SWEEP_US:
            return []
        self._sweep_us = now_us
        told: list[Told] = []
        quiet_us = self.schedule.quiet_s * 1e6
        for name, group in list(self._groups.items()):
            if now_us - group.latest_us >= quiet_us:
                told += self._end(name)
            elif group.pending and now_us >= group.due_us:
                told += group.tell("update")
                longer = group.wait_us * self.schedule.factor
                group.wait_us = round(min(longer, self.schedule.most_s * 1e6))
                group.due_us = now_us + group.wait_us
        return told

    def end(self) -> list[Told]:
        """End all groups; what has not been told of them."""
        self._sweep_us = None
        return [each for name in list(self._groups) for each in self._end(name)]

    def _name(self, key: bytes) -> Name:
        """The group that alerts with this key belong to, be it there or not."""
        pair: Name = "pair", key
        if pair in self._groups:
            return pair
        wider = _wider(key)
        for name in wider:
            if name in self._groups:
                return name
        if len(self._groups) >= self.most:
            return "kind", key[:_ORIGIN] + key[_KIND:]
        for name in wider:
            if self._fan[name] >= self.wide:
                return name
        return pair

    def _begin(self, name: Name, key: bytes, first: FlowBatch, now_us: int) -> _Group:
        (number,) = flow_ids(first)
        wait_us = round(self.schedule.first_s * 1e6)
        group = _Group(
            name[0], number, int(first["last_us"][0]), now_us, now_us + wait_us, wait_us, key
        )
        self._groups[name] = group
        if name[0] == "pair":
            self._fan.update(_wider(key))
        return group

    def _end(self, name: Name) -> list[Told]:
        group = self._groups.pop(name)
        if name[0] == "pair":
            for wider in _wider(group.pair):
                self._fan[wider] -= 1
                if not self._fan[wider]:
                    del self._fan[wider]
        return group.tell("end")


def _members(flows: FlowBatch) -> dict[bytes, list[int]]:
    """Indices of ``[A]`` flows by key, in the order in which the keys come."""
    keys = np.empty(len(flows), _KEY)
    for name in ("origin", "src_ip", "dst_ip"):
        keys[name] = flows[name]
    keys["kind"] = kinds_of(flows)
    members: dict[bytes, list[int]] = {}
    for at, key in enumerate(keys.view(f"V{_KEY.itemsize}").tolist()):
        members.setdefault(key, []).append(at)
    return members


def _wider(key: bytes) -> tuple[Name, Name]:
    """The group of all sources of a destination, and that of all destinations of a source."""
    return (
        ("destination", key[:_ORIGIN] + key[_DST:]),
        ("source", key[:_DST] + key[_KIND:]),
    )
