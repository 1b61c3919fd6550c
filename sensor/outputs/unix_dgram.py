"""`filetype: unix_dgram`: events to a reader that has a Unix datagram socket open."""

from __future__ import annotations

from pathlib import Path

from sensor.outputs.base import WAIT_S
from sensor.outputs.datagrams import Datagrams

_MOST = 1 << 30  # what a datagram may hold is the kernel's to say (EMSGSIZE)


class UnixDgram(Datagrams):
    """Sends each line, with its newline, as one datagram, as Suricata does.

    A line that is longer than the socket's send buffer (net.core.wmem_default) is lost.
    """

    def __init__(self, path: Path, *, wait_s: float = WAIT_S) -> None:
        """Send to the socket at `path`, waiting up to `wait_s` seconds in one write.

        Raises:
            OutputError: the path is longer than a socket's can be.
        """
        super().__init__(path, most=_MOST, wait_s=wait_s)
