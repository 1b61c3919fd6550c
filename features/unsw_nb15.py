"""UNSW-NB15: the 42 model columns of the published training and testing files.

Definitions: Moustafa and Slay, "UNSW-NB15: a comprehensive data set for network intrusion
detection systems", MilCIS 2015, and its `NUSW-NB15_features.csv`; the formulas and the
window rule were recovered from the published rows (docs/agreement-published.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.flows import NEVER, FlowBatch, TcpFlag, address_keys
from features.schema import Feature, FloatArray, FlowView, Kind, Measure, MeterSettings, Schema
from features.windows import BlockCounts, mix_keys

SOURCE = "NUSW-NB15_features.csv"

# Argus's names of IP protocols, by number; None where the data set has no name for it.
_PROTOCOL_BY_NUMBER: tuple[str, ...] = tuple(
    (
        "zero icmp igmp ggp ipnip st2 tcp cbt egp igp bbn-rcc nvp pup argus emcon xnet chaos udp "
        "mux dcn hmp prm xns-idp trunk-1 trunk-2 leaf-1 leaf-2 rdp irtp iso-tp4 netblt mfe-nsp "
        "merit-inp sep 3pc idpr xtp ddp idpr-cmtp tp++ il ipv6 sdrp ipv6-route ipv6-frag idrp rsvp "
        "gre mhrp bna esp ah i-nlsp swipe narp mobile tlsp skip ipv6-icmp ipv6-no ipv6-opts any "
        "cftp any sat-expak kryptolan rvd ippc any sat-mon visa ipcv cpnx cphb wsn pvp br-sat-mon "
        "sun-nd wb-mon wb-expak iso-ip vmtp secure-vmtp vines ttp nsfnet-igp dgp tcf eigrp ospf "
        "sprite-rpc larp mtp ax.25 ipip micp aes-sp3-d etherip encap any gmtp ifmp pnni pim aris "
        "scps qnx a/n ipcomp snp compaq-peer ipx-n-ip vrrp pgm any l2tp ddx iatp stp srp uti smp "
        "sm ptp isis fire crtp crudp sccopmce iplt sps pipe sctp fc"
    ).split()
)
PROTOCOLS: tuple[str, ...] = tuple(
    dict.fromkeys([*_PROTOCOL_BY_NUMBER, "unas", "arp", "rtp", "udt", "ib", "ip", "pri-enc"])
)
_UNASSIGNED = PROTOCOLS.index("unas")
_PROTOCOL_CODE = np.array(
    [
        PROTOCOLS.index(_PROTOCOL_BY_NUMBER[number])
        if number < len(_PROTOCOL_BY_NUMBER)
        else _UNASSIGNED
        for number in range(256)
    ],
    dtype=np.float64,
)

STATES: tuple[str, ...] = (
    "ACC", "CLO", "CON", "ECO", "ECR", "FIN", "INT", "MAS", "PAR", "REQ", "RST", "TST", "TXD",
    "URH", "URN", "no",
)  # fmt: skip
_STATE = {name: float(code) for code, name in enumerate(STATES)}

SERVICES: tuple[str, ...] = (
    "-", "dhcp", "dns", "ftp", "ftp-data", "http", "irc", "pop3", "radius", "smtp", "snmp", "ssh",
    "ssl",
)  # fmt: skip
_SERVICE = {name: float(code) for code, name in enumerate(SERVICES)}
# nDPI names an application "protocol.application"; the part before the dot is what Bro names.
_SERVICE_OF_APPLICATION = {
    b"DHCP": "dhcp", b"DNS": "dns", b"FTP_CONTROL": "ftp", b"FTP_DATA": "ftp-data",
    b"HTTP": "http", b"HTTP_Proxy": "http", b"IRC": "irc", b"POP3": "pop3", b"Radius": "radius",
    b"RADIUS": "radius", b"SMTP": "smtp", b"SNMP": "snmp", b"SSH": "ssh", b"TLS": "ssl",
    b"SMTPS": "ssl", b"POPS": "ssl", b"IMAPS": "ssl", b"FTPS": "ssl",
}  # fmt: skip

_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58

_TTL_REASON = (
    "the generator's hosts start at a few TTLs of their own (62 or 254 in 99.8 % of the attacks)"
)
_TCP_REASON = "the generator's TCP stack, not the traffic, decides it"
_LOSS_REASON = (
    "the laboratory recorded every packet twice, and Argus counted the copies as retransmissions"
)


def service_codes(flows: FlowBatch) -> FloatArray:
    """Code in SERVICES of each flow, ``[B]``: Bro's name of what the payload speaks."""
    names, inverse = np.unique(flows["application"], return_inverse=True)
    codes = np.array(
        [_SERVICE[_SERVICE_OF_APPLICATION.get(name.split(b".")[0], "-")] for name in names]
    )
    # nDPI guesses by port when there is no payload; Bro names a service only from payload.
    spoken = (flows["src_payload_bytes"] + flows["dst_payload_bytes"]) > 0
    return np.where(spoken, codes[inverse] if len(flows) else codes[:0], _SERVICE["-"])


def state_codes(flows: FlowBatch) -> FloatArray:
    """Code in STATES of each flow, ``[B]``: Argus's state of the transaction."""
    src, dst = flows["src_tcp_flags"], flows["dst_tcp_flags"]
    both = src | dst
    answered = flows["dst_packets"] > 0
    opened = (src & TcpFlag.SYN) != 0
    acknowledged = opened & ((src & TcpFlag.ACK) != 0)
    tcp = np.select(
        [
            (both & TcpFlag.RST) != 0,
            (both & TcpFlag.FIN) != 0,
            (flows["ack_us"] != NEVER) | (answered & ((both & TcpFlag.SYN) == 0)),
            flows["synack_us"] != NEVER,
            # Seen from one side only: a SYN and what followed it, or a SYN-ACK.
            acknowledged & (flows["syn_us"] != NEVER),
            acknowledged,
            opened,
        ],
        [_STATE[name] for name in ("RST", "FIN", "CON", "ACC", "CON", "ACC", "REQ")],
        _STATE["CON"],
    )
    echo = ((flows["protocol"] == _ICMP) & (flows["icmp_type"] == 8)) | (
        (flows["protocol"] == _ICMP6) & (flows["icmp_type"] == 128)
    )
    unreachable = (flows["protocol"] == _ICMP) & (flows["icmp_type"] == 3)
    return np.select(
        [
            flows["protocol"] == _TCP,
            echo,
            unreachable & (flows["icmp_code"] == 1),
            unreachable & (flows["icmp_code"] == 0),
            answered,
        ],
        [tcp, _STATE["ECO"], _STATE["URH"], _STATE["URN"], _STATE["CON"]],
        _STATE["INT"],
    )


def _load(direction: str) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        packets = view.flows[f"{direction}_packets"].astype(np.float64)
        return load_bps(view.flows[f"{direction}_bytes"].astype(np.float64), packets, view.dur_s)

    return measure


def load_bps(sent: FloatArray, packets: FloatArray, dur_s: FloatArray) -> FloatArray:
    """``8 (bytes - bytes // packets) / dur`` in bit/s, 0 where undefined; ``[B]``.

    Recovered from the published rows, where it is exact: the load leaves out one packet, of
    the (integer) mean size, since the first packet begins the duration.
    """
    defined = (packets > 0) & (dur_s > 0)
    packets, dur_s = np.where(defined, packets, 1.0), np.where(defined, dur_s, 1.0)
    return np.where(defined, 8.0 * (sent - sent // packets) / dur_s, 0.0)


def rate_pps(packets: FloatArray, dur_s: FloatArray) -> FloatArray:
    """``(packets - 1) / dur`` in packets/s, 0 where the flow has no duration; ``[B]``."""
    defined = dur_s > 0
    return np.where(defined, (packets - 1.0) / np.where(defined, dur_s, 1.0), 0.0)


def mean_size(sent: FloatArray, packets: FloatArray) -> FloatArray:
    """``round(bytes / packets)``, half-way cases up as in every published row; ``[B]``."""
    return np.where(packets > 0, np.floor(sent / np.maximum(packets, 1.0) + 0.5), 0.0)


def _mean_size(direction: str) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        packets = view.flows[f"{direction}_packets"].astype(np.float64)
        return mean_size(view.flows[f"{direction}_bytes"].astype(np.float64), packets)

    return measure


INTERVAL_MOST_US = 120_000_000
"""Argus counts no interval as long as this, twice the 60 s after which it cuts a record."""


def _goes_on(view: FlowView, direction: str) -> NDArray[np.bool_]:
    """Where the direction's first packet ends an interval that began in an earlier record, [B]."""
    before, first = (view.flows[f"{direction}_{name}_us"] for name in ("before", "first"))
    goes_on: NDArray[np.bool_] = (
        (before != NEVER) & (first != NEVER) & (first - before < INTERVAL_MOST_US)
    )
    return goes_on


def _mean_interval_ms(direction: str) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        flows, goes_on = view.flows, _goes_on(view, direction)
        begin = np.where(goes_on, flows[f"{direction}_before_us"], flows[f"{direction}_first_us"])
        span_us = flows[f"{direction}_last_us"] - begin
        intervals = flows[f"{direction}_packets"].astype(np.float64) - 1.0 + goes_on
        return np.where(intervals > 0, span_us / 1e3 / np.maximum(intervals, 1.0), 0.0)

    return measure


def _jitter_ms(direction: str) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        flows, goes_on = view.flows, _goes_on(view, direction)
        first, last = flows[f"{direction}_first_us"], flows[f"{direction}_last_us"]
        within = np.maximum(flows[f"{direction}_packets"].astype(np.float64) - 1.0, 0.0)
        mean = (last - first) / 1e3 / np.maximum(within, 1.0)
        sample = flows[f"{direction}_piat_stddev_us"] / 1e3
        squares = sample**2 * np.maximum(within - 1.0, 0.0)
        # One interval more, as in Welford's method (Technometrics 4(3), 1962).
        delta = (first - flows[f"{direction}_before_us"]) / 1e3 - mean
        squares += np.where(goes_on, delta**2 * within / (within + 1.0), 0.0)
        jitter = np.sqrt(squares / np.maximum(within + goes_on, 1.0))
        return jitter_on_clock(jitter, view.clock_us)

    return measure


def jitter_on_clock(jitter_ms: FloatArray, clock_us: int) -> FloatArray:
    """Jitter rounded to whole ticks: less than one is the clock's own."""
    ticks = 1e3 / clock_us
    return np.round(jitter_ms * ticks) / ticks


WINDOW_MOST = 255
"""The published windows stop here."""


def _window_field(direction: str) -> Measure:
    return lambda view: np.minimum(view.flows[f"{direction}_window"], WINDOW_MOST)


_STATE_TTL_CLASSES: tuple[tuple[str, tuple[int, ...], tuple[int, ...], int], ...] = (
    ("FIN", (62, 63, 254, 255), (252, 253), 1),
    ("INT", (0, 62, 254), (0,), 2),
    ("CON", (62,), (252, 253), 3),
    ("CON", (254,), (60,), 3),
    ("CON", (254,), (252,), 4),
    ("ACC", (254,), (252,), 4),
    ("CLO", (254,), (252,), 5),
    ("REQ", (254,), (0,), 6),
)


def state_ttl_class(
    state: FloatArray, sttl: NDArray[np.generic], dttl: NDArray[np.generic]
) -> FloatArray:
    """``ct_state_ttl`` of codes in STATES and TTLs, ``[B]``.

    Recovered from the published rows. All of the raw file's first 10,000 agree, and all of the
    testing file's but 130 attacks, which have 0: those up to id 23349 where the two CON rules with
    a source TTL of 254 give 3 and 4 (from id 43754 on such rows have 3 and 4), and one ACC.
    """
    result = np.zeros(len(state))
    for name, sources, destinations, value in _STATE_TTL_CLASSES:
        match = (state == _STATE[name]) & np.isin(sttl, sources) & np.isin(dttl, destinations)
        result[match] = value
    return result


def _between_s(start: str, end: str) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        begun, done = view.flows[start], view.flows[end]
        return np.where((begun == NEVER) | (done == NEVER), 0.0, (done - begun) / 1e6)

    return measure


def _set_up_s(view: FlowView) -> FloatArray:
    """From SYN to ACK, or to SYN-ACK where none came, as in every published row with one only."""
    begun, answered, done = (view.flows[name] for name in ("syn_us", "synack_us", "ack_us"))
    done = np.where(done == NEVER, answered, done)
    return np.where((begun == NEVER) | (done == NEVER), 0.0, (done - begun) / 1e6)


def _field(name: str) -> Measure:
    return lambda view: view.flows[name]


def _window(name: str) -> Measure:
    return lambda view: view.windows[name]


def _same_endpoints(view: FlowView) -> NDArray[np.bool_]:
    flows = view.flows
    same: NDArray[np.bool_] = (flows["src_ip"] == flows["dst_ip"]).all(axis=1) & (
        flows["src_port"] == flows["dst_port"]
    )
    return same


def _feature(
    name: str, kind: Kind, unit: str, meaning: str, measure: Measure | None, **more: object
) -> Feature:
    return Feature(name, kind, unit, meaning, SOURCE, measure, **more)  # type: ignore[arg-type]


def _columns() -> tuple[Feature, ...]:
    continuous, count, binary = Kind.CONTINUOUS, Kind.COUNT, Kind.BINARY
    category = Kind.CATEGORICAL
    of = _feature
    since = "the last of an earlier record included if less than 120 s before; 0 for one alone"
    block = "in the record's block of 100 records by last time"
    same_second = f"{block}, of those with the same last second"
    return (
        of("dur", continuous, "s", "record total duration", lambda view: view.dur_s),
        of("proto", category, "name", "transaction protocol, as Argus names it",
           lambda view: _PROTOCOL_CODE[view.flows["protocol"]], vocabulary=PROTOCOLS),
        of("service", category, "name", "service as Bro names it, - if not much used",
           lambda view: service_codes(view.flows), vocabulary=SERVICES),
        of("state", category, "name", "state of the transaction, as Argus names it",
           lambda view: state_codes(view.flows), vocabulary=STATES),
        of("spkts", count, "packets", "source to destination packets", _field("src_packets")),
        of("dpkts", count, "packets", "destination to source packets", _field("dst_packets")),
        of("sbytes", count, "bytes", "source to destination frame bytes", _field("src_bytes")),
        of("dbytes", count, "bytes", "destination to source frame bytes", _field("dst_bytes")),
        of("rate", continuous, "packets/s", "(spkts + dpkts - 1) / dur",
           lambda view: rate_pps(view.total("packets"), view.dur_s)),
        of("sttl", count, "hops", "source to destination time to live", _field("src_ttl"),
           testbed=_TTL_REASON),
        of("dttl", count, "hops", "destination to source time to live", _field("dst_ttl"),
           testbed=_TTL_REASON),
        of("sload", continuous, "bit/s", "8 (sbytes - sbytes // spkts) / dur", _load("src")),
        of("dload", continuous, "bit/s", "8 (dbytes - dbytes // dpkts) / dur", _load("dst")),
        of("sloss", count, "packets", "source packets retransmitted",
           _field("src_retransmitted"), testbed=_LOSS_REASON),
        of("dloss", count, "packets", "destination packets retransmitted",
           _field("dst_retransmitted"), testbed=_LOSS_REASON),
        of("sinpkt", continuous, "ms", f"mean time between source packets, {since}",
           _mean_interval_ms("src")),
        of("dinpkt", continuous, "ms", f"mean time between destination packets, {since}",
           _mean_interval_ms("dst")),
        of("sjit", continuous, "ms",
           "source jitter: population standard deviation of the times that sinpkt is the mean of",
           _jitter_ms("src")),
        of("djit", continuous, "ms",
           "destination jitter: population standard deviation of the times that dinpkt is the "
           "mean of", _jitter_ms("dst")),
        of("swin", count, "bytes", "source TCP window advertisement, at most 255",
           _window_field("src"), testbed=_TCP_REASON),
        of("stcpb", count, "1", "source TCP base sequence number", _field("src_tcp_base"),
           testbed=_TCP_REASON),
        of("dtcpb", count, "1", "destination TCP base sequence number", _field("dst_tcp_base"),
           testbed=_TCP_REASON),
        of("dwin", count, "bytes", "destination TCP window advertisement, at most 255",
           _window_field("dst"), testbed=_TCP_REASON),
        of("tcprtt", continuous, "s", "TCP set-up round-trip time, synack + ackdat", _set_up_s),
        of("synack", continuous, "s", "TCP set-up time from SYN to SYN-ACK",
           _between_s("syn_us", "synack_us")),
        of("ackdat", continuous, "s", "TCP set-up time from SYN-ACK to ACK",
           _between_s("synack_us", "ack_us")),
        of("smean", count, "bytes", "round(sbytes / spkts)", _mean_size("src")),
        of("dmean", count, "bytes", "round(dbytes / dpkts)", _mean_size("dst")),
        of("trans_depth", count, "requests", "depth of the HTTP request/response pipeline",
           lambda view: np.minimum(view.flows["http_requests"], 1)),
        of("response_body_len", count, "bytes", "HTTP response body bytes",
           _field("http_body_bytes")),
        of("ct_srv_src", count, "records", f"same service and source address {block}",
           _window("ct_srv_src")),
        of("ct_state_ttl", count, "1", "class of (state, sttl, dttl), 0 for none of the six",
           lambda view: state_ttl_class(
               state_codes(view.flows), view.flows["src_ttl"], view.flows["dst_ttl"]),
           testbed=_TTL_REASON),
        of("ct_dst_ltm", count, "records", f"same destination address {same_second}",
           _window("ct_dst_ltm")),
        of("ct_src_dport_ltm", count, "records",
           f"same source address and destination port {same_second}", _window("ct_src_dport_ltm")),
        of("ct_dst_sport_ltm", count, "records",
           f"same destination address and source port {same_second}", _window("ct_dst_sport_ltm")),
        of("ct_dst_src_ltm", count, "records", f"same source and destination address {same_second}",
           _window("ct_dst_src_ltm")),
        of("is_ftp_login", count, "logins", "FTP session entered by user and password",
           lambda view: np.minimum(view.flows["ftp_logins"], 1)),
        of("ct_ftp_cmd", count, "flows", "flows with a command in an FTP session",
           lambda view: view.flows["ftp_commands"] > 0),
        of("ct_flw_http_mthd", count, "requests", "HTTP requests with a method such as Get or Post",
           _field("http_requests")),
        of("ct_src_ltm", count, "records", f"same source address {same_second}",
           _window("ct_src_ltm")),
        of("ct_srv_dst", count, "records", f"same service and destination address {block}",
           _window("ct_srv_dst")),
        of("is_sm_ips_ports", binary, "1", "1 if addresses and ports of both sides are equal",
           _same_endpoints),
    )  # fmt: skip


_WINDOW_NAMES = (
    "ct_srv_src",
    "ct_srv_dst",
    "ct_dst_ltm",
    "ct_src_ltm",
    "ct_src_dport_ltm",
    "ct_dst_sport_ltm",
    "ct_dst_src_ltm",
)


def window_keys(flows: FlowBatch) -> dict[str, NDArray[np.generic]]:
    """What each ``ct_*`` compares, one 64-bit key a flow, ``[B]`` each."""
    src, dst = address_keys(flows["src_ip"]), address_keys(flows["dst_ip"])
    service = service_codes(flows).astype(np.uint64)[:, None]
    second = (flows["last_us"] // 1_000_000).astype(np.uint64)[:, None]
    src_port = flows["src_port"].astype(np.uint64)[:, None]
    dst_port = flows["dst_port"].astype(np.uint64)[:, None]

    def key(*parts: NDArray[np.uint64]) -> NDArray[np.generic]:
        mixed: NDArray[np.generic] = mix_keys(np.concatenate(parts, axis=1))
        return mixed

    return {
        "ct_srv_src": key(service, src),
        "ct_srv_dst": key(service, dst),
        "ct_dst_ltm": key(dst, second),
        "ct_src_ltm": key(src, second),
        "ct_src_dport_ltm": key(src, dst_port, second),
        "ct_dst_sport_ltm": key(dst, src_port, second),
        "ct_dst_src_ltm": key(src, dst, second),
    }


CARRIED_MS = 1000.0
"""By so much the intervals of a side are longer than the flow where one began before it; less may
be the rounding of published means."""

COPIES = 2
"""How often the laboratory's capture recorded each packet: both packet counts are even in
99.3 % or more of the benign and the attack rows of either file, TCP and UDP."""

LINK_HEADER_BYTES = 14
"""Ethernet's header, which the published byte counts leave out: an ARP request counts 46 (the
padded payload of a 60-byte frame) or 28 bytes, a bare TCP SYN's two copies 44 + 46."""


_ARGUS_SLIP = 1000.0


def single_copy_jitter_ms(
    jitter_ms: FloatArray, interval_ms: FloatArray, recorded: FloatArray, packets: FloatArray
) -> FloatArray:
    """Standard deviation of the times between packets that each were recorded once, ``[N]``.

    Argus 3.0.8 keeps "active" and "idle" intervals apart; where a flow has both, it prints
    ``sqrt(1000 E[g^2] - E[g]^2)`` of all its intervals g, a slip of units, else their standard
    deviation. Which of the two a row has is told by what is possible: a variance cannot exceed
    that of one interval holding all the time. From E[g^2] of both copies, with the copies'
    own intervals taken as zero, comes the variance of one copy's.

    Args:
        jitter_ms, interval_ms: as published, of all `recorded` packets.
        recorded: packets as published.
        packets: packets of one copy.
    """
    gaps = np.maximum(recorded - 1.0, 1.0)
    total = interval_ms * gaps
    squares = (jitter_ms**2 + interval_ms**2) * gaps
    squares = np.where(squares > total**2 * 1.001, squares / _ARGUS_SLIP, squares)
    own = np.maximum(packets - 1.0, 1.0)
    variance = np.maximum(squares / own - (total / own) ** 2, 0.0)
    return np.where(packets > 2, np.sqrt(variance), 0.0)


def remeasure(rows: FloatArray, clock_us: int, rng: np.random.Generator) -> FloatArray:
    """Published rows ``[N, 42]`` as a sensor with a clock of `clock_us` would measure them.

    A sensor sees each packet once (:data:`COPIES`) and counts whole frames
    (:data:`LINK_HEADER_BYTES`): counts, sizes and times between packets are those of one copy,
    loads and rates are computed anew. See docs/decisions/0002.

    Where the intervals of a side last longer than the flow (:data:`CARRIED_MS`), the first is that
    since the record before: it begins with a packet more than the row's, of which the last copy.

    A clock cuts each time stamp, so an interval comes out a tick longer or shorter depending
    on where in its tick the flow began; `rng` draws that phase, one a flow, and every time
    that starts with the flow's first packet shares it.
    """
    at = {name: column for column, name in enumerate(SCHEMA.names)}
    result = rows.copy()
    ticks_per_s, ticks_per_ms = 1e6 / clock_us, 1e3 / clock_us
    phase = rng.random(len(rows))

    def cut(interval: FloatArray, ticks: float, begin: FloatArray) -> FloatArray:
        # Rounded first: 0.001 s is one tick, though 0.001 * 1000 may fall short of 1.
        ticked: FloatArray = np.floor(begin + np.round(interval * ticks, 6)) / ticks
        return ticked

    dur = cut(rows[:, at["dur"]], ticks_per_s, phase)
    result[:, at["dur"]] = dur
    shaken = rows[:, at["tcprtt"]] > 0
    synack = np.where(shaken, cut(rows[:, at["synack"]], ticks_per_s, phase), 0.0)
    tcprtt = np.where(shaken, cut(rows[:, at["tcprtt"]], ticks_per_s, phase), 0.0)
    result[:, at["synack"]], result[:, at["tcprtt"]] = synack, tcprtt
    result[:, at["ackdat"]] = tcprtt - synack
    total = np.zeros(len(rows))
    for side, begin in (("s", phase), ("d", rng.random(len(rows)))):
        recorded = rows[:, at[f"{side}pkts"]]
        packets = np.ceil(recorded / COPIES)
        link_bytes = LINK_HEADER_BYTES * packets
        sent = np.round(rows[:, at[f"{side}bytes"]] / COPIES) + link_bytes
        mean = rows[:, at[f"{side}inpkt"]]
        result[:, at[f"{side}pkts"]] = packets
        carried = mean * np.maximum(packets - 1.0, 1.0) > rows[:, at["dur"]] * 1e3 + CARRIED_MS
        copies, ends = recorded + carried, packets + carried
        # What is published is the mean over all copies; the span that it was taken over is not.
        span = cut(mean * np.maximum(copies - 1.0, 0.0), ticks_per_ms, begin)
        result[:, at[f"{side}bytes"]] = np.where(packets > 0, sent, 0.0)
        result[:, at[f"{side}mean"]] = mean_size(sent, packets)
        result[:, at[f"{side}inpkt"]] = np.where(ends > 1, span / np.maximum(ends - 1.0, 1.0), 0.0)
        result[:, at[f"{side}load"]] = load_bps(sent, packets, dur)
        jitter = single_copy_jitter_ms(rows[:, at[f"{side}jit"]], mean, copies, ends)
        result[:, at[f"{side}jit"]] = jitter_on_clock(jitter, clock_us)
        total += packets
    result[:, at["rate"]] = rate_pps(total, dur)
    return result


def _windows() -> BlockCounts:
    return BlockCounts(_WINDOW_NAMES)


SCHEMA = Schema(
    name="unsw-nb15",
    title="UNSW-NB15, the 42 columns of the published training and testing files",
    features=_columns(),
    meter=MeterSettings(idle_timeout_s=60, active_timeout_s=60),
    remeasure=remeasure,
    window_keys=window_keys,
    windows=_windows,
)
