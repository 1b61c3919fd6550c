"""The compiled meter: what does not depend on how it works, and what happens when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import traffic
from features.flows import Ending, FlowBatch, empty_flows, join_flows
from features.registry import SCHEMAS
from features.schema import EarlyReports, MeterSettings
from features.stream import on_clock
from sensor.ahead import Ahead
from sensor.captures import CaptureSpool, Chain, chain
from sensor.meter.choice import open_meter
from sensor.meter.compiled import core, engine
from sensor.meter.compiled import meter as meter_module
from sensor.meter.compiled.core import Options
from sensor.meter.compiled.meter import CompiledMeter
from sensor.meter.stock import StockMeter
from sensor.pipeline import measure
from sensor.reorder import ReorderBuffer
from tests.helpers import ANN, BOB, ROOT, sample, small_pcap, syn

SETTINGS = MeterSettings(idle_timeout_s=60, active_timeout_s=120)
START_US = 1_700_000_000_000_000
SECOND = 1_000_000


def chains_of(spool: CaptureSpool, *paths: Path) -> list[Chain]:
    return chain([spool.open(path) for path in paths], SETTINGS.idle_timeout_s * SECOND)


def ordered(meter: CompiledMeter, origin: int = 0) -> FlowBatch:
    """Flows of one origin as the pipeline has them."""
    buffer = ReorderBuffer(SETTINGS.idle_timeout_s)
    parts = [
        buffer.push(batch, meter.progress_us)
        for batch in meter.flows()
        if batch["origin"][0] == origin
    ]
    flows = join_flows([*parts, buffer.flush()])
    assert buffer.late == 0
    return flows


def metered(path: Path, clock_us: int = 1, **options: Any) -> FlowBatch:
    with CaptureSpool() as spool:
        meter = CompiledMeter(
            chains_of(spool, path),
            SETTINGS,
            clock_us,
            Options(**options),
        )
        return ordered(meter)


# What the flows do not depend on


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_flows_are_the_same_with_any_number_of_threads(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "SHARDED_PACKETS", 1)
    with CaptureSpool() as spool:
        chains = chains_of(spool, sample().excerpt)
        one = CompiledMeter(chains, SETTINGS, threads=1)
        many = CompiledMeter(chains, SETTINGS, threads=threads)
        assert ordered(many).tobytes() == ordered(one).tobytes()
        assert many.counters == one.counters


@pytest.mark.parametrize("threads", [2, 3])
def test_features_are_the_same_with_any_number_of_threads(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A flow a second for an hour, in batches of some minutes: one thread's are hours late unless
    # the order waits for the slowest.
    frames = [
        (START_US + number * SECOND, traffic.udp_frame(ANN, BOB, 1024 + number, 53, b"x"))
        for number in range(3600)
    ]
    traffic.write_pcap(tmp_path / "x.pcap", frames)
    monkeypatch.setattr(meter_module, "SHARDED_PACKETS", 1)
    monkeypatch.setattr("sensor.meter.compiled.meter.BATCH_FLOWS", 200)
    runs = []
    with CaptureSpool() as spool:
        chains = chains_of(spool, tmp_path / "x.pcap")
        for number in (1, threads):
            meter = CompiledMeter(chains, SETTINGS, 1000, threads=number)
            parts = list(measure(meter, SCHEMAS["kdd"], 1000))
            assert join_flows([part.flows for part in parts])["src_port"].tolist() == [
                1024 + number for number in range(3600)
            ]
            runs.append(np.concatenate([part.rows for part in parts]))
    np.testing.assert_array_equal(runs[0], runs[1])


def test_captures_come_in_order_however_many_are_metered_at_once(tmp_path: Path) -> None:
    paths = [
        # Days apart, the longest first.
        small_pcap(tmp_path / f"{day}.pcap", *[syn(1024 + n) for n in range(5000 >> day)],
                   start_us=START_US + day * 86_400 * SECOND)
        for day in range(6)
    ]  # fmt: skip
    with CaptureSpool() as spool:
        meters = [CompiledMeter(chains_of(spool, *paths), SETTINGS, threads=n) for n in (1, 4)]
        runs = [join_flows(list(meter.flows())) for meter in meters]
    assert runs[0].tobytes() == runs[1].tobytes()
    assert np.unique(runs[1]["origin"], return_counts=True)[1].tolist() == [
        5000 >> day for day in range(6)
    ]
    assert (np.diff(runs[1]["origin"].astype(int)) >= 0).all()


def test_a_small_table_grows_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = metered(sample().excerpt)
    monkeypatch.setattr("sensor.meter.compiled.core._FIRST_SLOTS", 4)
    assert metered(sample().excerpt).tobytes() == expected.tobytes()


def test_the_clock_is_that_of_what_lies_between_times(tmp_path: Path) -> None:
    frames = [
        (START_US + at_us, traffic.udp_frame(ANN, BOB, 5000, 53, b"x"))
        for at_us in (999, 1001, 3500)
    ]
    traffic.write_pcap(tmp_path / "x.pcap", frames)
    fine, coarse = (metered(tmp_path / "x.pcap", clock_us)[0] for clock_us in (1, 1000))
    for flow in (fine, coarse):
        assert (flow["first_us"], flow["last_us"]) == (START_US + 999, START_US + 3500)
    # 2 us and 2,499 us; on a clock of milliseconds 0, 1 and 3: 1 ms and 2 ms.
    assert (fine["src_piat_min_us"], fine["src_piat_max_us"]) == (2, 2499)
    assert fine["src_piat_mean_us"] == 1250.5
    assert (coarse["src_piat_min_us"], coarse["src_piat_max_us"]) == (1000, 2000)
    assert coarse["src_piat_mean_us"] == 1500


def test_a_time_that_cannot_be_costs_no_flow(tmp_path: Path) -> None:
    # As dhcp_little_endian.pcapng of nDPI's tests has them, whose times are turned around.
    path, start_us = tmp_path / "turned.pcapng", 4_734_231_571_822_539_464
    traffic.write_pcapng(path, [(start_us + 70 * SECOND * at, syn(at + 1)) for at in range(3)])
    with CaptureSpool() as spool:
        flows = ordered(CompiledMeter(chains_of(spool, path), SETTINGS, 1))
    assert flows["first_us"].tolist() == [start_us, start_us + 70 * SECOND, start_us + 140 * SECOND]


def test_it_says_what_stock_nfstream_says() -> None:
    with CaptureSpool() as spool:
        chains = chains_of(spool, sample().excerpt)
        flows = on_clock(ordered(CompiledMeter(chains, SETTINGS, 1000)), 1000)
        buffer = ReorderBuffer(SETTINGS.idle_timeout_s)
        parts = [buffer.push(batch) for batch in StockMeter(chains, SETTINGS).flows()]
    stock = join_flows([*parts, buffer.flush()])
    # On its clock flows end together that do not on ours.
    buffer = ReorderBuffer(SETTINGS.idle_timeout_s)
    flows = join_flows([buffer.push(flows), buffer.flush()])
    for name in flows.dtype.names or ():
        if flows[name].dtype.kind == "f":
            np.testing.assert_allclose(flows[name], stock[name], rtol=1e-9, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(flows[name], stock[name], err_msg=name)


# How flows end


def talk(*, fin: bool) -> list[traffic.Frame]:
    """A connection of a second that says goodbye or not, and a SYN on the same ports 30 s later."""
    conversation = traffic.TcpConversation(ANN, BOB, 40_000, 80)
    conversation.handshake(START_US, START_US + 1000, START_US + 2000)
    if fin:
        for number, side in enumerate((traffic.Side.CLIENT, traffic.Side.SERVER)):
            conversation.segment(START_US + 100_000 * (number + 1), side, "FA")
    again = traffic.tcp_frame(ANN, BOB, 40_000, 80, "S")
    return [*conversation.frames, (START_US + 30 * SECOND, again)]


@pytest.mark.parametrize("fin", [False, True])
@pytest.mark.parametrize("linger_s", [0, 5, 40])
def test_tcp_that_said_goodbye_ends_after_the_linger_time(
    fin: bool, linger_s: int, tmp_path: Path
) -> None:
    traffic.write_pcap(tmp_path / "x.pcap", talk(fin=fin))
    flows = metered(tmp_path / "x.pcap", linger_s=linger_s)
    endings = [Ending(code) for code in flows["ending"]]
    if fin and linger_s == 5:
        assert endings == [Ending.FIN, Ending.CAPTURE_END]
        assert flows["src_packets"].tolist() == [3, 1]
    else:
        assert endings == [Ending.CAPTURE_END]


@pytest.mark.parametrize("answered", [False, True])
def test_a_connection_that_never_came_about_ends_after_the_linger_time(
    answered: bool, tmp_path: Path
) -> None:
    frames = [(START_US, syn(1024))]
    if answered:  # and only one side of it captured
        frames.append((START_US + 1, traffic.tcp_frame(ANN, BOB, 1024, 80, "A", seq=1)))
    frames += [(START_US + 30 * SECOND, syn(1024)), (START_US + 31 * SECOND, syn(1025))]
    traffic.write_pcap(tmp_path / "x.pcap", frames)
    endings = Counter(Ending(code) for code in metered(tmp_path / "x.pcap", linger_s=5)["ending"])
    if answered:
        assert endings == {Ending.CAPTURE_END: 2}
    else:
        assert endings == {Ending.IDLE: 1, Ending.CAPTURE_END: 2}


def test_a_full_table_pushes_out_what_was_seen_least_recently(tmp_path: Path) -> None:
    # One flow that goes on among others of one packet each, more than there is room for.
    frames = []
    for number in range(40):
        time_us = START_US + number * 10_000
        frames.append((time_us, traffic.udp_frame(ANN, BOB, 5000, 53, b"x")))
        frames.append((time_us + 1, syn(1024 + number)))
    traffic.write_pcap(tmp_path / "x.pcap", frames)
    flows = metered(tmp_path / "x.pcap", most_flows=8)
    lasting = flows[flows["protocol"] == 17]
    assert [Ending(code) for code in lasting["ending"]] == [Ending.CAPTURE_END]
    assert lasting["src_packets"].tolist() == [40]
    others = flows[flows["protocol"] == 6]
    assert np.sort(others["src_port"]).tolist() == list(range(1024, 1064))
    assert (others["ending"] == Ending.EVICTED).sum() == 40 - 7


@pytest.mark.parametrize(
    ("early", "packets_then"),
    [
        (EarlyReports(ages_s=(0.5,)), [6]),
        (EarlyReports(packets=(3,)), [3]),
        (EarlyReports(ages_s=(0.1, 0.15, 1.5), packets=(2, 7, 100)), [2, 3, 7, 16]),
        (EarlyReports(ages_s=(5.0,)), []),
    ],
    ids=str,
)
def test_a_flow_that_goes_on_is_told_of_when_it_was_asked_for(
    early: EarlyReports, packets_then: list[int], tmp_path: Path
) -> None:
    frames = [
        (START_US + number * 100_000, traffic.udp_frame(ANN, BOB, 5000, 53, b"x"))
        for number in range(20)
    ]
    traffic.write_pcap(tmp_path / "x.pcap", frames)
    flows = metered(tmp_path / "x.pcap", early=early)
    reports = [Ending.EARLY] * len(packets_then)
    assert [Ending(code) for code in flows["ending"]] == [*reports, Ending.CAPTURE_END]
    assert flows["src_packets"].tolist() == [*packets_then, 20]
    assert set(flows["first_us"].tolist()) == {START_US}


def test_packets_of_early_reports_are_counted_once(tmp_path: Path) -> None:
    frame = traffic.udp_frame(ANN, BOB, 5000, 53, b"x")
    traffic.write_pcap(tmp_path / "x.pcap", [(START_US + n, frame) for n in range(5)])
    with CaptureSpool() as spool:
        chains = chains_of(spool, tmp_path / "x.pcap")
        options = Options(early=EarlyReports(packets=(2, 4)))
        meter = CompiledMeter(chains, SETTINGS, options=options)
        assert sum(map(len, meter.flows())) == 3
    assert (meter.counters.flows, meter.counters.early) == (3, 2)
    assert (meter.counters.metered, meter.counters.lost) == (5, 0)


def test_a_table_that_finds_no_memory_to_grow_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(core, "_FIRST_SLOTS", 8)
    monkeypatch.setattr(core, "_longer", none)
    flows = metered(small_pcap(tmp_path / "x.pcap", *(syn(port) for port in range(1024, 1044))))
    assert np.sort(flows["src_port"]).tolist() == list(range(1024, 1044))
    assert (flows["ending"] == Ending.EVICTED).sum() == 20 - 8


EVERY_SECOND_FLOW_FINDS_NO_MEMORY = """
import ctypes, itertools, json, sys
from pathlib import Path
import llvmlite.binding
from features.schema import MeterSettings
from sensor.captures import CaptureSpool, chain
from sensor.meter.compiled import engine
from sensor.meter.compiled.meter import CompiledMeter

engine.register()
ffi, lib = engine._ffi()
name, word = "meter_initialize_flow", ctypes.c_uint64
kind = ctypes.CFUNCTYPE(word, *[word] * 7)
real = kind(int(ffi.cast("uintptr_t", ffi.addressof(lib, name))))
calls = itertools.count()
often = kind(lambda *given: real(*given) if next(calls) % 2 else 0)
address = ctypes.cast(often, ctypes.c_void_p).value
llvmlite.binding.add_symbol(engine.SYMBOL_PREFIX + name, address)
with CaptureSpool() as spool:
    capture = spool.open(Path(sys.argv[1]))
    meter = CompiledMeter(chain([capture], 60_000_000), MeterSettings(60, 60))
    flows = sum(map(len, meter.flows()))
counters = meter.counters
print(json.dumps([flows, counters.read, counters.metered, counters.not_metered, counters.lost]))
"""


def test_packets_of_flows_without_memory_are_counted_as_lost(tmp_path: Path) -> None:
    path = small_pcap(tmp_path / "x.pcap", *(syn(port) for port in range(1024, 1034)))
    ran = subprocess.run(
        [sys.executable, "-c", EVERY_SECOND_FLOW_FINDS_NO_MEMORY, str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout) == [5, 10, 5, 0, 5]


# When it cannot


def test_an_engine_that_is_not_known_leaves_it_to_stock_nfstream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> tuple[int, int]:
        raise engine.UnknownEngine("libpcap keeps no packet header in its handle")

    monkeypatch.setattr(engine, "handle_offsets", unknown)
    told: list[str] = []
    with CaptureSpool() as spool:
        chains = chains_of(spool, small_pcap(tmp_path / "x.pcap", syn(1025)))
        meter = open_meter(chains, SETTINGS, 1, warn=told.append)
        assert isinstance(meter, StockMeter)
        (batch,) = meter.flows()
    assert len(batch) == 1
    (line,) = told
    assert line.startswith("this NFStream is not one that the compiled meter knows (libpcap keeps")


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("src_ip"),
        lambda fields: fields.update(fin=fields["syn"]),
    ],
    ids=["a field is gone", "the flags are in another order"],
)
def test_a_layout_that_is_not_understood_is_refused(
    change: Callable[[dict[str, object]], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    ffi, lib = engine._ffi()

    class OtherFfi:
        def typeof(self, name: str) -> object:
            fields = dict(ffi.typeof(name).fields)
            change(fields)
            return type("Record", (), {"fields": list(fields.items())})

        sizeof = staticmethod(ffi.sizeof)

    monkeypatch.setattr(engine, "_ffi", lambda: (OtherFfi(), lib))
    with pytest.raises(engine.UnknownEngine, match="struct nf_packet"):
        engine.packet_dtype.__wrapped__()


def test_a_file_that_vanishes_costs_its_own_packets_only(tmp_path: Path) -> None:
    paths = [
        small_pcap(tmp_path / f"{day}.pcap", syn(1025), syn(1026),
                   start_us=START_US + day * 86_400 * SECOND)
        for day in range(3)
    ]  # fmt: skip
    with CaptureSpool() as spool:
        meter = CompiledMeter(chains_of(spool, *paths), SETTINGS)
        paths[1].unlink()
        flows = join_flows(list(meter.flows()))
    assert flows["origin"].tolist() == [0, 0, 2, 2]
    counters = meter.counters
    assert (counters.read, counters.metered, counters.not_metered, counters.lost) == (6, 4, 0, 2)
    (problem,) = counters.problems
    assert problem.startswith(f"{paths[1]}: metering failed: ")


def test_it_can_be_closed_in_the_midst() -> None:
    before = threading.active_count()
    with CaptureSpool() as spool:
        flows = CompiledMeter(chains_of(spool, sample().excerpt), SETTINGS).flows()
        assert len(next(flows))
        flows.close()
    assert threading.active_count() == before


# Working ahead


def test_what_is_made_ahead_is_the_same_in_the_same_order() -> None:
    assert list(Ahead(iter(range(1000)), 3)) == list(range(1000))


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    ahead = Ahead(items(), 3)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="gone"):
        next(ahead)


def test_what_works_ahead_ends_when_it_is_closed() -> None:
    made: list[int] = []
    ended = threading.Event()

    def items() -> Iterator[int]:
        try:
            for number in range(1_000_000):
                made.append(number)
                yield number
        finally:
            ended.set()

    ahead = Ahead(items(), 2)
    assert next(ahead) == 0
    ahead.close()
    assert ended.is_set()
    assert len(made) <= 5


def batches(*sizes: int) -> Sequence[FlowBatch]:
    return [empty_flows(size) for size in sizes]


@pytest.mark.parametrize("sizes", [(), (0,), (3,), (2, 0, 5)])
def test_batches_are_joined(sizes: tuple[int, ...]) -> None:
    parts = batches(*sizes)
    for number, part in enumerate(parts):
        part["src_port"] = number
    joined = join_flows(parts)
    assert joined.dtype == empty_flows().dtype
    assert joined["src_port"].tolist() == [n for n, size in enumerate(sizes) for _ in range(size)]
