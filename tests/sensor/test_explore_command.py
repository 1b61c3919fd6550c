"""`flowvane explore`: the page where it was asked for, and one line for what goes wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from features.schema import Schema
from sensor import explore as command
from tests.helpers import TOY, Ran, run, toy_rows
from training.datasets import DATASETS
from training.datasets.base import DataSetError, SourceFile, Table


class Toys:
    """A data set of three parts; the first has no files."""

    name, title = "toys", "Toys"
    schema: Schema = TOY
    parts: tuple[str, ...] = ("absent", "some", "more")

    def load(self, directory: Path, part: str) -> Table:
        if part == "absent" or not directory.exists():
            raise DataSetError(f"{directory}: no file of part {part}")
        rows = toy_rows(40)
        attack = rows[:, 3] == 1
        category = ["dos" if each else "normal" for each in attack]
        files = (SourceFile(f"{part}.csv", "0" * 64, 40),)
        return Table(TOY, rows, attack, np.array(category), files)


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "toys", Toys())


def explore(data: Path, output: Path, *more: object) -> Ran:
    return run("explore", "--dataset", "toys", "--data", data, "-o", output, *more)


def the_line(ran: Ran, code: int) -> str:
    assert (ran.code, ran.out, len(ran.lines)) == (code, "", 1)
    assert ran.lines[0].startswith("flowvane: error: ")
    return ran.lines[0]


def test_a_page_of_the_first_part_that_is_there(tmp_path: Path) -> None:
    output = tmp_path / "new" / "page.html"
    ran = explore(tmp_path, output)
    assert ran.code == 0
    assert ran.lines == [
        f"flowvane: warning: part absent is left out: {tmp_path}: no file of part absent"
    ]
    assert f"{output}: toys, part some, 40 rows" in ran.out
    page = output.read_text("utf-8")
    assert "some.csv" in page
    assert "flowvane explore --dataset toys --part some --seed 0" in page


def test_a_part_and_a_seed_of_ones_own(tmp_path: Path) -> None:
    pages = []

    def render(data_set: object, part: str, rows: Table, seed: int, tell: object) -> str:
        pages.append((part, seed))
        return "page"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "render", render)
        ran = explore(tmp_path, tmp_path / "x.html", "--part", "more", "--seed", 7)
    assert (ran.code, ran.err, pages) == (0, "", [("more", 7)])
    assert (tmp_path / "x.html").read_text() == "page"


def test_what_is_no_data_set_and_no_part(tmp_path: Path) -> None:
    ran = run("explore", "--dataset", "dolls", "--data", tmp_path, "-o", tmp_path / "x")
    assert "there are unsw-nb15, nsl-kdd" in the_line(ran, 2)
    assert "absent, some, more" in the_line(explore(tmp_path, tmp_path / "x", "--part", "all"), 2)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    ran = explore(tmp_path, tmp_path / "x", "--part", "absent")
    assert f"{tmp_path}: no file of part absent" in the_line(ran, 6)
    # Of several parts, the first is named.
    ran = explore(tmp_path / "nowhere", tmp_path / "x")
    assert f"{tmp_path / 'nowhere'}: no file of part absent" in the_line(ran, 6)
    assert not (tmp_path / "x").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "render", lambda *_: "page")
    assert f"{tmp_path}: " in the_line(explore(tmp_path, tmp_path, "--part", "some"), 5)


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = the_line(explore(tmp_path, tmp_path / "x"), 2)
    assert "pip install 'flowvane[research]'" in said
