"""Packages that only research needs: looked for where they are used, named where they lack."""

from __future__ import annotations

import importlib
from typing import Any


class MissingExtraError(Exception):
    """A package of an optional extra is not installed; the message says what to install."""


def need(module: str, *, what: str, extra: str = "research") -> Any:
    """The module called `module`, which belongs to an `extra` of flowvane's.

    Args:
        module: its full name, e.g. ``matplotlib.figure``.
        what: that needs it, for the message, e.g. ``"pictures"``.
        extra: name of the extra.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"{what} need {package}: pip install 'flowvane[{extra}]'"
        ) from error
