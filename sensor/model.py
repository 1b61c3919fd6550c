"""The model that a command is told to use."""

from __future__ import annotations

from models.bundle import load
from models.detector import Detector
from models.manifest import BundleError
from sensor.errors import ModelError


def open_model(name_or_folder: str) -> Detector:
    """The model of this name, or in this folder.

    Raises:
        ModelError: it cannot be used.
    """
    try:
        return load(name_or_folder)
    except BundleError as error:
        raise ModelError(str(error)) from error
