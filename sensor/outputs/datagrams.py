"""Events as datagrams, one each, to a Unix socket or over UDP."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sensor.errors import OutputError
from sensor.outputs.base import Loss, Undelivered, cause_of, reason

_MOST_PATH = 107
"""Bytes of a Unix socket's path (``sun_path`` less its zero; unix(7))."""


def check_socket_path(path: Path) -> None:
    """Refuse a path that no Unix socket can have.

    Raises:
        OutputError: it is too long.
    """
    if len(os.fsencode(path)) > _MOST_PATH:
        raise OutputError(f"{path}: longer than the {_MOST_PATH} bytes of a socket's path")


class Datagrams:
    """Sends each line as one datagram; connects at the first write, and again after an error.

    A subclass says where to, and what a line looks like on the way.
    """

    def __init__(self, address: Path | tuple[str, int], *, most: int, wait_s: float) -> None:
        """Send to a Unix socket at a path, or by UDP to a host and a port.

        Args:
            address: the path, or the host and the port.
            most: bytes in a datagram; lines that make more are lost.
            wait_s: how long one write waits for a reader, in seconds.

        Raises:
            OutputError: the path is longer than a socket's can be.
        """
        if isinstance(address, Path):
            check_socket_path(address)
        self._address, self._most, self._wait_s = address, most, wait_s
        self._socket: socket.socket | None = None

    @property
    def name(self) -> str:
        """The path, or the host and the port."""
        if isinstance(self._address, Path):
            return str(self._address)
        return f"udp {self._address[0]}:{self._address[1]}"

    def datagram(self, line: bytes) -> bytes:
        """What is sent for a line."""
        return line

    def write(self, lines: Sequence[bytes]) -> None:
        """Send lines; with none, connect.

        Raises:
            Undelivered: nobody has the socket open, the reader is slow, or a line is too long.
        """
        until = time.monotonic() + self._wait_s
        written = 0
        try:
            connection = self._connected()
            for line in lines:
                datagram = self.datagram(line)
                if len(datagram) > self._most:
                    raise OSError(errno.EMSGSIZE, f"a line makes {len(datagram)} bytes")  # noqa: TRY301
                connection.settimeout(max(until - time.monotonic(), 0))
                connection.send(datagram, socket.MSG_NOSIGNAL)
                written += 1
        except OSError as error:
            cause = cause_of(error)
            if cause not in (Loss.QUEUE_FULL, Loss.TOO_LONG):
                self.close()
            message = f"{self.name}: cannot be written: {reason(error)}"
            raise Undelivered(message, cause, written, int(cause is Loss.TOO_LONG)) from error

    def _connected(self) -> socket.socket:
        if self._socket is None:
            family, target = self._target()
            connection = socket.socket(family, socket.SOCK_DGRAM)
            try:
                connection.connect(target)
            except BaseException:
                connection.close()
                raise
            self._socket = connection
        return self._socket

    def _target(self) -> tuple[socket.AddressFamily, Any]:
        """The address family and the address; a host's name is looked up each time."""
        if isinstance(self._address, Path):
            return socket.AF_UNIX, str(self._address)
        found = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)
        return found[0][0], found[0][4]

    def reopen(self) -> None:
        """Nothing: logrotate is not about sockets."""

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
