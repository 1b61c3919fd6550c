"""How the learning rate goes over a training, by name."""

from __future__ import annotations

from collections.abc import Callable

import optax

Schedule = Callable[[int], float]
"""From the number of a step to its learning rate."""

WARM_UP = 100
"""Steps of a warm-up at most; half of the training if that is less."""


def _warmup_cosine(peak: float, steps: int) -> Schedule:
    warm_up = min(WARM_UP, max(steps // 2, 1))
    schedule: Schedule = optax.warmup_cosine_decay_schedule(
        peak / 10, peak, warm_up, max(steps, 2), peak / 50
    )
    return schedule


SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda peak, steps: optax.constant_schedule(peak),
    "cosine": lambda peak, steps: optax.cosine_decay_schedule(peak, max(steps, 1), 0.02),
    "exponential": lambda peak, steps: optax.exponential_decay(peak, max(steps, 1), 0.02),
    "warmup-cosine": _warmup_cosine,
}
"""From the peak and the number of steps of the whole training; all but the constant one end at a
fiftieth of the peak."""
