"""What an output of events is, and what it says of lines that it could not deliver."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from sensor.errors import OutputError

WAIT_S = 1.0
"""The most that one write to a socket or a server takes, in seconds."""


class Loss(StrEnum):
    """Why lines are not delivered (docs/outputs.md)."""

    QUEUE_FULL = "queue_full"
    """A queue is full: the reader takes lines, but more slowly than they come."""
    READER_GONE = "reader_gone"
    """Nobody reads: no socket, no server, or it hung up or gives no answer."""
    DISK_FULL = "disk_full"
    """No space, or a quota or a limit on file sizes is reached."""
    TOO_LONG = "too_long"
    """A line is longer than the medium takes in one piece."""
    REFUSED = "refused"
    """The system or the server refuses for another reason, which the message has."""
    STOPPED = "stopped"
    """No time was left at the end."""


class Undelivered(OutputError):
    """Some lines of a write were not delivered.

    The first `written` lines are out and the `lost` after them will never be, for `cause`;
    the rest (all but `written`, where none is lost) may be given again, beginning with the
    first of them.
    """

    def __init__(self, message: str, cause: Loss, written: int = 0, lost: int = 0) -> None:
        super().__init__(message)
        self.cause = cause
        self.written = written
        self.lost = lost


class Output(Protocol):
    """Takes whole event lines.

    Guarantees: lines are written in order, whole or not at all as far as the medium lets it;
    when :meth:`write` returns, the lines are with the operating system or the server, or (behind
    a queue) counted.
    """

    def write(self, lines: Sequence[bytes]) -> None:
        """Write lines, each ending in a newline.

        Raises:
            OutputError: the medium refused.
        """

    def close(self) -> None:
        """Finish; later writes are an error."""


class Sink(Output, Protocol):
    """An output that a queue can stand before: what it could not deliver may be given again.

    Its :meth:`write` raises :class:`Undelivered`, within a bounded time; with no lines, it
    connects if that is to be done.
    """

    @property
    def name(self) -> str:
        """What messages call it."""

    def reopen(self) -> None:
        """Begin the file anew under its name (logrotate); nothing to do for other media.

        Raises:
            OutputError: it cannot be opened; what was open before stays in use.
        """


_CAUSES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), Loss.DISK_FULL),
    **dict.fromkeys((errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EINTR), Loss.QUEUE_FULL),
    **dict.fromkeys(
        (errno.ENOENT, errno.ECONNREFUSED, errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN,
         errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN),
        Loss.READER_GONE,
    ),
    errno.EMSGSIZE: Loss.TOO_LONG,
}  # fmt: skip


def cause_of(error: OSError) -> Loss:
    """What an error of the operating system means for the lines."""
    if isinstance(error, TimeoutError):
        return Loss.QUEUE_FULL
    if isinstance(error, socket.gaierror):
        return Loss.READER_GONE
    return _CAUSES.get(error.errno or 0, Loss.REFUSED)


def reason(error: OSError) -> str:
    """What went wrong, in the system's words."""
    if isinstance(error, TimeoutError | BlockingIOError):
        return "the reader takes nothing"
    return (error.strerror or str(error)).lower()


def progress(lines: Sequence[bytes], sent: int) -> tuple[int, int]:
    """How many lines the first `sent` bytes are, and how many bytes of the next one."""
    for whole, line in enumerate(lines):
        if sent < len(line):
            return whole, sent
        sent -= len(line)
    return len(lines), 0
