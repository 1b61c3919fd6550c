"""Events appended to a regular file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sensor.errors import OutputError


class RegularFile:
    """Appends event lines to a file, one write a batch, as Suricata's `filetype: regular`.

    A line that an earlier run left torn (killed, disk full) is closed with a newline, so that
    no reader sees two events in one line.
    """

    def __init__(self, path: Path) -> None:
        """Open `path` for appending, making its folder if there is none.

        Raises:
            OutputError: the file cannot be opened.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            size = os.fstat(self._fd).st_size
            if size and os.pread(self._fd, 1, size - 1) != b"\n":
                self._write_all(b"\n")
        except FileExistsError as error:
            reason = f"{path.parent} is not a directory"
            raise OutputError(f"{path}: cannot be opened for writing: {reason}") from error
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"{path}: cannot be opened for writing: {reason}") from error

    def write(self, lines: Sequence[bytes]) -> None:
        """Append lines.

        Raises:
            OutputError: the disk refused.
        """
        if not lines:
            return
        try:
            self._write_all(b"".join(lines))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"{self.path}: cannot be written: {reason}") from error

    def _write_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
