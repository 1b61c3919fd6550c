"""The most suspicious patterns of a site's traffic, for a person to look at."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.schema import FloatArray
from training.siterows import SiteRows, address_keys
from training.sitesupport import Keys, Support, Traffic, mixed, sums

LISTED = 30
"""Patterns that are listed at most."""
FEW = 5
"""Unsupported flows that make a pattern worth a line though they are learnt from."""

_WHAT = ("proto", "application_protocol", "state")
_FIRST_US, _LAST_US = "start", "end"


@dataclass
class Pattern:
    """Unsupported flows of one host.

    Attributes:
        id: names it in ``--exclude`` and ``--include``; of the host, so alike in every run.
        set_aside: flows that nothing is learnt from.
        flows: all of them.
        by, host: whether the host is the flows' source or destination, and its address.
        first, last: when the first began and the last ended.
        peers: addresses on the other side.
        low_port, high_port: destination ports.
        what: protocol, application and state of most of them.
        example: one of them.
    """

    id: str
    set_aside: int
    flows: int
    by: str
    host: str = ""
    first: str = ""
    last: str = ""
    peers: int = 0
    low_port: int = 65535
    high_port: int = 0
    what: str = ""
    example: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Grouped:
    """Which pattern each of ``[N]`` flows belongs to.

    Attributes:
        keys: ``[N]``, 0 for none.
        by_source: ``[N]`` bool.
    """

    keys: Keys
    by_source: NDArray[np.bool_]

    def of(self, name: str) -> NDArray[np.bool_]:
        """Which flows belong to the pattern of this id, ``[N]``; none, if there is no such."""
        wanted = [key for key in np.unique(self.keys[self.keys > 0]) if _name(key) == name]
        return np.isin(self.keys, np.array(wanted, np.uint64))


def _name(key: np.uint64) -> str:
    return f"{int(key) >> 32:08x}"


def group(traffic: Traffic, support: Support) -> Grouped:
    """Put the unsupported flows of each source, or of each destination, together."""
    spans, weak = traffic.spans, support.weak
    of_src, of_dst = (sums(mixed(side, spans), weak) for side in (traffic.src, traffic.dst))
    by_source = of_src >= of_dst
    host = np.where(by_source, traffic.src, traffic.dst)
    keys = np.where(weak, mixed(by_source, host.view(np.int64)), np.uint64(0))
    return Grouped(keys, by_source)


def listed(source: SiteRows, grouped: Grouped, support: Support) -> list[Pattern]:
    """The patterns with most flows: those set aside first. Reads the source once more."""
    keys, inverse, flows = np.unique(grouped.keys, return_inverse=True, return_counts=True)
    aside = np.bincount(inverse, support.burst).astype(int)
    order = sorted(range(len(keys)), key=lambda at: (-aside[at], -flows[at], keys[at]))
    chosen = [at for at in order if keys[at] > 0 and (aside[at] or flows[at] >= FEW)][:LISTED]
    found = {
        int(keys[at]): Pattern(_name(keys[at]), int(aside[at]), int(flows[at]), "") for at in chosen
    }
    _describe(source, grouped, found)
    return list(found.values())


def _describe(source: SiteRows, grouped: Grouped, found: dict[int, Pattern]) -> None:
    """Fill in who, when and what."""
    seen: dict[int, list[pd.DataFrame]] = {key: [] for key in found}
    wanted, first = np.array(list(found), np.uint64), 0
    for chunk in source.site_chunks():
        keys = grouped.keys[first : first + len(chunk.rows)]
        by_source = grouped.by_source[first : first + len(chunk.rows)]
        first += len(chunk.rows)
        mask = np.isin(keys, wanted)
        part = chunk.who[mask].assign(
            what=_whats(source, chunk.rows[mask]), by_source=by_source[mask]
        )
        for key in np.unique(keys[mask]):
            seen[int(key)].append(part[keys[mask] == key])
    for number, pattern in found.items():
        _tell(pattern, pd.concat(seen[number]))


def _tell(pattern: Pattern, flows: pd.DataFrame) -> None:
    by_source = bool(flows["by_source"].iloc[0])
    mine, other = ("src_ip", "dst_ip") if by_source else ("dst_ip", "src_ip")
    example = flows.iloc[len(flows) // 2]
    pattern.by = "source" if by_source else "destination"
    pattern.host = str(example[mine])
    pattern.first, pattern.last = str(flows[_FIRST_US].min()), str(flows[_LAST_US].max())
    pattern.peers = int(flows[other].nunique())
    pattern.low_port, pattern.high_port = int(flows["dst_port"].min()), int(flows["dst_port"].max())
    pattern.what = str(flows["what"].mode().iloc[0])
    pattern.example = {
        str(name): value.item() if hasattr(value, "item") else value
        for name, value in example.drop(["what", "by_source"]).items()
    }


def _whats(source: SiteRows, rows: FloatArray) -> list[str]:
    """Protocol, application and state of rows, as far as the schema has them."""
    features = {feature.name: (at, feature) for at, feature in enumerate(source.schema.features)}
    columns = [
        features[name][1].show_all(rows[:, features[name][0]].tolist())
        for name in _WHAT
        if name in features
    ]
    return [" ".join(words) for words in zip(*columns, strict=True)] or [""] * len(rows)


def touching(traffic: Traffic, address: str) -> NDArray[np.bool_]:
    """Which flows have this address on either side, ``[N]``."""
    with suppress(ValueError):  # feature files have IPv6 addresses in full
        address = ipaddress.ip_address(address).exploded
    (key,) = address_keys([address])
    touched: NDArray[np.bool_] = (traffic.src == key) | (traffic.dst == key)
    return touched
