"""A queue before an output, so that a slow or dead reader never stops who writes."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from sensor.errors import OutputError
from sensor.outputs.base import WAIT_S, Loss, Sink, Undelivered

CLOSE_WITHIN_S = 2.0
"""What closing may take to deliver what is queued, in seconds."""
_MOST_AT_ONCE = 4096
_REOPEN_AGAIN_S = 1.0
_TELL_AGAIN_S = 60.0
"""How long the same trouble is not told of again; the counters tell of it all."""


@dataclass
class OutputCounters:
    """Lines of an output; ``given == written + lost + queued`` at any time.

    Attributes:
        given: lines that were to be written.
        written: lines that are with the operating system or the server.
        dropped: lines that are lost, by cause.
        reconnects: how often it worked again after it had not.
        queued: lines that wait.
    """

    given: int = 0
    written: int = 0
    dropped: Counter[Loss] = field(default_factory=Counter)
    reconnects: int = 0
    queued: int = 0

    @property
    def lost(self) -> int:
        """Lines that are lost, for whatever cause."""
        return self.dropped.total()


@dataclass(frozen=True)
class Backoff:
    """How long to wait before the next attempt.

    Attributes:
        first_s: before the second attempt, at most; doubled at each.
        most_s: what that grows to.
    """

    first_s: float = 0.1
    most_s: float = 30.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures: between a half and all of the time.

        The random half keeps the sensors that a server lost at one moment from coming back at
        one moment.
        """
        time_s = min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 60))
        return time_s * random.uniform(0.5, 1.0)


class Queued:
    """Writes to an output in a thread of its own, from a bounded queue.

    Guarantees: :meth:`write` returns at once, whatever the output does. Lines are written in
    the order in which they were given. A line is written, lost or waiting, and counted as that:
    a line leaves the queue when the output has taken it, what the output refuses is tried again,
    with growing pauses, and when the queue is full the lines that come are lost, for the cause
    that holds it up.
    """

    def __init__(
        self, output: Sink, *, most_lines: int = 16_384, backoff: Backoff | None = None
    ) -> None:
        """Take over `output`, whose methods the thread alone calls from now on.

        Args:
            output: where the lines go.
            most_lines: lines that may wait.
            backoff: the pauses.
        """
        self._output, self._most, self._backoff = output, most_lines, backoff or Backoff()
        self._lines: deque[bytes] = deque()
        self._counters = OutputCounters()
        self._notices: list[str] = []
        self._told_at: dict[str, float] = {}
        # Re-entrant, as a signal's handler may ask to reopen while write() has it.
        self._changed = threading.Condition(threading.RLock())
        self._held_up: Loss | None = None  # why the last attempt failed, if it did
        self._failures = 0  # in a row, without a line getting through
        self._overflow = 0  # lines lost to a full queue since it was empty
        self._told_failing = self._told_full = False  # and so the end of it is told, too
        self._retry_at = 0.0
        self._reopen_at: float | None = None
        self._end: float | None = None  # when to stop, once that is asked for
        self._over = False  # what the thread still does is not counted any more
        self._error: BaseException | None = None
        self._raised = False
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"to {output.name}")
        self._thread.start()

    @property
    def name(self) -> str:
        """What messages call the output."""
        return self._output.name

    @property
    def counters(self) -> OutputCounters:
        """The counters as they are now."""
        with self._changed:
            dropped = Counter(self._counters.dropped)
            return dataclasses.replace(
                self._counters, dropped=dropped, queued=0 if self._over else len(self._lines)
            )

    def notices(self) -> list[str]:
        """What there is to tell the operator since the last call: one line each, in order."""
        with self._changed:
            told, self._notices = self._notices, []
            return told

    def write(self, lines: Sequence[bytes]) -> None:
        """Queue lines, as many as there is room for; the others are lost and counted.

        Raises:
            OutputError: the output is closed.
            BaseException: what a defect of the output raised in the thread.
        """
        with self._changed:
            if self._error is not None:
                self._raised = True
                raise self._error
            if self._end is not None:
                raise OutputError(f"{self.name}: is closed")
            room = self._most - len(self._lines)
            self._counters.given += len(lines)
            self._lines.extend(lines[:room])
            if room < len(lines):
                self._overflows(len(lines) - room)
            self._changed.notify()

    def _overflows(self, count: int) -> None:
        cause = self._held_up or Loss.QUEUE_FULL
        self._counters.dropped[cause] += count
        if not self._overflow:
            self._told_full = self._tell(
                "full",
                f"{self.name}: {self._most} lines wait, which is all there is room for; "
                f"more are lost ({cause})",
            )
        self._overflow += count

    def reopen(self) -> None:
        """Have the output reopened before the next line; a signal's handler may call this.

        Where it cannot be, the file there was stays in use, and it is tried again every second.
        """
        with self._changed:
            self._reopen_at = 0.0
            self._changed.notify()

    @property
    def alive(self) -> bool:
        """Whether the thread that writes is there, as it is unless a defect ended it."""
        return self._thread.is_alive() and self._error is None

    def close(self, within_s: float = CLOSE_WITHIN_S, grace_s: float = 2 * WAIT_S) -> None:
        """Deliver what is queued, for at most so many seconds, and close the output.

        A write that is under way then is waited for `grace_s` longer (it bounds itself to
        :data:`WAIT_S`); what is left after that is lost.

        Raises:
            BaseException: what a defect of the output raised in the thread.
        """
        with self._changed:
            self._end = time.monotonic() + within_s
            self._retry_at, self._failures = 0.0, 0
            self._changed.notify()
        self._thread.join(within_s + grace_s)
        with self._changed:
            left, self._over = len(self._lines), True
            self._lines.clear()
            if left:
                slow = self._held_up in (None, Loss.QUEUE_FULL)
                cause = Loss.STOPPED if slow else self._held_up or Loss.STOPPED
                self._counters.dropped[cause] += left
                self._notices.append(f"{self.name}: {left} lines are lost, queued at the end")
            if self._error is not None and not self._raised:
                self._raised = True
                raise self._error

    def _work(self) -> None:
        try:
            self._deliver([])  # so that a reader that is missing is told of at once
            while (lines := self._take()) is not None:
                self._reopen_if_due()
                if lines:
                    self._deliver(lines)
            self._output.close()
        except BaseException as error:  # noqa: BLE001 (raised again where it is seen)
            with self._changed:
                self._error = error

    def _take(self) -> list[bytes] | None:
        """Wait for something to do: lines to write, none (only to reopen), or None at the end."""
        with self._changed:
            while True:
                now = time.monotonic()
                if self._end is not None and (not self._lines or now >= self._end):
                    return None
                if self._lines and now >= self._retry_at:
                    return list(islice(self._lines, _MOST_AT_ONCE))
                if self._reopen_at is not None and now >= self._reopen_at:
                    return []
                times = [self._retry_at] if self._lines else []
                times += [at for at in (self._reopen_at, self._end) if at is not None]
                self._changed.wait(min(times) - now if times else None)

    def _reopen_if_due(self) -> None:
        with self._changed:
            if self._reopen_at is None or time.monotonic() < self._reopen_at:
                return
            self._reopen_at = None
        try:
            self._output.reopen()
        except OutputError as error:
            with self._changed:
                if self._reopen_at is None:
                    self._reopen_at = time.monotonic() + _REOPEN_AGAIN_S
                self._tell("reopen", f"{error}; the one before stays in use")

    def _deliver(self, lines: list[bytes]) -> None:
        try:
            self._output.write(lines)
        except Undelivered as failure:
            self._settle(failure.written, failure)
        else:
            self._settle(len(lines), None)

    def _settle(self, written: int, failure: Undelivered | None) -> None:
        """Count what became of the lines at the head of the queue."""
        with self._changed:
            if self._over:
                return
            for _ in range(written + (failure.lost if failure else 0)):
                self._lines.popleft()
            self._counters.written += written
            if written:
                self._failures = 0
            if failure is None:
                self._works()
            elif failure.lost:
                self._counters.dropped[failure.cause] += failure.lost
                self._tell(failure.cause, f"{failure}; such lines are lost")
            else:
                self._fails(failure)
            if not self._lines and self._overflow:
                if self._told_full:
                    self._notices.append(f"{self.name}: {self._overflow} lines were lost")
                self._overflow = 0

    def _works(self) -> None:
        if self._held_up not in (None, Loss.QUEUE_FULL):
            self._counters.reconnects += 1
            if self._told_failing:
                self._notices.append(f"{self.name}: works again")
        self._held_up, self._failures, self._retry_at = None, 0, 0.0

    def _fails(self, failure: Undelivered) -> None:
        self._failures += 1
        slow = failure.cause is Loss.QUEUE_FULL  # and has been waited for already
        self._retry_at = time.monotonic() + self._backoff.delay(1 if slow else self._failures)
        if not slow and self._held_up in (None, Loss.QUEUE_FULL):
            self._told_failing = self._tell("fails", f"{failure}; it is tried again")
        self._held_up = failure.cause

    def _tell(self, sort: str, notice: str) -> bool:
        """Whether a notice was added: not where there was one of its sort a moment ago."""
        now = time.monotonic()
        if now - self._told_at.get(sort, -_TELL_AGAIN_S) < _TELL_AGAIN_S:
            return False
        self._told_at[sort] = now
        self._notices.append(notice)
        return True
