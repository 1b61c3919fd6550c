"""What a person sees: problems on standard error, progress on a terminal, the alert table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import rich.console
import rich.progress
import rich.table
from rich.text import Text

from sensor.eve import PROTOCOL_NAMES
from sensor.identity import address_texts
from sensor.verdict import Alerts, Reason, Reasons

T = TypeVar("T")

TABLE_ROWS = 10
TABLE_REASONS = 3
MANY_SOURCES = 5
"""From so many sources on, alerts on one service of one host are one row of the table."""


_AS_IS: dict[str, Any] = {"highlight": False, "emoji": False}


def printable(text: str, *, lines: bool = False) -> str:
    """`text` on one line unless it may have `lines`, with what cannot be printed spelled out.

    What cannot be are control characters, and bytes of a file name that are no UTF-8: no file
    name can make a line or a colour of its own.
    """
    return "".join(
        character
        if character.isprintable() or (lines and character == "\n")
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )


class Console:
    """Standard error for problems and progress, standard output for results."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._err = rich.console.Console(stderr=True, soft_wrap=True, **_AS_IS)
        self._out = rich.console.Console(**_AS_IS)
        self.quiet = quiet
        self._live = self._err.is_terminal and not quiet

    def error(self, message: str) -> None:
        """One line about something that could not be done."""
        self._err.print(Text.assemble(("flowvane: error:", "red"), f" {printable(message)}"))

    def warn(self, message: str) -> None:
        """One line about something worth knowing."""
        self._err.print(Text.assemble(("flowvane: warning:", "yellow"), f" {printable(message)}"))

    def say(self, message: str) -> None:
        """One line of results."""
        self._out.print(Text(printable(message, lines=True)), soft_wrap=True)

    def show(self, table: rich.table.Table) -> None:
        """A table of results; wide enough for its text where no terminal sets the width."""
        if not self._out.is_terminal:
            rich.console.Console(file=sys.stdout, width=160, **_AS_IS).print(table)
        else:
            self._out.print(table)

    def track(self, items: Sequence[T], what: str) -> Iterator[T]:
        """The items, with a progress bar on a terminal."""
        with self.progress(what, len(items)) as advance:
            for item in items:
                yield item
                advance(1)

    @contextmanager
    def progress(self, what: str, total: float) -> Iterator[Callable[[float], None]]:
        """A progress bar on a terminal; call what it gives with the work just done."""
        if not self._live:
            yield lambda _: None
            return
        bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self._err,
            transient=True,
        )
        with bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.advance(task, done)


class Worst(NamedTuple):
    """What the table shows of the most anomalous alert of a group: there are many groups."""

    score: float
    p_value: float
    dst: str
    dst_port: int
    protocol: int
    application: bytes
    reasons: Reasons


@dataclass(slots=True)
class AlertGroup:
    """Alerts that a person would see as one: same source, destination and protocol."""

    worst: Worst
    count: int = 0
    ports: set[int] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)


class AlertGroups:
    """Collects alerts for the table, in bounded memory.

    Alerts are grouped by source, destination and protocol. A flood from forged sources would
    make a group of each: past `most` groups, new sources are counted by destination alone, and
    past twice as many by protocol alone.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._groups: dict[tuple[str, str, int], AlertGroup] = {}

    def add(self, alerts: Alerts) -> None:
        """Count ``[A]`` alerts."""
        flows = alerts.flows
        names = ("dst_port", "protocol", "application")
        columns = (flows[name].tolist() for name in names)
        scores = (alerts.score.tolist(), alerts.p_value.tolist())
        reasoned = (alerts.reasons, alerts.each_report)
        for src, dst, score, p_value, port, protocol, application, reasons, report in zip(
            *address_texts(flows), *scores, *columns, *reasoned, strict=True
        ):
            key = self._key(src, dst, protocol)
            group = self._groups.get(key)
            if group is None or score > group.worst.score:
                told = reasons[:TABLE_REASONS]
                worst = Worst(score, p_value, dst, port, protocol, application, told)
                if group is None:
                    group = self._groups[key] = AlertGroup(worst)
                group.worst = worst
            group.count += 1 if report is None else report.count
            group.ports.update((port,) if report is None else (report.low_port, report.high_port))
            if len(group.sources) < self._most:
                group.sources.add(src)

    def _key(self, src: str, dst: str, protocol: int) -> tuple[str, str, int]:
        key = src, dst, protocol
        if key not in self._groups and len(self._groups) >= self._most:
            key = "", dst, protocol
            if key not in self._groups and len(self._groups) >= 2 * self._most - 1:
                key = "", "", protocol
        return key

    def _merged(self) -> list[AlertGroup]:
        """The groups, those of many sources on one service of one host made one."""
        on_service: dict[tuple[str, int, int], list[AlertGroup]] = {}
        groups: list[AlertGroup] = []
        for group in self._groups.values():
            if len(group.ports) > 1:
                groups.append(group)
                continue
            service = group.worst.dst, group.worst.dst_port, group.worst.protocol
            on_service.setdefault(service, []).append(group)
        for same in on_service.values():
            if len(same) < MANY_SOURCES:
                groups += same
                continue
            worst = max(same, key=lambda group: group.worst.score)
            groups.append(
                AlertGroup(
                    worst.worst,
                    sum(group.count for group in same),
                    set(worst.ports),
                    set().union(*(group.sources for group in same)),
                )
            )
        return groups

    def table(self, rows: int = TABLE_ROWS) -> rich.table.Table:
        """The most anomalous groups."""
        merged = self._merged()
        ordered = sorted(merged, key=lambda group: -group.worst.score)
        table = rich.table.Table(
            title=f"Most anomalous ({min(rows, len(ordered))} of {len(ordered)} groups)",
            title_justify="left",
        )
        for name in ("score", "p", "flows", "source", "destination", "what", "why"):
            table.add_column(name, overflow="fold")
        for group in ordered[:rows]:
            table.add_row(*(Text(printable(cell)) for cell in _cells(group)))
        return table


def _cells(group: AlertGroup) -> list[str]:
    worst = group.worst
    sources = sorted(group.sources)
    ports = f" ports {min(group.ports)}-{max(group.ports)}" if len(group.ports) > 1 else ""
    port = f":{worst.dst_port}" if not ports and worst.dst_port else ""
    application = worst.application.decode()
    what = PROTOCOL_NAMES.get(worst.protocol, f"{worst.protocol:03d}")
    if application and application != "Unknown":
        what = f"{what} {application}"
    return [
        f"{worst.score:.1f}",
        f"{worst.p_value:.2g}",
        str(group.count),
        sources[0] if len(sources) == 1 else f"{len(sources)} sources",
        f"{worst.dst}{port}{ports}",
        what,
        "; ".join(why(reason) for reason in worst.reasons),
    ]


def why(reason: Reason) -> str:
    """A reason as a person reads it."""
    # Of a category what is usual may be many words.
    usual = "" if reason.usual_low is None else f", usual {reason.usual}"
    return f"{reason.feature} {reason.observed} (expected {reason.expected}{usual})"
