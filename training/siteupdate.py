"""What the model before says of the traffic that an update of it is learnt from.

It is only heard as a second witness. A model is updated because the network has changed, so that
it alerts on much that is normal now: what it alerts on alone says little. But where a host has
several flows within a span that it alerts on *and* that are unsupported
(:mod:`training.sitesupport`), fewer of them are a burst than would be without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.detector import Detector
from training.site import Seen
from training.sitepatterns import FEW
from training.siterows import SiteRows
from training.sitesupport import mixed, sums

MOST = 2.0
"""At most so many times the promised share of the flows is set aside: beyond is change."""


@dataclass(frozen=True)
class Doubted:
    """What the model before made of ``[N]`` flows.

    Attributes:
        alerted: share of the flows outside bursts that it would alert on.
        aside: ``[N]`` bool, which of them are set aside for it.
    """

    alerted: float
    aside: NDArray[np.bool_]


def doubt(source: SiteRows, seen: Seen, before: Detector, fpr: float) -> Doubted:
    """Ask the model `before` about a site's flows; `fpr` is the rate that it promises.

    A model of windows is not asked: a host's flows before are not at hand here.
    """
    none = np.zeros(len(seen.traffic), bool)
    if before.window > 1:
        return Doubted(0.0, none)
    scores = [before.score(chunk.rows) for chunk in source.site_chunks()]
    score = np.concatenate([each.score for each in scores])
    alerted = np.concatenate([each.p_value for each in scores]) <= fpr
    single = ~seen.support.burst
    share = float(alerted[single].mean()) if single.any() else 0.0
    return Doubted(share, few_hosts(seen, alerted, score, int(MOST * fpr * single.sum())))


def few_hosts(
    seen: Seen, alerted: NDArray[np.bool_], score: NDArray[np.float64], most: int
) -> NDArray[np.bool_]:
    """Alerted, unsupported flows of which a host has several within a span, ``[N]``.

    Args:
        seen: the flows.
        alerted, score: ``[N]`` each, of the model before.
        most: so many at most, those of the highest scores.
    """
    traffic, spans = seen.traffic, seen.traffic.spans
    both = alerted & seen.support.weak & ~seen.support.burst
    together = np.maximum(*(sums(mixed(s, spans), both) for s in (traffic.src, traffic.dst)))
    found = np.flatnonzero(both & (together >= FEW))
    aside = np.zeros(len(traffic), bool)
    aside[found[np.argsort(-score[found], kind="stable")][:most]] = True
    return aside


def without(seen: Seen, aside: NDArray[np.bool_]) -> Seen:
    """The same flows, those of `aside` counted as parts of bursts."""
    support = seen.support
    support = replace(
        support, burst=support.burst | aside, share=np.where(aside, 0.0, support.share)
    )
    return replace(seen, support=support)
