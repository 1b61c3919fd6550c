"""Pictures: each is drawn, says what it should in words, and is the same every time."""

from __future__ import annotations

import io
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers import TOY, toy_rows
from training import pictures
from training.extras import MissingExtraError

RNG = np.random.default_rng(0)
ATTACK = np.repeat([False, True], [300, 100])
SCORE = np.concatenate([RNG.lognormal(1, 0.5, 300), RNG.lognormal(3, 0.8, 100) + 9])
CATEGORY = np.concatenate([np.full(300, "normal"), np.array([f"a{n % 9}" for n in range(100)])])
LATENT = RNG.normal(size=(400, 5))
ROWS = toy_rows(400)
MATRIX = np.array([[1.0, -0.5, np.nan], [-0.5, 1.0, np.nan], [np.nan] * 3])
MODELS = {"good": (ATTACK, SCORE), "none": (ATTACK, RNG.random(400))}

DRAWN: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "losses": (
        lambda: pictures.losses([3.0, 2.0, 1.5], [3.1, 2.0, 2.2]),
        ("epoch", "loss (nats a flow)", "training", "validation", "kept: epoch 2"),
    ),
    "score_histogram": (
        lambda: pictures.score_histogram(SCORE, ATTACK, float(np.median(SCORE[:300]))),
        ("score (nats)", "benign (300): 50.0 % above", "attacks (100): 100.0 % above"),
    ),
    "score_histogram of one class": (
        lambda: pictures.score_histogram(np.zeros(5), np.zeros(5, bool), 0.0),
        ("benign (5): 0.0 % above", "attacks (0): 0.0 % above"),
    ),
    "roc_curves": (
        lambda: pictures.roc_curves(MODELS),
        ("false-positive rate", "true-positive rate", "area under the curve"),
    ),
    "precision_recall_curves": (
        lambda: pictures.precision_recall_curves(MODELS),
        ("recall", "precision", "average precision", "chance: 0.25"),
    ),
    "confusion": (
        lambda: pictures.confusion(ATTACK, np.roll(ATTACK, 10)),
        ("290\n96.7 %", "10\n3.3 %", "10\n10.0 %", "90\n90.0 %", "benign", "alerted"),
    ),
    "latent_map": (
        lambda: pictures.latent_map(LATENT, CATEGORY),
        ("principal component 1", "normal (300)", "a0 (12)", "other attacks (33)"),
    ),
    "latent_map of two": (
        lambda: pictures.latent_map(LATENT[:, :2], CATEGORY),
        ("latent dimension 1", "latent dimension 2"),
    ),
    "latent_map of one": (
        lambda: pictures.latent_map(LATENT[:, :1], CATEGORY), ("latent dimension 1",)
    ),
    "bars": (
        lambda: pictures.bars(["x", "y"], {"parts": np.ones(2), "values": np.zeros(2)}),
        ("x", "y", "parts", "values"),
    ),
    "class_pie": (
        lambda: pictures.class_pie({"normal": 900, **{f"a{n}": 10 for n in range(10)}}),
        ("1,000\nrows", "normal: 900 (90 %)", "a0: 10 (1 %)", "3 others: 30 (3 %)"),
    ),
    "distributions": (
        lambda: pictures.distributions(TOY.features, ROWS, ATTACK),
        (*TOY.names, "tcp", "udp", "benign", "attacks", "share of the class (%)"),
    ),
    "distributions of benign rows": (
        lambda: pictures.distributions(TOY.features, -ROWS, np.zeros(400, bool)), ("benign",)
    ),
    "heat_map": (
        lambda: pictures.heat_map(MATRIX, list("abc"), list("xyz"), label="rho"),
        ("a", "z", "rho", "−.50", "1.00"),
    ),
    "heat_map of many": (
        lambda: pictures.heat_map(np.eye(40), [str(n) for n in range(40)], ["c"] * 40, label="r"),
        ("39", "r"),
    ),
}  # fmt: skip

every = pytest.mark.parametrize("name", DRAWN)


def words(figure: Any) -> set[str]:
    """All that is written in a figure."""
    figure.canvas.draw()
    text = __import__("matplotlib.text").text.Text
    return {found.get_text() for found in figure.findobj(text) if found.get_visible()}


@every
def test_it_is_drawn_and_says_what_it_shows(name: str) -> None:
    draw, expected = DRAWN[name]
    figure = draw()
    missing = set(expected) - words(figure)
    assert not missing
    png = pictures.encode(figure)
    with Image.open(io.BytesIO(png)) as image:
        assert min(image.size) > 150
        colors = image.convert("RGB").getcolors(maxcolors=image.width * image.height)
    assert colors is not None
    most = max(count for count, _ in colors)
    assert 1 - most / (image.width * image.height) > 0.001  # something is on the ground


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    for form in ("png", "svg", "pdf"):
        first = pictures.encode(DRAWN["losses"][0](), form)
        path = tmp_path / f"x.{form}"
        pictures.save(DRAWN["losses"][0](), path)
        assert path.read_bytes() == first
    assert first[:4] == b"%PDF"
    ET.parse(tmp_path / "x.svg")  # noqa: S314 - our own
    with pytest.raises(KeyError):
        pictures.save(DRAWN["losses"][0](), tmp_path / "x.gif")


def test_labels_and_areas_are_those_of_the_arrays() -> None:
    attack, score = np.array([False, True, False, True]), np.array([1.0, 2.0, 3.0, 4.0])
    figure = pictures.roc_curves({"m": (attack, score)})
    assert "m: 0.7500" in words(figure)
    # Precision at the two attacks: 1 of 1, 2 of 3.
    assert "m: 0.8333" in words(pictures.precision_recall_curves({"m": (attack, score)}))


def test_no_two_lines_of_many_models_look_alike() -> None:
    figure = pictures.roc_curves({str(n): (ATTACK, SCORE + n) for n in range(20)})
    lines = figure.axes[0].get_lines()[:20]
    assert len({(line.get_color(), line._unscaled_dash_pattern) for line in lines}) == 20


def test_a_flat_map_keeps_the_widest_directions() -> None:
    wide = np.random.default_rng(1).normal(size=(50, 4)) * [0.1, 50.0, 0.1, 5.0]
    flat = pictures.flatten(wide)
    assert flat.shape == (50, 2)
    assert abs(np.corrcoef(flat[:, 0], wide[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(flat[:, 1], wide[:, 3])[0, 1]) > 0.99


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pictures need matplotlib: pip install 'flowvane"):
        DRAWN["losses"][0]()
