"""What a flow's hosts have been doing: counts that fade, over the stream of flows.

Walks flows in order of last time, in compiled code, and tells for each what its source, its
destination, the pair of both and the service did lately, the flow itself included. The
stream's *now* is the latest last time so far.

*Fading*: over a horizon, a flow that ended k fiftieths of the horizon ago counts exp(-k/50),
so that a steady stream of r flows a second counts for r times the horizon. *Distinct* things
(peers, services) count by their latest flow alone: each thing once, faded by its age, which
needs no sketch, since the table of pairs knows when each was last seen. The *entropy* of
services is Shannon's over their faded counts W_i; the sum of W_i log W_i is kept up to date
with every flow, so it is exact as well.

State is bounded: tables with a fixed number of entries, from which the one that was touched
longest ago is forgotten, and counted. Keys are 64-bit hashes, compared in full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.flows import FlowBatch
from features.schema import Columns

HORIZONS_S = (10, 600)
"""The short and the long horizon: a burst, and what a person would call lately."""
HORIZONS = ("10s", "10m")
"""How the horizons are called in feature names."""

TICKS = 50
"""Steps in which a horizon fades. Within a step nothing is multiplied, so sums stay exact."""
FORGET_TICKS = 20 * TICKS
"""After this many steps (a weight of 2e-9) nothing is left."""

LONGEST_GAP_S = 86_400.0
"""Times between flows of a pair are cut here; a pair never seen before has this one."""

_SHORT_US = HORIZONS_S[0] * 1_000_000 // TICKS
_LONG_US = HORIZONS_S[1] * 1_000_000 // TICKS
_WEIGHTS = np.exp(-np.arange(FORGET_TICKS) / TICKS)

Keys = Mapping[str, NDArray[np.generic]]

# Numba counts references to every array that a function touches, in atomic steps, unless the
# function is compiled without Numba's runtime. Then it cannot allocate either, which none here
# does; the walk takes a sixth of the time.
_compiled = njit(cache=True, error_model="numpy", _nrt=False)
_inlined = njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)


@dataclass(frozen=True, slots=True)
class Capacities:
    """How many of each are remembered; powers of two.

    With twice as many hosts as pairs, a host outlives its pairs. The defaults take 190 MB when
    full, and less before: the system gives memory as it is first written.
    """

    hosts: int = 1 << 20
    pairs: int = 1 << 19
    """(source, destination)."""
    uses: int = 1 << 18
    """(source, protocol, destination port)."""
    offers: int = 1 << 18
    """(destination, protocol, destination port) that answered."""
    habits: int = 1 << 18
    """(source, server name) and (source, client fingerprint)."""
    terms: int = 1 << 15
    """Server names and client fingerprints."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            count = getattr(self, name)
            if count < 2 or count & (count - 1):
                raise ValueError(f"capacity of {name}: {count} is no power of two from 2 on")


class Table(NamedTuple):
    """An open-addressing table of ``C`` entries that knows which was touched longest ago.

    Attributes:
        slots: ``[2 C]`` int32, an entry's number plus one at the slot of its key, 0 for none.
        keys: ``[C]`` uint64.
        times: ``[C]`` int64, when the entry was last brought up to date, in us.
        links: ``[C, 2]`` int32, the next older and the next newer entry, -1 for none.
        born: ``[C]`` int64, when it was made, in us; ``[0]`` where nobody asks.
        head: ``[4]`` int64, entries in use, newest, oldest, number of entries forgotten.
        sums: ``[C, K]`` float32, faded sums.
        logs: ``[C, 2]`` float64, faded sums of W log W; ``[0, 2]`` where nobody asks.
    """

    slots: NDArray[np.int32]
    keys: NDArray[np.uint64]
    times: NDArray[np.int64]
    links: NDArray[np.int32]
    born: NDArray[np.int64]
    head: NDArray[np.int64]
    sums: NDArray[np.float32]
    logs: NDArray[np.float64]


def new_table(capacity: int, sums: int = 0, *, born: bool = False, logs: bool = False) -> Table:
    """An empty table of `capacity` entries (a power of two) with `sums` faded sums each."""
    # What is read together lies together: an entry is a row of 24 or 32 bytes, and one of sums.
    row = np.zeros((capacity, 4 if born else 3), np.int64)
    width = sums + sums % 2
    values = np.zeros((capacity, width + 4 if logs else sums), np.float32)
    return Table(
        slots=np.zeros(2 * capacity, np.int32),
        keys=row.view(np.uint64)[:, 0],
        times=row[:, 1],
        links=row.view(np.int32)[:, 4:6],
        born=row[:, 3] if born else row[:0, 0],
        head=np.array([0, -1, -1, 0], np.int64),
        sums=values[:, :sums],
        logs=values.view(np.float64)[:, width // 2 :] if logs else np.empty((0, 2)),
    )


_USED, _NEWEST, _OLDEST, _FORGOTTEN = 0, 1, 2, 3
_OLDER, _NEWER = 0, 1


@_inlined
def find(table: Table, key: np.uint64) -> int:
    """The entry of `key`, or -1; touches nothing."""
    mask = np.uint64(len(table.slots) - 1)
    slot = key & mask
    while table.slots[slot] != 0:
        entry: int = table.slots[slot] - 1
        if table.keys[entry] == key:
            return entry
        slot = (slot + np.uint64(1)) & mask
    return -1


@_inlined
def _unlink(table: Table, entry: int) -> None:
    older, newer = table.links[entry, _OLDER], table.links[entry, _NEWER]
    if older >= 0:
        table.links[older, _NEWER] = newer
    else:
        table.head[_OLDEST] = newer
    if newer >= 0:
        table.links[newer, _OLDER] = older
    else:
        table.head[_NEWEST] = older


@_inlined
def _link_newest(table: Table, entry: int) -> None:
    newest = table.head[_NEWEST]
    table.links[entry, _OLDER] = newest
    table.links[entry, _NEWER] = -1
    if newest >= 0:
        table.links[newest, _NEWER] = entry
    else:
        table.head[_OLDEST] = entry
    table.head[_NEWEST] = entry


@_inlined
def _forget(table: Table, entry: int) -> None:
    """Take `entry` out of the slots, moving up what was displaced by it (Knuth, 6.4 R)."""
    mask = np.uint64(len(table.slots) - 1)
    one = np.uint64(1)
    hole = table.keys[entry] & mask
    while table.slots[hole] != entry + 1:
        hole = (hole + one) & mask
    slot = hole
    while True:
        slot = (slot + one) & mask
        if table.slots[slot] == 0:
            break
        home = table.keys[table.slots[slot] - 1] & mask
        if ((slot - home) & mask) >= ((slot - hole) & mask):
            table.slots[hole] = table.slots[slot]
            hole = slot
    table.slots[hole] = 0


@_inlined
def touch(table: Table, key: np.uint64) -> tuple[int, bool]:
    """The entry of `key`, now the newest, and whether it was there.

    A new entry's times, sums and logs are those of whoever had its place: reset them.
    """
    entry = find(table, key)
    if entry >= 0:
        if table.head[_NEWEST] != entry:
            _unlink(table, entry)
            _link_newest(table, entry)
        return entry, True
    if table.head[_USED] < len(table.keys):
        entry = table.head[_USED]
        table.head[_USED] += 1
    else:
        entry = table.head[_OLDEST]
        _unlink(table, entry)
        _forget(table, entry)
        table.head[_FORGOTTEN] += 1
    mask = np.uint64(len(table.slots) - 1)
    slot = key & mask
    while table.slots[slot] != 0:
        slot = (slot + np.uint64(1)) & mask
    table.slots[slot] = entry + 1
    table.keys[entry] = key
    _link_newest(table, entry)
    return entry, False


@_inlined
def _steps(now: int, then: int, tick_us: int) -> int:
    return now // tick_us - then // tick_us


@_inlined
def _weight(steps: int) -> float:
    """What is left after so many steps."""
    if steps >= FORGET_TICKS:
        return 0.0
    weight: float = _WEIGHTS[steps]
    return weight


@_inlined
def _w_log_w(weight: float) -> float:
    return weight * math.log(weight) if weight > 0.0 else 0.0


# Sums of a host. The two horizons of a sum lie side by side.
_FLOWS, _FAILED, _PEERS, _SERVICES, _OUT, _IN = 0, 2, 4, 6, 8, 10
_TO_FLOWS, _TO_FAILED, _TO_PEERS = 12, 14, 16
_UNREACHABLE = 18  # long horizon only
_HOST_SUMS = 19
# Sums of a pair.
_PAIR_FLOWS, _PAIR_FAILED, _PAIR_OUT, _PAIR_IN = 0, 2, 3, 4
_PAIR_SUMS = 5

_SOURCE_SUMS = ("flows", "failed", "peers", "services", "service_entropy", "out_share")
_DESTINATION_SUMS = ("flows", "failed", "peers")

NAMES: tuple[str, ...] = (
    *(f"src_{name}_{horizon}" for name in _SOURCE_SUMS for horizon in HORIZONS),
    "src_unreachable_10m",
    *(f"dst_{name}_{horizon}" for name in _DESTINATION_SUMS for horizon in HORIZONS),
    *(f"pair_flows_{horizon}" for horizon in HORIZONS),
    "pair_failed_10m",
    "pair_out_share_10m",
    "pair_gap",
    "src_new",
    "dst_new",
    "pair_new",
    "src_service_new",
    "dst_service_new",
    "name_new",
    "name_peers_10m",
    "fingerprint_new",
    "fingerprint_peers_10m",
)
"""The columns, in the order in which the compiled code writes them."""

_WIDTH = len(NAMES)


@_inlined
def _touch_host(hosts: Table, key: np.uint64, now: int) -> tuple[int, bool]:
    """The host's entry with its sums faded to `now`, and whether it was known."""
    entry, known = touch(hosts, key)
    sums = hosts.sums[entry]
    if not known:
        sums[:] = 0.0
        hosts.logs[entry, :] = 0.0
        hosts.born[entry] = now
        hosts.times[entry] = now
        return entry, False
    short = _steps(now, hosts.times[entry], _SHORT_US)
    if short > 0:
        long = _steps(now, hosts.times[entry], _LONG_US)
        weight = _weight(short)
        # sum of (a W) log (a W) = a (sum of W log W + log a * sum of W)
        faded = hosts.logs[entry, 0] - short / TICKS * sums[_FLOWS]
        hosts.logs[entry, 0] = weight * faded
        for column in range(0, _UNREACHABLE, 2):
            sums[column] *= weight
        if long > 0:
            weight = _weight(long)
            faded = hosts.logs[entry, 1] - long / TICKS * sums[_FLOWS + 1]
            hosts.logs[entry, 1] = weight * faded
            for column in range(1, _UNREACHABLE, 2):
                sums[column] *= weight
            sums[_UNREACHABLE] *= weight
    hosts.times[entry] = now
    return entry, True


@_inlined
def _share(part: float, rest: float) -> float:
    return part / (part + rest) if part > 0.0 else 0.0


@_inlined
def _touch_term(
    terms: Table, habits: Table, term: np.uint64, habit: np.uint64, now: int
) -> tuple[float, float]:
    """Whether the source uses the term for the first time, and the faded number that do."""
    entry, known = touch(terms, term)
    if known:
        terms.sums[entry, 0] *= _weight(_steps(now, terms.times[entry], _LONG_US))
    else:
        terms.sums[entry, 0] = 0.0
        terms.born[entry] = now
    terms.times[entry] = now
    used, old = touch(habits, habit)
    before = 0.0
    if old and habits.times[used] >= terms.born[entry]:
        before = _weight(_steps(now, habits.times[used], _LONG_US))
    habits.times[used] = now
    terms.sums[entry, 0] += 1.0 - before
    return (0.0 if old else 1.0), terms.sums[entry, 0]


@_compiled
def walk(
    hosts: Table,
    pairs: Table,
    uses: Table,
    offers: Table,
    habits: Table,
    terms: Table,
    clock: NDArray[np.int64],
    last_us: NDArray[np.int64],
    keys: NDArray[np.uint64],
    failed: NDArray[np.float64],
    out_bytes: NDArray[np.float64],
    in_bytes: NDArray[np.float64],
    unreachable: NDArray[np.float64],
    result: NDArray[np.float64],
) -> None:
    """Take ``[B]`` flows, `keys` ``[B, 9]`` as :func:`flow_keys` gives them.

    `clock` ``[1]`` is the stream's now; `result` ``[B, NAMES]`` is written.
    """
    rows = len(last_us)
    for row in range(rows):
        now = max(clock[0], last_us[row])
        clock[0] = now
        line = result[row]
        bad = failed[row]
        src, src_known = _touch_host(hosts, keys[row, 0], now)
        dst, dst_known = _touch_host(hosts, keys[row, 1], now)
        if src == dst:
            dst_known = src_known
        mine, its = hosts.sums[src], hosts.sums[dst]

        pair, pair_known = touch(pairs, keys[row, 2])
        both = pairs.sums[pair]
        gap = LONGEST_GAP_S
        src_short = src_long = dst_short = dst_long = 0.0
        if pair_known:
            then = pairs.times[pair]
            gap = min((now - then) / 1e6, LONGEST_GAP_S)
            short = _weight(_steps(now, then, _SHORT_US))
            long = _weight(_steps(now, then, _LONG_US))
            both[_PAIR_FLOWS] *= short
            for column in range(_PAIR_FLOWS + 1, _PAIR_SUMS):
                both[column] *= long
            # What a host did before it was forgotten is no longer in its sums.
            if then >= hosts.born[src]:
                src_short, src_long = short, long
            if then >= hosts.born[dst]:
                dst_short, dst_long = short, long
        else:
            both[:] = 0.0
        pairs.times[pair] = now
        both[_PAIR_FLOWS] += 1.0
        both[_PAIR_FLOWS + 1] += 1.0
        both[_PAIR_FAILED] += bad
        both[_PAIR_OUT] += out_bytes[row]
        both[_PAIR_IN] += in_bytes[row]

        use, use_known = touch(uses, keys[row, 3])
        counts = uses.sums[use]
        used_short = used_long = 0.0
        if use_known and uses.times[use] >= hosts.born[src]:
            used_short = _weight(_steps(now, uses.times[use], _SHORT_US))
            used_long = _weight(_steps(now, uses.times[use], _LONG_US))
        uses.times[use] = now
        counts[0] = counts[0] * used_short if used_short > 0.0 else 0.0
        counts[1] = counts[1] * used_long if used_long > 0.0 else 0.0
        for horizon in range(2):
            count = counts[horizon]
            hosts.logs[src, horizon] += _w_log_w(count + 1.0) - _w_log_w(count)
            counts[horizon] = count + 1.0

        for horizon in range(2):
            mine[_FLOWS + horizon] += 1.0
            mine[_FAILED + horizon] += bad
            mine[_OUT + horizon] += out_bytes[row]
            mine[_IN + horizon] += in_bytes[row]
            its[_TO_FLOWS + horizon] += 1.0
            its[_TO_FAILED + horizon] += bad
        mine[_PEERS] += 1.0 - src_short
        mine[_PEERS + 1] += 1.0 - src_long
        mine[_SERVICES] += 1.0 - used_short
        mine[_SERVICES + 1] += 1.0 - used_long
        its[_TO_PEERS] += 1.0 - dst_short
        its[_TO_PEERS + 1] += 1.0 - dst_long
        its[_UNREACHABLE] += unreachable[row]

        for horizon in range(2):
            flows = mine[_FLOWS + horizon]
            nats = math.log(flows) - hosts.logs[src, horizon] / flows
            line[0 + horizon] = flows
            line[2 + horizon] = min(mine[_FAILED + horizon] / flows, 1.0)
            line[4 + horizon] = mine[_PEERS + horizon]
            line[6 + horizon] = mine[_SERVICES + horizon]
            line[8 + horizon] = max(nats, 0.0) / math.log(2.0)
            line[10 + horizon] = _share(mine[_OUT + horizon], mine[_IN + horizon])
            line[13 + horizon] = its[_TO_FLOWS + horizon]
            line[15 + horizon] = min(its[_TO_FAILED + horizon] / its[_TO_FLOWS + horizon], 1.0)
            line[17 + horizon] = its[_TO_PEERS + horizon]
            line[19 + horizon] = both[_PAIR_FLOWS + horizon]
        line[12] = mine[_UNREACHABLE]
        line[21] = min(both[_PAIR_FAILED] / both[_PAIR_FLOWS + 1], 1.0)
        line[22] = _share(both[_PAIR_OUT], both[_PAIR_IN])
        line[23] = gap
        line[24] = 0.0 if src_known else 1.0
        line[25] = 0.0 if dst_known else 1.0
        line[26] = 0.0 if pair_known else 1.0
        line[27] = 0.0 if use_known else 1.0
        if bad > 0.0:
            line[28] = 1.0 if find(offers, keys[row, 4]) < 0 else 0.0
        else:
            _, offered = touch(offers, keys[row, 4])
            line[28] = 0.0 if offered else 1.0
        if keys[row, 5] != 0:
            line[29], line[30] = _touch_term(terms, habits, keys[row, 5], keys[row, 6], now)
        if keys[row, 7] != 0:
            line[31], line[32] = _touch_term(terms, habits, keys[row, 7], keys[row, 8], now)


@njit(cache=True)
def mix(state: np.uint64, word: np.uint64) -> np.uint64:
    """One step of splitmix64 over `state` with `word` added."""
    state = (state ^ word) + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@njit(cache=True)
def _mix_text(words: NDArray[np.uint64], kind: int) -> np.uint64:
    """A key of a text, 0 for an empty one."""
    if words[0] == 0:
        return np.uint64(0)
    state = np.uint64(kind)
    for word in words:
        state = mix(state, word)
    return state | np.uint64(1)


@njit(cache=True)
def flow_keys(
    src: NDArray[np.uint64],
    dst: NDArray[np.uint64],
    service: NDArray[np.uint64],
    name: NDArray[np.uint64],
    fingerprint: NDArray[np.uint64],
) -> NDArray[np.uint64]:
    """What the tables compare, ``[B, 9]``.

    Source, destination, pair, (source, service), (destination, service), then the server name
    and the source with it, the client fingerprint and the source with it; the key of a text is
    0 where there is none.

    Args:
        src: ``[B, 2]`` address words.
        dst: ``[B, 2]`` address words.
        service: ``[B]``, protocol and destination port.
        name: ``[B, W]`` words of the text, zero-padded.
        fingerprint: ``[B, V]``, likewise.
    """
    rows = len(service)
    keys = np.empty((rows, 9), np.uint64)
    for row in range(rows):
        line = keys[row]
        line[0] = mix(mix(np.uint64(1), src[row, 0]), src[row, 1])
        line[1] = mix(mix(np.uint64(1), dst[row, 0]), dst[row, 1])
        line[2] = mix(mix(np.uint64(2), line[0]), line[1])
        line[3] = mix(mix(np.uint64(3), line[0]), service[row])
        line[4] = mix(mix(np.uint64(4), line[1]), service[row])
        line[5] = _mix_text(name[row], 5)
        line[6] = mix(mix(np.uint64(6), line[0]), line[5])
        line[7] = _mix_text(fingerprint[row], 7)
        line[8] = mix(mix(np.uint64(8), line[0]), line[7])
    return keys


class ContextWindows:
    """The context of each flow; complete as soon as the flow is seen.

    `push` wants `keys` as :func:`features.flow.window_keys` gives them.
    """

    def __init__(
        self, capacities: Capacities | None = None, names: tuple[str, ...] = NAMES
    ) -> None:
        """Give the columns `names`, all or some of :data:`NAMES`."""
        self.names = names
        self._columns = [NAMES.index(name) for name in names]
        sizes = capacities or Capacities()
        self._tables = {
            "hosts": new_table(sizes.hosts, _HOST_SUMS, born=True, logs=True),
            "pairs": new_table(sizes.pairs, _PAIR_SUMS),
            "uses": new_table(sizes.uses, 2),
            "offers": new_table(sizes.offers),
            "habits": new_table(sizes.habits),
            "terms": new_table(sizes.terms, 1, born=True),
        }
        self._clock = np.zeros(1, np.int64)

    @property
    def known(self) -> dict[str, int]:
        """How many entries of each table are in use."""
        return {name: int(table.head[_USED]) for name, table in self._tables.items()}

    @property
    def forgotten(self) -> dict[str, int]:
        """How many entries of each table were forgotten to make room."""
        return {name: int(table.head[_FORGOTTEN]) for name, table in self._tables.items()}

    @property
    def nbytes(self) -> int:
        """Bytes that the tables take when full; the same all the time."""
        return sum(part.nbytes for table in self._tables.values() for part in table)

    def push(self, flows: FlowBatch, keys: Keys) -> tuple[int, Columns]:
        """Take flows in order of last time; all of them are complete at once."""
        result = np.zeros((len(flows), _WIDTH))
        walk(
            *self._tables.values(),
            self._clock,
            np.ascontiguousarray(flows["last_us"]),
            keys["keys"],
            keys["failed"],
            keys["out_bytes"],
            keys["in_bytes"],
            keys["unreachable"],
            result,
        )
        columns = zip(self.names, self._columns, strict=True)
        return len(flows), {name: result[:, column] for name, column in columns}

    def flush(self) -> tuple[int, Columns]:
        """Nothing waits."""
        return 0, {name: np.empty(0) for name in self.names}
