"""How far each side of a TCP connection got, as Zeek follows it from packet to packet.

The rules are those of Zeek's TCP analyzer (``TCP.cc``: UpdateInactiveState to
UpdateResetState), whose states ``conn_state`` is read from; Zeek is Bro, which KDD's `flag` is of.
"""

from __future__ import annotations

from features.flows import TcpFlag, TcpState

# Plain integers: this runs for every segment, and comparing members of an enum costs more.
_INACTIVE, _SYN_SENT, _SYN_ACK_SENT, _PARTIAL, _ESTABLISHED, _CLOSED, _RESET = map(int, TcpState)
_FIN, _SYN, _RST, _ACK = map(int, (TcpFlag.FIN, TcpFlag.SYN, TcpFlag.RST, TcpFlag.ACK))
_ENDS = _FIN | _RST
_GOING_ON = (_SYN_SENT, _SYN_ACK_SENT, _ESTABLISHED)


class TcpStates:
    """The :class:`TcpState` of the source (0) and the destination (1) of a connection."""

    __slots__ = ("of",)

    def __init__(self) -> None:
        self.of = [_INACTIVE, _INACTIVE]

    def update(self, sender: int, flags: int) -> None:
        """A segment with TCP `flags` (an octet) came from `sender`, 0 or 1."""
        of = self.of
        own = of[sender]
        if (own and not flags & _ENDS) or own == _RESET:
            return
        other = of[1 - sender]
        if flags & _RST:
            # A reset by a source that has sent nothing else is of another connection. One after
            # its own FIN changes nothing if the other side has said goodbye too, or never came.
            ended = own == _CLOSED and other not in _GOING_ON
            if not ended and (sender or own != _INACTIVE):
                of[sender] = _RESET
        elif flags & _FIN:
            of[sender] = _CLOSED
        elif not flags & _SYN:
            # In the midst of a connection whose beginning was not seen.
            of[sender] = _PARTIAL
        elif sender:
            if other == _SYN_SENT:
                of[0] = _ESTABLISHED
            of[1] = _ESTABLISHED
        else:
            of[0] = _SYN_ACK_SENT if flags & _ACK else _SYN_SENT
