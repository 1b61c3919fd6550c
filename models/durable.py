"""Directories that are put in their place in one step, and are on the disk when they are there."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_UNABLE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def put(fresh: Path, place: Path) -> None:
    """Move a directory to its place; what was there is at `fresh` then.

    That is one step, but on file systems that cannot exchange two directories.

    Raises:
        OSError: it cannot be done.
    """
    if not place.exists():
        fresh.rename(place)
        return
    try:
        exchange(fresh, place)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        aside = fresh.with_name(fresh.name + ".old")
        place.rename(aside)
        fresh.rename(place)
        aside.rename(fresh)


def exchange(one: Path, other: Path) -> None:
    """Swap two directories in one step (renameat2(2), for which Python has no name).

    Raises:
        OSError: it cannot be done.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    paths = os.fsencode(one), os.fsencode(other)
    if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(_RENAME_EXCHANGE)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def flush(folder: Path) -> None:
    """Have files and their names on the disk: a power cut must not leave a name without data."""
    for path in (*folder.iterdir(), folder):
        sync(path)


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
