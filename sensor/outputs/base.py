"""What an output of events is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Output(Protocol):
    """Takes whole event lines.

    Guarantees: lines are written in order, whole or not at all as far as the medium lets it;
    when :meth:`write` returns, the lines are with the operating system.
    """

    def write(self, lines: Sequence[bytes]) -> None:
        """Write lines, each ending in a newline.

        Raises:
            OutputError: the medium refused.
        """

    def close(self) -> None:
        """Finish; later writes are an error."""
