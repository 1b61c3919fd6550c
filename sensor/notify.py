"""What the service manager is told and asks for: sd_notify(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from sensor.outputs.base import reason


class Notifier:
    """Sends the service manager what it is to know, or nothing where none listens.

    Nothing that the manager does holds up who tells: what cannot be sent at once is not sent,
    and `warn` is told the first time.

    Attributes:
        watchdog_s: the manager ends the service if it hears nothing for so many seconds, or None.
    """

    def __init__(self, environ: Mapping[str, str], warn: Callable[[str], None]) -> None:
        """Send to the socket in ``NOTIFY_SOCKET``: a path, or ``@`` and an abstract name."""
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._warn: Callable[[str], None] | None = warn
        interval, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        ours = interval.isdecimal() and int(interval) > 0 and pid in ("", str(os.getpid()))
        self.watchdog_s = int(interval) / 1e6 if ours else None

    def tell(self, **values: str | int) -> None:
        """Send assignments as one message: ``tell(READY=1, STATUS="…")``."""
        if not self._address:
            return
        message = "\n".join(f"{name}={value}" for name, value in values.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.setblocking(False)
                out.sendto(message.encode(), self._address)
        except OSError as error:
            if self._warn is not None:
                self._warn(f"the service manager cannot be told: {reason(error)}")
                self._warn = None
