"""A file with the process id, which also keeps a second start out."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sensor.errors import OutputError

_MOST_BYTES = 32
"""A process id with a newline is shorter."""


@contextmanager
def pidfile(path: Path | None) -> Iterator[None]:
    """Hold `path`, with the id of this process in it, for as long as the context lasts.

    The file is locked, so that of two starts at once one is refused, and a file that a killed
    process left is no hindrance. It is removed at the end.

    Raises:
        OutputError: the process in it runs, it is not a file with a process id, or it cannot be
            written. The file is as it was.
    """
    if path is None:
        yield
        return
    try:
        fd = _open(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"{path}: cannot be written: {reason}") from error
    try:
        yield
    finally:
        _give_up(fd, path)


def _open(path: Path) -> int:
    """The file, locked and with our id in it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        try:
            _lock(fd, path)
            if _is_at(fd, path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                return fd
        except BaseException:
            os.close(fd)
            raise
        # Whoever had it removed it between our opening and our locking: begin again.
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    """Lock a file that has nothing in it, our own id, or that of a process that is gone.

    Raises:
        OutputError: it is not such a file.
    """
    content = os.pread(fd, _MOST_BYTES, 0).strip()
    if content and not content.isdigit():
        raise OutputError(f"{path}: is not a file with a process id; it was left as it is")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = f" {content.decode()}" if content else ""
        raise OutputError(f"{path}: is held by process{holder}, which runs") from error
    if content and int(content) != os.getpid() and Path(f"/proc/{int(content)}").is_dir():
        raise OutputError(
            f"{path}: process {int(content)} runs; remove the file if that is another program"
        )


def _give_up(fd: int, path: Path) -> None:
    """Remove the file if it still is ours, or empty it where only its folder's owner may."""
    try:
        if _is_at(fd, path):
            path.unlink()
    except PermissionError:
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    """Whether `path` still is the file that is open."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
