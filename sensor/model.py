"""The model that a command is told to use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from models.manifest import BundleError, Stored, read
from sensor.errors import ModelError
from sensor.pipeline import Measured
from sensor.verdict import check_rate

if TYPE_CHECKING:  # metering begins before JAX is loaded
    from models.detector import Detector


def open_model(name_or_folder: str) -> Detector:
    """The model of this name, or in this folder.

    Raises:
        ModelError: it cannot be used.
    """
    from models.bundle import load

    try:
        return load(name_or_folder)
    except BundleError as error:
        raise ModelError(str(error)) from error


class StoredModel:
    """A model for a triage, read, and loaded when it is needed; :class:`sensor.triage.Triaging`."""

    def __init__(self, stored: Stored) -> None:
        """Take a bundle that was read."""
        self.stored = stored
        self.name, self.schema = stored.name, stored.schema
        self.clock_us, self.early = stored.clock_us, stored.early

    def load(self) -> Detector:
        """The model.

        Raises:
            ModelError: it cannot be used.
        """
        from models.bundle import assemble
        from sensor.caches import keep_compiled

        keep_compiled()
        try:
            return assemble(self.stored)
        except BundleError as error:
            raise ModelError(str(error)) from error

    def marked(self, measured: Iterator[Measured]) -> Iterator[Measured]:
        """The flows as they are."""
        return measured


def read_model(name_or_folder: str, fpr: float) -> StoredModel:
    """Read a model that ships, by name, or a bundle, by folder.

    Raises:
        ModelError: it cannot be used.
        UsageError: it cannot keep this rate of false positives.
    """
    try:
        stored = read(name_or_folder)
    except BundleError as error:
        raise ModelError(str(error)) from error
    check_rate(fpr, stored.name, stored.calibration)
    return StoredModel(stored)
