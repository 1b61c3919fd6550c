"""What is done between two batches for signals and for the service manager."""

from __future__ import annotations

import time
from collections.abc import Callable

from sensor.daemon import Stages
from sensor.notify import Notifier
from sensor.reload import Reloader
from sensor.signals import Requests

_STATUS_S = 10.0
"""How often the service manager is told the counts."""
_FEEDS = 3
"""How often the watchdog is fed in its interval."""


class Lifecycle:
    """Acts on what signals ask for, and tells the service manager.

    The watchdog is fed only while packets or time go through all of the sensor: each capture
    thread has read packets or moved the time, the flows come out here, and the threads of the
    outputs are there.
    """

    def __init__(
        self, stages: Stages, requests: Requests, reloader: Reloader, notifier: Notifier,
        clock: Callable[[], float] = time.monotonic, beside: Callable[[], str] = str,
    ) -> None:  # fmt: skip
        """Begin to look after `stages`.

        Args:
            stages: what flows go through.
            requests: what signals ask for.
            reloader: makes the model anew.
            notifier: tells the service manager.
            clock: seconds that only grow.
            beside: what else the status says.
        """
        self._stages, self._requests = stages, requests
        self._reloader, self._notifier = reloader, notifier
        self._ready = self._reloading = self._stopping = False
        self._clock, self._beside = clock, beside
        self._status_at = self._feed_at = clock()

    def turn(self) -> None:
        """Do what is due; called between two batches, from the first moment of the capture."""
        if not self._ready:
            self._ready = True
            self._notifier.tell(READY=1)
        if self._requests.reopen:
            self._requests.reopen = False
            self._stages.outputs.reopen()
        self._reload()
        if self._requests.stopped_at is not None and not self._stopping:
            self._stopping = True
            self._notifier.tell(STOPPING=1, STATUS="ending: scoring the flows under way")
        now = self._clock()
        if now >= self._status_at and not self._stopping:
            self._status_at = now + _STATUS_S
            self._notifier.tell(STATUS=self.status)
        self._feed(now)

    def _reload(self) -> None:
        self._reloader.turn()
        if self._reloader.under_way == self._reloading:
            return
        self._reloading = self._reloader.under_way
        if self._reloading:
            self._notifier.tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
        else:
            self._notifier.tell(READY=1)

    def _feed(self, now: float) -> None:
        """Feed the watchdog, if it is time to and all goes on."""
        interval_s = self._notifier.watchdog_s
        if interval_s is None or now < self._feed_at:
            return
        self._feed_at = now + interval_s / _FEEDS
        # At the end nothing is captured any more, and that has its own limit (stop-within).
        moves = self._stopping or self._stages.meter.stalled_s < interval_s / 2
        if moves and self._stages.outputs.alive:
            self._notifier.tell(WATCHDOG=1)

    @property
    def status(self) -> str:
        """The counts in a line."""
        feed, events = self._stages.feed, self._stages.outputs.total()
        return (
            f"model {feed.verdict.model}: {feed.counters.alerts:,} alerts in "
            f"{self._stages.meter.counters.brief}; {events.written:,} events "
            f"written, {events.lost:,} lost{self._beside()}"
        )
