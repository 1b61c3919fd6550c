"""The meter for interfaces: threads that capture, and a bounded queue behind them."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from features.flows import Ending, FlowBatch, empty_flows, join_flows
from features.schema import MeterSettings
from sensor.errors import InputError
from sensor.meter.base import RunCounters, packets_of
from sensor.meter.compiled.core import BATCH_FLOWS, FlowTable, Options
from sensor.meter.compiled.interface import (
    CaptureSettings,
    Interface,
    InterfaceDown,
    State,
    Tap,
    fanout_group,
)  # fmt: skip
from sensor.meter.compiled.layout import NOTHING_NOW

QUEUE_FLOWS = 1 << 16
"""Flows that wait for the consumer at most: 54 MB."""
TICK_S = 0.05
"""How often :meth:`LiveMeter.flows` comes back, flows or none."""
SLACK_US = 500_000
"""Without packets the time is that of the wall, less this: packets may be on their way yet."""
_LOOK_S = 0.5
"""How often the interface's state and counters are looked at, and a lost one is tried again."""
_STEP_BACK_US = 2_000_000
"""A wall clock that goes back so far has been set, rather than corrected."""
_DRAIN_S = 1.0
"""How long, at the end, packets that are in the kernel's ring are waited for."""
_PACKETS_AT_ONCE = 16_384
_NOTICES = 100


@dataclass
class LiveCounters(RunCounters):
    """What became of the packets of a live capture, by cause.

    At the end ``received = read + kernel_drops + unread``, ``read = metered + not_metered + lost``
    and ``lost = queue_full_packets + no_memory + late_packets + failed_packets``. While it goes
    on, packets may also be in the kernel's ring, in the flow table and in the queue. An early
    report's packets are counted once, with the flow's end.

    Attributes:
        received: packets that the kernel had for the sensor, as it counts them. On the loopback
            interface, and on all interfaces as one (`any`), it counts some twice that can be
            read once; there it is what was read and dropped.
        kernel_drops: those dropped because the kernel's ring was full.
        unread: those that were still in the ring when an interface vanished or the end came.
        interface_drops: packets that the interface dropped before the kernel saw them, as far as
            its driver says; not among those received.
        queue_full_flows: flow records dropped because the consumer was too slow.
        queue_full_packets: the packets of those.
        no_memory: packets of flows for which there was no memory.
        late_flows: flow records that the consumer had not taken when its time to stop was over;
            of those that were still in stock NFStreamer nothing is known.
        late_packets: the packets of those.
        failed_packets: packets that stock NFStreamer had when it failed.
    """

    received: int = 0
    kernel_drops: int = 0
    unread: int = 0
    interface_drops: int = 0
    queue_full_flows: int = 0
    queue_full_packets: int = 0
    no_memory: int = 0
    late_flows: int = 0
    late_packets: int = 0
    failed_packets: int = 0

    @property
    def losses(self) -> str:
        """The losses by cause, as a part of a line."""
        failed = f", {self.failed_packets:,} to metering that failed" if self.failed_packets else ""
        return (
            f"lost: {self.kernel_drops:,} packets to a full kernel buffer, "
            f"{self.unread:,} left in it, {self.interface_drops:,} to the interface, "
            f"{self.queue_full_packets:,} ({self.queue_full_flows:,} flows) to a full queue, "
            f"{self.no_memory:,} to lack of memory, "
            f"{self.late_packets:,} ({self.late_flows:,} flows) to lack of time at the end"
            f"{failed}"
        )

    @property
    def told(self) -> str:
        """All of it, as a part of a line."""
        early = f", {self.early:,} reports before the end" if self.early else ""
        return (
            f"{self.flows:,} flows ({self.evicted:,} pushed out of a full table{early}), "
            f"{self.received:,} packets in: {self.metered:,} in flows, {self.not_metered:,} not "
            f"IP; {self.losses}"
        )

    @property
    def brief(self) -> str:
        """Packets, and how many were lost."""
        lost = (
            self.kernel_drops + self.unread + self.interface_drops + self.queue_full_packets
            + self.no_memory + self.late_packets + self.failed_packets
        )  # fmt: skip
        return f"{self.flows:,} flows; {self.received:,} packets, {lost:,} lost"


class Table(Protocol):
    """What a capture thread needs of a flow table: see :class:`FlowTable`."""

    @property
    def control(self) -> Any:
        """By name: read, ignored, failed, evicted, now_us, tick_us, packets_at_once."""

    def warm(self) -> None:
        """Do what takes long before packets come."""

    def listen(self, handle: int) -> None:
        """Go on with an open interface, libpcap's handle."""

    def read(self) -> tuple[int, FlowBatch | None]:
        """Read packets; NOTHING_NOW or another reason why that ended, and finished flows."""

    def clock(self, now_us: int) -> Iterator[FlowBatch]:
        """Move the time without a packet; the flows that it ends."""

    def end(self, ending: Ending) -> Iterator[FlowBatch]:
        """End every flow; empty batches while that takes time."""

    def discard(self) -> tuple[int, int]:
        """Drop what is left; its flows and packets."""

    def free(self) -> None:
        """Give everything back."""


class FlowQueue:
    """Batches of flows on their way from the capture threads to the one consumer."""

    def __init__(self, most_flows: int) -> None:
        self._most = most_flows
        self._batches: deque[FlowBatch] = deque()
        self._held = 0
        self._changed = threading.Condition()
        self._closed = False

    @property
    def held(self) -> int:
        """How many flows wait."""
        return self._held

    def put(self, flows: FlowBatch, *, bounded: bool = True) -> int:
        """Take as many flows as there is room for; all of them if not `bounded`.

        Returns:
            How many were taken, the first ones.
        """
        with self._changed:
            room = max(self._most - self._held, 0) if bounded else len(flows)
            taken = 0 if self._closed else min(room, len(flows))
            if taken:
                self._batches.append(flows[:taken])
                self._held += taken
                self._changed.notify_all()
        return taken

    def get(self, timeout_s: float) -> FlowBatch | None:
        """The next flows, a batch or a little more, or None if there are none in time."""
        with self._changed:
            if not self._batches:
                self._changed.wait(timeout_s)
            batches: list[FlowBatch] = []
            count = 0
            while self._batches and count < BATCH_FLOWS:
                batches.append(self._batches.popleft())
                count += len(batches[-1])
            self._held -= count
        return join_flows(batches) if batches else None

    def close(self) -> None:
        """The consumer has gone: nothing more is taken, and nobody waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


@dataclass(slots=True)
class _Share:
    """What the threads and the consumer have in common.

    `stopping` is a plain flag, which a signal handler can set whatever lock is held. Once it is
    set, flows are handed on until `deadline` (as :func:`time.monotonic`), `stop_within_s` later.
    """

    queue: FlowQueue
    wall_us: Callable[[], int]
    stop_within_s: float
    deadline: float = math.inf
    stopping: bool = False
    notices: deque[str] = field(default_factory=lambda: deque(maxlen=_NOTICES))

    def stop(self) -> None:
        """Begin to stop; nothing happens the second time."""
        if not self.stopping:
            self.deadline = time.monotonic() + self.stop_within_s
            self.stopping = True

    @property
    def late(self) -> bool:
        """Whether the time to stop is over."""
        return time.monotonic() >= self.deadline


class _Worker:
    """One thread: one socket on an interface, one flow table."""

    def __init__(
        self, share: _Share, origin: int, name: str, table: Table,
        capture: CaptureSettings, group: int | None, speaks: bool,
    ) -> None:  # fmt: skip
        """Open the interface, if it is up.

        Raises:
            InputError: it cannot be captured at all.
        """
        self._share, self._origin, self._name, self._table = share, origin, name, table
        self._capture, self._group, self._speaks = capture, group, speaks
        self._table.control["packets_at_once"] = _PACKETS_AT_ONCE
        self._interface: Interface | None = None
        self._look_at = time.monotonic() + _LOOK_S
        self.moved_at = time.monotonic()
        # Counted here, beside what the table's control counts.
        self.counts = LiveCounters()
        self._closed = LiveCounters()
        self.error: BaseException | None = None
        self.failure: InputError | None = None
        self._reopen(first=True)
        self.thread = threading.Thread(target=self._work, name=f"capture {name}", daemon=True)

    def _say(self, line: str) -> None:
        if self._speaks:
            self._share.notices.append(f"{self._name}: {line}")

    def _reopen(self, *, first: bool = False) -> None:
        """Open the interface if it can be.

        Raises:
            InputError: at the `first` try: it never will be, as things are.
        """
        try:
            self._interface = Interface(self._name, self._capture, self._group)
        except InterfaceDown:
            if first:
                self._say("is down; waiting for it")
            return
        except InputError:
            if first:
                raise
            return
        self._table.listen(self._interface.handle)
        if not first:
            self._say("is back; capturing")

    def _work(self) -> None:
        try:
            while not self._share.stopping:
                self._step()
            self._finish()
        except InputError as error:
            self._fail(error)
        except BaseException as error:  # noqa: BLE001 (raised again by the consumer)
            self.error = error
            self._share.stop()

    def _fail(self, failure: InputError) -> None:
        """Metering has failed: count what is lost with it, and have the other threads finish."""
        self.failure = failure
        self._share.stop()
        if self._interface is not None:
            self._interface.shut()
        self._leave()
        self.counts.failed_packets = self._table.discard()[1]
        self._count()

    def _step(self) -> None:
        """Read what there is, and wait a little if that was nothing."""
        self.moved_at = time.monotonic()
        self._check_clock()
        if self._interface is None:
            time.sleep(TICK_S)
            self._tick()
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + _LOOK_S
                self._reopen()
            return
        why, flows = self._table.read()
        self._hand_on(flows)
        fine = True
        if why == NOTHING_NOW:
            self._tick()
            fine = self._interface.wait(TICK_S)
        if not fine or time.monotonic() >= self._look_at:
            self._look()

    def _look(self) -> None:
        """Look at the counters and whether the interface is still there."""
        self._look_at = time.monotonic() + _LOOK_S
        if self._interface is None:
            return
        self._count()
        state = self._interface.state()
        if state is not State.UP:
            self._drain(time.monotonic() + 3 * self._capture.block_ms / 1000)
            self._leave()
            self._say(f"is {state.value}; waiting for it")

    def _tick(self) -> None:
        for flows in self._table.clock(self._share.wall_us() - SLACK_US):
            self._hand_on(flows)

    def _check_clock(self) -> None:
        """After the wall clock was set back, begin anew: no timeout would come to its end."""
        control, wall_us = self._table.control, self._share.wall_us()
        if wall_us >= int(control["now_us"]) - _STEP_BACK_US:
            return
        back_s = (int(control["now_us"]) - wall_us) / 1e6
        self._say(f"the clock was set back by {back_s:.0f} s; all flows under way were ended")
        for flows in self._table.end(Ending.EVICTED):
            self._hand_on(flows)
        control["now_us"] = control["tick_us"] = 0

    def _hand_on(self, flows: FlowBatch | None, *, bounded: bool = True) -> None:
        """Put flows into the queue; count those that find no room."""
        if flows is None:
            return
        flows["origin"] = self._origin
        taken = self._share.queue.put(flows, bounded=bounded)
        self.counts.queue_full_flows += len(flows) - taken
        self.counts.queue_full_packets += packets_of(flows[taken:])

    def _count(self) -> None:
        """Bring the counts up to date with the table's and the socket's."""
        control, counts, before = self._table.control, self.counts, self._closed
        counts.read, counts.not_metered = int(control["read"]), int(control["ignored"])
        counts.no_memory, counts.evicted = int(control["failed"]), int(control["evicted"])
        if self._interface is not None:
            now = self._interface.counts()
            counts.kernel_drops = before.kernel_drops + now.dropped
            counts.received = before.received + now.received
            if self._interface.doubled:
                counts.received = counts.read + counts.kernel_drops + counts.unread
            counts.interface_drops = before.interface_drops + now.dropped_by_interface

    def _drain(self, until_s: float) -> None:
        """Read what is in the ring, all of it unless that takes too long."""
        while self._interface is not None:
            why, flows = self._table.read()
            self._hand_on(flows)
            if time.monotonic() > until_s:
                return
            if why != NOTHING_NOW:
                continue
            self._count()
            counts = self.counts
            if counts.received == counts.read + counts.kernel_drops + counts.unread:
                return
            self._interface.wait(TICK_S)

    def _leave(self) -> None:
        """Close the interface and keep its counts."""
        if self._interface is not None:
            self._count()
            counts = self.counts
            counts.unread = counts.received - counts.read - counts.kernel_drops
            self._closed = replace(counts)
            self._interface.close()
            self._interface = None

    def _finish(self) -> None:
        """Let nothing more in, read what is there, and end every flow, while there is time."""
        share = self._share
        if self._interface is not None:
            self._interface.shut()
            self._drain(min(time.monotonic() + _DRAIN_S, share.deadline))
        self._leave()
        batches = self._table.end(Ending.SHUTDOWN)
        while not share.late and (flows := next(batches, None)) is not None:
            # What the table gives back is more than what the queue takes.
            self._hand_on(flows, bounded=False)
        self.counts.late_flows, self.counts.late_packets = self._table.discard()
        self._count()  # once more: stock NFStreamer tells what it ignored at the end only

    def free(self) -> None:
        """Give everything back; the thread has ended, or was never started."""
        if self._interface is not None:
            self._interface.close()
            self._interface = None
        self._table.free()


class LiveMeter:
    """Meters interfaces until :meth:`stop`; the origin of a flow is the index of its interface.

    Flows come in the order in which they ended, with several threads in that order for each
    thread. While the capture goes on a slow consumer costs flows, which are counted, never
    packets. At its end every flow in the table is handed on, unless the consumer takes longer than
    `stop_within_s`: those that it had not taken by then are counted.
    """

    def __init__(
        self, interfaces: Sequence[str | Tap], settings: MeterSettings, clock_us: int = 1,
        options: Options | None = None, *, capture: CaptureSettings | None = None,
        threads: int = 1, queue_flows: int = QUEUE_FLOWS, stop_within_s: float = math.inf,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        new_table: Callable[[], Table] | None = None,
    ) -> None:  # fmt: skip
        """Open the interfaces; one that is down is waited for.

        The kernel keeps packets from here on; they are read once :meth:`flows` begins.

        Args:
            interfaces: their names, each once, or how each is captured.
            settings, clock_us, options: as for capture files.
            capture, threads: of the interfaces that are but names, as :class:`Tap` has them.
            queue_flows: flows that may wait for the consumer, before the end.
            stop_within_s: how long, from :meth:`stop` on, flows are handed on.
            wall_us: the time in microseconds since the epoch, of the clock that packets have.
            new_table: makes what each thread meters with, if it is not the compiled flow table.

        Raises:
            InputError: an interface cannot be captured; nothing is left open.
            UnknownEngine: NFStream's engine cannot be driven.
        """
        self.clock_us = clock_us
        self.counters = LiveCounters()
        self.progress_us: int | None = None
        self._share = _Share(FlowQueue(queue_flows), wall_us, stop_within_s)
        self._handed_on = LiveCounters()
        self._workers: list[_Worker] = []
        options, capture = options or Options(), capture or CaptureSettings()
        self.early = options.early
        new_table = new_table or (lambda: FlowTable(settings, clock_us, options))
        try:
            for origin, each in enumerate(interfaces):
                tap = each if isinstance(each, Tap) else Tap(each, capture, threads)
                group = fanout_group() if tap.threads > 1 else None
                for number in range(tap.threads):
                    table = new_table()
                    try:
                        table.warm()
                        self._workers.append(_Worker(
                            self._share, origin, tap.name, table, tap.capture, group,
                            speaks=number == 0,
                        ))  # fmt: skip
                    except BaseException:
                        table.free()
                        raise
        except BaseException:
            self._free()
            raise

    def stop(self) -> None:
        """End the capture: :meth:`flows` hands on what there is, and ends. Safe in a signal."""
        self._share.stop()

    @property
    def stalled_s(self) -> float:
        """Seconds since the slowest capture thread last read packets, or found none and waited."""
        return time.monotonic() - min(worker.moved_at for worker in self._workers)

    @property
    def failure(self) -> InputError | None:
        """Why metering failed, if it has; the capture ends then, as :meth:`stop` would end it."""
        return next((worker.failure for worker in self._workers if worker.failure), None)

    @property
    def waiting(self) -> int:
        """Flows that wait for the consumer."""
        return self._share.queue.held

    def notices(self) -> list[str]:
        """Lines about interfaces since the last call; the oldest are dropped after 100."""
        lines = []
        while self._share.notices:
            lines.append(self._share.notices.popleft())
        return lines

    def flows(self) -> Generator[FlowBatch, None, None]:
        """The flows as they end, and an empty batch where none did for :data:`TICK_S`.

        They end, too, when metering has failed (:attr:`failure`). Closing the iterator ends the
        capture; what is left is dropped.
        """
        for worker in self._workers:
            worker.thread.start()
        try:
            while True:
                running = any(worker.thread.is_alive() for worker in self._workers)
                batch = self._share.queue.get(TICK_S if running else 0)
                if batch is None and not running:
                    break
                if batch is not None and self._share.late:
                    self._handed_on.late_flows += len(batch)
                    self._handed_on.late_packets += packets_of(batch)
                    continue
                if batch is None:
                    batch = empty_flows()
                self._take(batch)
                yield batch
        finally:
            self.close()
        for worker in self._workers:
            if worker.error is not None:
                raise worker.error

    def close(self) -> None:
        """End the capture, and drop what is left; nothing happens the second time."""
        self.stop()
        self._share.queue.close()
        for worker in self._workers:
            if worker.thread.ident is not None:
                worker.thread.join()
        self._sum()
        self._free()

    def _take(self, batch: FlowBatch) -> None:
        self._handed_on.flows += len(batch)
        self._handed_on.metered += packets_of(batch)
        self._handed_on.early += int((batch["ending"] == Ending.EARLY).sum())
        self._sum()

    def _sum(self) -> None:
        """Add up what the threads have counted, as far as they have come."""
        each = [worker.counts for worker in self._workers]
        counters = self.counters
        for name in (
            "received", "read", "not_metered", "kernel_drops", "unread", "interface_drops",
            "queue_full_flows", "queue_full_packets", "no_memory", "evicted", "failed_packets",
        ):  # fmt: skip
            setattr(counters, name, sum(getattr(counts, name) for counts in each))
        for name in ("late_flows", "late_packets"):
            late = getattr(self._handed_on, name)
            setattr(counters, name, late + sum(getattr(counts, name) for counts in each))
        counters.lost = (
            counters.queue_full_packets + counters.no_memory + counters.late_packets
            + counters.failed_packets
        )  # fmt: skip
        for name in ("flows", "metered", "early"):
            setattr(counters, name, getattr(self._handed_on, name))

    def _free(self) -> None:
        for worker in self._workers:
            worker.free()
