"""What every meter offers, whatever engine is behind it, and one without an engine for tests."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from features.flows import Ending, FlowBatch
from features.schema import NEVER_EARLY, EarlyReports, MeterSettings
from sensor.errors import InputError


@dataclass
class MeterCounters:
    """What became of the packets. ``read = metered + not_metered + lost`` at the end.

    Attributes:
        read: packets handed to the meter.
        metered: packets that are part of a flow that was handed on.
        not_metered: packets that belong to no flow: not IP, later fragments, malformed.
        lost: packets of flows that were lost because metering failed.
        flows: flows handed on.
        evicted: of those, flows that were ended to make room, as the flow table was full.
        early: of those, reports of flows that went on; their packets come with the flow's end.
        empty_origins: origins that were metered to their end without a flow.
        problems: one line for each failure, naming the capture and the cause.
    """

    read: int = 0
    metered: int = 0
    not_metered: int = 0
    lost: int = 0
    flows: int = 0
    evicted: int = 0
    early: int = 0
    empty_origins: set[int] = field(default_factory=set, compare=False)
    problems: list[str] = field(default_factory=list)


class RunCounters(MeterCounters):
    """Counters of what flows come from until it is stopped; they tell of themselves."""

    @property
    def told(self) -> str:
        """All of it, as a part of a line: flows, what they are of, and what was lost."""
        raise NotImplementedError

    @property
    def brief(self) -> str:
        """The same in a few words."""
        raise NotImplementedError


class Meter(Protocol):
    """Turns packets into flows.

    Guarantees: each flow is handed on once; flows of one origin come in the order in which
    they were closed; for files, the same input gives the same flows in the same order.
    """

    clock_us: int
    """What times between packets are measured on, in microseconds; times are no coarser."""
    early: EarlyReports
    """When flows that go on are reported, too."""
    progress_us: int | None
    """No flow of the present origin is still to come that ended an idle timeout before this.

    None: as the flows that have come tell.
    """

    @property
    def counters(self) -> MeterCounters:
        """What became of the packets so far."""

    def flows(self) -> Generator[FlowBatch, None, None]:
        """The flows, in batches of any size, also none. Closing the iterator ends metering."""


class LiveSource(Meter, Protocol):
    """What hands on flows until it is told to stop: interfaces, or a log that is followed."""

    @property
    def counters(self) -> RunCounters:
        """What became of what came in so far."""

    @property
    def stalled_s(self) -> float:
        """Seconds since it last took something in, or found nothing and waited."""

    @property
    def waiting(self) -> int:
        """Flows that wait for the consumer."""

    @property
    def failure(self) -> InputError | None:
        """Why it ended without being told to; None unless it did."""

    def notices(self) -> list[str]:
        """Lines for the operator since the last call."""

    def stop(self) -> None:
        """End: :meth:`flows` hands on what there is, and ends. Safe in a signal."""

    def close(self) -> None:
        """End, and drop what is left; nothing happens the second time."""


def packets_of(flows: FlowBatch) -> int:
    """Packets of flows that have ended; those of an early report come with the flow's end."""
    ended = flows["ending"] != Ending.EARLY
    packets = flows["src_packets"].astype(np.int64) + flows["dst_packets"].astype(np.int64)
    return int(packets[ended].sum())


def idle_by(flows: FlowBatch, last_us: int, settings: MeterSettings) -> FlowBatch:
    """Flows that were open when a capture ended, told apart: idle by then, or cut by its end.

    Args:
        flows: their `ending` is set.
        last_us: time of the capture's last packet.
    """
    idle = flows["last_us"] + settings.idle_timeout_s * 1_000_000 <= last_us
    flows["ending"] = np.where(idle, Ending.IDLE, Ending.CAPTURE_END)
    return flows


class MemoryMeter:
    """Hands on flows made elsewhere: for tests, and for sources that are flows already."""

    def __init__(self, batches: Sequence[FlowBatch], clock_us: int = 1) -> None:
        self.clock_us = clock_us
        self.early = NEVER_EARLY
        self.counters = MeterCounters()
        self.progress_us: int | None = None
        self._batches = batches

    def flows(self) -> Generator[FlowBatch, None, None]:
        """The batches given, in their order."""
        for batch in self._batches:
            packets = packets_of(batch)
            self.counters.flows += len(batch)
            self.counters.read += packets
            self.counters.metered += packets
            yield batch
