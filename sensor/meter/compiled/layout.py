"""What the compiled meter keeps of a flow beside the engine's record, and of itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from features.flows import EARLY_PACKETS
from features.schema import MOST_EARLY

REMEMBERED = 1 << 16
"""Connections, the latest, that a meter still knows when their flow has ended."""

PIECES = 16
"""Fragments of a datagram that are remembered; overlaps with later ones are not seen."""

NONE = -1
"""In a link between entries: there is none."""


def _record(fields: list[tuple[Any, ...]]) -> np.dtype[np.void]:
    return np.dtype(fields, align=True)


WAY = _record(
    [
        ("before_us", "i8"), ("first_us", "i8"), ("last_us", "i8"), ("last_tick_us", "i8"),
        ("packets", "i8"),
        ("piat_mean", "f8"), ("piat_m2", "f8"), ("piat_min", "i8"), ("piat_max", "i8"),
        ("payload_bytes", "i8"), ("squares", "i8"), ("header_bytes", "i8"),
        ("next_seq", "u4"), ("retransmitted", "u4"), ("payload_packets", "u4"),
        ("data_packets", "u4"), ("payload_min", "u4"), ("payload_max", "u4"), ("header_min", "u4"),
        ("run", "u4"), ("run_bytes", "i8"), ("run_begin_us", "i8"), ("run_last_us", "i8"),
        ("bulk_packets", "i8"), ("bulk_bytes", "i8"), ("bulk_us", "i8"), ("bulks", "u4"),
        ("base", "u4"), ("urgent", "u4"), ("text_seq", "u4"), ("window", "u2"), ("ttl", "u1"),
        ("flags", "u1"), ("tcp_state", "u1"), ("has_ttl", "u1"), ("has_seq", "u1"),
        ("has_text", "u1"),
    ]
)  # fmt: skip
"""One direction of a flow: times in us, sizes in bytes; `last_tick_us`, and all that is measured
between times, is on the model's clock. `piat_m2` is the sum of squared deviations
of the times between packets (Welford, Technometrics 4(3), 1962); `run` is a run of packets with
payload that may become a bulk; `text_seq` is the sequence number that text goes on with."""

STATE = _record(
    [
        ("key", "u8", (6,)), ("hash", "u4"), ("previous", "i4"), ("next", "i4"), ("list", "i4"),
        ("flow", "u8"), ("serial", "i8"), ("first_us", "i8"), ("last_us", "i8"),
        ("last_tick_us", "i8"),
        ("piat_mean", "f8"), ("piat_m2", "f8"), ("piat_min", "i8"), ("piat_max", "i8"),
        ("syn_us", "i8"), ("synack_us", "i8"), ("ack_us", "i8"),
        ("active_begin_us", "i8"), ("subflows", "u4"), ("early_packets", "u4"),
        ("active_count", "i8"), ("active_mean", "f8"), ("active_m2", "f8"),
        ("active_max", "i8"), ("active_min", "i8"),
        ("idle_count", "i8"), ("idle_mean", "f8"), ("idle_m2", "f8"),
        ("idle_max", "i8"), ("idle_min", "i8"),
        ("early", "i4", (EARLY_PACKETS,)),
        ("http_requests", "u4"), ("ftp_commands", "u4"), ("ftp_logins", "u4"),
        ("head_bytes", "u4"), ("http_body_bytes", "i8"), ("body_left", "i8"),
        ("head_length", "i8"), ("head_digits", "u4"), ("head_at", "u4"), ("head_status", "u4"),
        ("head_part", "u1"), ("head_end", "u1"), ("head_has_length", "u1"), ("head_line", "u1"),
        ("icmp_type", "u1"), ("icmp_code", "u1"), ("text", "u1"), ("text_peeked", "u1"),
        ("text_logged_in", "u1"), ("text_in_mail", "u1"), ("text_in_line", "u1"),
        ("ages_told", "u1"), ("counts_told", "u1"),
        ("known", "u1"), ("turned", "u1"), ("wrong_fragments", "u4"),
    ]
)  # fmt: skip
"""One flow. `key` is the same for both directions; `previous`, `next` link the flows of a list
(:data:`IDLE_LIST`, :data:`CLOSING_LIST`) by when they were last seen; `flow` is the address of the
engine's ``struct nf_flow``; `turned` says that its source is the second end that the key names;
`head_*` is where the reading of an HTTP response's head stands;
`text` is a :class:`sensor.meter.content.Protocol`; `text_in_mail` that a mail is being sent, and
`text_in_line` that the source's last text ended within a line; `ages_told` and `counts_told` how
many of the early reports by age and by packets are behind it."""

IDLE_LIST, CLOSING_LIST = 0, 1
"""Flows that end by the idle timeout, and TCP flows that linger: over, or not there yet."""

CONTROL = _record(
    [
        # Settings
        ("capture", "u8"), ("header", "u8"), ("buffer", "u8"), ("dissector", "u8"), ("mode", "i4"),
        ("dissections", "i4"), ("idle_ms", "i8"), ("active_ms", "i8"), ("linger_ms", "i8"),
        ("early_ages_us", "i8", (MOST_EARLY,)), ("early_counts", "i8", (MOST_EARLY,)),
        ("early_by_age", "i8"), ("early_by_count", "i8"), ("clock_us", "i8"),
        ("shards", "i4"), ("shard", "i4"), ("packets_at_once", "i8"), ("may_grow", "u1"),
        # Where it stands
        ("now_us", "i8"), ("tick_us", "i8"), ("flows", "i8"), ("free", "i4"), ("serial", "i8"),
        ("oldest", "i4", (2,)), ("latest", "i4", (2,)), ("ip_at", "i8"),
        ("remembered", "i8"),
        ("rows", "i8"), ("peeks", "i8"), ("peek_bytes", "i8"),
        # Counts of packets, and of flows that were pushed out
        ("read", "i8"), ("metered", "i8"), ("ignored", "i8"), ("elsewhere", "i8"),
        ("failed", "i8"), ("evicted", "i8"),
    ]
)  # fmt: skip
"""Settings, state and counters of one meter; `header` is the address of libpcap's packet header.

`now_us` is the time, `tick_us` the same on the clock that times between packets are measured on.
`buffer` is where libpcap keeps the address of a file's last packet, 0 for an interface; `ip_at` is
where the last packet's IP header was, from there on. `linger_ms` 0 means that it is off;
`early_by_age` and `early_by_count` say how many ages and packet counts are set. `read` counts
packets taken from the capture: those in flows (`metered`, counted as they come), those that belong
to no flow (`ignored`), those of another shard (`elsewhere`), and those for which the engine found
no memory (`failed`).
"""

CONNECTION = _record(
    [
        ("key", "u8"), ("syn_us", "i8"), ("synack_us", "i8"), ("ack_us", "i8"),
        ("last_us", "i8", (2,)),
    ]
)  # fmt: skip
"""A connection that is remembered: its key, 0 for an empty place, its set-up, and when each side
was last heard of, in the order of the key's addresses."""

DATAGRAM = _record(
    [
        ("key", "u8"), ("time_us", "i8"), ("serial", "i8"), ("slot", "i4"), ("wrong", "u4"),
        ("pieces", "i4"), ("size", "i4"), ("begins", "i4", (PIECES,)), ("ends", "i4", (PIECES,)),
    ]
)  # fmt: skip
"""A datagram that comes in fragments: the flow of its first one, where its pieces lie, and its
`size` once the last one was seen."""

PEEK = _record(
    [("serial", "i8"), ("begin", "i8"), ("captured", "i4"), ("size", "i4"), ("seq", "u4"),
     ("from_dst", "u1"), ("text", "u1")]
)  # fmt: skip
"""A packet whose text :mod:`sensor.meter.content` is to read: of which flow, and where its
`captured` octets begin in the buffer of peeks; `size` is its payload's on the wire."""

# Why the loop handed back.
END_OF_FILE, NOTHING_NOW, ROWS_FULL, PEEKS_FULL, TABLE_FULL, ENOUGH, READ_ERROR = range(7)
