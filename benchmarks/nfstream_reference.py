"""Plain NFStreamer over capture files, its flows as rows: what parity is measured against.

A program of its own (``python -m benchmarks.nfstream_reference``), since NFStreamer forks and
pins its process to processors. Reads a JSON job from standard input (``idle_timeout_s``,
``active_timeout_s`` and ``chains``, lists of files that are one capture each) and writes frames
(:mod:`sensor.meter.frames`) to standard output: rows of :data:`REFERENCE_DTYPE`, and for each
chain whether it was read to its end.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from nfstream import NFStreamer

from features.flows import FLOW_DTYPE, NEVER, Ending, pack_address
from sensor.meter.frames import CHAIN_DONE, FAILED, FLOWS, FRAME

DISSECTED_PACKETS = 20
BATCH_FLOWS = 1000

_SIDES = (("src", "src2dst"), ("dst", "dst2src"))

AS_THEY_ARE: dict[str, str] = {
    "src_port": "src_port",
    "dst_port": "dst_port",
    "vlan_id": "vlan_id",
    "tunnel_id": "tunnel_id",
    "protocol": "protocol",
    "ip_version": "ip_version",
    **{f"{side}_{ours}": f"{way}_{theirs}" for side, way in _SIDES for ours, theirs in (
        ("packets", "packets"), ("bytes", "bytes"), ("size_max", "max_ps"),
        ("size_stddev", "stddev_ps"), ("push", "psh_packets"), ("push_packets", "psh_packets"),
        ("urgent", "urg_packets"))},
    **{f"{flag}_packets": f"bidirectional_{flag}_packets"
       for flag in ("fin", "syn", "rst", "ack", "cwr", "ece")},
}  # fmt: skip
"""Fields of a FlowBatch that NFStream has in the same unit, by its name for them."""

INTERVALS: dict[str, str] = {
    f"{prefix}piat_{what}_us": f"{way}_{what}_piat_ms"
    for prefix, way, statistics in (
        ("src_", "src2dst", ("mean", "stddev", "min", "max")),
        ("dst_", "dst2src", ("mean", "stddev", "min", "max")),
        ("", "bidirectional", ("stddev", "min", "max")),
    )
    for what in statistics
}
"""Times between packets, which NFStream has in milliseconds."""

TIMES: dict[str, tuple[str, str]] = {
    f"{prefix}{end}_us": (f"{way}_{end}_seen_ms", f"{way}_packets")
    for prefix, way in (("", "bidirectional"), ("src_", "src2dst"), ("dst_", "dst2src"))
    for end in ("first", "last")
}
"""Times of packets, in milliseconds, and the number of packets that says whether there is one."""

TEXTS: dict[str, str] = {
    "application": "application_name",
    "category": "application_category_name",
    "server_name": "requested_server_name",
    "client_fingerprint": "client_fingerprint",
}

REFERENCE_DTYPE = np.dtype(
    [
        (name, FLOW_DTYPE[name])
        for name in (
            "origin", "src_ip", "dst_ip", *AS_THEY_ARE, *TIMES, *INTERVALS, *TEXTS, "ending",
        )
    ]
)  # fmt: skip
"""The fields of a FlowBatch that NFStream has too; ``ending`` is ACTIVE or IDLE only."""


@functools.lru_cache(4096)
def _address(text: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(pack_address(text), np.uint8)


def _us(time_ms: int) -> int:
    """Milliseconds as microseconds, as far as a row can hold them.

    libpcap reads seconds from 2038 on as negative ones.
    """
    time_us = (time_ms if time_ms < 1 << 63 else time_ms - (1 << 64) + (1000 << 32)) * 1000
    return min(time_us, (1 << 63) - 1)


def _fill(row: Any, flow: Any, origin: int) -> None:
    """Write an NFlow into one row of :data:`REFERENCE_DTYPE`."""
    row["origin"] = origin
    row["src_ip"], row["dst_ip"] = _address(flow.src_ip), _address(flow.dst_ip)
    for ours, theirs in AS_THEY_ARE.items():
        row[ours] = getattr(flow, theirs)
    for ours, (theirs, packets) in TIMES.items():
        row[ours] = _us(getattr(flow, theirs)) if getattr(flow, packets) else NEVER
    for ours, theirs in INTERVALS.items():
        row[ours] = getattr(flow, theirs) * 1000.0
    for ours, theirs in TEXTS.items():
        row[ours] = getattr(flow, theirs).encode()
    row["ending"] = Ending.ACTIVE if flow.expiration_id == 1 else Ending.IDLE


def _metered(paths: list[str], origin: int, job: dict[str, Any]) -> Iterator[bytes]:
    """The flows of one chain as rows, some at a time.

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
        n_meters=1,
    )
    rows, used = np.zeros(BATCH_FLOWS, REFERENCE_DTYPE), 0
    for flow in streamer:
        _fill(rows[used], flow, origin)
        used += 1
        if used == BATCH_FLOWS:
            yield rows.tobytes()
            used = 0
    yield rows[:used].tobytes()


def _end_with_the_meter(*_: object) -> None:
    """A meter that died would be waited for without end; it is left for NFStreamer to collect."""
    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is not None and ended.si_status:
        os._exit(1)


def main() -> None:
    """Read a job, meter its chains in order."""
    job = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # NFStream prints warnings, which must not mix with the rows.
    os.register_at_fork(after_in_child=lambda: os.close(out.fileno()))
    signal.signal(signal.SIGCHLD, _end_with_the_meter)

    def send(kind: bytes, body: bytes) -> None:
        out.write(FRAME.pack(kind, len(body)) + body)
        out.flush()

    for number, paths in zip(job["origins"], job["chains"], strict=True):
        try:
            for body in _metered(paths, number, job):
                send(FLOWS, body)
        except ValueError as error:
            send(FAILED, str(error).encode())
        else:
            send(CHAIN_DONE, b"")


if __name__ == "__main__":
    main()
