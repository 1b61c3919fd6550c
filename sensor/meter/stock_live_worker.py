"""Runs stock NFStreamer over packets that come through a pipe, and writes the flows as frames.

A program of its own (``python -m sensor.meter.stock_live_worker JOB``), as
:mod:`sensor.meter.stock_worker` is. Standard input is a classic pcap; its end is the end of all
flows. For :mod:`sensor.meter.stock_live`, which captures.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import IO, Any

from nfstream import NFStreamer
from nfstream import meter as nfstream_meter

from features.flows import Ending
from sensor.meter.frames import CHAIN_DONE, FAILED, LAST_TICK_PORT, READY, TICK
from sensor.meter.stock_plugin import ExtraPlugin
from sensor.meter.stock_worker import Rows, fill_row, options, send, standard_output

_AT_ONCE = -1
"""The ``expiration_id`` by which a plugin ends a flow."""


class Tick:
    """What is kept of a flow that is no flow: a packet that only moves the time.

    Attributes:
        seen: packets before it that belong to a flow.
    """

    __slots__ = ("seen",)

    def __init__(self, seen: int) -> None:
        self.seen = seen


class LivePlugin(ExtraPlugin):
    """An :class:`ExtraPlugin` that knows ticks, counts packets, and bounds the flows under way.

    NFStreamer keeps as many flows as come. Beyond `most_flows` new ones are ended with their first
    packet here.
    """

    def __init__(self, mark: str, most_flows: int) -> None:
        """`mark` is the source address of a tick, as text."""
        super().__init__()
        self._mark, self._most_flows = mark, most_flows
        self._packets = self._under_way = 0

    def on_init(self, packet: Any, flow: Any) -> None:
        """First packet of a flow, or a tick."""
        if packet.src_ip == self._mark:
            flow.udps = Tick(self._packets)
            flow.expiration_id = _AT_ONCE
            return
        self._packets += 1
        self._under_way += 1
        super().on_init(packet, flow)
        if self._under_way > self._most_flows:
            flow.expiration_id = _AT_ONCE

    def on_update(self, packet: Any, flow: Any) -> None:
        """Every later packet of a flow."""
        self._packets += 1
        super().on_update(packet, flow)

    def on_expire(self, flow: Any) -> None:
        """A flow has ended."""
        if not isinstance(flow.udps, Tick):
            self._under_way -= 1
            super().on_expire(flow)


class PipeStreamer(NFStreamer):  # type: ignore[misc]
    """NFStreamer, which takes a pipe for an interface, reading one as the file that it is."""

    @property
    def source(self) -> str:
        """The path of the pipe."""
        return self._path

    @source.setter
    def source(self, path: str) -> None:
        # NFStreamer has set its mode to that for one file by now.
        self._path = path


def look_at_the_idlest_first() -> None:
    """Let NFStreamer's scan for idle flows find them behind flows that go on.

    It looks at its cache from the front and stops at the first flow that is not idle, but its
    cache moves flows to the back only when they begin (docs/decisions/0004). Files do without the
    repair, because there no one waits; on a link one long flow would hold up all that began later.
    Of an NFStreamer whose cache is another one things are left as they are.
    """
    stock_cache = getattr(nfstream_meter, "NFCache", None)
    if not hasattr(stock_cache, "get_lru_key"):
        return

    class Cache(stock_cache):  # type: ignore[misc,valid-type]
        scanning = False

        def get_lru_key(self) -> Any:
            self.scanning = True
            return super().get_lru_key()

        def __getitem__(self, key: Any) -> Any:
            flow = super().__getitem__(key)
            if not self.scanning:
                self.move_to_end(key)
            self.scanning = False
            return flow

    nfstream_meter.NFCache = Cache


def meter_pipe(path: str, job: dict[str, Any], out: IO[bytes]) -> None:
    """Meter the packets of a pipe until its end, and send the flows; at a tick, those there are.

    Raises:
        ValueError: NFStream cannot read it.
    """
    idle_us, ended_us = job["idle_timeout_s"] * 1_000_000, None
    plugin = LivePlugin(job["mark"], job["most_flows"])
    rows = Rows(out)
    for flow in PipeStreamer(source=path, udps=plugin, **options(job)):
        now_ms = flow.bidirectional_first_seen_ms
        if isinstance(flow.udps, Tick):
            rows.flush()
            send(out, TICK, json.dumps({"seen": flow.udps.seen, "now_ms": now_ms}).encode())
            if flow.dst_port == LAST_TICK_PORT:
                ended_us = now_ms * 1000
            continue
        row = rows.next()
        fill_row(row, flow, 0)
        if flow.expiration_id == _AT_ONCE:
            row["ending"] = Ending.EVICTED
        elif ended_us is not None and row["last_us"] + idle_us > ended_us:
            row["ending"] = Ending.CAPTURE_END
    rows.flush()


def main() -> None:
    """Meter standard input, and report it as done or failed."""
    job = json.loads(sys.argv[1])
    # A service manager signals every process of a service. The capturing one ends this one.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # The meter that NFStreamer forks finds nothing at its standard input.
    path = f"/dev/fd/{os.dup(0)}"
    look_at_the_idlest_first()
    out = standard_output()
    send(out, READY, b"")
    try:
        meter_pipe(path, job, out)
    except ValueError as error:
        send(out, FAILED, json.dumps({"reason": str(error)}).encode())
        sys.exit(1)
    send(out, CHAIN_DONE, b"{}")


if __name__ == "__main__":
    main()
