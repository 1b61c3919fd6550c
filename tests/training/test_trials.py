"""Trials: clean splits, features that are what their names say, attacks hidden as they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.registry import SCHEMAS
from features.schema import Schema
from tests.helpers import make_rows
from training.datasets import DATASETS
from training.datasets.base import SourceFile, Table
from training.trials import (
    RARE,
    TRIALS,
    NoSuchFeatures,
    Split,
    TooFewToHideError,
    Trial,
    as_measured,
    chosen_features,
    contaminated,
    feature_sets,
)

BENIGN, ATTACKS = 37, 23


def marked_table(schema: Schema, first: int, benign: int = BENIGN, attacks: int = ATTACKS) -> Table:
    """A table whose rows are told apart by a number, from `first`, in the first column."""
    count = benign + attacks
    rows = np.zeros((count, len(schema.features)))
    rows[:, 0] = first + np.arange(count)
    attack = np.random.default_rng(first).permutation(count) >= benign
    category = np.where(attack, "worms", "normal")
    return Table(schema, rows, attack, category, (SourceFile("f", "0" * 64, count),))


class Fake:
    """A data set that has a marked table for each part; a part "…-normal" has no attacks."""

    def __init__(self, name: str) -> None:
        self.schema = DATASETS[name].schema
        self.parts = DATASETS[name].parts
        self.read: list[str] = []

    def load(self, directory: Path, part: str) -> Table:
        assert part in self.parts
        self.read.append(part)
        attacks = 0 if part.endswith("normal") else ATTACKS
        return marked_table(self.schema, 1000 * self.parts.index(part), attacks=attacks)


every_trial = pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)


def load(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> tuple[Table, ...]:
    monkeypatch.setitem(DATASETS, trial.dataset, Fake(trial.dataset))
    return trial.load(Path("nowhere"))


def test_each_trial_has_a_name_and_a_data_set() -> None:
    assert len({trial.name for trial in TRIALS}) == len(TRIALS)
    assert {trial.dataset for trial in TRIALS} == set(DATASETS)


@every_trial
@pytest.mark.parametrize("seed", range(4))
def test_no_row_is_in_training_and_in_the_test(
    trial: Trial, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = load(trial, monkeypatch)
    split = trial.split(tables, np.random.default_rng(seed), False)
    train, test = split.benign[:, 0].tolist(), split.rows[:, 0].tolist()
    assert not set(train) & set(test)
    assert len(set(train)) == len(train) > 0
    assert len(set(test)) == len(test)
    labels = {
        mark: bool(attack)
        for table in tables
        for mark, attack in zip(table.rows[:, 0].tolist(), table.attack, strict=True)
    }
    assert not any(labels[mark] for mark in train)
    assert [labels[mark] for mark in test] == split.attack.tolist()
    # Every attack of the table that is tested on is there (but where they are made rare), and
    # benign rows beside them.
    assert sum(split.attack) == (0 if trial.name == "kdd99-rare" else ATTACKS)
    assert 0 < sum(~split.attack) <= BENIGN
    assert ((split.category != "normal") == split.attack).all()


def test_official_files_are_trained_and_tested_on_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, parts in (("nsl-kdd", ["train", "test"]), ("unsw-nb15", ["train-normal", "test"])):
        (trial,) = [trial for trial in TRIALS if trial.name == name]
        train, test = load(trial, monkeypatch)
        fake: Any = DATASETS[name]
        assert fake.read == parts
        split = trial.split((train, test), np.random.default_rng(0), False)
        np.testing.assert_array_equal(split.benign, train.rows[~train.attack])
        np.testing.assert_array_equal(split.rows, test.rows)
        np.testing.assert_array_equal(split.attack, test.attack)


def test_halves_are_drawn_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    (trial,) = [trial for trial in TRIALS if trial.name == "unsw-nb15-halves"]
    tables = load(trial, monkeypatch)
    drawn = [trial.split(tables, np.random.default_rng(seed), False) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0].benign, drawn[1].benign)
    np.testing.assert_array_equal(drawn[0].rows, drawn[1].rows)
    assert set(drawn[0].benign[:, 0]) != set(drawn[2].benign[:, 0])
    assert len(drawn[0].benign) == BENIGN // 2
    assert int((~drawn[0].attack).sum()) == BENIGN - BENIGN // 2


def test_attacks_made_rare_are_drawn_from_the_test_rows() -> None:
    (trial,) = [trial for trial in TRIALS if trial.name == "kdd99-rare"]
    tables = (marked_table(SCHEMAS["kdd"], 0, benign=1000, attacks=300),)
    split = trial.split(tables, np.random.default_rng(0), False)
    assert split.attack.mean() == pytest.approx(RARE, rel=0.05)
    assert (~split.attack).sum() == 500
    assert (np.diff(split.rows[:, 0]) > 0).all()  # in the order of the file


# Features


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
def test_live_features_are_measured_and_no_matter_of_the_laboratory(schema: Schema) -> None:
    live = chosen_features(schema, "live")
    assert chosen_features(schema, "all") == schema.names
    expected = [f.name for f in schema.features if f.measure is not None and not f.testbed]
    assert list(live) == expected
    rows, rng = make_rows(schema, 50), np.random.default_rng(0)
    for features in set(feature_sets(schema)) - {"live"}:
        assert as_measured(schema, rows, features, rng) is rows
    measured = as_measured(schema, rows, "live", rng)
    assert measured.shape == rows.shape
    assert measured is not rows  # the table's own rows stay as they are


def test_header_features_are_kdds_28() -> None:
    names = chosen_features(SCHEMAS["kdd"], "header")
    assert len(names) == 28
    assert (names[8], names[9]) == ("urgent", "count")
    with pytest.raises(NoSuchFeatures):
        chosen_features(SCHEMAS["unsw-nb15"], "header")


# Hidden attacks


def marked_split(benign: int = 200, attacks: int = 50) -> Split:
    table = marked_table(SCHEMAS["kdd"], 0, benign, attacks)
    clean = 10_000 + np.zeros((benign, 41))
    clean[:, 0] += np.arange(benign)
    return Split(clean, np.zeros(benign, bool), table.rows, table.attack, table.category)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
def test_hidden_attacks_leave_the_test_and_pass_for_benign(share: float) -> None:
    split = marked_split()
    made = contaminated(split, share, np.random.default_rng(0))
    count = len(made.train) - len(split.train)
    assert share - 0.01 < count / len(made.train) <= share
    assert not made.train_attack.any()
    assert len(made.train_attack) == len(made.train)
    hidden = made.train[made.train[:, 0] < 10_000, 0]
    assert len(hidden) == count
    was_attack = dict(zip(split.rows[:, 0].tolist(), split.attack.tolist(), strict=True))
    assert all(was_attack[mark] for mark in hidden.tolist())
    # The test rows are those that are left, in their order, labels and all.
    kept = ~np.isin(split.rows[:, 0], hidden)
    np.testing.assert_array_equal(made.rows, split.rows[kept])
    np.testing.assert_array_equal(made.attack, split.attack[kept])
    np.testing.assert_array_equal(made.category, split.category[kept])
    # The benign rows are as they were, in their order.
    np.testing.assert_array_equal(made.train[made.train[:, 0] >= 10_000], split.train)


def test_hidden_attacks_are_drawn_by_the_seed() -> None:
    drawn = [contaminated(marked_split(), 0.1, np.random.default_rng(n)) for n in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0].train, drawn[1].train)
    assert not np.array_equal(drawn[0].train, drawn[2].train)


def test_what_cannot_be_hidden_is_refused() -> None:
    split = marked_split(attacks=5)
    with pytest.raises(TooFewToHideError, match="there are 5"):
        contaminated(split, 0.1, np.random.default_rng(0))
    labelled = Split(split.rows, split.attack, split.rows, split.attack, split.category)
    with pytest.raises(ValueError, match="nothing can be hidden"):
        contaminated(labelled, 0.01, np.random.default_rng(0))
