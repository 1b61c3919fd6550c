"""Fits a detector of any kind: split, encoder, network, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from zlib import crc32

import numpy as np
from flax import nnx
from numpy.typing import NDArray

from features.encoder import EncoderFit
from features.schema import NEVER_EARLY, EarlyReports, FloatArray, Schema
from models.calibration import Calibration
from models.detector import Detector
from models.kinds import DEFAULT_KIND, KINDS
from models.kinds.base import ModelKind
from models.recipe import FitConfig
from models.reference import Reference
from training.checkpoint import Checkpoint
from training.importance import most_important
from training.loop import Observer, Setting, Slabs, Trainer, fingerprint
from training.rows import (
    Gathered,
    Role,
    Rows,
    TableRows,
    gather,
    joined,
    run_length,
    select,
    split_roles,
)

__all__ = ["MIN_ROWS", "FitConfig", "NoAttacks", "TooFewRows", "fit"]


class TooFewRows(ValueError):
    """There are not enough rows to train, stop and calibrate by."""


class NoAttacks(TooFewRows):
    """A supervised kind has too few labelled attacks to learn from."""


MIN_ROWS = 500
MIN_ATTACKS = 50
"""Rows of either sort that a supervised kind needs; others need benign ones only."""

_TRAINED = (Role.TRAIN, Role.SAMPLE)
_KEPT = (Role.SAMPLE, Role.VALIDATION, Role.CALIBRATION)


@dataclass(frozen=True)
class _Looked:
    """What one pass over a source found.

    Attributes:
        fitting: the encoder's sums over the training rows.
        roles, run: how the rows are split.
        sample, validation, calibration: rows in memory.
        trained: number of training rows.
        attacks: number of attacks among all rows.
        checksum: CRC-32 of all rows, labels and roles.
    """

    fitting: EncoderFit
    roles: NDArray[np.uint8]
    run: int
    sample: Gathered
    validation: Gathered
    calibration: Gathered
    trained: int
    attacks: int
    checksum: int


def _look(
    source: Rows, schema: Schema, names: Sequence[str], roles: NDArray[np.uint8], run: int
) -> _Looked:
    """Go through all rows once."""
    fitting = EncoderFit(schema, names)
    kept: dict[Role, list[Gathered]] = {role: [] for role in _KEPT}
    first = trained = attacks = checksum = 0
    for chunk in source.chunks():
        part = partial(select, chunk, roles, first, run)
        rows = part(_TRAINED).chunk.rows
        fitting.add(rows)
        for role in _KEPT:
            kept[role].append(part([role]))
        first, trained = first + len(chunk.rows), trained + len(rows)
        attacks += int(np.count_nonzero(chunk.attack))
        checksum = crc32(chunk.rows.tobytes(), crc32(chunk.attack.tobytes(), checksum))
    checksum = crc32(roles.tobytes(), checksum)
    sample, validation, calibration = (joined(kept[role]) for role in _KEPT)
    return _Looked(fitting, roles, run, sample, validation, calibration, trained, attacks, checksum)


def _check_rows(benign: int, attacks: int, kind: ModelKind[Any]) -> None:
    """Refuse what cannot be trained on.

    Raises:
        TooFewRows: there are too few benign rows.
        NoAttacks: there are too few attacks for a supervised kind.
        ValueError: a kind that is not supervised was given attacks.
    """
    if benign < MIN_ROWS:
        raise TooFewRows(f"{benign} benign rows are too few: {MIN_ROWS} at least")
    if kind.supervised and attacks < MIN_ATTACKS:
        raise NoAttacks(
            f"{attacks} attacks are too few for a {kind.name}, which learns from labelled ones: "
            f"{MIN_ATTACKS} at least"
        )
    if attacks and not kind.supervised:
        raise ValueError(f"{kind.name} learns from benign rows alone, {attacks} are attacks")


def fit(
    schema: Schema,
    names: tuple[str, ...],
    rows: FloatArray | Rows,
    *,
    name: str,
    seed: int,
    clock_us: int,
    early: EarlyReports = NEVER_EARLY,
    kind: ModelKind[Any] = KINDS[DEFAULT_KIND],
    network: Any = None,
    config: FitConfig | None = None,
    observers: Sequence[Observer] = (),
    checkpoint: Checkpoint | None = None,
    roles: NDArray[np.uint8] | None = None,
) -> Detector:
    """Train a model on rows ``[N, F]`` and calibrate it on benign ones.

    The rows are split into training, validation (early stopping) and calibration rows, as `roles`
    say, else at random, by `seed`; no row serves twice.

    Args:
        schema: of the rows.
        names: features that may be used.
        rows: benign ones, or for a supervised kind a source with labelled attacks among them.
        name: of the model.
        seed: of all randomness.
        clock_us: resolution of the rows' times.
        early: when flows that went on were reported, too.
        kind: of model.
        network: its sizes, the kind's own unless given.
        config: how to train, the kind's own way unless given.
        observers: are told how it goes.
        checkpoint: where to keep what is needed to go on, and whether to go on.
        roles: a :class:`training.rows.Role` for each row, ``[N]``, of each sort one at least.

    Raises:
        TooFewRows: there are fewer than :data:`MIN_ROWS` benign ones.
        NotFinite: a feature in `names` is not finite in every row.
        CheckpointError: the checkpoint cannot be used.
    """
    source = TableRows(rows) if isinstance(rows, np.ndarray) else rows
    config, network = config or kind.training, network or kind.defaults
    if source.count < MIN_ROWS:
        raise TooFewRows(f"{source.count} benign rows are too few: {MIN_ROWS} at least")
    run = run_length(kind.window(network), source.count)
    if roles is None:
        roles = split_roles(source.count, config, seed, run)
    looked = _look(source, schema, names, roles, run)
    _check_rows(source.count - looked.attacks, looked.attacks, kind)
    encoder = looked.fitting.encoder(_chosen(looked, schema, names, kind, network, seed))
    encode = partial(Gathered.encoded, kind=kind, config=network, encoder=encoder)
    train, held_out = encode(looked.sample), encode(looked.validation)
    fitted = kind.fit_before(network, encoder, train)
    slabs = Slabs(
        lambda: map(encode, gather(source, looked.roles, looked.run, _TRAINED)),
        Trainer.whole_batch(config),
    )
    built = kind.build(network, encoder, fitted, nnx.Rngs(seed))
    of = fingerprint(
        kind=kind.name, network=network, config=config, seed=seed, rows=source.count,
        schema=schema.digest, encoder=encoder.to_json(), checksum=looked.checksum,
    )  # fmt: skip
    for observer in observers:
        observer.begun(Setting(kind, network, encoder, fitted, held_out))
    trained, history = Trainer(built, config, slabs, seed).run(held_out, observers, checkpoint, of)
    fitted |= kind.fit_after(network, encoder, trained, train, held_out)
    detector = Detector(
        name=name,
        kind=kind,
        config=network,
        encoder=encoder,
        fitted=fitted,
        network=trained,
        calibration=Calibration(np.zeros(1)),
        clock_us=clock_us,
        early=early,
        provenance={
            "fit": {**asdict(config), "seed": seed, "features": list(names)},
            "rows": _counts(looked),
            "history": history,
        },
    )
    windows = looked.calibration.windows(detector.window)
    benign = ~looked.calibration.chunk.attack
    detector.calibration = Calibration(detector.score(windows[benign]).score)
    detector.reference = Reference.of(encoder, looked.calibration.chunk.rows[benign])
    return detector


def _chosen(
    looked: _Looked, schema: Schema, names: tuple[str, ...], kind: ModelKind[Any], network: Any,
    seed: int,
) -> tuple[str, ...]:  # fmt: skip
    """The features to use."""
    wanted = kind.most_important(network)
    if wanted is None or wanted >= len(names):
        return names
    sample = looked.sample.chunk
    return most_important(schema, names, sample.rows, sample.attack, wanted, seed)


def _counts(looked: _Looked) -> dict[str, int]:
    return {
        "train": looked.trained,
        "validation": len(looked.validation.chunk.rows),
        "calibration": len(looked.calibration.chunk.rows),
    }
