"""Fragments of IPv4 datagrams (RFC 791, section 3.2) that do not fit together, in compiled code.

The engine takes the first fragment of a datagram into its flow and hands on no other. Those are
looked at here where libpcap has left them, far enough to say what is wrong with one, by the
rules of Bro (Zeek's Frag.cc), which KDD's counts come from:

- it is not the last one, and its IP packet has less than 64 octets (excessively small);
- it overlaps another one, and is not the same again (overlap, inconsistency);
- it ends beyond the last one, or is a last one that ends before another (size inconsistency);
- it ends beyond the longest datagram (excessively large).

A teardrop has three of these, a ping of death one, as in the published rows. They count for the
flow of the first fragment, whichever fragment comes first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sensor.meter.compiled.layout import NONE, PIECES
from sensor.meter.compiled.memory import Number, inlined, load_u8, load_u32

_KEEP_US = 60_000_000
"""A datagram is forgotten after this time (RFC 1122, section 3.3.2: 60 to 120 s)."""
_LONGEST = 65_535 - 20
"""Octets of a datagram's data at most, by its length field."""
_LEAST = 64
"""Octets of an IP packet that is a fragment, not the last one, at least."""


@inlined
def _u16(address: int) -> Number:
    return (np.int64(load_u8(np.uint64(address))) << 8) | np.int64(load_u8(np.uint64(address + 1)))


@inlined
def is_fragment(ip: int, captured: int) -> Number:
    """Whether an IPv4 header is that of a fragment; `captured` octets of it are there.

    Its checksum (RFC 1071) has to be right: what is looked at may be no IPv4 header at all.
    """
    if captured < 20 or load_u8(np.uint64(ip)) >> 4 != 4:
        return False
    header = 4 * (np.int64(load_u8(np.uint64(ip))) & 15)
    if header < 20 or captured < header or _u16(ip + 2) < header:
        return False
    if not _u16(ip + 6) & 0x3FFF:
        return False
    total = np.int64(0)
    for at in range(0, header, 2):
        total += _u16(ip + at)
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16) == 0xFFFF


@inlined
def _datagram(datagrams: Any, ip: int, time_us: int) -> Any:
    """What is remembered of a fragment's datagram; a new one takes the place of another."""
    key = np.uint64(load_u32(np.uint64(ip + 12)))
    key = (key << np.uint64(32)) | np.uint64(load_u32(np.uint64(ip + 16)))
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key ^= np.uint64(_u16(ip + 4)) << np.uint64(8) | np.uint64(load_u8(np.uint64(ip + 9)))
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    datagram = datagrams[np.int64(key >> np.uint64(32)) % len(datagrams)]
    if datagram.key != key or time_us - datagram.time_us > _KEEP_US:
        datagram.key = key
        datagram.slot = NONE
        datagram.pieces = 0
        datagram.wrong = 0
        datagram.size = 0
    datagram.time_us = time_us
    return datagram


@inlined
def _wrongs(datagram: Any, ip: int) -> Number:
    """How much is wrong with a fragment; it is remembered."""
    field, total = _u16(ip + 6), _u16(ip + 2)
    last = (field & 0x2000) == 0
    begin = 8 * (field & 0x1FFF)
    end = begin + total - 4 * (np.int64(load_u8(np.uint64(ip))) & 15)
    overlaps, short = False, datagram.size and end > datagram.size
    for piece in range(datagram.pieces):
        other_begin = np.int64(datagram.begins[piece])
        other_end = np.int64(datagram.ends[piece])
        if other_begin == begin and other_end == end:
            return 0
        overlaps = overlaps or (begin < other_end and other_begin < end)
        short = short or (last and other_end > end)
    if last:
        datagram.size = end
    if datagram.pieces < PIECES:
        datagram.begins[datagram.pieces] = begin
        datagram.ends[datagram.pieces] = end
        datagram.pieces += 1
    small = not last and total < _LEAST
    return (
        (1 if overlaps else 0)
        + (1 if short else 0)
        + (1 if small else 0)
        + (1 if end > _LONGEST else 0)
    )


@inlined
def first_fragment(datagrams: Any, states: Any, slot: int, ip: int, time_us: int) -> None:
    """The first fragment of a datagram: the flow in `slot` is the one that the others are of."""
    datagram = _datagram(datagrams, ip, time_us)
    datagram.wrong += _wrongs(datagram, ip)
    datagram.slot = slot
    datagram.serial = states[slot].serial
    states[slot].wrong_fragments += datagram.wrong
    datagram.wrong = 0


@inlined
def later_fragment(datagrams: Any, states: Any, ip: int, time_us: int) -> None:
    """A fragment that the engine has ignored."""
    datagram = _datagram(datagrams, ip, time_us)
    wrongs = _wrongs(datagram, ip)
    slot = datagram.slot
    if slot == NONE:
        datagram.wrong += wrongs
    elif states[slot].flow and states[slot].serial == datagram.serial:
        states[slot].wrong_fragments += wrongs
