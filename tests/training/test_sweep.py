"""Sweeps: every combination, compared by what no label decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.kinds import KINDS
from models.recipe import FitConfig
from tests.helpers import TOY, TOY_FIT, VARIANTS, toy_attacks, toy_rows
from training import sweep
from training.datasets.base import Table
from training.evaluate import outcome_of, prepare, score_in_order, train_on
from training.sweep import NoLatent, Point, grid, run_point
from training.trials import TRIALS


def test_all_combinations_and_no_others() -> None:
    base, sizes = FitConfig(epochs=7, learning_rate=0.5), KINDS["vae"].defaults
    assert grid(base, sizes, [], [], []) == [Point(0.5, 7, 12)]
    points = grid(base, sizes, [0.1, 0.2], [], [2, 4])
    assert points == [Point(0.1, 7, 2), Point(0.1, 7, 4), Point(0.2, 7, 2), Point(0.2, 7, 4)]
    assert points[1].config(base) == replace(base, learning_rate=0.1)
    assert points[1].network(sizes) == replace(sizes, latent=4)


def test_a_kind_without_a_latent_space_has_no_size_of_it() -> None:
    kind = KINDS["classifier"]
    assert grid(kind.training, kind.defaults, [], [], []) == [Point(1e-3, 60, None)]
    with pytest.raises(NoLatent):
        grid(kind.training, kind.defaults, [], [], [4])


def test_a_point_is_trained_and_tested_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    (trial,) = [trial for trial in TRIALS if trial.name == "nsl-kdd"]
    test = np.concatenate([toy_rows(200, 1), toy_attacks(100)])
    attack = np.repeat([False, True], [200, 100])
    tables = tuple(
        Table(TOY, rows, labels, np.where(labels, "smurf", "normal"), ())
        for rows, labels in ((toy_rows(), np.zeros(2000, bool)), (test, attack))
    )
    kind, network = VARIANTS["autoencoder"]
    monkeypatch.setattr(type(kind), "training", TOY_FIT)
    point = Point(learning_rate=3e-3, epochs=3, latent=2)
    result = run_point(point, trial, tables, "live", 1, kind, network)
    assert (result.epochs_run, 1 <= result.best_epoch <= 3) == (3, True)
    config, small = point.config(TOY_FIT), replace(network, latent=2)
    task = prepare(trial, tables, "live", 1)
    scores = score_in_order(train_on(task, kind, config, small), task.split.rows)
    assert result.outcome == outcome_of(scores, task.used, task.split.attack)
    assert sweep.Result is type(result)
