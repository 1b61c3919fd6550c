"""A conn.log that Zeek writes, followed as it grows, across rotation."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from stat import S_ISDIR

from features.flows import FlowBatch, empty_flows
from features.schema import NEVER_EARLY
from features.zeek_conn import CONN_DTYPE
from sensor.captures import shown
from sensor.errors import InputError
from sensor.unpack import PACKED_MAGIC
from sensor.zeek.files import LINES_AT_ONCE, MOST_LINE_BYTES
from sensor.zeek.parser import ConnParser, LogCounters

TICK_S = 0.05
"""How often :meth:`LogFollower.flows` comes back, connections or none."""
LOOK_S = 0.25
"""How often it is looked which file has the name now."""
GRACE_S = 1.0
"""How long a file that was rotated away must have given nothing before it is left."""
_CHUNK_BYTES = 1 << 18
_NOTICES = 100


class _Growing:
    """One file under the name, open for as long as it may grow."""

    def __init__(self, path: Path, counters: LogCounters, tell: Callable[[str], None]) -> None:
        """Open it.

        Raises:
            OSError: it cannot be.
        """
        self._name, self._counters, self._tell = shown(path), counters, tell
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._file)
        self.identity = status.st_dev, status.st_ino
        self.grew_at = time.monotonic()
        self._begin()

    def _begin(self) -> None:
        self._rest, self._at = b"", 0
        self._parser = ConnParser(self._name, self._counters, self._tell)

    def peek(self) -> bytes:
        """The first few bytes."""
        return os.pread(self._file, 8, 0)

    def skip(self) -> None:
        """Go to the end; what the file's lines say of its format holds all the same."""
        while lines := self._lines():
            self._parser.skip(lines)

    def read(self) -> Iterator[FlowBatch]:
        """The connections of the next lines, if there are any."""
        lines = self._lines()
        for begin in range(0, len(lines), LINES_AT_ONCE):
            yield from self._parser.parse(lines[begin : begin + LINES_AT_ONCE])

    @property
    def unread(self) -> int:
        """Bytes that were not read yet."""
        return max(os.fstat(self._file).st_size - self._at, 0)

    def _lines(self) -> list[bytes]:
        """The next whole lines; what comes after the last line end waits for its own."""
        while chunk := os.read(self._file, _CHUNK_BYTES):
            self.grew_at = time.monotonic()
            self._at += len(chunk)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            if len(self._rest) > MOST_LINE_BYTES:
                self._parser.cut(self._rest)
                self._rest = b""
            if lines:
                return lines
        self._check_size()
        return []

    def _check_size(self) -> None:
        """Begin anew if the file was cut (copytruncate)."""
        if os.fstat(self._file).st_size < self._at:
            self._tell(
                f"{self._name}: was cut to nothing, and is read from its beginning; lines that "
                "came right before that may be lost"
            )
            self._end()
            os.lseek(self._file, 0, os.SEEK_SET)
            self._begin()

    def _end(self) -> None:
        if self._rest:
            self._parser.cut(self._rest)
        self._parser.end()

    def leave(self) -> None:
        """Close the file; tell of a line without an end."""
        self._end()
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class LogFollower:
    """Hands on connections as Zeek logs them, until :meth:`stop`; they are flows of one origin.

    A file that is renamed or removed is read to its end, and until it has given nothing for
    :data:`GRACE_S` while another has its name; then that one is read from its beginning. So a
    slow consumer loses nothing: the file waits. A file that is not there is waited for.
    """

    clock_us = 1
    early = NEVER_EARLY
    failure = None

    def __init__(
        self, path: Path, *, from_start: bool = False, stop_within_s: float = math.inf
    ) -> None:
        """Begin at the end of the file, or `from_start`; one that comes later is read whole.

        Args:
            path: of the log.
            from_start: see above.
            stop_within_s: how long, from :meth:`stop` on, what is there is read.

        Raises:
            InputError: the file is there and cannot be followed.
        """
        self.counters = LogCounters()
        self.progress_us: int | None = None
        self._path, self._stop_within_s = path, stop_within_s
        self._deadline, self._stopping = math.inf, False
        self._notices: deque[str] = deque(maxlen=_NOTICES)
        self._open: deque[_Growing] = deque()
        self._why_not = ""
        self._moved_at = time.monotonic()
        try:
            self._look(first=True)
        except OSError as error:
            raise InputError(f"{path}: {_reason(error)}") from error
        if self._open and not from_start:
            self._open[0].skip()
        self._look_at = time.monotonic() + LOOK_S

    def stop(self) -> None:
        """Read what there is, and end. Safe in a signal."""
        if not self._stopping:
            self._deadline = time.monotonic() + self._stop_within_s
            self._stopping = True

    @property
    def stalled_s(self) -> float:
        """Seconds since the log was last looked at."""
        return time.monotonic() - self._moved_at

    @property
    def waiting(self) -> int:
        """Connections that wait for the consumer: none, they stay in the file."""
        return 0

    def notices(self) -> list[str]:
        """Lines about the log since the last call; the oldest are dropped after 100."""
        lines = list(self._notices)
        self._notices.clear()
        return lines

    def flows(self) -> Generator[FlowBatch, None, None]:
        """The connections as they are logged, and an empty batch where none were for a tick."""
        try:
            while not self._stopping:
                some = False
                for batch in self._step():
                    some = True
                    yield batch
                if not some:
                    yield empty_flows(0, CONN_DTYPE)
                    time.sleep(TICK_S)
            yield from self._rest()
        finally:
            self.close()

    def _step(self) -> Iterator[FlowBatch]:
        """What the oldest file that is open gives now."""
        self._moved_at = now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look_again()
        if self._open:
            yield from self._open[0].read()
            self._leave_old()
        self._count_unread()

    def _leave_old(self) -> None:
        """Leave the oldest file if another has its name, and it gives nothing any more."""
        old = self._open[0]
        quiet_s = time.monotonic() - old.grew_at
        if len(self._open) > 1 and not old.unread and quiet_s >= GRACE_S:
            self._open.popleft().leave()

    def _rest(self) -> Iterator[FlowBatch]:
        """All that is there, as far as time allows."""
        self._look_again()
        while self._open and time.monotonic() < self._deadline:
            yield from self._open[0].read()
            if not self._open[0].unread:
                self._open.popleft().leave()
        self._count_unread()

    def _count_unread(self) -> None:
        self.counters.unread_bytes = sum(file.unread for file in self._open)

    def _look_again(self) -> None:
        """Look which file has the name; one that is not there, or cannot be read, is waited for."""
        why_not = ""
        try:
            self._look()
        except FileNotFoundError as error:
            # After a rotation there is none until Zeek has something to log; that is no news.
            why_not = "" if self._open else _reason(error)
        except OSError as error:
            why_not = _reason(error)
        except InputError as error:
            why_not = str(error).removeprefix(f"{self._path}: ")
        if why_not and why_not != self._why_not:
            self._notices.append(f"{shown(self._path)}: {why_not}; waiting for it to change")
        self._why_not = why_not

    def _look(self, *, first: bool = False) -> None:
        """Open the file that has the name, unless it is open.

        Raises:
            OSError: it cannot be opened; not if it is not there at the `first` time.
            InputError: it is none that can be followed.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            if not first:
                raise
            self._why_not = "no such file or directory"
            self._notices.append(f"{shown(self._path)}: is not there yet; waiting for it")
            return
        if self._open and self._open[-1].identity == (status.st_dev, status.st_ino):
            return
        if S_ISDIR(status.st_mode):
            raise InputError(f"{self._path}: is a directory: name the log in it")
        file = _Growing(self._path, self.counters, self._notices.append)
        if file.peek().startswith(PACKED_MAGIC):
            file.close()
            raise InputError(f"{self._path}: is compressed, so Zeek does not write it: triage it")
        self._open.append(file)

    def close(self) -> None:
        """Close what is open; nothing happens the second time."""
        while self._open:
            self._open.popleft().close()


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
