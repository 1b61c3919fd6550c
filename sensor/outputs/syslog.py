"""`filetype: syslog`: events to a syslog daemon."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from sensor.outputs.base import WAIT_S
from sensor.outputs.datagrams import Datagrams
from sensor.outputs.spec import FACILITIES, LEVELS, OutputSpec

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Syslog(Datagrams):
    """Sends each line as a message in the form of RFC 3164, section 4.

    To a local socket as syslog(3) does, ``<PRI>TIMESTAMP IDENTITY[PID]: LINE``; over UDP the
    host's name stands before the identity. A message that is longer than `max-line` is not
    sent: what a daemon cuts off is no JSON any more.
    """

    def __init__(
        self,
        spec: OutputSpec,
        *,
        wait_s: float = WAIT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Send to the socket or the server of `spec`, waiting up to `wait_s` in one write.

        Raises:
            OutputError: the path is longer than a socket's can be.
        """
        own = spec.syslog
        address = (own.server, own.port) if own.server else Path(own.socket)
        super().__init__(address, most=own.max_line, wait_s=wait_s)
        self._clock = clock
        priority = FACILITIES[spec.facility.lower()] * 8 + LEVELS[spec.level.lower()]
        host = f"{socket.gethostname().split('.')[0]} " if own.server else ""
        self._before = f"<{priority}>".encode()
        self._after = f"{host}{spec.identity}[{os.getpid()}]: ".encode()

    def datagram(self, line: bytes) -> bytes:
        """The message of a line."""
        now = time.localtime(self._clock())
        stamp = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} {time.strftime('%H:%M:%S', now)} "
        return b"".join((self._before, stamp.encode(), self._after, line.rstrip(b"\n")))
