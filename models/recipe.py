"""How a network is trained: declared with each kind of model, changed from the command line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FitConfig:
    """How a network is trained.

    Attributes:
        epochs: at most this many.
        patience: stop after this many epochs without a better held-out loss.
        batch: rows a step.
        learning_rate: of Adam, the highest that the schedule reaches.
        schedule: one of :data:`training.schedules.SCHEDULES`.
        validation, calibration: shares of the rows held out to stop by and to calibrate.
        most_validation, most_calibration: but no more rows than this; the others are trained on.
    """

    epochs: int = 12
    patience: int = 4
    batch: int = 512
    learning_rate: float = 3e-3
    schedule: str = "warmup-cosine"
    validation: float = 0.1
    calibration: float = 0.2
    most_validation: int = 65_536
    most_calibration: int = 16_384
