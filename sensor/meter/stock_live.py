"""Stock NFStreamer for interfaces, where :class:`FlowTable` would meter: a process behind a pipe.

On an interface of its own NFStreamer hides what it loses, never ends a flow on a silent link, and
drops all flows at a signal. So it gets packets that we have captured, as the file that it thinks
the pipe is: what is lost, the kernel counts, in whose buffer packets wait while NFStreamer is
busy; on a silent link packets of our own (ticks) move its time; and the end of the pipe makes it
hand on every flow.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import socket
import struct
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import IO, Any, cast

import numpy as np

from features.flows import FLOW_DTYPE, Ending, FlowBatch, empty_flows, join_flows
from features.schema import MeterSettings
from sensor.errors import InputError
from sensor.meter.base import packets_of
from sensor.meter.compiled.core import Options
from sensor.meter.compiled.engine import SNAPLEN, libpcap
from sensor.meter.compiled.layout import ENOUGH, NOTHING_NOW
from sensor.meter.frames import CHAIN_DONE, FLOWS, LAST_TICK_PORT, READY, TICK, TICK_PORT
from sensor.meter.stock import end_worker, last_words, read_frame, start_worker

_PACKETS_AT_ONCE = 256
"""Few: while the pipe is full nothing else can be done."""
_TICK_US = 50_000
"""Packets' time from tick to tick: each lets NFStreamer end 1,000 idle flows."""
_TICK_ALWAYS_S = 0.5
"""On a link that is never silent there is a tick after so long, which moves no time."""
_WAIT_S = 0.05
_IP_FOLLOWS = {
    1: bytes(12) + b"\x86\xdd",
    12: b"",
    113: struct.pack(">HHH8sH", 0, 1, 6, bytes(8), 0x86DD),
}
"""What is before IPv6 in a packet, by libpcap's link types of Linux's interfaces: Ethernet,
tunnels, all interfaces as one (tcpdump.org/linktypes.html)."""


class _PacketHeader(ctypes.Structure):
    """``struct pcap_pkthdr``."""

    _fields_ = [
        ("seconds", ctypes.c_long), ("micros", ctypes.c_long),
        ("captured", ctypes.c_uint32), ("length", ctypes.c_uint32),
    ]  # fmt: skip


def _function(name: str, result: Any = ctypes.c_int) -> Any:
    function = libpcap(name)
    function.restype = result
    return function


class PacketPipe:
    """A pipe that libpcap writes a classic pcap into, as ``tcpdump -w -`` does.

    Writing waits while the pipe is full, without the interpreter's lock. What is written when
    nobody reads any more is lost without a word.
    """

    def __init__(self, fd: int) -> None:
        """`fd` is the pipe's from here on; nothing is written yet."""
        self._fd = fd
        self._before_ip = b""
        self._model, self._file = ctypes.c_void_p(), ctypes.c_void_p()
        self._dump = _function("pcap_dump", None)

    @property
    def has_begun(self) -> bool:
        """Whether packets can be written."""
        return bool(self._file)

    def begin(self, link_type: int) -> None:
        """Write the file's header, if that was not done.

        Raises:
            InputError: ticks of this link type are not known.
        """
        if self.has_begun:
            return
        if link_type not in _IP_FOLLOWS:
            raise InputError(f"stock NFStreamer cannot meter link type {link_type} live")
        self._before_ip = _IP_FOLLOWS[link_type]
        fdopen = ctypes.CDLL(None).fdopen
        fdopen.restype = ctypes.c_void_p
        stream = ctypes.c_void_p(fdopen(self._fd, b"wb"))
        self._model.value = _function("pcap_open_dead", ctypes.c_void_p)(link_type, SNAPLEN)
        self._file.value = _function("pcap_dump_fopen", ctypes.c_void_p)(self._model, stream)

    def copy(self, handle: int, most: int) -> int:
        """Copy packets from an open capture; how many, or a negative number if it has failed."""
        count: int = _function("pcap_dispatch")(
            ctypes.c_void_p(handle), most, ctypes.cast(self._dump, ctypes.c_void_p), self._file
        )
        self._flush()
        return count

    def tick(self, time_us: int, address: bytes, port: int) -> None:
        """Write an empty UDP datagram over IPv6, from and to `address`."""
        udp = struct.pack(">HHHH", port, port, 8, 0)
        ip = struct.pack(">IHBB", 6 << 28, len(udp), socket.IPPROTO_UDP, 64) + 2 * address
        frame = self._before_ip + ip + udp
        header = _PacketHeader(*divmod(time_us, 1_000_000), len(frame), len(frame))
        self._dump(self._file, ctypes.byref(header), frame)
        self._flush()

    def _flush(self) -> None:
        _function("pcap_dump_flush")(self._file)

    def close(self) -> None:
        """The pipe's reader finds its end; nothing happens the second time."""
        if self.has_begun:
            _function("pcap_dump_close", None)(self._file)
            _function("pcap_close", None)(self._model)
            self._file.value = None
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class _Session:
    """A worker from its start to its end: packets go in, and a thread takes what comes out.

    Attributes:
        pipe: where the packets go in.
        batches: flows that have come out.
        ignored: of the packets that went in, those that belong to no flow, up to the last tick
            that has come through.
        now_us: NFStream's time at that tick, 0 before.
        reason: why the worker failed; empty as long as it has not.
        done: whether it has ended, all flows having come out.
    """

    def __init__(self, settings: MeterSettings, most_flows: int) -> None:
        # Nobody else has this address; without 128 bits of luck nobody can make a tick.
        self._mark = b"\xfd" + secrets.token_bytes(15)
        job = {
            "idle_timeout_s": settings.idle_timeout_s,
            "active_timeout_s": settings.active_timeout_s,
            "most_flows": most_flows,
            "mark": socket.inet_ntop(socket.AF_INET6, self._mark),
        }
        read_end, write_end = os.pipe()
        self._errors = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115
        self._worker = start_worker(
            "stock_live_worker", [json.dumps(job)], read_end, self._errors
        )  # fmt: skip
        os.close(read_end)
        self.pipe = PacketPipe(write_end)
        self._read = 0
        self._read_at_tick: deque[int] = deque()
        self._tick_us, self._tick_at = 0, 0.0
        self.batches: deque[FlowBatch] = deque()
        self.ignored = self.now_us = 0
        self.reason, self.done = "", False
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._take, name="stock NFStreamer", daemon=True)
        self._thread.start()

    def _take(self) -> None:
        """What the worker says, until it has nothing more to say."""
        with cast(IO[bytes], self._worker.stdout) as pipe:
            while True:
                kind, body = read_frame(pipe)
                if kind == FLOWS:
                    self.batches.append(np.frombuffer(body, FLOW_DTYPE).copy())
                elif kind == TICK:
                    tick = json.loads(body)
                    self.ignored = self._read_at_tick.popleft() - tick["seen"]
                    self.now_us = tick["now_ms"] * 1000
                elif kind == CHAIN_DONE:
                    self.done = True
                elif kind != READY:
                    self.reason = json.loads(body)["reason"] if body else last_words(self._errors)
                self._news.set()
                if self.done or self.reason:
                    return

    def wait(self, seconds: float | None = None) -> None:
        """Wait for anything new from the worker; the first news is that it is ready."""
        self._news.wait(seconds)
        self._news.clear()

    def copy(self, handle: int) -> int:
        """Let packets of an open capture in; how many, not above 0 if there are none."""
        count = self.pipe.copy(handle, _PACKETS_AT_ONCE)
        self._read += max(count, 0)
        if time.monotonic() - self._tick_at >= _TICK_ALWAYS_S:
            self._tick(0, TICK_PORT)
        return count

    def move_time(self, now_us: int) -> None:
        """Let a tick in if it is time for one."""
        if now_us - self._tick_us >= _TICK_US:
            self._tick_us = now_us
            self._tick(now_us, TICK_PORT)

    def _tick(self, time_us: int, port: int) -> None:
        """A tick; of one with an earlier time than NFStream's, NFStream takes its own."""
        self._tick_at = time.monotonic()
        self._read_at_tick.append(self._read)
        self.pipe.tick(time_us, self._mark, port)

    def finish(self) -> None:
        """Let nothing more in; the worker hands on every flow and ends."""
        self._tick(0, LAST_TICK_PORT)
        self.pipe.close()

    def close(self) -> None:
        """End the worker, whatever it does."""
        end_worker(self._worker)
        self._thread.join()
        self.pipe.close()
        self._errors.close()


class StockTable:
    """What a capture thread of :class:`LiveMeter` uses as a flow table.

    Flows end by their timeouts and, beyond the most flows, with their first packet; other
    options are left aside. Not for use from several threads at once.
    """

    def __init__(self, settings: MeterSettings, options: Options) -> None:
        """Nothing is started yet.

        Raises:
            UnknownEngine: there is no libpcap to be had.
        """
        libpcap("pcap_dump_fopen")
        self._settings, self._most_flows = settings, options.most_flows
        self.control: dict[str, int] = dict.fromkeys(
            ("read", "ignored", "failed", "evicted", "now_us", "tick_us", "packets_at_once"), 0
        )
        self._handle = self._link_type = 0
        self._ignored_before = self._handed_on = 0
        self._session: _Session | None = None

    def warm(self) -> None:
        """Start the worker, and wait until packets can come.

        Raises:
            InputError: it does not start.
        """
        self._present()

    def listen(self, handle: int) -> None:
        """Go on with an open interface, libpcap's handle, which stays its owner's to close.

        Raises:
            InputError: its packets cannot be metered.
        """
        link_type = _function("pcap_datalink")(ctypes.c_void_p(handle))
        if self._handle and link_type != self._link_type:
            raise InputError("metering failed: the interface came back with another link type")
        self._handle, self._link_type = handle, link_type
        self._present()

    def _present(self) -> _Session:
        """The session, or a new one after the end of the one before."""
        session = self._session
        if session is None:
            session = self._session = _Session(self._settings, self._most_flows)
            session.wait()
            self._check(session)
        if self._handle:
            session.pipe.begin(self._link_type)
        return session

    def read(self) -> tuple[int, FlowBatch | None]:
        """Read packets; NOTHING_NOW or ENOUGH, and flows if any have finished.

        Raises:
            InputError: NFStreamer has failed.
        """
        session = self._present()
        count = session.copy(self._handle)
        self.control["read"] += max(count, 0)
        return (NOTHING_NOW if count <= 0 else ENOUGH), self._taken(session)

    def clock(self, now_us: int) -> Iterator[FlowBatch]:
        """Move the time without a packet; flows that have finished by now.

        Raises:
            InputError: NFStreamer has failed.
        """
        session = self._present()
        if session.pipe.has_begun:
            session.move_time(now_us)
        if (flows := self._taken(session)) is not None:
            yield flows

    def end(self, ending: Ending) -> Iterator[FlowBatch]:
        """End every flow; an empty batch where nothing came for a while.

        Raises:
            InputError: NFStreamer has failed.
        """
        session = self._session
        if session is not None and session.pipe.has_begun:
            session.finish()
            while not session.done:
                session.wait(_WAIT_S)
                yield _ended(self._taken(session), ending)
            yield _ended(self._taken(session), ending)
        self.free()

    def discard(self) -> tuple[int, int]:
        """End NFStreamer; how many flows had come out but were not taken, and all packets left.

        Of the flows that had not come out nothing is known; of the packets, those since the last
        tick that came through may have belonged to none.
        """
        if self._session is None:
            return 0, 0
        flows = sum(map(len, self._session.batches))
        self.free()
        control = self.control
        return flows, control["read"] - control["ignored"] - self._handed_on

    def free(self) -> None:
        """End NFStreamer; flows that it still had are dropped."""
        if self._session is not None:
            self._session.close()
            self._ignored_before = self.control["ignored"]
            self._session = None

    def _taken(self, session: _Session) -> FlowBatch | None:
        """The flows that have come out, and the counts at the same time."""
        control = self.control
        control["now_us"] = max(control["now_us"], session.now_us)
        control["ignored"] = self._ignored_before + session.ignored
        batches = []
        while session.batches:
            batches.append(session.batches.popleft())
        if not batches:
            self._check(session)
            return None
        flows = join_flows(batches)
        self._handed_on += packets_of(flows)
        control["evicted"] += int((flows["ending"] == Ending.EVICTED).sum())
        return flows

    @staticmethod
    def _check(session: _Session) -> None:
        if session.reason:
            raise InputError(f"metering failed: {session.reason}")


def _ended(flows: FlowBatch | None, ending: Ending) -> FlowBatch:
    """The same flows, those that were cut by the end of the pipe with the ending that it was."""
    if flows is None:
        return empty_flows()
    flows["ending"][flows["ending"] == Ending.CAPTURE_END] = ending
    return flows
