"""Likelihood heads: how a decoder's output becomes a distribution for each feature.

A family has a head for each feature kind. A new family is a module with a class that follows
:class:`models.heads.base.Heads`, and a line in :data:`FAMILIES`.
"""

from __future__ import annotations

from models.heads.base import Heads
from models.heads.gaussian import GaussianHeads
from models.heads.histogram import HistogramHeads

FAMILIES: dict[str, type[Heads]] = {
    family.family: family for family in (GaussianHeads, HistogramHeads)
}

__all__ = ["FAMILIES", "GaussianHeads", "Heads", "HistogramHeads"]
