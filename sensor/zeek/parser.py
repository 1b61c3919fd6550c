"""Lines of conn.log to connections, in either format, one broken line at a time.

Zeek's own format has a header (``#separator``, ``#fields`` …) that holds for the lines after it,
and may come again in mid-file. JSON has none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from features.flows import FlowBatch
from sensor.meter.base import RunCounters, packets_of
from sensor.zeek.columns import DECLARED, Columns, Fault, Faulty, JsonColumns, TsvColumns, shown
from sensor.zeek.records import records

MOST_TOLD = 5
"""Broken lines of a file that are told of one by one, for each fault; the others are counted."""

_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")


@dataclass
class LogCounters(RunCounters):
    """What became of the lines of logs; packets are as Zeek counted them.

    Attributes:
        lines: lines with a record, broken ones too; those of headers are not counted.
        broken: those of them that were not read, by fault.
        unread_bytes: of a log that is followed, what is in it and was not read yet.
    """

    lines: int = 0
    broken: Counter[Fault] = field(default_factory=Counter)
    unread_bytes: int = 0

    @property
    def lines_told(self) -> str:
        """The lines as a part of a sentence."""
        causes = ", ".join(f"{number:,} {fault}" for fault, number in sorted(self.broken.items()))
        return (
            f"{self.lines:,} lines ({self.broken.total():,} not read"
            f"{f': {causes}' if causes else ''})"
        )

    @property
    def told(self) -> str:
        """All of it, as a part of a line."""
        return (
            f"{self.flows:,} connections of {self.lines_told}; lost: {self.unread_bytes:,} bytes "
            "of the log to lack of time at the end"
        )

    @property
    def brief(self) -> str:
        """Connections, and how many lines were not read."""
        return f"{self.flows:,} connections; {self.broken.total():,} lines not read"


@dataclass
class _Header:
    """What the lines that begin with # have said so far.

    Attributes:
        places: where each column is, None where records cannot be read.
        problem: why not.
        told: whether that was said.
    """

    separator: bytes = b"\t"
    empty: bytes = b"(empty)"
    unset: bytes = b"-"
    places: dict[str, int] | None = None
    width: int = 0
    problem: Faulty = field(
        default_factory=lambda: Faulty(Fault.HEADER, "has no #fields before it")
    )
    told: bool = False

    def take(self, line: bytes) -> str:
        """Take a line of the header; what is wrong with it, if anything is."""
        key, *values = line.split(self.separator)
        if key == b"#empty_field" and values:
            self.empty = _unescape(values[0])
        elif key == b"#unset_field" and values:
            self.unset = _unescape(values[0])
        elif key == b"#path" and values and not values[0].startswith(b"conn"):
            return self._refuse(
                Fault.OTHER_LOG, f"is of Zeek's log {shown(values[0])}, not of conn"
            )
        elif key == b"#fields" and self.problem.fault is not Fault.OTHER_LOG:
            return self._take_fields([value.decode("utf-8", "replace") for value in values])
        return ""

    def _take_fields(self, names: list[str]) -> str:
        lacking = [name for name in DECLARED if name not in names]
        if lacking:
            return self._refuse(Fault.HEADER, f"lacks the column {lacking[0]}")
        self.places, self.width = {name: at for at, name in enumerate(names)}, len(names)
        return ""

    def _refuse(self, fault: Fault, reason: str) -> str:
        self.places, self.problem, self.told = None, Faulty(fault, reason), True
        return f"{reason}; the lines after it are not read"


def _unescape(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), text)


class ConnParser:
    """Reads the lines of one file, in their order; counts them, and what is wrong with them.

    A line that cannot be read is told of with the file's name and its number; of more than
    :data:`MOST_TOLD` with the same fault only the number is told, by :meth:`end`.
    """

    def __init__(self, name: str, counters: LogCounters, tell: Callable[[str], None]) -> None:
        """Read the file `name`; count in `counters`, and give `tell` a line for each problem."""
        self.line = 0
        self._name, self._counters, self._tell = name, counters, tell
        self._header = _Header()
        self._told: Counter[Fault] = Counter()
        self._untold: Counter[Fault] = Counter()

    def parse(self, lines: Sequence[bytes]) -> list[FlowBatch]:
        """The connections of the next lines, which come without their line ends."""
        batches: list[FlowBatch] = []
        for first, run, is_json in self._runs(lines):
            batches += self._read(first, run, is_json)
        self.line += len(lines)
        for batch in batches:
            packets = packets_of(batch)
            self._counters.flows += len(batch)
            self._counters.read += packets
            self._counters.metered += packets
        return batches

    def skip(self, lines: Sequence[bytes]) -> None:
        """Pass over lines, but for what they say of the format."""
        for _ in self._runs([line if line.startswith(b"#") else b"" for line in lines]):
            pass  # empty lines make no run
        self.line += len(lines)

    def cut(self, line: bytes) -> None:
        """Take the end of a file that has no line end."""
        if line.startswith(b"#"):
            return
        self._counters.lines += 1
        self._broken(self.line + 1, Faulty(Fault.CUT, "is cut off: it has no line end"))

    def end(self) -> None:
        """Tell how many broken lines were not told of."""
        for fault, number in sorted(self._untold.items()):
            self._tell(f"{self._name}: {number:,} more lines {fault}; not read")
        self._told.clear()
        self._untold.clear()

    def _runs(self, lines: Sequence[bytes]) -> Iterator[tuple[int, list[bytes], bool]]:
        """Runs of lines that are read alike: number of the first, lines, whether they are JSON."""
        run: list[bytes] = []
        kind = b""
        for number, line in enumerate(lines, self.line + 1):
            begin = line[:1]
            now = begin if begin in (b"#", b"{", b"") else b"-"
            if run and now != kind:
                yield number - len(run), run, kind == b"{"
                run = []
            kind = now
            if now == b"#":
                self._take_header(number, line)
            elif now:
                run.append(line)
        if run:
            yield self.line + 1 + len(lines) - len(run), run, kind == b"{"

    def _take_header(self, number: int, line: bytes) -> None:
        if line.startswith(b"#separator "):
            self._header = _Header(_unescape(line.removeprefix(b"#separator ")))
        elif problem := self._header.take(line):
            self._tell(f"{self._name}:{number}: {problem}")

    def _read(self, first: int, lines: list[bytes], is_json: bool) -> list[FlowBatch]:
        """The connections of some lines; halves of them, and so on, where one is broken."""
        self._counters.lines += len(lines)
        if not is_json and self._header.places is None:
            self._broken(first, self._header.problem, len(lines), told=self._header.told)
            return []
        pending, batches = [(first, lines)], []
        while pending:
            number, some = pending.pop()
            try:
                batches.append(records(JsonColumns(some) if is_json else self._tsv(some)))
            except Faulty as problem:
                if len(some) == 1:
                    self._broken(number, problem)
                    continue
                half = len(some) // 2
                pending += [(number + half, some[half:]), (number, some[:half])]
        return batches

    def _tsv(self, lines: list[bytes]) -> Columns:
        header = self._header
        places = header.places or {}
        return TsvColumns(lines, header.separator, places, header.width, header.unset, header.empty)

    def _broken(self, number: int, problem: Faulty, count: int = 1, *, told: bool = False) -> None:
        """Count broken lines, and tell of the first, unless that was done."""
        fault = problem.fault
        self._counters.broken[fault] += count
        if told or self._told[fault] >= MOST_TOLD:
            self._untold[fault] += count
            return
        self._told[fault] += 1
        more = f", and {count - 1:,} lines after it" if count > 1 else ""
        self._tell(f"{self._name}:{number}: {problem}{more}; not read")
