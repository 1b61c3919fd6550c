"""What of a site's traffic was seen from many hosts at many times, and what was not.

A flow is described twice, coarsely: by *what* it is (protocol, state, application, service, sizes)
and by *how* its hosts behave around it (flows, failures, peers and services within seconds). An
*occasion* of a description is a host within a span of time; a description's *support* is the number
of its occasions, counted by sources and by destinations, whichever are fewer. So ten thousand flows
of one scanner are one occasion, and so is a flood from ten thousand forged addresses on one host.

A flow is unsupported if either description has too little support. Where one host within one span
has many unsupported flows, they are a *burst*, which is set aside: nothing is learnt from it. A few
unsupported flows are what rare, honest traffic looks like, and stay. Of supported flows a host
within a span counts for :data:`ALIKE` of a kind at most; the others are left out of the training,
not out of the calibration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.schema import FloatArray, Kind, Schema

Keys = NDArray[np.uint64]

LEAST_SUPPORT = 3
"""Occasions that a description needs."""
BURST = 20
"""Unsupported flows of a host within a span that are a burst."""
ALIKE = 50
"""Flows of one description, host and span that are learnt from."""
SPANS = 24
LONGEST_SPAN_US = 3_600_000_000
"""A span is an hour, or where there is less than a day of traffic, a part of it."""

_WHAT: dict[str, tuple[str, ...]] = {
    "flow": ("proto", "state", "icmp_kind", "application_protocol", "dst_port_class", "src_packets",
             "dst_packets", "src_bytes", "dst_bytes"),
    "unsw-nb15": ("proto", "service", "state", "spkts", "dpkts", "sbytes", "dbytes"),
    "kdd": ("protocol_type", "service", "flag", "src_bytes", "dst_bytes"),
    "cicids2017": ("Destination Port", "Total Fwd Packets", "Total Backward Packets",
                   "Total Length of Fwd Packets", "Total Length of Bwd Packets"),
}  # fmt: skip
_HOW: dict[str, tuple[str, ...]] = {
    "flow": ("src_flows_10s", "src_failed_10m", "src_peers_10s", "src_services_10s",
             "dst_flows_10s", "dst_failed_10m", "dst_peers_10s"),
    "unsw-nb15": ("ct_srv_src", "ct_srv_dst", "ct_src_ltm", "ct_dst_ltm"),
    "kdd": ("count", "serror_rate", "rerror_rate", "dst_host_count", "dst_host_same_srv_rate"),
    "cicids2017": ("SYN Flag Count", "RST Flag Count", "FIN Flag Count"),
}  # fmt: skip


def described_by(schema: Schema) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the features that say what a flow is, and how its hosts behave.

    Of a schema that is not known here, the categories say both.
    """
    categories = tuple(f.name for f in schema.features if f.live and f.kind is Kind.CATEGORICAL)
    return _WHAT.get(schema.name, categories), _HOW.get(schema.name, categories)


def coarse(schema: Schema, names: tuple[str, ...], rows: FloatArray) -> NDArray[np.int16]:
    """Features `names` of rows ``[N, F]`` in steps, ``[N, len(names)]``.

    Categories and flags as they are, shares in thirds, amounts in powers of four.
    """
    columns = []
    for at in schema.index(names):
        values, kind = rows[:, at], schema.features[at].kind
        if kind in (Kind.CATEGORICAL, Kind.BINARY):
            steps = values
        elif kind is Kind.RATE:
            steps = np.floor(np.minimum(values, 0.999) * 3)
        else:
            steps = np.sign(values) * np.floor(np.log1p(np.abs(values)) / np.log(4.0))
        columns.append(steps.astype(np.int16))
    return np.column_stack(columns)


def mixed(*parts: NDArray[np.generic]) -> Keys:
    """One 64-bit key of several columns of whole numbers, ``[N]``: alike where all are alike."""
    key = np.zeros(len(parts[0]), np.uint64)
    for part in parts:
        # splitmix64's steps (Steele, Lea and Flood, 2014)
        key += part.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        key ^= key >> np.uint64(31)
    return key


@dataclass(frozen=True)
class Traffic:
    """What is kept of each of ``[N]`` flows besides its features.

    Attributes:
        src, dst: keys of the addresses.
        end_us: when it was last seen, in microseconds.
        what, how: keys of its descriptions.
    """

    src: Keys
    dst: Keys
    end_us: NDArray[np.int64]
    what: Keys
    how: Keys

    def __len__(self) -> int:
        return len(self.end_us)

    @staticmethod
    def describe(schema: Schema, rows: FloatArray) -> tuple[Keys, Keys]:
        """Keys of what rows ``[N, F]`` are and how their hosts behave."""
        what, how = (coarse(schema, names, rows) for names in described_by(schema))
        return mixed(*what.T), mixed(*how.T)

    @property
    def spans(self) -> NDArray[np.int64]:
        """Number of the span in which each flow ended."""
        begun, ended = int(self.end_us.min()), int(self.end_us.max())
        length = min(max((ended - begun) // SPANS, 1), LONGEST_SPAN_US)
        return (self.end_us - begun) // length


@dataclass(frozen=True)
class Support:
    """How well each of ``[N]`` flows is supported.

    Attributes:
        what, how: support of its descriptions.
        burst: ``[N]`` bool, whether it is part of one.
        share: how much it counts, 0 in a burst, at most 1: the chance of being learnt from.
    """

    what: NDArray[np.int64]
    how: NDArray[np.int64]
    burst: NDArray[np.bool_]
    share: FloatArray

    @property
    def weak(self) -> NDArray[np.bool_]:
        """Which flows are unsupported."""
        return np.minimum(self.what, self.how) < LEAST_SUPPORT


def weigh(traffic: Traffic) -> Support:
    """The support of all flows of a site."""
    spans = traffic.spans
    by_src, by_dst = mixed(traffic.src, spans), mixed(traffic.dst, spans)
    what, how = (
        np.minimum(_occasions(each, by_src), _occasions(each, by_dst))
        for each in (traffic.what, traffic.how)
    )
    weak = np.minimum(what, how) < LEAST_SUPPORT
    together = np.maximum(sums(by_src, weak), sums(by_dst, weak))
    burst = weak & (together >= BURST)
    alike = np.maximum(
        sums(mixed(traffic.what, by_src), ~burst), sums(mixed(traffic.what, by_dst), ~burst)
    )
    share = np.where(burst, 0.0, ALIKE / np.maximum(alike, 1))
    return Support(what, how, burst, np.minimum(1.0, share))


def sums(keys: Keys, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each of ``[N]`` keys, how many equal ones are counted."""
    _, inverse = np.unique(keys, return_inverse=True)
    return np.bincount(inverse, counted).astype(np.int64)[inverse]


def _occasions(keys: Keys, occasions: Keys) -> NDArray[np.int64]:
    """For each of ``[N]`` keys, on how many different occasions it was met."""
    _, first = np.unique(mixed(keys, occasions), return_index=True)
    new = np.zeros(len(keys), bool)
    new[first] = True
    return sums(keys, new)
