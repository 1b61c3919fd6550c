"""How far each side of a TCP connection got, as Zeek follows it from packet to packet.

The rules are those of Zeek's TCP analyzer (``TCP.cc``: UpdateInactiveState to
UpdateResetState), whose states ``conn_state`` is read from; Zeek is Bro, which KDD's `flag` is of.
"""

from __future__ import annotations

from features.flows import TcpFlag, TcpState

_GOING_ON = (TcpState.SYN_SENT, TcpState.SYN_ACK_SENT, TcpState.ESTABLISHED)


class TcpStates:
    """The :class:`TcpState` of the source (0) and the destination (1) of a connection."""

    __slots__ = ("of",)

    def __init__(self) -> None:
        self.of = [int(TcpState.INACTIVE), int(TcpState.INACTIVE)]

    def update(self, sender: int, flags: int) -> None:
        """A segment with TCP `flags` (an octet) came from `sender`, 0 or 1."""
        own, other = self.of[sender], self.of[1 - sender]
        if own == TcpState.RESET:
            return
        if flags & TcpFlag.RST:
            # A reset by a source that has sent nothing else is of another connection. One after
            # its own FIN changes nothing if the other side has said goodbye too, or never came.
            ended = own == TcpState.CLOSED and other not in _GOING_ON
            if not ended and (sender or own != TcpState.INACTIVE):
                self.of[sender] = TcpState.RESET
        elif flags & TcpFlag.FIN:
            self.of[sender] = TcpState.CLOSED
        elif own == TcpState.INACTIVE:
            if not flags & TcpFlag.SYN:
                # In the midst of a connection whose beginning was not seen.
                self.of[sender] = TcpState.PARTIAL
            elif sender:
                if other == TcpState.SYN_SENT:
                    self.of[0] = TcpState.ESTABLISHED
                self.of[1] = TcpState.ESTABLISHED
            else:
                answer = flags & TcpFlag.ACK
                self.of[0] = TcpState.SYN_ACK_SENT if answer else TcpState.SYN_SENT
