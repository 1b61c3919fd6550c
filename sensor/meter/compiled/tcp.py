"""What is kept of TCP's headers, in compiled code.

The rules are those of :mod:`sensor.meter.stock_plugin` and :mod:`sensor.meter.states`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from features.flows import NEVER, TcpFlag, TcpState
from sensor.meter.compiled.memory import Number, inlined, load_u8

_FIN, _SYN, _RST, _ACK, _URG = (
    int(TcpFlag.FIN), int(TcpFlag.SYN), int(TcpFlag.RST), int(TcpFlag.ACK), int(TcpFlag.URG),
)  # fmt: skip
_INACTIVE, _SYN_SENT, _SYN_ACK_SENT, _PARTIAL, _ESTABLISHED, _CLOSED, _RESET = map(int, TcpState)
_HALF = 1 << 31
_SEQUENCE = (1 << 32) - 1


@inlined
def big_endian_32(address: int) -> Number:
    """The 32-bit number in network order at an address."""
    value = np.int64(0)
    for at in range(4):
        value = (value << 8) | np.int64(load_u8(np.uint64(address + at)))
    return value


@inlined
def segment(way: Any, header: int, flags: int, payload_size: int, opens: int) -> None:
    """Flags, base sequence number, window, and whether the segment repeats sequence space.

    `opens`: it is the source's, of a connection that was not known before. `header` is the
    address of the TCP header (RFC 9293, 3.1), of which 20 octets are there.
    """
    seq = big_endian_32(header + 4)
    if flags & _URG:
        way.urgent += 1
    syn, fin = (flags & _SYN) != 0, (flags & _FIN) != 0
    length = payload_size + (1 if syn else 0) + (1 if fin else 0)
    if not way.has_seq:
        # As Argus has it: see the stock plugin.
        way.has_seq = 1
        way.base = seq
        if opens and not syn:
            reset = (flags & _RST) != 0 and (flags & _ACK) != 0 and seq == 0
            way.base = ((big_endian_32(header + 8) if reset else seq) - 1) & _SEQUENCE
        way.window = (np.int64(load_u8(np.uint64(header + 14))) << 8) | np.int64(
            load_u8(np.uint64(header + 15))
        )
        way.next_seq = (seq + length) & _SEQUENCE
    elif length:
        if ((seq - np.int64(way.next_seq)) & _SEQUENCE) >= _HALF:
            way.retransmitted += 1
        end = (seq + length) & _SEQUENCE
        if ((end - np.int64(way.next_seq)) & _SEQUENCE) < _HALF:
            way.next_seq = end
    way.flags |= flags


@inlined
def handshake(state: Any, flags: int, from_dst: int, time_us: int) -> None:
    """Times of SYN, SYN-ACK and the ACK that follows, the first of each."""
    if flags & _SYN:
        if not flags & _ACK:
            if not from_dst and state.syn_us == NEVER:
                state.syn_us = time_us
            return
        if from_dst:
            if state.synack_us == NEVER and state.syn_us != NEVER:
                state.synack_us = time_us
            return
    if (
        flags & _ACK
        and not from_dst
        and not flags & _RST
        and state.ack_us == NEVER
        and state.synack_us != NEVER
    ):
        state.ack_us = time_us


@inlined
def connection_state(own_way: Any, other_way: Any, from_dst: int, flags: int) -> None:
    """How far each side got, by Zeek's rules (:class:`sensor.meter.states.TcpStates`)."""
    own = own_way.tcp_state
    if (own and not flags & (_FIN | _RST)) or own == _RESET:
        return
    other = other_way.tcp_state
    if flags & _RST:
        going_on = other in (_SYN_SENT, _SYN_ACK_SENT, _ESTABLISHED)
        ended = own == _CLOSED and not going_on
        if not ended and (from_dst or own != _INACTIVE):
            own_way.tcp_state = _RESET
    elif flags & _FIN:
        own_way.tcp_state = _CLOSED
    elif not flags & _SYN:
        own_way.tcp_state = _PARTIAL
    elif from_dst:
        if other == _SYN_SENT:
            other_way.tcp_state = _ESTABLISHED
        own_way.tcp_state = _ESTABLISHED
    elif flags & _ACK:
        own_way.tcp_state = _SYN_ACK_SENT
    else:
        own_way.tcp_state = _SYN_SENT


@inlined
def half_open(source: Any) -> Number:
    """Whether a TCP flow's source has sent nothing but SYNs: the connection is not there."""
    return (source.flags & _SYN) != 0 and (source.flags & (_ACK | _FIN | _RST)) == 0


@inlined
def goodbye(one: Any, other: Any) -> Number:
    """Whether TCP is over: a reset was seen, or a FIN from both sides."""
    both = one.flags | other.flags
    return (both & _RST) != 0 or ((one.flags & other.flags) & _FIN) != 0
