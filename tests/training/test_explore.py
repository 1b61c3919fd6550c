"""Exploring a table: figures worked out by hand, and a page that says them and asks for nothing."""

from __future__ import annotations

import base64
import functools
import io
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from features.schema import FloatArray, Kind
from tests.helpers import TOY, read_html, toy_rows
from training import explore, page
from training.datasets.base import SourceFile, Table
from training.explorepage import NO_ATTACKS, NO_BENIGN, SECTIONS, render


def table(rows: Any, category: list[str], notes: tuple[str, ...] = ()) -> Table:
    names = np.array(category)
    files = (SourceFile("some.csv", "0" * 64, len(names)),)
    return Table(TOY, np.asarray(rows, float), names != "normal", names, files, notes)


@functools.cache
def toy_table() -> Table:
    """Benign rows of two sorts, and two attacks: rows too big, and rows too long."""
    rows = toy_rows(600)
    big, long = toy_rows(60, 1), toy_rows(40, 2)
    big[:, 0] *= 1000.0
    long[:, 1] *= 1000.0
    names = ["normal"] * 600 + ["<big>"] * 60 + ["long & wide"] * 40
    return table(np.concatenate([rows, big, long]), names, ("some.csv: <b>mended</b>",))


# Figures


def test_categories_are_counted_the_most_frequent_first() -> None:
    assert explore.counts(toy_table()) == {"normal": 600, "<big>": 60, "long & wide": 40}


def test_faults_by_hand() -> None:
    rows = [
        [1.0, 1.0, 0.5, 0.0], [1.0, 1.0, 0.5, 0.0], [1.0, 1.0, 0.5, 0.0],
        [2.0, 2.0, 0.5, -1.0], [-3.0, -3.0, 0.5, 1.0], [-3.0, -3.0, 0.5, 1.0],
    ]  # fmt: skip
    found = explore.faults(table(rows, ["normal", "normal", "dos", "normal", "dos", "dos"]))
    assert found.repeated == 2  # the second row and the last
    assert found.contradicting == 3  # the first three
    assert found.constant == ("share",)
    assert found.twins == (("big", "long"),)
    assert found.unknown == {"proto": 1}
    assert found.negative == {"big": 2, "long": 2}


def test_samples_are_seeded_and_rare_categories_stay_whole() -> None:
    drawn = explore.sample(toy_table(), 100, seed=0)
    assert len(drawn.rows) == len(drawn.attack) == len(drawn.category) == 100
    np.testing.assert_array_equal(drawn.rows, explore.sample(toy_table(), 100, seed=0).rows)
    assert not np.array_equal(drawn.rows, explore.sample(toy_table(), 100, seed=1).rows)
    assert explore.sample(toy_table(), 700, seed=0) is toy_table()
    thinned = explore.per_category(toy_table(), 50, seed=0)
    assert explore.counts(thinned) == {"<big>": 50, "normal": 50, "long & wide": 40}


@pytest.mark.parametrize(
    ("kind", "expected"), [(Kind.COUNT, 0.5), (Kind.CATEGORICAL, 0.75)], ids=["amounts", "terms"]
)
def test_distance_by_hand(kind: Kind, expected: float) -> None:
    # Shares of 0, 1, 2, 3: half, half, none, none against none, a quarter, a half, a quarter.
    here, there = np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, 2.0, 2.0, 3.0])
    # Cumulated differences: 0.5, 0.75, 0.25, 0; the sum of absolute ones is 1.5.
    found = explore.distance(here, there, kind)
    assert found == pytest.approx(0.75 if kind is Kind.COUNT else expected)
    assert explore.distance(here, here, kind) == 0.0
    assert explore.distance(here, there + 10, kind) == 1.0


def test_what_is_typical() -> None:
    big, proto = TOY.features[0], TOY.features[3]
    assert explore.typical(big, np.array([0.0, 4.0, 6.0])) == "4, 67 % not 0"
    assert explore.typical(big, np.append(np.ones(1999), 0.0)) == "1, 99.95 % not 0"
    assert explore.typical(big, np.append(np.zeros(99_999), 1.0)) == "0, < 0.01 % not 0"
    assert explore.typical(proto, np.array([1.0, 1.0, 0.0, -1.0])) == "udp in 50 %"


def test_profiles_name_what_is_peculiar() -> None:
    profiles = explore.Profiles(toy_table())
    big, long = profiles.of("<big>"), profiles.of("long & wide")
    assert (big.rows, long.rows) == (60, 40)
    assert big.traits[0].feature.name == "big"
    assert long.traits[0].feature.name == "long"
    assert big.traits[0].distance > 0.9 > big.traits[-1].distance
    assert big.traits[0].normal.endswith("100 % not 0")
    with pytest.raises(ValueError, match="no benign rows"):
        explore.Profiles(table(toy_rows(4), ["dos"] * 4))


def test_a_pair_that_moves_together_is_found_where_there_are_rows_enough() -> None:
    rows = np.random.default_rng(0).random((200, 4))
    rows[100:, 1] = rows[100:, 0] * 3
    names = ["normal"] * 100 + ["dos"] * 100
    pair = explore.Profiles(table(rows, names)).of("dos").together
    assert pair is not None
    assert (pair.first, pair.second, pair.here) == ("big", "long", pytest.approx(1.0))
    assert abs(pair.normal) < 0.3
    few = table(rows[: 100 + explore.FEW - 1], names[: 100 + explore.FEW - 1])
    assert explore.Profiles(few).of("dos").together is None
    same = table(np.tile([[1.0, 2.0, 0.5, 0.0]], (200, 1)), names)
    assert explore.Profiles(same).of("dos").together is None


def test_rank_correlations() -> None:
    rows = np.array([[1.0, 10.0, 5.0], [2.0, 1000.0, 5.0], [3.0, 20.0, 5.0], [3.0, 2000.0, 5.0]])
    rho = explore.spearman(rows)
    # Ranks 1, 2, 3.5, 3.5 and 1, 3, 2, 4, less 2.5.
    expected = (1.5 * 1.5 - 0.5 * 0.5 + 1.0 * -0.5 + 1.0 * 1.5) / np.sqrt(4.5 * 5.0)
    assert_allclose(rho[:2, :2], [[1.0, expected], [expected, 1.0]])
    assert np.isnan(rho[2]).all()
    attack = np.array([False, False, True, True])
    assert explore.rank_biserial(rows[:, 0], attack) == 1.0
    assert explore.rank_biserial(-rows[:, 0], attack) == -1.0
    assert explore.rank_biserial(rows[:, 2], attack) == 0.0


def test_attacks_that_leave_in_the_same_direction_are_alike() -> None:
    rows = np.concatenate([toy_rows(300), *(toy_rows(60, seed) for seed in (1, 2, 3))])
    rows[300:360, 0] *= 1000.0
    rows[360:420, 0] *= 3000.0
    rows[420:, 0] /= 1000.0
    names = ["normal"] * 300 + ["a"] * 60 + ["b"] * 60 + ["c"] * 60
    found = explore.likeness(table(rows, names))
    assert found.categories == ("a", "b", "c")
    assert found.features == ("big", "long", "share")
    assert found.alike[0, 1] > 0.9 > 0 > found.alike[0, 2]
    assert found.direction[0, 0] > 0.9
    assert found.direction[2, 0] < -0.9


def test_importances_find_what_matters() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((600, 4))
    rows[:, 3] = rng.integers(0, 3, 600)
    attack = rows[:, 2] > 0.6
    found = explore.importances(table(rows, ["dos" if a else "normal" for a in attack]), 0, top=2)
    assert found.features[0] == "share"
    assert set(found.features) == set(TOY.names)
    assert found.impurity.sum() == pytest.approx(1.0)
    assert found.impurity[0] > 0.8
    assert found.permuted.shape == (2,)
    assert found.permuted[0] > 0.3 > abs(found.permuted[1])
    assert found.held_out > 0.99
    assert found.rows == 400


# The page


class Named:
    name, title, schema, parts = "toys", "Toys & others", TOY, ("train",)

    def load(self, directory: Any, part: str) -> Table:
        raise NotImplementedError


@functools.cache
def rendered() -> tuple[str, list[float]]:
    told: list[float] = []
    return render(Named(), "train", toy_table(), 0, told.append), told


def test_the_page_has_every_section_and_stands_alone() -> None:
    html, told = rendered()
    assert told == [1] * SECTIONS
    found = read_html(html)
    sections = ("classes", "cleaning", "distributions", "correlations", "profiles", "importances")
    assert set(sections) <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    # It asks nobody for anything: links stay within, pictures are in it, and a policy says so.
    within = {f"#{name}" for name in sections}
    assert within <= set(found.links)
    assert all(link in within or link.startswith("data:image/png;base64,") for link in found.links)
    assert "http:" not in html
    assert "https:" not in html
    assert "default-src 'none'" in html
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert '<html lang="en">' in html
    assert found.tags.count("h1") == 1


def test_its_pictures_are_pictures_with_words_for_those_who_do_not_see_them() -> None:
    images = read_html(rendered()[0]).images
    assert len(images) == 6
    for image in images:
        assert len(image["alt"] or "") > 20
        data = base64.b64decode((image["src"] or "").partition(",")[2], validate=True)
        with Image.open(io.BytesIO(data)) as decoded:
            low, high = decoded.convert("L").getextrema()
            assert low != high
            assert decoded.width * 96 / 150 == pytest.approx(float(image["width"] or 0), abs=1)


def test_what_comes_from_the_data_is_escaped() -> None:
    html, _ = rendered()
    text = read_html(html).text
    assert "<big>" not in html
    assert "<b>mended" not in html
    for words in ("<big>", "long & wide", "some.csv: <b>mended</b>", "Toys & others"):
        assert words in text
    assert page.text("<&\"'>") == "<p>&lt;&amp;&quot;&#x27;&gt;</p>\n"
    assert "onerror" in page.picture(_png(), alt='" onerror="x', caption="c")
    assert '" onerror="x' not in page.picture(_png(), alt='" onerror="x', caption="c")


def _png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3)).save(file, "png")
    return file.getvalue()


def test_the_page_is_the_same_every_time() -> None:
    assert rendered()[0] == render(Named(), "train", toy_table(), 0, lambda _: None)


@pytest.mark.parametrize(("category", "said"), [("normal", NO_ATTACKS), ("dos", NO_BENIGN)])
def test_rows_of_one_class_make_a_page_too(category: str, said: str) -> None:
    rows: FloatArray = toy_rows(60)
    html = render(Named(), "train", table(rows, [category] * 60), 0, lambda _: None)
    assert read_html(html).text.count(said) == 3
