"""`filetype: unix_stream`: events to a reader that listens on a Unix stream socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path

from sensor.outputs.base import WAIT_S, Loss, Undelivered, cause_of, progress, reason
from sensor.outputs.datagrams import check_socket_path


class UnixStream:
    """Sends event lines to a listening Unix stream socket, as Suricata does.

    It connects at the first write and again after the reader hung up. A line that went out in
    part is finished by the next write that begins with it, on the same connection; a new
    connection begins with a whole line.
    """

    def __init__(self, path: Path, *, wait_s: float = WAIT_S) -> None:
        """Send to the socket at `path`, waiting up to `wait_s` seconds in one write.

        Raises:
            OutputError: the path is longer than a socket's can be.
        """
        check_socket_path(path)
        self._path, self._wait_s = path, wait_s
        self._socket: socket.socket | None = None
        self._begun, self._sent = b"", 0  # the last line, if it is out in part

    @property
    def name(self) -> str:
        """The path of the socket."""
        return str(self._path)

    def write(self, lines: Sequence[bytes]) -> None:
        """Send lines; with none, connect.

        Raises:
            Undelivered: nobody listens, the reader hung up or is slow.
        """
        until = time.monotonic() + self._wait_s
        if self._begun and lines and lines[0] != self._begun:
            self._disconnect()
        sent = self._sent
        try:
            connection = self._connected()
            rest = memoryview(b"".join(lines))[sent:]
            while rest:
                connection.settimeout(max(until - time.monotonic(), 0))
                count = connection.send(rest, socket.MSG_NOSIGNAL)
                sent, rest = sent + count, rest[count:]
        except OSError as error:
            cause = cause_of(error)
            whole, self._sent = progress(lines, sent)
            self._begun = lines[whole] if self._sent else b""
            if cause is not Loss.QUEUE_FULL:
                self._disconnect()
            message = f"{self._path}: cannot be written: {reason(error)}"
            raise Undelivered(message, cause, whole) from error
        if lines:
            self._begun, self._sent = b"", 0

    def _connected(self) -> socket.socket:
        if self._socket is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(self._wait_s)
                connection.connect(str(self._path))
            except BaseException:
                connection.close()
                raise
            self._socket = connection
        return self._socket

    def _disconnect(self) -> None:
        self._begun, self._sent = b"", 0
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def reopen(self) -> None:
        """Nothing: logrotate is not about sockets."""

    def close(self) -> None:
        """Hang up."""
        self._disconnect()
