"""Learns what is normal on a site from its own flows.

The earlier part of the time is trained on, a later part stops the training, and the last
calibrates: a model is always tried on traffic that came after what it learnt. What was seen from
few hosts at few times counts for little (:mod:`training.sitesupport`). The source is read three
times, chunk by chunk; the rows that are learnt from, at most :data:`MOST_TRAINED`, are kept in
memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.schema import NEVER_EARLY, EarlyReports, FloatArray
from models.detector import Detector
from models.kinds import DEFAULT_KIND, KINDS
from models.kinds.base import ModelKind
from models.recipe import FitConfig
from training.checkpoint import Checkpoint
from training.fit import TooFewRows, fit
from training.loop import Observer
from training.recipes import sizes
from training.rows import Role, TableRows
from training.sitepatterns import Grouped, Pattern, group, listed, touching
from training.siterows import SiteRows, address_keys
from training.sitesupport import Support, Traffic, mixed, weigh

TRAINED, VALIDATED = 0.6, 0.1
"""Shares of the flows, the earliest first; the rest calibrates."""
MOST_TRAINED = 1 << 17
MOST_VALIDATED = 1 << 14
MOST_CALIBRATED = 1 << 15
"""Flows at most, drawn at random from more; of 131,072 every sort that matters is well covered."""
LEAST_TRAINED = 500
LEAST_IN_FOLD = 250
"""Flows that each of two models is trained on, and scores, where no traffic but the scored is."""
LEAST_EXCEEDED = 3
"""Calibration flows that should lie above the threshold of the rate that is promised."""
_FEW_ROWS = 20_000
"""Up to so many, steps are smaller and epochs more: the network sees too little otherwise."""


class TooLittleTraffic(TooFewRows):
    """There are too few flows to learn a site; the message says how many are missing."""


class NoSuchPattern(ValueError):
    """What is to be excluded or included is neither a pattern's id nor an address that occurs."""


@dataclass(frozen=True)
class Choice:
    """What a person decided about patterns: ids of them, or addresses.

    Attributes:
        exclude: nothing is learnt from these flows, and nothing calibrated.
        include: these flows count in full.
        earlier: those of both that were decided for the model before an update; hosts that are
            not seen any more are no mistake among them.
    """

    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    earlier: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Seen:
    """What was found out about all ``[N]`` flows of a site before learning.

    Attributes:
        traffic: who and when.
        support: how well each is supported.
        grouped: to which pattern each belongs.
    """

    traffic: Traffic
    support: Support
    grouped: Grouped


@dataclass(frozen=True)
class Learned:
    """A model of a site and what a person should look at.

    Attributes:
        detector: the model, its provenance with all that follows.
        flows: read.
        set_aside: share of them that is in bursts.
        excluded: flows that a person excluded.
        patterns: the most suspicious ones, those set aside first.
    """

    detector: Detector
    flows: int
    set_aside: float
    excluded: int
    patterns: list[Pattern]


def look(source: SiteRows) -> Seen:
    """Go through a site's flows once, and weigh them.

    Raises:
        TooLittleTraffic: there are none.
    """
    if not source.count:
        raise TooLittleTraffic(f"no flows to learn from: {LEAST_TRAINED} at least")
    parts = []
    for chunk in source.site_chunks():
        what, how = Traffic.describe(source.schema, chunk.rows)
        src, dst = (address_keys(chunk.who[name]) for name in ("src_ip", "dst_ip"))
        parts.append((src, dst, chunk.end_us, what, how))
    traffic = Traffic(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    support = weigh(traffic)
    return Seen(traffic, support, group(traffic, support))


def learn(
    source: SiteRows, *, name: str, seed: int, clock_us: int, fpr: float,
    early: EarlyReports = NEVER_EARLY, choice: Choice | None = None,
    kind: ModelKind[Any] = KINDS[DEFAULT_KIND], network: Any = None,
    config: FitConfig | None = None, observers: Sequence[Observer] = (),
    checkpoint: Checkpoint | None = None, seen: Seen | None = None,
) -> Learned:  # fmt: skip
    """Fit a model on a site's flows and calibrate it on later ones.

    Args:
        source: the flows.
        name: of the model.
        seed: of all randomness.
        clock_us: resolution of the flows' times.
        fpr: the rate of false positives that the model has to be able to promise.
        early: when flows that went on were reported, too.
        choice: what a person decided about patterns.
        kind: of model, not a supervised one.
        network: its sizes; those for sites unless given.
        config: how to train; see :func:`site_config`.
        observers, checkpoint: as for :func:`training.fit.fit`.
        seen: what :func:`look` found, if it was asked before.

    Raises:
        TooLittleTraffic: there are too few flows.
        NoSuchPattern: `choice` names what does not occur.
        NotFinite, CheckpointError: as :func:`training.fit.fit`.
    """
    seen = seen or look(source)
    told = choice or Choice()
    excluded = chosen_by(seen, told.exclude, told.earlier)
    included = chosen_by(seen, told.include, told.earlier)
    share = np.where(included, 1.0, seen.support.share)
    roles = roles_of(seen, share, excluded, seed)
    _check(seen.traffic, roles, fpr)
    rows, roles = _gathered(source, roles)
    trained = int((roles == Role.SAMPLE).sum())
    names = source.schema.select(live=True, testbed=False)
    detector = fit(
        source.schema, names, TableRows(rows), name=name, seed=seed, clock_us=clock_us,
        early=early, kind=kind, network=network or sizes("site", kind),
        config=config or site_config(kind, trained), observers=observers, checkpoint=checkpoint,
        roles=roles,
    )  # fmt: skip
    burst = seen.support.burst & ~excluded
    learned = Learned(
        detector=detector,
        flows=len(seen.traffic),
        set_aside=float((burst & (share == 0.0)).mean()),
        excluded=int(excluded.sum()),
        patterns=listed(source, seen.grouped, seen.support),
    )
    detector.provenance["site"] = _noted(learned, seen, choice)
    return learned


@dataclass(frozen=True)
class CrossFit:
    """Two models of one capture, each for the flows that the other was trained on.

    Attributes:
        detectors: each trained on one fold and calibrated on the other.
        fold: ``[N]``, 0 or 1: the one that each flow is in; :attr:`detectors` has the other's
            model at this place.
        set_aside: as in :class:`Learned`.
    """

    detectors: tuple[Detector, Detector]
    fold: NDArray[np.uint8]
    set_aside: float


def cross_fit(
    source: SiteRows, *, name: str, seed: int, clock_us: int, fpr: float,
    early: EarlyReports = NEVER_EARLY, config: FitConfig | None = None,
    observers: Sequence[Observer] = (),
) -> CrossFit:  # fmt: skip
    """Fit on flows that are to be scored themselves.

    A model scores what it was trained on too well, so there are two, and what a host did within a
    span of time is scored by the one that did not see it. Bursts are set aside as in
    :func:`learn`; where the scored flows rank is told by the others.

    Raises:
        TooLittleTraffic: there are too few flows.
    """
    seen, kind = look(source), KINDS[DEFAULT_KIND]
    rng = np.random.default_rng(seed)
    host = np.where(seen.grouped.by_source, seen.traffic.src, seen.traffic.dst)
    fold = (mixed(host, seen.traffic.spans) % np.uint64(2)).astype(np.uint8)
    drawn = rng.random(source.count) < seen.support.share
    _check_folds(source.count, drawn, fold, fpr)
    detectors = []
    for scored in (0, 1):
        roles = np.where(fold == scored, Role.CALIBRATION, Role.SAMPLE).astype(np.uint8)
        stops = rng.random(source.count) < VALIDATED
        roles[(roles == Role.SAMPLE) & stops] = Role.VALIDATION
        roles[~drawn] = Role.ASIDE
        _limit(roles, rng)
        rows, roles = _gathered(source, roles)
        detectors.append(fit(
            source.schema, source.schema.select(live=True, testbed=False), TableRows(rows),
            name=name, seed=seed, clock_us=clock_us, early=early, kind=kind,
            network=sizes("site", kind), roles=roles, observers=observers,
            config=config or site_config(kind, int((roles == Role.SAMPLE).sum())),
        ))  # fmt: skip
    aside = float(seen.support.burst.mean())
    return CrossFit((detectors[0], detectors[1]), fold, aside)


def _check_folds(flows: int, drawn: NDArray[np.bool_], fold: NDArray[np.uint8], fpr: float) -> None:
    """Refuse too few flows to fit on twice.

    Raises:
        TooLittleTraffic: they are.
    """
    least = max(LEAST_IN_FOLD, math.ceil(1 / fpr))
    smaller = min(int((drawn & (fold == each)).sum()) for each in (0, 1))
    if smaller < least:
        raise TooLittleTraffic(
            f"{flows:,} flows are too few to fit a model on: of hosts and times apart there are "
            f"{smaller:,} in the smaller half, {least:,} are needed; give a model with --model"
        )


def site_config(kind: ModelKind[Any], trained: int) -> FitConfig:
    """How a kind is trained on so many rows of a site."""
    if trained >= _FEW_ROWS:
        return kind.training
    return replace(kind.training, epochs=30, patience=6, batch=128)


def chosen_by(
    seen: Seen, names: Sequence[str], earlier: frozenset[str] = frozenset()
) -> NDArray[np.bool_]:
    """Which flows are meant by pattern ids or addresses, ``[N]``.

    Raises:
        NoSuchPattern: one of them occurs nowhere, and is not of `earlier`.
    """
    chosen = np.zeros(len(seen.traffic), bool)
    for name in names:
        mask = seen.grouped.of(name) | touching(seen.traffic, name)
        if not mask.any() and name not in earlier:
            raise NoSuchPattern(f"{name}: no pattern has this id, and no flow this address")
        chosen |= mask
    return chosen


def roles_of(
    seen: Seen, share: FloatArray, excluded: NDArray[np.bool_], seed: int
) -> NDArray[np.uint8]:
    """What each of ``[N]`` flows is for, by when it ended and what it counts.

    Args:
        seen: the flows.
        share: chance of each to be learnt from.
        excluded: which serve for nothing.
        seed: draws.
    """
    rng = np.random.default_rng(seed)
    end_us = seen.traffic.end_us
    drawn = ~excluded & (rng.random(len(end_us)) < share)
    order = np.argsort(end_us, kind="stable")
    before = np.cumsum(drawn[order])
    first, second = (part * before[-1] for part in (TRAINED, TRAINED + VALIDATED))
    roles = np.empty(len(end_us), np.uint8)
    roles[order] = np.where(
        before <= first, Role.SAMPLE, np.where(before <= second, Role.VALIDATION, Role.CALIBRATION)
    )
    whole = (roles == Role.CALIBRATION) & ~seen.support.burst & ~excluded
    roles[~(whole | drawn)] = Role.ASIDE
    _limit(roles, rng)
    return roles


def _limit(roles: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Draw as many of each role as are of use, in place."""
    for role, most in (
        (Role.SAMPLE, MOST_TRAINED),
        (Role.VALIDATION, MOST_VALIDATED),
        (Role.CALIBRATION, MOST_CALIBRATED),
    ):
        at = np.flatnonzero(roles == role)
        if len(at) > most:
            roles[rng.permutation(at)[most:]] = Role.ASIDE


def _check(traffic: Traffic, roles: NDArray[np.uint8], fpr: float) -> None:
    """Refuse too little traffic.

    Raises:
        TooLittleTraffic: it is.
    """
    needed = {Role.SAMPLE: LEAST_TRAINED, Role.CALIBRATION: math.ceil(LEAST_EXCEEDED / fpr)}
    missing = max(
        (least - int((roles == role).sum())) / part
        for (role, least), part in zip(
            needed.items(), (TRAINED, 1.0 - TRAINED - VALIDATED), strict=True
        )
    )
    if missing <= 0:
        return
    more = math.ceil(missing)
    wait_s = int(traffic.end_us.max() - traffic.end_us.min()) / 1e6 * more / len(traffic)
    wait = f", {timedelta(seconds=math.ceil(wait_s))} (h:mm:ss) at the rate so far"
    raise TooLittleTraffic(
        f"too little traffic to learn from: {len(traffic):,} flows, of which "
        f"{int((roles == Role.SAMPLE).sum()):,} to learn ({needed[Role.SAMPLE]:,} needed) and "
        f"{int((roles == Role.CALIBRATION).sum()):,} later ones to calibrate "
        f"({needed[Role.CALIBRATION]:,} needed for --fpr {fpr:g}); about {more:,} more are "
        f"missing{wait}"
    )


def _gathered(source: SiteRows, roles: NDArray[np.uint8]) -> tuple[FloatArray, NDArray[np.uint8]]:
    """The rows that serve for something, ``[T, F]``, and their roles ``[T]``."""
    kept = roles != Role.ASIDE
    rows = np.empty((int(kept.sum()), len(source.schema.features)))
    first = filled = 0
    for chunk in source.site_chunks():
        mask = kept[first : first + len(chunk.rows)]
        first += len(mask)
        rows[filled : filled + int(mask.sum())] = chunk.rows[mask]
        filled += int(mask.sum())
    return rows, roles[kept]


def _noted(learned: Learned, seen: Seen, choice: Choice | None) -> dict[str, Any]:
    """What the bundle says of the site's traffic."""
    end_us = seen.traffic.end_us
    return {
        "flows": learned.flows,
        "first_us": int(end_us.min()),
        "last_us": int(end_us.max()),
        "set_aside": round(learned.set_aside, 6),
        "excluded": learned.excluded,
        "exclude": list(choice.exclude) if choice else [],
        "include": list(choice.include) if choice else [],
        "patterns": [pattern.to_json() for pattern in learned.patterns],
    }
