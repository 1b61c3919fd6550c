"""Where a training stands, in one safetensors file, so that it can go on after an interruption."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message names it and says why."""


class CheckpointNotWritten(Exception):
    """A checkpoint cannot be written; the message says why."""


@dataclass
class TrainingState:
    """All that changes from one epoch to the next.

    Attributes:
        weights, optimizer: after the last epoch.
        best_weights: those of the epoch with the lowest held-out loss, `best`.
        since: epochs since then.
        history: losses of each epoch so far.
    """

    weights: Any
    optimizer: Any
    best_weights: Any
    best: float
    since: int
    history: list[dict[str, float]]

    @property
    def _trees(self) -> dict[str, Any]:
        return {
            "weights": self.weights,
            "optimizer": self.optimizer,
            "best_weights": self.best_weights,
        }


@dataclass(frozen=True)
class Checkpoint:
    """A file that is replaced after each epoch, and removed by whoever needs it no more.

    Attributes:
        path: of the file.
        resume: whether to go on from it; otherwise it is written anew.
    """

    path: Path
    resume: bool = False

    def save(self, state: TrainingState, training: str) -> None:
        """Replace the file; `training` says which training it belongs to.

        Raises:
            CheckpointNotWritten: that cannot be done.
        """
        tensors = {
            f"{name}.{number}": np.asarray(leaf)
            for name, tree in state._trees.items()
            for number, leaf in enumerate(jax.tree.leaves(tree))
        }
        numbers = {"best": state.best, "since": state.since, "history": state.history}
        noted = {"training": training, "numbers": json.dumps(numbers)}
        fresh = self.path.with_name(self.path.name + ".new")
        try:
            fresh.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(save_tensors(tensors, noted))
            fresh.replace(self.path)
        except OSError as error:
            raise CheckpointNotWritten((error.strerror or str(error)).lower()) from error

    def load(self, state: TrainingState, training: str) -> None:
        """Bring `state`, that of an untrained network, to where the file says.

        Raises:
            CheckpointError: there is no such file, it is damaged, or of another training.
        """
        try:
            with safe_open(self.path, "numpy") as file:
                noted = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError as error:
            raise CheckpointError(f"{self.path}: no checkpoint to resume from") from error
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path}: not a checkpoint: {error}") from error
        if noted.get("training") != training:
            raise CheckpointError(
                f"{self.path}: of another training (model, settings, seed or rows differ)"
            )
        for name, tree in state._trees.items():
            leaves, shape = jax.tree.flatten(tree)
            stored = [jnp.asarray(tensors[f"{name}.{at}"]) for at in range(len(leaves))]
            setattr(state, name, jax.tree.unflatten(shape, stored))
        numbers = json.loads(noted["numbers"])
        state.best, state.since = float(numbers["best"]), int(numbers["since"])
        state.history = numbers["history"]

    def remove(self) -> None:
        """The training is done."""
        self.path.unlink(missing_ok=True)
