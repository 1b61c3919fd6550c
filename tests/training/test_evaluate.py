"""Evaluation: clean splits, and figures that are what their names say."""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.registry import SCHEMAS
from features.schema import FloatArray, Schema
from models.detector import Scores
from models.kinds.vae import VaeConfig
from sensor import train
from sensor.errors import ExitCode
from sensor.report import Console
from tests.helpers import TOY, TOY_COUNT, TOY_FIT, make_rows, toy_rows
from training import evaluate
from training.datasets import DATASETS
from training.datasets.base import DataSetError, SourceFile, Table
from training.evaluate import (
    TARGET_FPR,
    TRIALS,
    Outcome,
    Trial,
    as_measured,
    chosen_features,
    mean_sd,
    run_seed,
)
from training.rows import TableRows

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
    # Every attack of the table that is tested on is there, and benign rows beside them.
    assert sum(split.attack) == ATTACKS
    assert 0 < sum(~split.attack) <= BENIGN


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


# Figures


class Oracle:
    """Stands for a detector; the score is a column of the rows, p the share of 1..100 above."""

    window = 1

    def __init__(self, columns: list[int]) -> None:
        self.columns = columns

    def score(self, rows: FloatArray) -> Scores:
        score = rows[:, -1, 4]
        return Scores(score, np.zeros(len(rows)), np.zeros((len(rows), 1)), (100.0 - score) / 100.0)


def test_figures_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = SCHEMAS["kdd"]
    # Scores of benign and attack rows; each row but the 30 once. Alerted: 99 and more.
    benign, attacks = [10.0, 20.0, 30.0, 30.0, 99.0], [30.0, 50.0, 99.5, 99.5]
    rows = np.zeros((9, len(schema.features)))
    rows[:, 4] = benign + attacks
    rows[:, 5] = [0, 0, 0, 0, 0, 1, 1, 1, 1]  # the attack of score 30 is another row
    attack = np.repeat([False, True], [5, 4])
    test = Table(schema, rows, attack, np.where(attack, "neptune", "normal"), ())
    given: dict[str, Any] = {}

    def fake_fit(schema: Schema, names: tuple[str, ...], rows: TableRows, **more: Any) -> Oracle:
        given.update(more, names=names, count=rows.count)
        return Oracle([4, 5])

    monkeypatch.setattr(evaluate, "fit", fake_fit)
    (trial,) = [trial for trial in TRIALS if trial.name == "nsl-kdd"]
    train = marked_table(schema, 0)
    outcome = run_seed(trial, (train, test), "live", seed=5)
    # Pairs (attack above benign): 30 beats 2 of 5 and ties 2; 50 beats 4; 99.5 beats 5, twice.
    assert outcome.auroc == pytest.approx((2 + 1 + 4 + 5 + 5) / 20)
    # Without repeats, four benign scores and three attacks: 2.5 + 3 + 4 of 12 pairs.
    assert outcome.auroc_distinct == pytest.approx((2.5 + 3 + 4) / 12)
    # Precision at each attack, in order of score: 2 of 2 twice, 3 of 4, 4 of 7 (ties go together).
    assert outcome.average_precision == pytest.approx((1 + 1 + 3 / 4 + 4 / 7) / 4)
    assert outcome.realised_fpr == pytest.approx(1 / 5)
    assert outcome.recall == pytest.approx(2 / 4)
    # And what the detector was fitted on.
    assert TARGET_FPR == 0.01
    assert given["seed"] == 5
    assert given["names"] == schema.select(live=True, testbed=False)
    assert given["count"] == BENIGN


@pytest.mark.parametrize("features", ["live", "all"])
def test_the_features_decide_the_clock(features: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def fake_fit(schema: Schema, names: tuple[str, ...], rows: TableRows, **more: Any) -> Oracle:
        given.update(more, names=names)
        return Oracle([4, 5])

    monkeypatch.setattr(evaluate, "fit", fake_fit)
    table = marked_table(SCHEMAS["kdd"], 0)
    (trial,) = [trial for trial in TRIALS if trial.name == "nsl-kdd"]
    run_seed(trial, (table, table), features, seed=0)
    assert given["clock_us"] == {"live": 1000, "all": 1}[features]
    assert given["names"] == chosen_features(SCHEMAS["kdd"], features)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
def test_live_features_are_measured_and_no_matter_of_the_laboratory(schema: Schema) -> None:
    live = chosen_features(schema, "live")
    assert chosen_features(schema, "all") == schema.names
    expected = [f.name for f in schema.features if f.measure is not None and not f.testbed]
    assert list(live) == expected
    rows, rng = make_rows(schema, 50), np.random.default_rng(0)
    assert as_measured(schema, rows, "all", rng) is rows
    measured = as_measured(schema, rows, "live", rng)
    assert measured.shape == rows.shape
    assert measured is not rows  # the table's own rows stay as they are


def test_a_real_fit_has_figures_within_their_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    network = VaeConfig(heads="gaussian", hidden=(32, 16), latent=4)
    (trial,) = [trial for trial in TRIALS if trial.name == "nsl-kdd"]
    attacks = toy_rows(50, seed=1) * [1000.0, 1.0, 1.0, 1.0]
    rows = np.concatenate([toy_rows(400, seed=2), attacks])
    attack = np.repeat([False, True], [400, 50])
    tables = (
        Table(TOY, toy_rows(), np.zeros(TOY_COUNT, bool), np.full(TOY_COUNT, "normal"), ()),
        Table(TOY, rows, attack, np.where(attack, "smurf", "normal"), ()),
    )
    outcome = run_seed(trial, tables, "live", seed=0, config=TOY_FIT, network=network)
    for field in dataclasses.fields(Outcome):
        value = getattr(outcome, field.name)
        assert isinstance(value, float)
        assert 0.0 <= value <= 1.0
    assert outcome.auroc > 0.95  # sizes a thousand times the usual ones
    assert outcome.recall > 0.9
    assert outcome.realised_fpr < 0.05
    assert outcome == run_seed(trial, tables, "live", seed=0, config=TOY_FIT, network=network)


def test_mean_and_sample_deviation() -> None:
    mean, deviation = mean_sd([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5
    # Squares of ±1.5 and ±0.5 sum to 5; three degrees of freedom.
    assert deviation == pytest.approx(math.sqrt(5 / 3))
    assert mean_sd([0.25]) == (0.25, 0.0)


@pytest.mark.parametrize("missing", ["test", "train"])
def test_an_optional_trial_is_left_out_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    class Partly(Fake):
        def load(self, directory: Path, part: str) -> Table:
            if part == missing:
                raise DataSetError(f"no file of part {part}")
            return super().load(directory, part)

    monkeypatch.setitem(DATASETS, "kdd99", Partly("kdd99"))
    monkeypatch.setattr(train, "run_seed", lambda *_: Outcome(1.0, 1.0, 0.0, 1.0, 1.0))
    args = argparse.Namespace(
        dataset="kdd99", data=Path("nowhere"), seeds=1, features="live", output=None, model="vae"
    )
    code = train.evaluate(args, Console())
    out, err = capsys.readouterr()
    assert f"no file of part {missing}" in err
    if missing == "test":
        assert code == ExitCode.OK
        assert "warning: kdd99 is left out: " in err
        assert "half of the ten per cent" in out
        assert "to the corrected test data" not in out
    else:
        assert code == ExitCode.DATASET
        assert "error: " in err
