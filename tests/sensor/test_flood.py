"""A flood of flows: bounded tables, normal flows come through, nothing is lost unseen."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from benchmarks import flood
from benchmarks.flood import Flood
from features.flows import Ending
from features.registry import SCHEMAS
from sensor.meter.compiled.core import Options
from sensor.meter.compiled.meter import CompiledMeter

SETTINGS = SCHEMAS["flow"].meter
CONVERSATION = 443
WHOLE = [flood.CLIENT_PACKETS, flood.SERVER_PACKETS]


@pytest.mark.parametrize("most_flows", [3000, 6000])
def test_a_flood_pushes_out_what_was_seen_least_recently(tmp_path: Path, most_flows: int) -> None:
    # 10,000 SYNs a second: a table of 3,000 forgets what was silent for 0.3 s; the
    # conversations are for 0.2 s. One of 6,000 has to grow first.
    made = Flood(syns=20_000, rate=10_000)
    path = tmp_path / "flood.pcap"
    with path.open("wb") as file:
        flood.write(made, file)
    meter = CompiledMeter(
        flood.chains_of(made, path), SETTINGS, options=Options(most_flows=most_flows)
    )
    flows = np.concatenate(list(meter.flows()))
    counters = meter.counters
    assert len(flows) == counters.flows == made.syns + made.conversations
    assert counters.read == counters.metered == made.packets
    assert counters.lost == counters.not_metered == 0
    talks = flows[flows["dst_port"] == CONVERSATION]
    assert len(talks) == made.conversations
    assert (talks["src_packets"] == WHOLE[0]).all()
    assert (talks["dst_packets"] == WHOLE[1]).all()
    pushed_out = flows["ending"] == Ending.EVICTED
    assert int(pushed_out.sum()) == counters.evicted == len(flows) - most_flows
    # Those first, and all in the order in which they were seen last.
    assert pushed_out[: counters.evicted].all()
    assert (np.diff(flows["last_us"]) >= 0).all()


def test_a_table_that_is_large_enough_grows_and_pushes_nothing_out(tmp_path: Path) -> None:
    made = Flood(syns=9000, rate=100_000)
    path = tmp_path / "flood.pcap"
    with path.open("wb") as file:
        flood.write(made, file)
    meter = CompiledMeter(flood.chains_of(made, path), SETTINGS)
    flows = np.concatenate(list(meter.flows()))
    assert meter.counters.evicted == 0
    assert (flows["ending"] == Ending.CAPTURE_END).all()
    assert len(np.unique(flows["src_ip"], axis=0)) == made.syns + made.conversations


def test_a_capture_can_come_through_a_pipe(tmp_path: Path) -> None:
    made = Flood(syns=3000, rate=100_000)
    fifo = tmp_path / "flood.pcap"
    os.mkfifo(fifo)

    def write() -> None:
        with fifo.open("wb") as out:
            flood.write(made, out)

    writer = threading.Thread(target=write)
    writer.start()
    meter = CompiledMeter(flood.chains_of(made, fifo), SETTINGS, options=Options(most_flows=500))
    watch = flood.Watch()
    for flows in meter.flows():
        watch.see(flows)
    writer.join()
    assert meter.counters.read == made.packets
    assert watch.endings == {"EVICTED": meter.counters.evicted, "CAPTURE_END": 500}
