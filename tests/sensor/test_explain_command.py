"""`flowvane explain`: a page about a model's alerts, and one line for what goes wrong."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.registry import SCHEMAS
from models.bundle import save
from tests.helpers import Ran, make_rows, read_html, run, untrained
from training.datasets import DATASETS
from training.datasets.base import SourceFile, Table
from training.explainpage import BACKGROUND, NothingToExplainError, choose

KDD = SCHEMAS["kdd"]


def table(benign: int = 150, attacks: int = 50) -> Table:
    rows = make_rows(KDD, benign + attacks)
    attack = np.arange(benign + attacks) >= benign
    category = np.where(attack, "neptune", "normal")
    return Table(KDD, rows, attack, category, (SourceFile("x", "0" * 64, len(rows)),))


class Toys:
    """A data set with the features of KDD."""

    name, title, schema, parts = "toys", "Toys", KDD, ("some",)

    def load(self, directory: Path, part: str) -> Table:
        return table()


@pytest.fixture
def explain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(DATASETS, "toys", Toys())
    save(untrained("kdd", "gaussian"), tmp_path / "model")

    def explain(*more: object, dataset: str = "toys") -> Ran:
        return run(
            "explain", "--dataset", dataset, "--data", tmp_path, "-o", tmp_path / "new" / "x.html",
            "--model", tmp_path / "model", "--rows", 5, "--walks", 4, *more,
        )  # fmt: skip

    return explain


def test_a_page_and_a_line_for_each_class(explain: Any, tmp_path: Path) -> None:
    ran = explain("--fpr", "0.9")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    ways = "parts", "Shapley values", "integrated gradients"
    for name, own in (("attacks", lines[:5]), ("benign rows", lines[5:])):
        assert all(line.startswith(f"alerts of {name}: ") for line in own)
        for line, (one, other) in zip(own[:3], itertools.combinations(ways, 2), strict=True):
            assert f": {one} and {other}: 5 flows, Spearman " in line
        assert all(f" by {way}" in own[3] for way in (*ways, "random"))
        assert "completeness error" in own[4]
    found = read_html((tmp_path / "new" / "x.html").read_text("utf-8"))
    assert {"agreement", "sums", "features-0", "features-1"} <= set(found.ids)
    assert len(found.images) == 2
    assert all(image["alt"] for image in found.images)
    assert "toys, some, at a false-positive rate of 0.9" in found.text


def test_another_schema_is_refused(explain: Any) -> None:
    ran = explain(dataset="unsw-nb15")
    assert (ran.code, len(ran.lines)) == (2, 1)
    assert "made for the schema kdd, but unsw-nb15 has unsw-nb15" in ran.lines[0]


def test_no_alerts_are_nothing_to_explain(explain: Any, tmp_path: Path) -> None:
    ran = explain("--fpr", "1e-9")
    assert (ran.code, ran.out, len(ran.lines)) == (6, "", 1)
    assert f"{tmp_path}: 0 of 200 rows are alerted at 1e-09" in ran.lines[0]


@pytest.mark.parametrize("walks", ["3", "5", "two", "-4"])
def test_walks_are_an_even_number(explain: Any, walks: str) -> None:
    ran = explain("--walks", walks)
    assert ran.code == 2
    assert "is not an even number from 4 on" in ran.lines[-1]


def test_rows_are_alerted_ones_and_the_background_is_benign() -> None:
    detector = untrained("kdd", "gaussian")
    rows, background = choose(detector, table(400, 100), 0.5, 20, seed=0)
    assert set(rows) == {"attacks", "benign rows"}
    for chosen in rows.values():
        assert 0 < len(chosen) <= 20
        assert (detector.score(chosen).p_value <= 0.5).all()
    assert len(background) == BACKGROUND
    known = {
        tuple(row)
        for row in KDD.remeasure(table(400, 100).rows[:400], 1000, np.random.default_rng(0))
    }
    assert {tuple(row) for row in background} <= known
    again, _ = choose(detector, table(400, 100), 0.5, 20, seed=0)
    np.testing.assert_array_equal(rows["attacks"], again["attacks"])
    with pytest.raises(NothingToExplainError, match="0 benign ones"):
        choose(detector, table(0, 100), 0.9, 20, seed=0)
