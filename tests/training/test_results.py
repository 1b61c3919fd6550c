"""The page of results: every figure that it asks for is one that the plan gives."""

from __future__ import annotations

import json

from benchmarks.claims import AIMS, CLAIMS, Asked
from benchmarks.results import page, report
from training.cells import BY_TRIAL, CeilingCell, Cell, Record, TrialCell
from training.contenders import CONTENDERS
from training.datasets.cicids2017 import ATTACKS
from training.plan import whole
from training.summary import Key

ASKED: list[Asked] = [
    *(asked for claim in CLAIMS for asked in (*claim.own, *claim.honest)),
    *(aim.asked for aim in AIMS),
]


def fake(cell: Cell) -> Record:
    """A record of a cell, with every figure that its contender can have."""
    if isinstance(cell, CeilingCell):
        return {"folds": [{"accuracy": 0.9, "f1": 0.9, "auroc": 0.9}] * 2}
    assert isinstance(cell, TrialCell)
    names = {"held_out_99", "held_out_95", "held_out_92", "oracle_accuracy", "oracle_f1"}
    names |= {"natural"} if CONTENDERS[cell.model].supervised else {"training_99"}
    what = {"accuracy": 0.8, "precision": 0.8, "recall": 0.8, "f1": 0.8, "fpr": 0.0625}
    mine = {
        "auroc": 0.97 + 0.01 * cell.seed, "average_precision": 0.9, "recall_at_0.01": 0.5,
        "recall_at_0.001": 0.25, "thresholds": dict.fromkeys(sorted(names), what),
    }  # fmt: skip
    kinds = ATTACKS if cell.dataset == "cicids2017" else ("smurf",)
    categories = {name: {"rows": 9, "recall": 0.5, "auroc": 0.75} for name in kinds}
    return {"all": mine, "distinct": mine, "categories": categories}


def test_every_figure_that_is_asked_for_is_planned() -> None:
    planned = {
        Key(cell.trial, cell.features, cell.model, cell.contamination)
        for cell in whole(1)
        if isinstance(cell, TrialCell)
    }
    assert {asked.key for asked in ASKED} <= planned


def test_the_page_says_what_was_reached_and_what_was_not() -> None:
    wanted = whole(2)
    results = [(cell, fake(cell)) for cell in wanted if cell.source != "kdd99"]
    text = page(wanted, results, ["kdd99: no such file"])
    assert "| NSL-KDD, 41 features | AUROC | ≥ 0.975 | 0.9750 ± 0.0071 | yes |" in text
    assert (
        "| NSL-KDD, 92 % of held-out | accuracy | ≥ 0.9 | 0.8000 ± 0.0000 | no, short by 0.1"
        in text
    )
    assert (
        "| NSL-KDD, 92 % of held-out | false positives | ≤ 0.08 | 0.0625 ± 0.0000 | yes |" in text
    )
    assert "| KDD99, corrected file | AUROC | ≥ 0.985 | - | not measured |" in text
    assert "accuracy, shipped kind: 0.8000 ± 0.0000<br>" in text
    assert "false positives there: 6.25 ± 0.00 %" in text
    assert "- kdd99: no such file" in text
    for name in BY_TRIAL:
        assert (f"### {name}: " in text) == (name != "kdd99")
    # Nothing that is asked for is missing but what has no files.
    missing = sum(asked.key.trial == "kdd99" for asked in ASKED)
    claims_and_aims = text[: text.index("## NSL-KDD")] if "## NSL-KDD" in text else text
    assert claims_and_aims.count(": -<br>") + claims_and_aims.count("| not measured |") <= missing


def test_what_was_left_out_is_named() -> None:
    wanted = whole(1, "unsw-nb15")
    reason = {"left_out": "0 attacks are too few", "because": "NoAttacks"}
    results = [
        (cell, reason if getattr(cell, "model", "") == "classifier" else fake(cell))
        for cell in wanted
    ]
    text = page(wanted, results[:-1], [])
    assert "- unsw-nb15 with classifier: 0 attacks are too few" in text
    assert f"{len(wanted) - 1:,} of {len(wanted):,} trainings" in text


def test_the_report_is_a_line_a_group() -> None:
    wanted = whole(1, "nsl-kdd")
    text = report([(cell, fake(cell)) for cell in wanted])
    made = json.loads(text)
    assert len(text.splitlines()) == len(made["groups"]) + len(made["ceilings"]) + 6
    assert {
        group["model"] for group in made["groups"] if "categories.smurf.auroc" in group["figures"]
    } == {"vae"}
