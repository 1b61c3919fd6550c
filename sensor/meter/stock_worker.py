"""Runs stock NFStreamer over capture files and writes the flows as frames to standard output.

A program of its own (``python -m sensor.meter.stock_worker``): NFStreamer forks, pins its
process to processors and hangs for good when a meter dies, none of which belongs in the
process that scores. Reads one JSON job from standard input; see :mod:`sensor.meter.stock`
for the frames.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from typing import IO, Any

import numpy as np
from nfstream import NFStreamer

from features.flows import FLOW_DTYPE, NEVER, Ending
from sensor.meter.content import CONTENT_FIELDS
from sensor.meter.frames import CHAIN_DONE, FAILED, FLOWS, FRAME
from sensor.meter.stock_plugin import Extra, ExtraPlugin

BATCH_FLOWS = 512
DISSECTED_PACKETS = 20
"""Packets of a flow that nDPI looks at, NFStream's own default."""

_V4_PREFIX = bytes(10) + b"\xff\xff"


_WORD = 1 << 64
_SECONDS = (1 << 32) * 1000


def _us(time_ms: int) -> int:
    """NFStream's milliseconds as microseconds.

    libpcap reads a classic pcap's 32-bit seconds as signed, so from 2038 on NFStream's time is
    a huge unsigned number: the era is put right by adding the 2^32 s that were lost.
    """
    if time_ms == NEVER:
        return NEVER
    if time_ms >= _WORD // 2:
        time_ms += _SECONDS - _WORD
    return time_ms * 1000


def _address(text: str, version: int) -> np.ndarray[Any, Any]:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    packed = socket.inet_pton(family, text)
    return np.frombuffer(_V4_PREFIX + packed if version == 4 else packed, np.uint8)


def fill_row(row: Any, flow: Any, origin: int) -> None:
    """Copy an NFlow with an :class:`Extra` into one row of a FlowBatch."""
    extra: Extra = flow.udps
    row["first_us"] = _us(flow.bidirectional_first_seen_ms)
    row["last_us"] = _us(flow.bidirectional_last_seen_ms)
    for side, way, state, payload in (
        ("src", "src2dst", extra.src, extra.src_payload),
        ("dst", "dst2src", extra.dst, extra.dst_payload),
    ):
        packets = getattr(flow, f"{way}_packets")
        row[f"{side}_first_us"] = _us(getattr(flow, f"{way}_first_seen_ms")) if packets else NEVER
        row[f"{side}_last_us"] = _us(getattr(flow, f"{way}_last_seen_ms")) if packets else NEVER
        row[f"{side}_before_us"] = _us(state.before_ms)
        row[f"{side}_packets"] = packets
        row[f"{side}_bytes"] = getattr(flow, f"{way}_bytes")
        row[f"{side}_payload_bytes"] = payload
        row[f"{side}_piat_mean_us"] = getattr(flow, f"{way}_mean_piat_ms") * 1000.0
        row[f"{side}_piat_stddev_us"] = getattr(flow, f"{way}_stddev_piat_ms") * 1000.0
        row[f"{side}_tcp_base"] = state.base
        row[f"{side}_retransmitted"] = state.retransmitted
        row[f"{side}_urgent"] = state.urgent
        row[f"{side}_window"] = state.window
        row[f"{side}_ttl"] = state.ttl or 0
        row[f"{side}_tcp_flags"] = state.flags
        row[f"{side}_ip"] = _address(getattr(flow, f"{side}_ip"), flow.ip_version)
        row[f"{side}_port"] = getattr(flow, f"{side}_port")
    row["syn_us"], row["synack_us"] = _us(extra.syn_ms), _us(extra.synack_ms)
    row["ack_us"] = _us(extra.ack_ms)
    extra.cic.fill(row, flow)
    row["vlan_id"], row["tunnel_id"] = flow.vlan_id, flow.tunnel_id
    row["protocol"], row["ip_version"] = flow.protocol, flow.ip_version
    row["icmp_type"], row["icmp_code"] = extra.icmp_type, extra.icmp_code
    row["ending"] = Ending.ACTIVE if flow.expiration_id == 1 else Ending.IDLE
    row["origin"] = origin
    row["http_requests"], row["http_body_bytes"] = extra.http_requests, extra.http_body
    row["ftp_commands"], row["ftp_logins"] = extra.ftp_commands, extra.ftp_logins
    row["src_tcp_state"], row["dst_tcp_state"] = extra.tcp_states.of
    if extra.content is not None:
        for name in CONTENT_FIELDS:
            row[name] = getattr(extra.content, name)
    extra.early.fill(row, flow)
    row["application"] = flow.application_name.encode()
    row["server_name"] = flow.requested_server_name.encode()


class Rows:
    """Rows of FLOW_DTYPE on their way out: full frames, or what there is when asked."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._rows = np.zeros(BATCH_FLOWS, FLOW_DTYPE)
        self._used = 0

    def next(self) -> Any:
        """The next row to fill, all zero; what was filled before may go out."""
        if self._used == BATCH_FLOWS:
            self.flush()
        self._used += 1
        self._rows[self._used - 1] = 0
        return self._rows[self._used - 1]

    def flush(self) -> None:
        """Send the rows that are filled, if any."""
        if self._used:
            send(self._out, FLOWS, self._rows[: self._used].tobytes())
            self._used = 0


def send(out: IO[bytes], kind: bytes, body: bytes) -> None:
    """Write one frame (:mod:`sensor.meter.frames`)."""
    out.write(FRAME.pack(kind, len(body)) + body)
    out.flush()


class _Watch(threading.Thread):
    """Ends this process when its meter dies, for which NFStreamer would wait for ever.

    Ends both when the process that wants the flows is gone, so that none is left behind.
    """

    def __init__(self, out: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._out = out
        self._parent = os.getppid()

    def run(self) -> None:
        while True:
            if os.getppid() != self._parent:
                os.killpg(os.getpgrp(), signal.SIGKILL)
            if reason := _dead_child():
                send(self._out, FAILED, json.dumps({"reason": reason}).encode())
                os._exit(1)
            time.sleep(0.05)


def _dead_child() -> str:
    """How a child ended badly, if one did; it is left for NFStreamer to collect."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return ""
    if ended is None or ended.si_status == 0:
        return ""
    how = "exit code" if ended.si_code == os.CLD_EXITED else "signal"
    return f"NFStream's meter died ({how} {ended.si_status})"


def meter_chain(paths: list[str], origin: int, job: dict[str, Any], out: IO[bytes]) -> None:
    """Meter one chain of files and send its flows.

    Raises:
        ValueError: NFStream cannot open a file.
    """
    source = paths if len(paths) > 1 else paths[0]
    rows = Rows(out)
    for flow in NFStreamer(source=source, udps=ExtraPlugin(), **options(job)):
        fill_row(rows.next(), flow, origin)
    rows.flush()


def options(job: dict[str, Any]) -> dict[str, Any]:
    """What NFStreamer is told beside its source and its plugin."""
    return {
        "idle_timeout": job["idle_timeout_s"],
        "active_timeout": job["active_timeout_s"],
        "accounting_mode": 0,
        "statistical_analysis": True,
        "n_dissections": DISSECTED_PACKETS,
        "n_meters": 1,
    }


def standard_output() -> IO[bytes]:
    """Where the frames go; from here on this process ends when its meter or its parent does."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # NFStream prints its warnings, which must not mix with the frames.
    # The meter that NFStreamer forks must not keep the pipe open when this process is gone.
    os.register_at_fork(after_in_child=lambda: os.close(out.fileno()))
    _Watch(out).start()
    return out


def main() -> None:
    """Read a job, meter its chains in order, report each as done or failed."""
    job = json.load(sys.stdin)
    out = standard_output()
    for number, paths in zip(job["origins"], job["chains"], strict=True):
        try:
            meter_chain(paths, number, job, out)
        except ValueError as error:
            send(out, FAILED, json.dumps({"reason": str(error)}).encode())
            sys.exit(1)
        send(out, CHAIN_DONE, json.dumps({"origin": number}).encode())


if __name__ == "__main__":
    main()
