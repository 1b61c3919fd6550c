"""Which cells an evaluation has, those first that matter most: it may be stopped at any time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from models.kinds import DEFAULT_KIND
from training.cells import BY_TRIAL, CeilingCell, Cell, TrialCell
from training.contenders import CONTENDERS
from training.datasets import DATASETS
from training.recipes import shipped_kind
from training.trials import TRIALS, FeatureSet, Trial, feature_sets

CONTAMINATIONS = (0.01, 0.05, 0.1)
SEEDS = 5
PUBLISHED_SUFFIX = "-as-published"
HEADLINES: tuple[tuple[str, FeatureSet], ...] = (
    ("nsl-kdd", "all"),
    ("unsw-nb15-halves", "live"),
    ("unsw-nb15", "live"),
    ("cicids2017-halves", "live"),
    ("kdd99-halves", "all"),
    ("kdd99", "all"),
    ("unsw-nb15-halves", "all"),
    ("unsw-nb15", "all"),
    ("cicids2017-halves", "all"),
)
"""What every contender is compared on."""
REBUILT: tuple[tuple[str, FeatureSet, str], ...] = (
    ("nsl-kdd", "all", "conv-vae-as-published"),
    ("nsl-kdd", "all", "knn"),
    ("nsl-kdd", "all", "svm"),
    ("unsw-nb15", "all", "autoencoder"),
    ("unsw-nb15", "all", "conv-vae"),
    ("kdd99-rare", "all", "deep-autoencoder-as-published"),
    ("kdd99-rare", "all", DEFAULT_KIND),
    ("cicids2017-repeats", "all", "classifier"),
    ("cicids2017-halves", "all", "classifier"),
    ("kdd99-halves", "all", "deep-autoencoder-as-published"),
)
"""What other projects did: their trial, features and model."""
CEILINGS = ("gradient-boosting", "random-forest")
CEILING_FEATURES: tuple[FeatureSet, ...] = ("all", "live")
CEILING_PARTS = (("unsw-nb15", "test"), ("nsl-kdd", "test"))
"""The rows that detectors are tested on."""
HIDDEN_FROM_SHIPPED: tuple[tuple[str, FeatureSet], ...] = (
    ("unsw-nb15-halves", "all"),
    ("unsw-nb15-halves", "live"),
)
"""Where the shipped kind meets 1 % of hidden attacks first; the live trials all follow."""
HIDDEN_FROM_OTHERS: tuple[tuple[str, FeatureSet], ...] = (
    ("unsw-nb15-halves", "live"),
    ("nsl-kdd", "all"),
)
"""Where other one-class contenders meet 1 % of hidden attacks."""


def cells(
    trials: Iterable[Trial],
    features: Sequence[FeatureSet] | None,
    models: Sequence[str],
    contaminations: Sequence[float],
    seeds: int,
) -> Iterator[TrialCell]:
    """All combinations that make sense.

    Left out are features that a schema lacks, and hidden attacks where attacks are learnt from.

    Args:
        trials: to run.
        features: sets of them, all that a schema has unless given.
        models: names of contenders.
        contaminations: shares of hidden attacks, 0 for none.
        seeds: how many.
    """
    for trial in trials:
        known = feature_sets(DATASETS[trial.dataset].schema)
        wanted = [each for each in features or known if each in known]
        for each, model, share, seed in product(wanted, models, contaminations, range(seeds)):
            if not (share and CONTENDERS[model].supervised):
                yield TrialCell(trial.name, each, model, seed, share)


def _at(
    places: Iterable[tuple[str, FeatureSet]], models: Sequence[str], share: float, seeds: int
) -> Iterator[Cell]:
    """Models at pairs of a trial and a set of features."""
    for trial, features in places:
        yield from cells([BY_TRIAL[trial]], [features], models, [share], seeds)


def _shipped(
    trials: Iterable[Trial], features: Sequence[FeatureSet] | None, shares: Sequence[float],
    seeds: int,
) -> Iterator[TrialCell]:  # fmt: skip
    """The kind that ships for each trial's data set, and the default one."""
    for trial in trials:
        models = list(dict.fromkeys([shipped_kind(trial.dataset), DEFAULT_KIND]))
        yield from cells([trial], features, models, shares, seeds)


def _tiers(seeds: int) -> Iterator[Iterator[Cell]]:
    """The plan, part by part."""
    usual = [trial for trial in TRIALS if not trial.special]
    others = [
        name for name in CONTENDERS if name != DEFAULT_KIND and not name.endswith(PUBLISHED_SUFFIX)
    ]

    yield _shipped(usual, None, [0.0], seeds)
    for trial, features in HIDDEN_FROM_SHIPPED:
        yield _shipped([BY_TRIAL[trial]], [features], [0.01], seeds)
    yield (TrialCell(t, f, m, seed) for t, f, m in REBUILT for seed in range(seeds))
    yield (
        CeilingCell(dataset, part, features, model, grouped)
        for (dataset, part), features, model, grouped in product(
            CEILING_PARTS, CEILING_FEATURES, CEILINGS, (True, False)
        )
    )
    yield _shipped(usual, ["live"], CONTAMINATIONS, seeds)
    yield _at(HEADLINES[:6], others, 0.0, seeds)
    yield _at(HIDDEN_FROM_OTHERS, others, 0.01, seeds)
    yield _at(HEADLINES[6:], others, 0.0, seeds)


def whole(seeds: int = SEEDS, dataset: str | None = None) -> list[Cell]:
    """Every cell once, of one data set or of all.

    The shipped kind on every trial comes first, then it with hidden attacks, other projects'
    protocols and supervised ceilings, then all other kinds and the baselines.
    """
    found: dict[str, Cell] = {}
    for tier in _tiers(seeds):
        for cell in tier:
            if dataset in (None, cell.dataset):
                found.setdefault(cell.path, cell)
    return list(found.values())
