"""Whole conn.log files as one stream of connections."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from features.flows import FlowBatch
from features.schema import NEVER_EARLY
from sensor.captures import shown
from sensor.errors import InputError
from sensor.report import Console
from sensor.unpack import PACKED_MAGIC, Damaged, unpacked
from sensor.zeek.parser import ConnParser, LogCounters

_CHUNK_BYTES = 1 << 20
LINES_AT_ONCE = 4096
MOST_LINE_BYTES = 1 << 20
"""A line that is longer is none of Zeek's, and is not gathered any further."""


@dataclass(frozen=True, slots=True)
class ConnFile:
    """A conn.log that can be opened, and the time of the first connection in it, 0 for none."""

    path: Path
    first_us: int
    size: int


def look_at(path: Path) -> ConnFile:
    """Look at the beginning of a file.

    Raises:
        InputError: it cannot be read.
    """
    counters = LogCounters()
    parser = ConnParser(shown(path), counters, lambda line: None)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a directory: name the logs in it")
        with path.open("rb") as file, closing(_lines(file)) as parts:
            for lines, whole in parts:
                batches = parser.parse(lines) if whole else []
                first_us = int(batches[0]["first_us"][0]) if batches else 0
                if counters.lines:
                    return ConnFile(path, first_us, path.stat().st_size)
        return ConnFile(path, 0, path.stat().st_size)
    except Damaged:
        return ConnFile(path, 0, path.stat().st_size)  # told when it is read
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def open_logs(paths: Sequence[Path], console: Console) -> tuple[list[ConnFile], list[str]]:
    """Look at files; tell of each that cannot be read, and go on with the rest.

    A file named twice, or by two names, is read once. They come in the order of their first
    connections, so that the order in which they are named makes no difference.
    """
    files: list[ConnFile] = []
    problems: list[str] = []
    seen: set[str] = set()
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            console.warn(f"{path}: named before; read once")
            continue
        seen.add(real)
        try:
            files.append(look_at(path))
        except InputError as error:
            problems.append(str(error))
            console.error(str(error))
    return sorted(files, key=lambda file: (file.first_us, str(file.path))), problems


class ConnLogMeter:
    """Hands on the connections of files, one after the other, as flows of one origin.

    Attributes:
        read_bytes: of the files, as they are on disk.
    """

    clock_us = 1
    early = NEVER_EARLY

    def __init__(self, files: Sequence[ConnFile]) -> None:
        self.counters = LogCounters()
        self.progress_us: int | None = None
        self.read_bytes = 0
        self._files = files

    def flows(self) -> Generator[FlowBatch, None, None]:
        """The connections, in the order of the files and their lines."""
        before = 0
        for file in self._files:
            parser = ConnParser(shown(file.path), self.counters, self.counters.problems.append)
            try:
                with file.path.open("rb") as raw, closing(_lines(raw)) as parts:
                    for lines, whole in parts:
                        yield from parser.parse(lines) if whole else _last(parser, lines)
                        self.read_bytes = before + raw.tell()
            except (Damaged, OSError) as error:
                self.counters.problems.append(
                    f"{shown(file.path)}: {error}; {parser.line} lines before it are used"
                )
            parser.end()
            before += file.size


def _last(parser: ConnParser, lines: list[bytes]) -> list[FlowBatch]:
    """The end of a file without a line end: an object of JSON is whole all the same, or not."""
    (line,) = lines
    if line.startswith(b"{") and line.endswith(b"}"):
        return parser.parse(lines)
    parser.cut(line)
    return []


def _lines(raw: IO[bytes]) -> Generator[tuple[list[bytes], bool], None, None]:
    """The lines of a file, plain or compressed; last what has no line end, and False."""
    rest = b""
    for chunk in _chunks(raw):
        *lines, rest = (rest + chunk).split(b"\n")
        for begin in range(0, len(lines), LINES_AT_ONCE):
            yield lines[begin : begin + LINES_AT_ONCE], True
        if len(rest) > MOST_LINE_BYTES:
            yield [rest], True
            rest = b""
    if rest:
        yield [rest], False


def _chunks(raw: IO[bytes]) -> Iterator[bytes]:
    packed = raw.read(8).startswith(PACKED_MAGIC)
    raw.seek(0)
    if not packed:
        while chunk := raw.read(_CHUNK_BYTES):
            yield chunk
        return
    pieces: list[bytes] = []
    size, damage = 0, None
    try:
        for piece in unpacked(raw):
            pieces.append(piece)
            size += len(piece)
            if size >= _CHUNK_BYTES:
                yield b"".join(pieces)
                pieces, size = [], 0
    except Damaged as error:
        damage = error
    yield b"".join(pieces)
    if damage is not None:
        raise damage
