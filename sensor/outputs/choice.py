"""The output of a configuration. A new kind is a module, a `FileType` and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sensor.outputs.base import Sink
from sensor.outputs.queued import Backoff, Queued
from sensor.outputs.redis import Redis
from sensor.outputs.regular import RegularFile
from sensor.outputs.spec import FileType, OutputSpec
from sensor.outputs.syslog import Syslog
from sensor.outputs.unix_dgram import UnixDgram
from sensor.outputs.unix_stream import UnixStream

_MAKERS: dict[FileType, Callable[[OutputSpec, Path], Sink]] = {
    FileType.REGULAR: lambda spec, folder: RegularFile(
        folder / spec.filename, mode=spec.filemode, rotation=spec.rotation
    ),
    FileType.UNIX_STREAM: lambda spec, folder: UnixStream(folder / spec.filename),
    FileType.UNIX_DGRAM: lambda spec, folder: UnixDgram(folder / spec.filename),
    FileType.REDIS: lambda spec, folder: Redis(spec.redis),
    FileType.SYSLOG: lambda spec, folder: Syslog(spec),
}


def open_direct(spec: OutputSpec, log_dir: Path) -> Sink:
    """The output that `spec` describes, which raises what goes wrong where it is written.

    Raises:
        OutputError: a file cannot be opened, a path cannot be a socket's, or the redis package
            is not installed. That nobody reads yet is no error.
    """
    return _MAKERS[spec.filetype](spec, log_dir)


def open_output(spec: OutputSpec, log_dir: Path) -> Queued:
    """The output that `spec` describes behind a queue, for whoever must not be held up.

    Raises:
        OutputError: as :func:`open_direct`.
    """
    backoff = Backoff(most_s=spec.retry_max)
    return Queued(open_direct(spec, log_dir), most_lines=spec.queue_size, backoff=backoff)
