"""TensorBoard event files of a training: losses, reconstructions, histograms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
from flax import nnx

from features.schema import FloatArray
from models.detector import in_units
from training.extras import need
from training.loop import EpochNews, Observer, Setting

SHOWN_ROWS = 4
"""Held-out rows whose reconstruction is written."""


class EventLog(Observer):
    """Writes an event file that ``tensorboard --logdir`` shows; a context manager.

    Of each epoch: both losses and the learning rate; histograms of the held-out rows' losses and
    of each layer's weights; for kinds that expect something of a flow, a table of held-out rows
    beside what the network makes of them, in the features' units.
    """

    def __init__(self, directory: Path) -> None:
        """Begin a file in `directory`.

        Raises:
            MissingExtraError: tensorboardX is not installed.
            OSError: the directory cannot be written.
        """
        self._writer = need("tensorboardX", what="event files").SummaryWriter(str(directory))
        self._setting: Setting | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._writer.close()

    def begun(self, setting: Setting) -> None:
        """Write what is trained."""
        self._setting = setting
        self._writer.add_text("model", f"{setting.kind.name}: `{setting.config}`", 0)

    def epoch(self, news: EpochNews) -> None:
        """Write an epoch."""
        write, number = self._writer, news.number
        write.add_scalar("loss/training", news.train_loss, number)
        write.add_scalar("loss/held-out", news.validation_loss, number)
        write.add_scalar("learning_rate", news.learning_rate, number)
        write.add_histogram("held-out_row_loss", news.losses, number)
        for path, leaf in nnx.to_flat_state(nnx.state(news.network)):
            name = "weights/" + ".".join(map(str, path))
            write.add_histogram(name, np.asarray(leaf[...]).ravel(), number)
        if self._setting and self._setting.kind.reconstructs:
            write.add_text("reconstructions", _table(self._setting, news), number)


def _table(setting: Setting, news: EpochNews) -> str:
    """A Markdown table of the first held-out rows and their reconstructions."""
    rows, encoder = setting.held_out, setting.encoder
    chosen = np.arange(min(SHOWN_ROWS, len(rows.at)))
    batch = rows.batch(chosen)
    outputs = np.asarray(jax.device_get(news.network.outputs(batch, {})))
    typical = setting.kind.typical(setting.config, encoder, setting.fitted, outputs)
    own = np.concatenate([batch.encoded.scaled, batch.encoded.categories], axis=1)
    seen, made = in_units(encoder, own.astype(np.float64)), in_units(encoder, typical)
    heads = [f"row {at + 1} | expected" for at in chosen]
    lines = [f"| feature | {' | '.join(heads)} |", "|---" * (1 + 2 * len(chosen)) + "|"]
    return "\n".join([*lines, *_lines(encoder, seen, made)])


def _lines(encoder: Any, seen: FloatArray, made: FloatArray) -> Sequence[str]:
    """A line for each feature."""
    columns = encoder.schema.index(encoder.names)
    features = [encoder.schema.features[column] for column in columns]
    lines = []
    for at, feature in enumerate(features):
        pairs = zip(seen[:, at], made[:, at], strict=True)
        cells = (f"{feature.show(one)} | {feature.show(two)}" for one, two in pairs)
        lines.append(f"| {feature.name} | {' | '.join(cells)} |")
    return lines
