"""Evaluation: a cell's figures are those of its rows; records are kept and found again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.registry import SCHEMAS
from features.schema import FloatArray
from models.detector import Scores
from models.kinds import DEFAULT_KIND, KINDS
from tests.helpers import TOY, TOY_FIT, VARIANTS, toy_attacks, toy_rows
from tests.training.test_trials import BENIGN, marked_table
from training import cells as cells_module
from training import contenders, sources
from training.baselines import BASELINES
from training.cells import CeilingCell, Record, TrialCell, left_out
from training.contenders import CONTENDERS, KindContender, Learnt
from training.datasets.base import DataSetError, Table
from training.evaluate import TARGET_FPR, Task, outcome_of, prepare
from training.evaluation import run
from training.plan import cells, whole
from training.recipes import shipped_kind
from training.records import RecordError, Records
from training.trials import TRIALS, chosen_features

(NSL,) = [trial for trial in TRIALS if trial.name == "nsl-kdd"]


def toy_tables(attacks: int = 200) -> tuple[Table, Table]:
    """Training rows of both sorts, and test rows."""
    made = []
    for seed, count in ((0, 1200), (1, 400)):
        rows = np.concatenate([toy_rows(count, seed), toy_attacks(attacks, seed + 7)])
        attack = np.repeat([False, True], [count, attacks])
        made.append(Table(TOY, rows, attack, np.where(attack, "smurf", "normal"), ()))
    return made[0], made[1]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds as contenders, small and soon trained."""
    for name, kind in KINDS.items():
        config = replace(TOY_FIT, epochs=2)
        monkeypatch.setitem(CONTENDERS, name, KindContender(kind, config=config))
    monkeypatch.setattr(
        "training.evaluate.sizes", lambda dataset, kind: VARIANTS[kind.name][1]
        if kind.name in VARIANTS else kind.defaults,
    )  # fmt: skip


# What a seed learns from and is tested by


@pytest.mark.parametrize("features", ["live", "all", "header"])
def test_the_features_decide_names_and_clock(features: Any) -> None:
    table = marked_table(SCHEMAS["kdd"], 0)
    task = prepare(NSL, (table, table), features, seed=0)
    assert task.clock_us == {"live": 1000}.get(features, 1)
    assert task.names == chosen_features(SCHEMAS["kdd"], features)
    assert task.used.shape == (len(table.rows), len(task.names))
    assert len(task.split.train) == BENIGN
    supervised = prepare(NSL, (table, table), features, seed=0, supervised=True)
    assert len(supervised.split.train) == len(table.rows)


def test_figures_by_hand() -> None:
    # Scores of benign and attack rows; each row but the 30 once. Alerted: 99 and more.
    benign, attacks = [10.0, 20.0, 30.0, 30.0, 99.0], [30.0, 50.0, 99.5, 99.5]
    score = np.array(benign + attacks)
    attack = np.repeat([False, True], [5, 4])
    used = np.column_stack([score, attack])
    outcome = outcome_of(Scores(score, score, used, (100.0 - score) / 100.0), used, attack)
    # Pairs (attack above benign): 30 beats 2 of 5 and ties 2; 50 beats 4; 99.5 beats 5, twice.
    assert outcome.auroc == pytest.approx((2 + 1 + 4 + 5 + 5) / 20)
    # Without repeats, four benign scores and three attacks: 2.5 + 3 + 4 of 12 pairs.
    assert outcome.auroc_distinct == pytest.approx((2.5 + 3 + 4) / 12)
    # Precision at each attack, in order of score: 2 of 2 twice, 3 of 4, 4 of 7 (ties together).
    assert outcome.average_precision == pytest.approx((1 + 1 + 3 / 4 + 4 / 7) / 4)
    assert outcome.realised_fpr == pytest.approx(1 / 5)
    assert outcome.recall == pytest.approx(2 / 4)
    assert TARGET_FPR == 0.01


# Cells


class Known:
    """Stands for a contender; the score is the first column."""

    name = title = "known"
    supervised = False

    def recipe(self, dataset: str) -> dict[str, Any]:
        return {}

    def learn(self, task: Task) -> Learnt:
        held_out = np.arange(200.0)
        return Learnt(
            score=lambda rows: rows[:, 0], held_out=held_out, trained=held_out / 2, natural=None,
            history=[], latent=None, rows=len(task.split.train),
        )  # fmt: skip


def test_a_record_is_of_the_test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONTENDERS, "known", Known())
    train, test = marked_table(SCHEMAS["kdd"], 0), marked_table(SCHEMAS["kdd"], 180)
    record, drawn = TrialCell("nsl-kdd", "all", "known", 0).run((train, test))
    json.dumps(record, allow_nan=False)
    thresholds = record["all"]["thresholds"]
    # Of 200 held-out rows, 0 to 199, a p-value of 1 % or less have those above the second.
    assert thresholds["held_out_99"]["threshold"] == 198.0
    assert thresholds["training_99"]["threshold"] == pytest.approx(0.99 * 199 / 2)
    above = test.rows[:, 0] > 198.0
    assert thresholds["held_out_99"]["fpr"] == pytest.approx(above[~test.attack].mean())
    assert record["categories"]["worms"]["recall"] == pytest.approx(above[test.attack].mean())
    assert record["all"] == record["distinct"]  # no row occurs twice
    assert record["trained_on"] == BENIGN
    assert drawn is not None
    np.testing.assert_array_equal(drawn.attack, test.attack)
    assert TrialCell("nsl-kdd", "all", "known", 1).run((train, test))[1] is None


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("model", [DEFAULT_KIND, "classifier", "isolation-forest"])
def test_contenders_learn_and_tell_attacks(model: str) -> None:
    tables = toy_tables()
    cell = TrialCell("nsl-kdd", "live", model, 0)
    record, drawn = cell.run(tables)
    assert drawn is not None
    assert record["all"]["rows"] == {"benign": 400, "attacks": 200}
    assert 0.5 < record["all"]["auroc"] <= 1.0
    assert 0.0 <= record["all"]["thresholds"]["held_out_95"]["fpr"] < 0.2
    assert ("natural" in record["all"]["thresholds"]) == CONTENDERS[model].supervised
    if model == DEFAULT_KIND:
        assert ("training_99" in record["all"]["thresholds"], len(drawn.latent)) == (True, 600)
    if model == "isolation-forest":
        hidden, _ = replace(cell, contamination=0.1).run(tables)
        assert hidden["all"]["rows"]["attacks"] == 200 - 1200 // 9


def test_too_few_attacks_to_hide_are_a_record_of_their_own() -> None:
    table = marked_table(SCHEMAS["kdd"], 0, attacks=2)
    record, drawn = left_out(TrialCell("nsl-kdd", "all", "pca", 0, 0.1), (table, table))
    assert (record["because"], drawn) == ("TooFewToHideError", None)


def test_a_ceiling_is_of_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells_module, "FOLDS", 3)
    cell = CeilingCell("nsl-kdd", "test", "all", "random-forest", True)
    record, _ = cell.run(toy_tables()[1:])
    assert [0.5 < fold["auroc"] <= 1.0 for fold in record["folds"]] == [True] * 3


def test_names_are_of_one_contender_each() -> None:
    assert set(KINDS) | set(BASELINES) < set(CONTENDERS)
    assert not set(KINDS) & set(BASELINES)


# The plan


def test_the_shipped_kind_on_every_trial_comes_first() -> None:
    wanted = whole(seeds=2)
    assert len({cell.path for cell in wanted}) == len(wanted)
    usual = [trial for trial in TRIALS if not trial.special]
    for trial in usual:
        own = [cell for cell in wanted if isinstance(cell, TrialCell) and cell.trial == trial.name]
        first = list(cells([trial], None, [shipped_kind(trial.dataset)], [0.0], 2))
        assert {cell.model for cell in own[: len(first)]} <= {
            shipped_kind(trial.dataset), DEFAULT_KIND,
        }  # fmt: skip
        assert set(first) <= set(own)
        assert not any(cell.contamination for cell in own[: len(first)])
    # Each combination is there for every seed.
    assert {replace(c, seed=0) for c in wanted if isinstance(c, TrialCell)} == {
        replace(c, seed=0) for c in wanted if isinstance(c, TrialCell) and c.seed == 1
    }
    models = {cell.model for cell in wanted if isinstance(cell, TrialCell)}
    assert models == set(CONTENDERS)
    assert not any(
        CONTENDERS[cell.model].supervised
        for cell in wanted
        if isinstance(cell, TrialCell) and cell.contamination
    )
    assert {cell.dataset for cell in whole(1, "kdd99")} == {"kdd99"}


# Records


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cells that take no time, and which of them were run."""
    ran: list[str] = []

    def fake(self: TrialCell, tables: Any) -> tuple[Record, None]:
        ran.append(self.path)
        return {"seconds": {"learn": 1.0}, "all": {}}, None

    monkeypatch.setattr(TrialCell, "run", fake)
    monkeypatch.setattr(TrialCell, "load", lambda self, data: ())
    return ran


def test_an_interrupted_evaluation_goes_on(tmp_path: Path, counted: list[str]) -> None:
    wanted, records = list(cells([NSL], ["all"], ["pca"], [0.0, 0.01], 3)), Records(tmp_path)
    for news, _ in zip(run(wanted, tmp_path, records), range(2), strict=False):
        assert news.fresh
    assert counted == [cell.path for cell in wanted[: len(counted)]]
    done = len(counted)
    news_of = list(run(wanted, tmp_path, records))
    assert [news.fresh for news in news_of] == [False] * done + [True] * (6 - done)
    assert counted == [cell.path for cell in wanted]
    assert (news_of[-1].done, news_of[-1].total, news_of[-1].left_s) == (6, 6, 0)
    assert [news.record for news in run(wanted, tmp_path, records)] == [
        {"seconds": {"learn": 1.0}, "all": {}, "rests_on": cell.rests_on()} for cell in wanted
    ]
    assert len(counted) == 6
    assert not list(tmp_path.rglob("*.part"))


def test_time_that_is_up_begins_nothing(tmp_path: Path, counted: list[str]) -> None:
    wanted = list(cells([NSL], ["all"], ["pca"], [0.0], 3))
    records = Records(tmp_path)
    assert not list(run(wanted, tmp_path, records, minutes=0))
    assert counted == []
    records.keep(wanted[2], {}, None)
    found = list(run(wanted, tmp_path, records, minutes=0))
    assert [(news.cell, news.fresh) for news in found] == [(wanted[2], False)]
    assert counted == []


@pytest.mark.usefixtures("counted")
def test_a_record_of_other_code_is_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, records = TrialCell("nsl-kdd", "all", "vae", 0), Records(tmp_path)
    records.keep(cell, {}, None)
    assert records.find(cell) is not None
    other = KindContender(KINDS["vae"], config=TOY_FIT)
    with monkeypatch.context() as patch:
        patch.setitem(CONTENDERS, "vae", other)
        assert records.find(cell) is None
    assert records.find(cell) is not None
    (tmp_path / f"{cell.path}.json").write_text("{")
    with pytest.raises(RecordError, match="is no record"):
        records.find(cell)


def test_records_rest_on_their_own_code_only(monkeypatch: pytest.MonkeyPatch) -> None:
    of = {name: sources.digest(("training.fit", type(KINDS[name]).__module__))
          for name in ("vae", "conv-vae")}  # fmt: skip
    assert len(set(of.values())) == 2
    real = sources._read

    def changed(module: str) -> tuple[str, frozenset[str]]:
        code, imported = real(module)
        return (code + " " if module == "models.kinds.vae" else code), imported

    monkeypatch.setattr(sources, "_read", changed)
    fresh = sources.digest.__wrapped__
    assert fresh(("training.fit", "models.kinds.vae")) != of["vae"]
    assert fresh(("training.fit", "models.kinds.conv_vae")) == of["conv-vae"]


def test_words_are_no_code() -> None:
    import ast

    first, second, third = (
        sources._without_words(ast.parse(text))
        for text in ('"""A."""\nx = 1  # one', "x = 1", "x = 2")
    )
    assert first == second != third


def test_pictures_makings_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONTENDERS, "known", Known())
    cell, records = TrialCell("nsl-kdd", "all", "known", 0), Records(tmp_path)
    table = marked_table(SCHEMAS["kdd"], 0)
    record, drawn = cell.run((table, table))
    assert records.drawn(cell) is None
    records.keep(cell, record, drawn)
    kept = records.drawn(cell)
    assert kept is not None
    assert drawn is not None
    np.testing.assert_array_equal(kept.score, drawn.score)
    np.testing.assert_array_equal(kept.latent_category, drawn.latent_category)


def test_missing_files_end_an_evaluation_unless_it_can_do_without(tmp_path: Path) -> None:
    with pytest.raises(DataSetError):
        list(run([TrialCell("nsl-kdd", "all", "pca", 0)], tmp_path))
    (news,) = run([TrialCell("kdd99", "all", "pca", 0)], tmp_path)
    assert news.record is None
    assert "corrected" in news.note or "kddcup" in news.note


def test_equal_rows_are_scored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def learn(inputs: Any, labels: Any, seed: int) -> Any:
        def score(inputs: FloatArray) -> FloatArray:
            seen.append(len(inputs))
            return inputs[:, 0]

        return score

    baseline = replace(BASELINES["pca"], learn=learn)
    task = prepare(NSL, toy_tables(), "live", seed=0)
    learnt = contenders.BaselineContender(baseline).learn(task)
    rows = np.concatenate([toy_rows(50), toy_rows(50)])
    once = learnt.score(toy_rows(50))
    np.testing.assert_array_equal(learnt.score(rows), np.tile(once, 2))
    assert seen[-2:] == [50, 50]
