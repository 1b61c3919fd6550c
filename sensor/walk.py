"""Walks the records of a capture file in compiled code: how many packets, from when to when.

Both walks stop at the first record that is anything but an ordinary packet; whoever calls them
looks at that one, knows what is wrong with it or what it says, and may go on behind it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

PCAPNG_PACKET = 6
"""Block type of pcapng's enhanced packet block."""
OFFSET, PACKETS, FIRST_US, LAST_US, LATEST_US = range(5)
"""Places in the result of a walk."""


@njit(cache=True, nogil=True)
def _u32(data: NDArray[np.uint8], at: int, little: bool) -> Any:
    a, b = np.int64(data[at]), np.int64(data[at + 1])
    c, d = np.int64(data[at + 2]), np.int64(data[at + 3])
    if little:
        return a | (b << 8) | (c << 16) | (d << 24)
    return d | (c << 8) | (b << 16) | (a << 24)


@njit(cache=True, nogil=True)
def _count(result: NDArray[np.int64], time_us: int) -> None:
    if not result[PACKETS] or time_us < result[FIRST_US]:
        result[FIRST_US] = time_us
    if not result[PACKETS] or time_us > result[LAST_US]:
        result[LAST_US] = time_us
    result[LATEST_US] = time_us
    result[PACKETS] += 1


@njit(cache=True, nogil=True)
def walk_pcap(
    data: NDArray[np.uint8], offset: int, end: int, little: bool, per_micro: int,
    header_bytes: int, most_bytes: int,
) -> NDArray[np.int64]:  # fmt: skip
    """Records of a classic pcap from `offset` on, as far as they are whole.

    Returns:
        Where it stopped, packets, least and greatest time, and that of the last packet; in us.
    """
    result = np.zeros(5, np.int64)
    while offset + header_bytes <= end:
        captured = _u32(data, offset + 8, little)
        behind = offset + header_bytes + captured
        if captured > most_bytes or behind > end:
            break
        fraction = _u32(data, offset + 4, little)
        if fraction >= 1 << 31:  # libpcap takes it as signed
            fraction -= 1 << 32
        _count(result, _u32(data, offset, little) * 1_000_000 + fraction // per_micro)
        offset = behind
    result[OFFSET] = offset
    return result


@njit(cache=True, nogil=True)
def walk_pcapng(
    data: NDArray[np.uint8], offset: int, end: int, little: bool, interface: int,
    ticks_per_us: int, base_us: int, snaplen: int, most_bytes: int,
) -> NDArray[np.int64]:  # fmt: skip
    """Enhanced packet blocks of one interface from `offset` on, as far as they are ordinary.

    Returns:
        As :func:`walk_pcap`.
    """
    result = np.zeros(5, np.int64)
    while offset + 32 <= end and _u32(data, offset, little) == PCAPNG_PACKET:
        total = _u32(data, offset + 4, little)
        behind = offset + total
        if total < 32 or total % 4 or behind > end or _u32(data, behind - 4, little) != total:
            break
        captured = _u32(data, offset + 20, little)
        if (
            _u32(data, offset + 8, little) != interface
            or captured > min(total - 32, most_bytes)
            or (snaplen and captured > snaplen)
            or total > most_bytes
        ):
            break
        high = _u32(data, offset + 12, little)
        if high >= 1 << 31:
            break
        ticks = (high << 32) | _u32(data, offset + 16, little)
        _count(result, ticks // ticks_per_us + base_us)
        offset = behind
    result[OFFSET] = offset
    return result
