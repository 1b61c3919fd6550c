"""Event files: what TensorBoard reads of a training."""

from __future__ import annotations

import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from tests.helpers import TOY_FIT, fit_toy
from training.events import EventLog
from training.extras import MissingExtraError


def read(directory: Path) -> list[Event]:
    """The events of all files, as TFRecord frames them: length, its CRC, data, its CRC."""
    events = []
    for path in sorted(directory.rglob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            events.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return events


@pytest.mark.parametrize("variant", ["histogram", "autoencoder", "classifier"])
def test_losses_histograms_and_reconstructions_are_written(variant: str, tmp_path: Path) -> None:
    with EventLog(tmp_path) as log:
        made = fit_toy(variant, observers=[log], config=replace(TOY_FIT, epochs=2))
    values = [(event.step, value) for event in read(tmp_path) for value in event.summary.value]
    scalars = {(step, v.tag): v.simple_value for step, v in values if v.HasField("simple_value")}
    history = made.provenance["history"]
    assert len(history) == 2
    for number, losses in enumerate(history, start=1):
        assert scalars[number, "loss/training"] == pytest.approx(losses["train"], abs=1e-4)
        assert scalars[number, "loss/held-out"] == pytest.approx(losses["validation"], abs=1e-4)
        assert scalars[number, "learning_rate"] > 0.0
    histograms = {
        (step, value.tag): value.histo for step, value in values if value.HasField("histo")
    }
    assert histograms[2, "held-out_row_loss"].num == made.provenance["rows"]["validation"]
    assert any(tag.startswith("weights/") and tag.endswith(".kernel") for _, tag in histograms)
    texts = {value.tag: value.tensor.string_val for _, value in values if value.tensor.string_val}
    tables = [text for tag, text in texts.items() if tag.startswith("reconstructions")]
    assert bool(tables) == (variant != "classifier")
    for (table,) in tables:
        lines = table.decode().splitlines()
        assert [line.split()[1] for line in lines[2:]] == list(made.encoder.names)
        assert {line.count("|") for line in lines} == {10}
        assert " tcp " in lines[-1] or " udp " in lines[-1]


def test_without_the_package_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingExtraError, match=r"event files need tensorboardX: pip install"):
        EventLog(tmp_path)
