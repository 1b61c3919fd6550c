"""Runs stock NFStreamer over capture files and writes the flows as frames to standard output.

A program of its own (``python -m sensor.meter.stock_worker``): NFStreamer forks, pins its
process to processors and hangs for good when a meter dies, none of which belongs in the
process that scores. Reads one JSON job from standard input; see :mod:`sensor.meter.stock`
for the frames.
"""

from __future__ import annotations

import json
import multiprocessing
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
    if time_ms in (0, NEVER):
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
        row[f"{side}_first_us"] = _us(getattr(flow, f"{way}_first_seen_ms"))
        row[f"{side}_last_us"] = _us(getattr(flow, f"{way}_last_seen_ms"))
        row[f"{side}_packets"] = getattr(flow, f"{way}_packets")
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
    row["vlan_id"], row["tunnel_id"] = flow.vlan_id, flow.tunnel_id
    row["protocol"], row["ip_version"] = flow.protocol, flow.ip_version
    row["icmp_type"], row["icmp_code"] = extra.icmp_type, extra.icmp_code
    row["ending"] = Ending.ACTIVE if flow.expiration_id == 1 else Ending.IDLE
    row["origin"] = origin
    row["http_requests"], row["http_body_bytes"] = extra.http_requests, extra.http_body
    row["ftp_commands"], row["ftp_logins"] = extra.ftp_commands, extra.ftp_logins
    extra.early.fill(row, flow)
    row["application"] = flow.application_name.encode()
    row["server_name"] = flow.requested_server_name.encode()


def _send(out: IO[bytes], kind: bytes, body: bytes) -> None:
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
        self._seen: dict[int, Any] = {}

    def run(self) -> None:
        while True:
            if os.getppid() != self._parent:
                os.killpg(os.getpgrp(), signal.SIGKILL)
            for child in multiprocessing.active_children():
                self._seen[child.pid or 0] = child
            for child in self._seen.values():
                if child.exitcode not in (None, 0):
                    reason = f"NFStream's meter died (exit code {child.exitcode})"
                    _send(self._out, FAILED, json.dumps({"reason": reason}).encode())
                    os._exit(1)
            self._seen = {pid: c for pid, c in self._seen.items() if c.exitcode is None}
            time.sleep(0.1)


def meter_chain(paths: list[str], origin: int, job: dict[str, Any], out: IO[bytes]) -> None:
    """Meter one chain of files and send its flows.

    Raises:
        ValueError: NFStream cannot open a file.
    """
    streamer = NFStreamer(
        source=paths if len(paths) > 1 else paths[0],
        idle_timeout=job["idle_timeout_s"],
        active_timeout=job["active_timeout_s"],
        accounting_mode=0,
        statistical_analysis=True,
        n_dissections=DISSECTED_PACKETS,
        udps=ExtraPlugin(),
        n_meters=1,
    )
    rows = np.zeros(BATCH_FLOWS, FLOW_DTYPE)
    used = 0
    for flow in streamer:
        rows[used] = 0
        fill_row(rows[used], flow, origin)
        used += 1
        if used == BATCH_FLOWS:
            _send(out, FLOWS, rows.tobytes())
            used = 0
    if used:
        _send(out, FLOWS, rows[:used].tobytes())


def main() -> None:
    """Read a job, meter its chains in order, report each as done or failed."""
    job = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # NFStream prints its warnings, which must not mix with the frames.
    _Watch(out).start()
    for number, paths in zip(job["origins"], job["chains"], strict=True):
        try:
            meter_chain(paths, number, job, out)
        except ValueError as error:
            _send(out, FAILED, json.dumps({"reason": str(error)}).encode())
            sys.exit(1)
        _send(out, CHAIN_DONE, json.dumps({"origin": number}).encode())


if __name__ == "__main__":
    main()
