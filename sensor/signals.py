"""What signals ask of `flowvane run`; it is done between two batches."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Requests:
    """What was asked for and is not begun yet.

    Attributes:
        reopen: SIGHUP: begin log files anew.
        reload: SIGUSR2: read configuration, model and suppression rules anew.
        stop: what SIGTERM and SIGINT call, the first time only; while it is None, they interrupt.
        stopped_at: when that was (:func:`time.monotonic`), or None.
    """

    reopen: bool = False
    reload: bool = False
    stop: Callable[[], None] | None = None
    stopped_at: float | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals, and let them do at the end what they did before.

        Not once all is to end: what comes after that changes nothing, to the end of the process.
        """
        actions = {
            signal.SIGHUP: self._hup, signal.SIGUSR2: self._usr2,
            signal.SIGTERM: self._end, signal.SIGINT: self._end,
        }  # fmt: skip
        before = {number: signal.signal(number, action) for number, action in actions.items()}
        try:
            yield
        finally:
            if self.stopped_at is not None:
                before = {}
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hup(self, number: int, frame: FrameType | None) -> None:
        self.reopen = True

    def _usr2(self, number: int, frame: FrameType | None) -> None:
        self.reload = True

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self.stop is None:
            raise KeyboardInterrupt
        if self.stopped_at is None:
            self.stopped_at = time.monotonic()
            self.stop()
