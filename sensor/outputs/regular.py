"""`filetype: regular`: events appended to a file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sensor.errors import OutputError
from sensor.outputs.base import Loss, Undelivered, cause_of, progress, reason
from sensor.outputs.rotation import Rotation

_ROTATE_AGAIN_S = 60
"""How long after a failed rotation the next is tried; the file before stays in use."""


class RegularFile:
    """Appends event lines to a file, one write a batch, as Suricata's `filetype: regular`.

    A line that an earlier run left torn (killed, disk full) is closed with a newline, so that
    no reader sees two events in one line. A line that was written in part when the disk was
    full is finished by the next write that begins with it; otherwise it is cut off again.

    Attributes:
        path: the file that is open.
    """

    def __init__(
        self,
        path: Path,
        *,
        mode: int = 0o640,
        rotation: Rotation | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open `path` for appending, making its folder if there is none.

        Args:
            path: the file; with a rotation by time it may hold patterns.
            mode: its permissions when it is made (less the umask).
            rotation: when to begin it anew by itself.
            clock: seconds after the epoch, for the rotation.

        Raises:
            OutputError: the file cannot be opened.
        """
        self._given_path, self._mode = path, mode
        self._rotation, self._clock = rotation or Rotation(), clock
        self._fd = -1
        self._open(clock())

    @property
    def name(self) -> str:
        """The path of the file."""
        return str(self.path)

    def _open(self, now: float) -> None:
        """Open the file that `now` asks for, and then close the one before."""
        path = self._rotation.path_at(self._given_path, now)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            fd = os.open(path, flags, self._mode)
        except FileExistsError as error:
            why = f"{path.parent} is not a directory"
            raise OutputError(f"{path}: cannot be opened for writing: {why}") from error
        except OSError as error:
            raise OutputError(f"{path}: cannot be opened for writing: {reason(error)}") from error
        if self._fd >= 0:
            self.close()
        self.path, self._fd = path, fd
        self._torn: bool | None = None  # ends in a part of a line that nobody will finish
        self._begun, self._sent = b"", 0  # our last line, if it is written in part
        self._rotate_at, self._not_before = self._rotation.next_time(now), now

    def write(self, lines: Sequence[bytes]) -> None:
        """Append lines.

        Raises:
            Undelivered: the disk refused, or the file cannot be rotated (the same lines, given
                again, go to the file there was).
        """
        if not lines:
            return
        if self._begun and (lines[0] != self._begun or not self._wrote_last()):
            self._cut_off()
        if not self._begun and self._rotation_due():
            self._rotate()
        sent = self._sent
        rest = memoryview(b"".join(lines))[sent:]
        try:
            self._close_torn_line()
            while rest:
                count = os.write(self._fd, rest)
                sent, rest = sent + count, rest[count:]
        except OSError as error:
            whole, self._sent = progress(lines, sent)
            self._begun = lines[whole] if self._sent else b""
            message = f"{self.path}: cannot be written: {reason(error)}"
            raise Undelivered(message, cause_of(error), whole) from error
        self._begun, self._sent = b"", 0

    def _close_torn_line(self) -> None:
        if self._torn is None:
            size = os.fstat(self._fd).st_size
            self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
        if self._torn:
            os.write(self._fd, b"\n")
            self._torn = False

    def _rotation_due(self) -> bool:
        limit, now = self._rotation.size, self._clock()
        return now >= self._not_before and (
            now >= self._rotate_at or 0 < limit <= os.fstat(self._fd).st_size
        )

    def _rotate(self) -> None:
        now = self._clock()
        try:
            if self._rotation.path_at(self._given_path, now) == self.path:
                self._rotation.shift(self.path)
            self._open(now)
        except (OSError, OutputError) as error:
            self._not_before = now + _ROTATE_AGAIN_S
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise Undelivered(f"{self.path}: cannot be rotated: {why}", Loss.REFUSED) from error

    def _cut_off(self) -> None:
        """Take back the part of a line that was written last, unless others wrote after it."""
        sent, self._begun, self._sent = self._sent, b"", 0
        try:
            if self._wrote_last():
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - sent)
        except OSError:
            self._torn = True  # a file that may only be appended to: closed with a newline

    def _wrote_last(self) -> bool:
        """Whether the file still ends where our last write ended."""
        return os.lseek(self._fd, 0, os.SEEK_CUR) == os.fstat(self._fd).st_size

    def reopen(self) -> None:
        """Open the file of that name again, which is another one after logrotate moved ours.

        Raises:
            OutputError: it cannot be opened; the file there was stays in use.
        """
        self._open(self._clock())

    def close(self) -> None:
        """Close the file, which ends with a whole line then."""
        if self._begun:
            self._cut_off()
        os.close(self._fd)
        self._fd = -1
