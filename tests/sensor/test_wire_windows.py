"""UNSW-NB15's counts over neighbouring records, worked out by hand for seven records."""

from __future__ import annotations

import pytest

from examples import traffic
from examples.traffic import Host
from features import unsw_nb15
from sensor.captures import CaptureSpool, chain
from sensor.pipeline import measure
from tests.helpers import METERS

START_US = 1_700_000_000_000_000  # a whole second
ANN, BOB = Host("02:00:00:00:00:01", "10.0.0.1"), Host("02:00:00:00:00:01", "10.0.0.2")
WEB, STORE = Host("02:00:00:00:00:02", "10.0.9.1"), Host("02:00:00:00:00:02", "10.0.9.2")
QUERY = traffic.dns_query(7, "www.example.org")
OTHER = b"\x81\x82\x83"

RECORDS = (
    # ms, source, its port, destination, its port, what is said: one datagram each
    (0, ANN, 1001, WEB, 53, QUERY),
    (100, ANN, 1002, WEB, 53, QUERY),
    (200, ANN, 1001, WEB, 7777, OTHER),
    (300, BOB, 1001, WEB, 53, QUERY),
    (400, ANN, 1003, STORE, 53, QUERY),
    (1000, ANN, 1004, WEB, 53, QUERY),
    (1100, BOB, 1001, WEB, 7777, OTHER),
)
TABLE: dict[str, tuple[list[int], str]] = {
    # All seven are in one block; the last two end in another second than the first five.
    "ct_srv_src": ([4, 4, 1, 1, 4, 4, 1], "Ann asks for names in 1, 2, 5 and 6; seconds do not "
                   "matter"),
    "ct_srv_dst": ([4, 4, 2, 4, 1, 4, 2], "the web server is asked for names in 1, 2, 4 and 6, and "
                   "for something else in 3 and 7"),
    "ct_dst_ltm": ([4, 4, 4, 4, 1, 2, 2], "to the web server 1 to 4 in a second, 6 and 7 in the "
                   "next"),
    "ct_src_ltm": ([4, 4, 4, 1, 4, 1, 1], "of Ann 1, 2, 3 and 5 in a second"),
    "ct_src_dport_ltm": ([3, 3, 1, 1, 3, 1, 1], "of Ann to port 53: 1, 2 and 5 in a second"),
    "ct_dst_sport_ltm": ([3, 1, 3, 3, 1, 1, 1], "to the web server from port 1001: 1, 3 and 4 in "
                         "a second"),
    "ct_dst_src_ltm": ([3, 3, 3, 1, 1, 1, 1], "of Ann to the web server: 1, 2 and 3 in a second"),
}  # fmt: skip


@pytest.fixture(scope="module", params=METERS)
def columns(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[float]]:
    """The column of each feature, rows in order of last time."""
    path = tmp_path_factory.mktemp("windows") / "records.pcap"
    traffic.write_pcap(
        path,
        [
            (START_US + 1000 * time, traffic.udp_frame(source, target, port, to_port, payload))
            for time, source, port, target, to_port, payload in RECORDS
        ],
    )
    schema = unsw_nb15.SCHEMA
    with CaptureSpool() as spool:
        meter = METERS[request.param](chain([spool.open(path)], 60_000_000), schema.meter)
        rows = [row for batch in measure(meter, schema, 1000) for row in batch.rows]
    assert len(rows) == len(RECORDS)
    return {name: [row[at] for row in rows] for at, name in enumerate(schema.names)}


@pytest.mark.parametrize("name", TABLE)
def test_counts_over_neighbouring_records(name: str, columns: dict[str, list[float]]) -> None:
    expected, why = TABLE[name]
    assert columns[name] == expected, why
