"""Features of zeek-conn for a conn.log of six connections, each worked out by hand."""

from __future__ import annotations

from math import exp, log2
from pathlib import Path

import pytest

from features.context import LONGEST_GAP_S
from features.zeek_conn import SCHEMA
from sensor.pipeline import measure
from sensor.zeek.files import ConnLogMeter, look_at
from tests.helpers import conn_log

T = 1_768_467_600
"""A whole number of both horizons' steps, 0.2 s and 12 s."""

ANN, BOB, CAT = "10.0.0.1", "10.0.0.2", "10.0.0.3"
CONNECTIONS: tuple[dict[str, object], ...] = (
    # Refused at once; a second after T.
    {"ts": T + 1.0, "id.orig_h": ANN, "id.orig_p": 40001, "id.resp_h": BOB, "id.resp_p": 22,
     "proto": "tcp", "conn_state": "REJ", "local_orig": True, "local_resp": False,
     "history": "Sr", "orig_pkts": 1, "orig_ip_bytes": 60, "resp_pkts": 1, "resp_ip_bytes": 40},
    {"ts": T + 0.0, "id.orig_h": ANN, "id.orig_p": 40000, "id.resp_h": BOB, "id.resp_p": 80,
     "proto": "tcp", "service": "http", "duration": 2.0, "orig_bytes": 300, "resp_bytes": 5000,
     "conn_state": "SF", "local_orig": True, "local_resp": True, "history": "ShADadFf",
     "orig_pkts": 6, "orig_ip_bytes": 552, "resp_pkts": 8, "resp_ip_bytes": 5416},
    # Nobody answers to a group: no failure.
    {"ts": T + 2.0, "id.orig_h": ANN, "id.orig_p": 5353, "id.resp_h": "224.0.0.251",
     "id.resp_p": 5353, "proto": "udp", "service": "dns", "duration": 1.0, "orig_bytes": 64,
     "resp_bytes": 0, "conn_state": "S0", "local_orig": True, "local_resp": False,
     "history": "D", "orig_pkts": 2, "orig_ip_bytes": 120, "resp_pkts": 0, "resp_ip_bytes": 0},
    # Destination unreachable: type 3, code 1.
    {"ts": T + 4.0, "id.orig_h": CAT, "id.orig_p": 3, "id.resp_h": ANN, "id.resp_p": 1,
     "proto": "icmp", "orig_bytes": 36, "resp_bytes": 0, "conn_state": "OTH",
     "local_orig": True, "local_resp": True, "orig_pkts": 2, "orig_ip_bytes": 128,
     "resp_pkts": 0, "resp_ip_bytes": 0},
    # Everything that there are letters for; Site::local_nets is not defined here.
    {"ts": T + 5.0, "id.orig_h": "fe80::1", "id.orig_p": 0, "id.resp_h": "2001:db8::1",
     "id.resp_p": 443, "proto": "tcp", "service": "ssl,-imap,http", "duration": 2.0,
     "orig_bytes": 4000, "resp_bytes": 10, "conn_state": "OTH", "missed_bytes": 1448,
     "history": "^HQIXRCCGTTTWsqixrcgtw", "tunnel_parents": ["C1", "C2"],
     "orig_pkts": 3, "orig_ip_bytes": 1000, "resp_pkts": 1, "resp_ip_bytes": 50},
    # The second visit.
    {"ts": T + 8.0, "id.orig_h": ANN, "id.orig_p": 40002, "id.resp_h": BOB, "id.resp_p": 80,
     "proto": "tcp", "service": "http", "duration": 0.5, "orig_bytes": 300, "resp_bytes": 1000,
     "conn_state": "SF", "local_orig": True, "local_resp": True, "history": "ShADadfF",
     "orig_pkts": 5, "orig_ip_bytes": 500, "resp_pkts": 5, "resp_ip_bytes": 1200},
)  # fmt: skip
"""In the order of their ends: 1, 2, 3, 4, 7 and 8.5 s after T."""

OWN: dict[str, list[object]] = {
    "duration": [0, 2, 1, 0, 2, 0.5],
    "proto": ["tcp", "tcp", "udp", "icmp", "tcp", "tcp"],
    "ipv6": [0, 0, 0, 0, 1, 0],
    "service": ["-", "http", "dns", "-", "http", "http"],
    "services": [0, 1, 1, 0, 2, 1],
    "conn_state": ["REJ", "SF", "S0", "OTH", "OTH", "SF"],
    "failed": [1, 0, 0, 0, 0, 0],
    "local_orig": ["yes", "yes", "yes", "yes", "unset", "yes"],
    "local_resp": ["no", "yes", "no", "yes", "unset", "yes"],
    "missed_bytes": [0, 0, 0, 0, 1448, 0],
    "tunnelled": [0, 0, 0, 0, 1, 0],
    "icmp_kind": ["(unknown)"] * 3 + ["unreachable"] + ["(unknown)"] * 2,
    "orig_bytes": [0, 300, 64, 36, 4000, 300],
    "orig_pkts": [1, 6, 2, 2, 3, 5],
    "orig_ip_bytes": [60, 552, 120, 128, 1000, 500],
    "orig_size_mean": [60, 92, 60, 64, 1000 / 3, 100],
    "orig_payload_part": [0, 300 / 552, 64 / 120, 36 / 128, 1, 0.6],
    "orig_rate": [0, 3, 2, 0, 1.5, 10],
    "orig_load": [0, 2208, 960, 0, 4000, 8000],
    "orig_syn": [1, 1, 0, 0, 0, 1],
    "orig_synack": [0, 0, 0, 0, 1, 0],
    "orig_ack": [0, 1, 0, 0, 0, 1],
    "orig_data": [0, 1, 1, 0, 0, 1],
    "orig_fin": [0, 1, 0, 0, 0, 1],
    "orig_rst": [0, 0, 0, 0, 1, 0],
    "orig_odd_flags": [0, 0, 0, 0, 1, 0],
    "orig_inconsistent": [0, 0, 0, 0, 1, 0],
    "orig_partial": [0, 0, 0, 0, 1, 0],
    "orig_bad_checksums": [0, 0, 0, 0, 2, 0],
    "orig_gaps": [0, 0, 0, 0, 1, 0],
    "orig_retransmissions": [0, 0, 0, 0, 3, 0],
    "orig_zero_windows": [0, 0, 0, 0, 1, 0],
    "orig_port_class": ["ephemeral", "ephemeral", "mdns", "none", "none", "ephemeral"],
    "orig_scope": ["private"] * 4 + ["link-local", "private"],
    "resp_bytes": [0, 5000, 0, 0, 10, 1000],
    "resp_pkts": [1, 8, 0, 0, 1, 5],
    "resp_ip_bytes": [40, 5416, 0, 0, 50, 1200],
    "resp_size_mean": [40, 677, 0, 0, 50, 240],
    "resp_payload_part": [0, 5000 / 5416, 0, 0, 0.2, 1000 / 1200],
    "resp_rate": [0, 4, 0, 0, 0.5, 10],
    "resp_load": [0, 21664, 0, 0, 200, 19200],
    "resp_syn": [0, 0, 0, 0, 1, 0],
    "resp_synack": [0, 1, 0, 0, 0, 1],
    "resp_ack": [0, 1, 0, 0, 0, 1],
    "resp_data": [0, 1, 0, 0, 0, 1],
    "resp_fin": [0, 1, 0, 0, 0, 1],
    "resp_rst": [1, 0, 0, 0, 1, 0],
    "resp_odd_flags": [0, 0, 0, 0, 1, 0],
    "resp_inconsistent": [0, 0, 0, 0, 1, 0],
    "resp_partial": [0, 0, 0, 0, 1, 0],
    "resp_bad_checksums": [0, 0, 0, 0, 1, 0],
    "resp_gaps": [0, 0, 0, 0, 1, 0],
    "resp_retransmissions": [0, 0, 0, 0, 1, 0],
    "resp_zero_windows": [0, 0, 0, 0, 1, 0],
    "resp_port_class": ["ssh", "http", "mdns", "none", "https", "http"],
    "resp_scope": ["private", "private", "multicast", "private", "public", "private"],
    "packet_share": [0.5, 6 / 14, 1, 1, 0.75, 0.5],
    "byte_share": [0.6, 552 / 5968, 1, 1, 1000 / 1050, 500 / 1700],
    "payload_share": [0, 300 / 5300, 1, 1, 4000 / 4010, 300 / 1300],
    "history_length": [2, 8, 1, 0, 22, 8],
    # S|h|AD|ad|F|f; S|h|AD|ad f|F
    "history_turns": [1, 5, 0, 0, 1, 4],
    "flipped": [0, 0, 0, 0, 1, 0],
    # News: whether something is seen for the first time.
    "src_new": [1, 0, 0, 1, 1, 0],
    "dst_new": [1, 0, 1, 0, 1, 0],
    "pair_new": [1, 0, 1, 1, 1, 0],
    "src_service_new": [1, 1, 1, 1, 1, 0],
    "dst_service_new": [1, 1, 1, 1, 1, 0],
    "pair_gap": [LONGEST_GAP_S, 1, LONGEST_GAP_S, LONGEST_GAP_S, LONGEST_GAP_S, 6.5],
}
"""By feature, what it is of each connection; of categories, the term."""

REFUSED, FIRST, GROUP = exp(-37 / 50), exp(-32 / 50), exp(-27 / 50)
"""What ANN's other connections count at the last one: ends 37, 32 and 27 steps of 0.2 s ago."""
FLOWS = REFUSED + FIRST + GROUP + 1
PAIR = REFUSED + FIRST + 1


def _entropy(*counts: float) -> float:
    return -sum(count / sum(counts) * log2(count / sum(counts)) for count in counts)


SENT = 60 * REFUSED + 552 * FIRST + 120 * GROUP + 500
GOT = 40 * REFUSED + 5416 * FIRST + 1200
LAST: dict[str, float] = {
    "src_flows_10s": FLOWS, "src_flows_10m": 4,
    "src_failed_10s": REFUSED / FLOWS, "src_failed_10m": 0.25,
    "src_peers_10s": 1 + GROUP, "src_peers_10m": 2,
    "src_services_10s": 1 + REFUSED + GROUP, "src_services_10m": 3,
    "src_service_entropy_10s": _entropy(REFUSED, GROUP, 1 + FIRST),
    "src_service_entropy_10m": 1.5,
    "src_out_share_10s": SENT / (SENT + GOT), "src_out_share_10m": 1232 / (1232 + 6656),
    "src_unreachable_10m": 2,
    "dst_flows_10s": PAIR, "dst_flows_10m": 3,
    "dst_failed_10s": REFUSED / PAIR, "dst_failed_10m": 1 / 3,
    "dst_peers_10s": 1, "dst_peers_10m": 1,
    "pair_flows_10s": PAIR, "pair_flows_10m": 3,
    "pair_failed_10m": 1 / 3, "pair_out_share_10m": 1112 / (1112 + 6656),
}  # fmt: skip
"""The context of the last connection."""


@pytest.mark.parametrize("form", ["tsv", "json", "iso8601"])
def test_every_feature_is_what_was_worked_out(form: str, tmp_path: Path) -> None:
    path = conn_log(tmp_path / "conn.log", CONNECTIONS, form)
    measured = list(measure(ConnLogMeter([look_at(path)]), SCHEMA, 1))
    rows = [row for each in measured for row in each.rows]
    assert len(rows) == len(CONNECTIONS)
    for column, feature in enumerate(SCHEMA.features):
        values = [float(row[column]) for row in rows]
        if feature.vocabulary:
            assert feature.show_all(values) == OWN[feature.name], feature.name
        elif feature.name in OWN:
            assert values == pytest.approx(OWN[feature.name], abs=1e-12), feature.name
        else:
            assert values[-1] == pytest.approx(LAST[feature.name], rel=1e-6), feature.name
