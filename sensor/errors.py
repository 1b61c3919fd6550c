"""What can go wrong for a user, and the exit code that says so (docs/exit-codes.md)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the `flowvane` command."""

    OK = 0
    """All was done; alerts or none."""
    INTERNAL = 1
    """A defect of flowvane's own; a traceback is printed."""
    USAGE = 2
    """The command line or the configuration is wrong."""
    INPUT = 3
    """Some input could not be read, wholly or in part; all that could be was processed."""
    MODEL = 4
    """The model bundle is unknown, damaged or made for something else."""
    OUTPUT = 5
    """The output cannot be written."""
    DATASET = 6
    """A data-set file is missing or not what it claims to be."""
    INTERRUPTED = 130
    """Stopped by SIGINT or SIGTERM; what was scored before is written."""


class FlowvaneError(Exception):
    """An error to tell the user in one line; `exit_code` is what the command ends with."""

    exit_code = ExitCode.INTERNAL

    @property
    def lines(self) -> list[str]:
        """What to tell, an error a line."""
        return [str(self)]


class UsageError(FlowvaneError):
    """Options that make no sense together, or a value out of range."""

    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    """A configuration that is wrong, in one or several places: a line for each."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self._lines = list(lines)

    @property
    def lines(self) -> list[str]:
        """What to tell, an error a line."""
        return self._lines


class InputError(FlowvaneError):
    """A capture cannot be read."""

    exit_code = ExitCode.INPUT


class ModelError(FlowvaneError):
    """A model cannot be used."""

    exit_code = ExitCode.MODEL


class OutputError(FlowvaneError):
    """An output cannot be opened or written."""

    exit_code = ExitCode.OUTPUT
