"""CICIDS2017: the 78 CICFlowMeter columns, in the order of the MachineLearningCVE files.

Definitions: Sharafaldin, Lashkari and Ghorbani, "Toward generating a new intrusion detection
dataset and intrusion traffic characterization", ICISSP 2018, and the list of features of
CICFlowMeter (then ISCXFlowMeter). The published columns do not all hold what they are called;
Engelen, Rimmer and Joosen, "Troubleshooting an intrusion detection dataset: the CICIDS2017
case study", IEEE SPW 2021, and Lanvin et al., "Errors in the CICIDS2017 dataset and the
significant differences in detection performances it makes", CRiSIS 2022, describe the tool's
errors. Which of them the rows have was established on the rows themselves (28,371 distinct
rows of the sample that have a duration; tests/features/test_cic.py) and on the capture of the
XSS attacks (docs/agreement-cicids2017.md). A feature's `meaning` is the corrected one, which
the sensor measures; :func:`remeasure` brings published rows to it. Where rows cannot be brought
to it, `testbed` says why: a model for real networks leaves the feature out.

The published tool reads as follows, and the sensor does not:

* The flags of the flow's first packet, 0 or 1, stand for counts, and in the order of a hash
  table (RST PSH ECE SYN ACK FIN URG CWR) under headings in another.
* The first packet's length goes twice into the statistics of both directions' lengths.
* Ethernet's padding counts as payload: a bare TCP segment in a 60-byte frame has 6 bytes.
* UDP's header has the length of some TCP header seen before, or of garbage.
* A TCP flow ends with its first FIN; what follows is a flow of its own. The gap before that
  FIN is no idle time. The sensor ends a flow by its timeouts only.
* Bulks are never found, flows never divided into subflows, and ratios are cut to integers.
* `Init_Win_bytes_backward` is the window of the last packet, not of the first.
* `act_data_pkt_fwd` leaves out the flow's first packet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from features.flows import FlowBatch
from features.schema import (
    NOTHING_FORGOTTEN,
    Columns,
    Feature,
    FloatArray,
    FlowView,
    Kind,
    Measure,
    MeterSettings,
    Schema,
)

SOURCE = "CICFlowMeter's list of features (Sharafaldin et al., ICISSP 2018)"

_TCP, _UDP = 6, 17
UDP_HEADER_BYTES = 8
"""RFC 768."""
_BARE_TCP_HEADER = 20
_PADDING = 6
"""What a 60-byte Ethernet frame adds to a bare IPv4 TCP segment: 60 - 14 - 20 - 20."""
IDLE_US = 5_000_000
"""CICFlowMeter's activity timeout: a longer gap is idle time."""

_SERVICE_PORTS: dict[str, tuple[int, ...]] = {
    "ftp": (20, 21), "ssh": (22,), "telnet": (23,), "smtp": (25, 465, 587), "domain": (53,),
    "dhcp": (67, 68), "http": (80, 8000, 8008, 8080), "kerberos": (88, 464), "pop3": (110, 995),
    "ntp": (123,), "epmap": (135,), "netbios-ns": (137,), "netbios-dgm": (138,),
    "netbios-ssn": (139,), "imap": (143, 993), "snmp": (161, 162), "ldap": (389, 636, 3268, 3269),
    "https": (443, 8443), "microsoft-ds": (445,), "ssdp": (1900,), "ms-wbt-server": (3389,),
    "mdns": (5353,), "llmnr": (5355,),
}  # fmt: skip
PORT_CLASSES: tuple[str, ...] = ("none", *_SERVICE_PORTS, "system", "user", "dynamic")
"""What is kept of a port: its service as IANA names it, else the range of RFC 6335, section 6."""


def _port_table() -> FloatArray:
    table = np.full(65536, float(PORT_CLASSES.index("user")))
    table[:1024] = PORT_CLASSES.index("system")
    table[49152:] = PORT_CLASSES.index("dynamic")
    table[0] = PORT_CLASSES.index("none")
    for name, ports in _SERVICE_PORTS.items():
        table[list(ports)] = PORT_CLASSES.index(name)
    return table


_PORT_TABLE = _port_table()


def port_codes(ports: NDArray[np.generic]) -> FloatArray:
    """Code in PORT_CLASSES of each port number, ``[B]``.

    Raises:
        IndexError: a number is above 65535.
    """
    return _PORT_TABLE[ports.astype(np.int64)]


def _divide(amount: FloatArray, by: FloatArray) -> FloatArray:
    """``amount / by``, 0 where `by` is not positive."""
    defined = by > 0
    return np.where(defined, amount / np.where(defined, by, 1.0), 0.0)


def sample_variance(squares: FloatArray, total: FloatArray, count: FloatArray) -> FloatArray:
    """``(squares - total^2 / count) / (count - 1)``, 0 for fewer than two; ``[B]``."""
    return np.maximum(_divide(squares - _divide(total * total, count), count - 1.0), 0.0)


def _add(terms: Iterable[FloatArray]) -> FloatArray:
    added: FloatArray = np.sum(list(terms), axis=0)
    return added


def _ported(flows: FlowBatch) -> NDArray[np.bool_]:
    """Whether the protocol is one whose payload the tool reads."""
    known: NDArray[np.bool_] = (flows["protocol"] == _TCP) | (flows["protocol"] == _UDP)
    return known


def _payload(flows: FlowBatch, side: str) -> FloatArray:
    return np.where(_ported(flows), flows[f"{side}_payload_bytes"], 0).astype(np.float64)


def _of(name: str) -> Measure:
    """A field as it is."""
    return lambda view: view.flows[name]


def _dur_us(view: FlowView) -> FloatArray:
    dur: FloatArray = (view.flows["last_us"] - view.flows["first_us"]).astype(np.float64)
    return np.maximum(dur, 0.0)


def _packets(view: FlowView, *sides: str) -> FloatArray:
    return _add(view.flows[f"{side}_packets"].astype(np.float64) for side in sides)


def _bytes(view: FlowView, *sides: str) -> FloatArray:
    return _add(_payload(view.flows, side) for side in sides)


_BOTH = ("src", "dst")


def _mean_length(*sides: str) -> Measure:
    return lambda view: _divide(_bytes(view, *sides), _packets(view, *sides))


def _length_variance(*sides: str) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        squares = _add(view.flows[f"{side}_payload_squares"] for side in sides)
        return sample_variance(squares, _bytes(view, *sides), _packets(view, *sides))

    return measure


def _length_stddev(*sides: str) -> Measure:
    variance = _length_variance(*sides)
    return lambda view: np.sqrt(variance(view))


def _smallest(view: FlowView) -> NDArray[np.generic]:
    flows = view.flows
    smaller = np.minimum(flows["src_payload_min"], flows["dst_payload_min"])
    least: NDArray[np.generic] = np.where(
        flows["dst_packets"] > 0, smaller, flows["src_payload_min"]
    )
    return least


def _largest(view: FlowView) -> NDArray[np.generic]:
    most: NDArray[np.generic] = np.maximum(
        view.flows["src_payload_max"], view.flows["dst_payload_max"]
    )
    return most


def _per_second(amount: Callable[[FlowView], FloatArray]) -> Measure:
    return lambda view: _divide(amount(view) * 1e6, _dur_us(view))


def _span_us(view: FlowView, side: str) -> FloatArray:
    """Time from a direction's first packet to its last, 0 without two packets."""
    span = view.flows[f"{side}_last_us"] - view.flows[f"{side}_first_us"]
    return np.where(view.flows[f"{side}_packets"] > 1, np.maximum(span, 0), 0).astype(np.float64)


def _gaps(side: str, what: str) -> Measure:
    """Statistic `what` of the times between packets of a `side`, or of both for ``""``."""

    def measure(view: FlowView) -> FloatArray:
        span = _span_us(view, side) if side else _dur_us(view)
        packets = _packets(view, *([side] if side else _BOTH))
        if what == "total":
            return span
        if what == "mean":
            return _divide(span, packets - 1.0)
        name = f"{side}_piat_{what}_us" if side else f"piat_{what}_us"
        # A gap is no longer than the flow, though a clock that steps back makes it so.
        return np.where(packets > 1, np.minimum(view.flows[name], span), 0.0)

    return measure


def _total_of(*names: str) -> Measure:
    return lambda view: _add(view.flows[name].astype(np.float64) for name in names)


def _ratio(amount: str, by: str, scale: float = 1.0) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        flows = view.flows
        return _divide(flows[amount].astype(np.float64) * scale, flows[by].astype(np.float64))

    return measure


def _per_subflow(side: str, what: str) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        amount = _packets(view, side) if what == "packets" else _bytes(view, side)
        return amount / np.maximum(view.flows["subflows"].astype(np.float64), 1.0)

    return measure


def _window(side: str) -> Measure:
    return lambda view: np.where(view.flows["protocol"] == _TCP, view.flows[f"{side}_window"], 0)


_FLAGS_REASON = (
    "published as the flag of the flow's first packet, 0 or 1, under the heading {published!r}; "
    "remeasure puts it back under its own, but the count is lost"
)
_BULK_REASON = "published as 0 in every row, whatever the flow: the tool never found a bulk"
_SUBFLOW_REASON = (
    "published as the flow's total, for the tool never divided a flow; how many subflows it had "
    "is lost"
)
_FIRST_ONLY_REASON = "published for the flow's first packet only, which is a forward one"
_STACK_REASON = "the TCP stacks of the laboratory's few hosts, not the traffic, decide it"
_LAST_WINDOW_REASON = (
    f"{_STACK_REASON}; published is the window of the last backward packet, not of the first"
)

PUBLISHED_FLAGS: dict[str, str] = {
    "RST": "FIN", "PSH": "SYN", "ECE": "RST", "SYN": "PSH", "ACK": "ACK", "FIN": "URG",
    "URG": "CWE", "CWE": "ECE",
}  # fmt: skip
"""The flag's name to the heading it was published under, e.g. SYN is in `PSH Flag Count`.

The order of the tool's hash table; the values agree in all 608 flows of the XSS capture.
"""

_FLAG_FIELDS: dict[str, tuple[str, ...]] = {
    "FIN": ("fin_packets",), "SYN": ("syn_packets",), "RST": ("rst_packets",),
    "PSH": ("src_push", "dst_push"), "ACK": ("ack_packets",),
    "URG": ("src_urgent", "dst_urgent"), "CWE": ("cwr_packets",), "ECE": ("ece_packets",),
}  # fmt: skip


def _columns() -> tuple[Feature, ...]:
    amount, count = Kind.CONTINUOUS, Kind.COUNT

    def of(
        name: str, kind: Kind, unit: str, meaning: str, measure: Measure, **more: object
    ) -> Feature:
        return Feature(name, kind, unit, meaning, SOURCE, measure, **more)  # type: ignore[arg-type]

    def lengths(way: str, side: str) -> tuple[Feature, ...]:
        them = f"of the payload lengths of {way.lower()} packets, without Ethernet's padding"
        name = f"{way} Packet Length"
        return (
            of(f"{name} Max", count, "bytes", f"largest {them}", _of(f"{side}_payload_max")),
            of(
                f"{name} Min",
                count,
                "bytes",
                f"smallest {them}, 0 without a packet",
                _of(f"{side}_payload_min"),
            ),
            of(
                f"{name} Mean",
                amount,
                "bytes",
                f"mean {them}, 0 without a packet",
                _mean_length(side),
            ),
            of(
                f"{name} Std",
                amount,
                "bytes",
                f"sample standard deviation {them}, 0 without two packets",
                _length_stddev(side),
            ),
        )

    def gaps(way: str, side: str) -> tuple[Feature, ...]:
        whose = f"{way.lower()} packets" if side else "packets of either direction"
        them = f"of the times between {whose}"
        total = (of(f"{way} IAT Total", amount, "us", f"sum {them}", _gaps(side, "total")),)
        return (
            *(total if side else ()),
            of(f"{way} IAT Mean", amount, "us", f"mean {them}, 0 without one", _gaps(side, "mean")),
            of(
                f"{way} IAT Std",
                amount,
                "us",
                f"sample standard deviation {them}, 0 without two",
                _gaps(side, "stddev"),
            ),
            of(f"{way} IAT Max", amount, "us", f"longest {them}", _gaps(side, "max")),
            of(f"{way} IAT Min", amount, "us", f"shortest {them}", _gaps(side, "min")),
        )

    def flag(name: str) -> Feature:
        spelt = {"CWE": "CWR"}.get(name, name)
        return of(
            f"{name} Flag Count",
            count,
            "packets",
            f"TCP packets with {spelt}, of both directions, all of the flow",
            _total_of(*_FLAG_FIELDS[name]),
            testbed=_FLAGS_REASON.format(published=f"{PUBLISHED_FLAGS[name]} Flag Count"),
        )

    def bulks(way: str, side: str) -> tuple[Feature, ...]:
        them = (
            f"bulk of {way.lower()} packets: at least 4 packets with payload, less than or just "
            "1 s apart, none with payload from the other side between"
        )
        return (
            of(
                f"{way} Avg Bytes/Bulk",
                amount,
                "bytes",
                f"payload bytes a {them}",
                _ratio(f"{side}_bulk_bytes", f"{side}_bulks"),
                testbed=_BULK_REASON,
            ),
            of(
                f"{way} Avg Packets/Bulk",
                amount,
                "packets",
                f"packets a {them}",
                _ratio(f"{side}_bulk_packets", f"{side}_bulks"),
                testbed=_BULK_REASON,
            ),
            of(
                f"{way} Avg Bulk Rate",
                amount,
                "bytes/s",
                f"payload bytes a second of a {them}",
                _ratio(f"{side}_bulk_bytes", f"{side}_bulk_span", 1e6),
                testbed=_BULK_REASON,
            ),
        )

    def spans(name: str, unit_meaning: str) -> tuple[Feature, ...]:
        field = name.lower()
        return tuple(
            of(
                f"{name} {what}",
                amount,
                "us",
                f"{said} {unit_meaning}, 0 without one",
                _of(f"{field}_{part}"),
            )
            for what, part, said in (
                ("Mean", "mean", "mean"),
                ("Std", "stddev", "sample standard deviation"),
                ("Max", "max", "longest"),
                ("Min", "min", "shortest"),
            )
        )

    header = "TCP or UDP header bytes, options included and IP's header not, of {} packets"
    subflow = "{} {} / subflows, which a gap over 1 s between packets divides; not cut to integers"
    return (
        of("Destination Port", Kind.CATEGORICAL, "class",
           "class of the destination port: its service, else its range; a port's number is a name, "
           "so neither a count nor an amount",
           lambda view: port_codes(view.flows["dst_port"]), vocabulary=PORT_CLASSES),
        of("Flow Duration", amount, "us",
           "time from the first packet to the last; flows end by timeouts, not with the first FIN",
           _dur_us),
        of("Total Fwd Packets", count, "packets", "forward packets", _of("src_packets")),
        of("Total Backward Packets", count, "packets", "backward packets", _of("dst_packets")),
        of("Total Length of Fwd Packets", count, "bytes",
           "payload bytes of forward packets, without Ethernet's padding",
           lambda view: _bytes(view, "src")),
        of("Total Length of Bwd Packets", count, "bytes",
           "payload bytes of backward packets, without Ethernet's padding",
           lambda view: _bytes(view, "dst")),
        *lengths("Fwd", "src"),
        *lengths("Bwd", "dst"),
        of("Flow Bytes/s", amount, "bytes/s",
           "payload bytes of both directions / duration, 0 for no duration",
           _per_second(lambda view: _bytes(view, *_BOTH))),
        of("Flow Packets/s", amount, "packets/s",
           "packets of both directions / duration, 0 for no duration",
           _per_second(lambda view: _packets(view, *_BOTH))),
        *gaps("Flow", ""),
        *gaps("Fwd", "src"),
        *gaps("Bwd", "dst"),
        of("Fwd PSH Flags", count, "packets", "forward TCP packets with PSH", _of("src_push"),
           testbed=_FIRST_ONLY_REASON),
        of("Bwd PSH Flags", count, "packets", "backward TCP packets with PSH", _of("dst_push"),
           testbed=_FIRST_ONLY_REASON),
        of("Fwd URG Flags", count, "packets", "forward TCP packets with URG", _of("src_urgent"),
           testbed=_FIRST_ONLY_REASON),
        of("Bwd URG Flags", count, "packets", "backward TCP packets with URG", _of("dst_urgent"),
           testbed=_FIRST_ONLY_REASON),
        of("Fwd Header Length", count, "bytes", header.format("forward"), _of("src_header_bytes")),
        of("Bwd Header Length", count, "bytes", header.format("backward"), _of("dst_header_bytes")),
        of("Fwd Packets/s", amount, "packets/s", "forward packets / duration, 0 for no duration",
           _per_second(lambda view: _packets(view, "src"))),
        of("Bwd Packets/s", amount, "packets/s", "backward packets / duration, 0 for no duration",
           _per_second(lambda view: _packets(view, "dst"))),
        of("Min Packet Length", count, "bytes", "smallest payload length of a packet", _smallest),
        of("Max Packet Length", count, "bytes", "largest payload length of a packet", _largest),
        of("Packet Length Mean", amount, "bytes",
           "mean payload length; the first packet counts once", _mean_length(*_BOTH)),
        of("Packet Length Std", amount, "bytes",
           "sample standard deviation of the payload lengths; the first packet counts once",
           _length_stddev(*_BOTH)),
        of("Packet Length Variance", amount, "bytes^2",
           "sample variance of the payload lengths; the first packet counts once",
           _length_variance(*_BOTH)),
        *(flag(name) for name in ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "CWE", "ECE")),
        of("Down/Up Ratio", amount, "1", "backward packets / forward packets, not cut to integers",
           _ratio("dst_packets", "src_packets")),
        of("Average Packet Size", amount, "bytes",
           "payload bytes / packets; the first packet counts once, so as Packet Length Mean",
           _mean_length(*_BOTH)),
        of("Avg Fwd Segment Size", amount, "bytes", "as Fwd Packet Length Mean",
           _mean_length("src")),
        of("Avg Bwd Segment Size", amount, "bytes", "as Bwd Packet Length Mean",
           _mean_length("dst")),
        of("Fwd Header Length.1", count, "bytes", "Fwd Header Length again, as published",
           _of("src_header_bytes")),
        *bulks("Fwd", "src"),
        *bulks("Bwd", "dst"),
        of("Subflow Fwd Packets", amount, "packets", subflow.format("forward", "packets"),
           _per_subflow("src", "packets"), testbed=_SUBFLOW_REASON),
        of("Subflow Fwd Bytes", amount, "bytes", subflow.format("forward", "payload bytes"),
           _per_subflow("src", "bytes"), testbed=_SUBFLOW_REASON),
        of("Subflow Bwd Packets", amount, "packets", subflow.format("backward", "packets"),
           _per_subflow("dst", "packets"), testbed=_SUBFLOW_REASON),
        of("Subflow Bwd Bytes", amount, "bytes", subflow.format("backward", "payload bytes"),
           _per_subflow("dst", "bytes"), testbed=_SUBFLOW_REASON),
        of("Init_Win_bytes_forward", count, "bytes",
           "TCP window field of the first forward packet, not scaled; 0, published -1, if none",
           _window("src"), testbed=_STACK_REASON),
        of("Init_Win_bytes_backward", count, "bytes",
           "TCP window field of the first backward packet, not scaled; 0, published -1, if none",
           _window("dst"), testbed=_LAST_WINDOW_REASON),
        of("act_data_pkt_fwd", count, "packets",
           "forward packets with payload, the flow's first packet included",
           _of("src_data_packets")),
        of("min_seg_size_forward", count, "bytes",
           "smallest TCP or UDP header of a forward packet, options included",
           _of("src_header_min")),
        *spans("Active", "of the times, over 0, from the first to the last packet between two gaps "
               "over 5 s; what follows the last such gap does not count"),
        *spans("Idle", "of the gaps over 5 s between packets"),
    )  # fmt: skip


def remeasure(rows: FloatArray, clock_us: int, rng: np.random.Generator) -> FloatArray:
    """Published rows ``[N, 78]`` as a sensor with a clock of `clock_us` would measure them.

    The errors that the module names are undone as far as a row tells, then times are cut as a
    clock cuts them. A row does not tell how many of a TCP flow's packets carried Ethernet's
    padding: that is undone in directions whose largest payload is the padding, and of the
    smallest payload; elsewhere totals keep at most 6 bytes a bare packet. Nor does it tell what
    followed the first FIN: flows stay cut. Rows of no duration have rates of 0, as the tool
    itself has for `Fwd Packets/s`.
    """
    at = {name: column for column, name in enumerate(SCHEMA.names)}
    result = rows.copy()

    def col(name: str) -> FloatArray:
        values: FloatArray = result[:, at[name]]
        return values

    def put(name: str, values: FloatArray) -> None:
        result[:, at[name]] = values

    tcp = col("Init_Win_bytes_forward") >= 0
    ported = col("Destination Port") != PORT_CLASSES.index("none")
    ways = (("Fwd", "Total Fwd Packets"), ("Bwd", "Total Backward Packets"))
    count = {way: col(packets).copy() for way, packets in ways}
    packets = count["Fwd"] + count["Bwd"]
    published = col("Total Length of Fwd Packets") + col("Total Length of Bwd Packets")
    # Its mean has the first packet's length twice over one packet more.
    first = np.round(col("Packet Length Mean") * (packets + 1.0) - published)
    first = np.clip(first, col("Fwd Packet Length Min"), col("Fwd Packet Length Max"))

    for way, _ in ways:
        if way == "Fwd":
            bare = tcp & (col("min_seg_size_forward") == _BARE_TCP_HEADER)
        else:
            bare = tcp & (col("Bwd Header Length") < 32.0 * count["Bwd"])
        name = f"{way} Packet Length"
        put(f"{name} Min", np.where(bare & (col(f"{name} Min") == _PADDING), 0.0,
                                    col(f"{name} Min")))  # fmt: skip
        padding = bare & (col(f"{name} Max") == _PADDING)
        if way == "Fwd":
            first = np.where(padding, 0.0, first)
            put("act_data_pkt_fwd", np.where(padding, 0.0, col("act_data_pkt_fwd") + (first > 0)))
        for other in (f"{name} Max", f"{name} Std", f"Total Length of {way} Packets"):
            put(other, np.where(padding, 0.0, col(other)))
        mean = _divide(col(f"Total Length of {way} Packets"), count[way])
        put(f"{name} Mean", mean)
        put(f"Avg {way} Segment Size", mean)
        header = col(f"{way} Header Length")
        header = np.where(tcp, header, np.where(ported, UDP_HEADER_BYTES * count[way], 0.0))
        put(f"{way} Header Length", header)
    put("Fwd Header Length.1", col("Fwd Header Length"))
    smallest = np.where(ported, float(UDP_HEADER_BYTES), 0.0)
    put("min_seg_size_forward", np.where(tcp, col("min_seg_size_forward"), smallest))
    for way in ("forward", "backward"):
        put(f"Init_Win_bytes_{way}", np.maximum(col(f"Init_Win_bytes_{way}"), 0.0))

    total = col("Total Length of Fwd Packets") + col("Total Length of Bwd Packets")
    mean = _divide(total, packets)
    spread = sum(
        np.maximum(count[way] - 1.0, 0.0) * col(f"{way} Packet Length Std") ** 2
        + count[way] * (col(f"{way} Packet Length Mean") - mean) ** 2
        for way, _ in ways
    )
    variance = _divide(np.asarray(spread), packets - 1.0)
    put("Packet Length Mean", mean)
    put("Average Packet Size", mean)
    put("Packet Length Variance", variance)
    put("Packet Length Std", np.sqrt(variance))
    longest = np.maximum(col("Fwd Packet Length Max"), col("Bwd Packet Length Max"))
    put("Max Packet Length", longest)
    shortest = np.minimum(col("Fwd Packet Length Min"), col("Bwd Packet Length Min"))
    put("Min Packet Length", np.where(count["Bwd"] > 0, shortest, col("Fwd Packet Length Min")))
    put("Down/Up Ratio", _divide(count["Bwd"], count["Fwd"]))
    flags = {flag: rows[:, at[f"{heading} Flag Count"]] for flag, heading in
             PUBLISHED_FLAGS.items()}  # fmt: skip
    for flag, values in flags.items():
        put(f"{flag} Flag Count", values)

    _undo_idle(rows, at, result)
    _cut_times(result, at, count, clock_us, rng)
    dur_s = col("Flow Duration") / 1e6
    put("Flow Bytes/s", _divide(total, dur_s))
    put("Flow Packets/s", _divide(packets, dur_s))
    for way, _ in ways:
        put(f"{way} Packets/s", _divide(count[way], dur_s))
    return result


def _undo_idle(rows: FloatArray, at: Mapping[str, int], result: FloatArray) -> None:
    """Give flows the idle time before their FIN, where the row tells it.

    Without another idle time it is the longest gap, and the time before it was active, for the
    FIN is the flow's last packet.
    """
    gap, dur = rows[:, at["Flow IAT Max"]], rows[:, at["Flow Duration"]]
    left_out = (rows[:, at["Idle Max"]] == 0) & (gap > IDLE_US)
    active = np.maximum(dur - gap, 0.0)
    for part in ("Mean", "Max", "Min"):
        for name, values in (("Idle", gap), ("Active", active)):
            column = at[f"{name} {part}"]
            result[:, column] = np.where(left_out, values, rows[:, column])


def _cut_times(
    result: FloatArray,
    at: Mapping[str, int],
    count: Mapping[str, FloatArray],
    clock_us: int,
    rng: np.random.Generator,
) -> None:
    """Cut every time as a clock of `clock_us` does, in place.

    An interval comes out a tick longer or shorter depending on where in its tick it began,
    which `rng` draws. What is cut stays possible: extremes enclose the mean, and the standard
    deviation lies between the least and the most that extremes and mean allow.
    """

    def cut(interval: FloatArray, begin: FloatArray) -> FloatArray:
        # Rounded first: 0.001 * 1000 may fall short of 1.
        ticks = np.floor(begin + np.round(np.maximum(interval, 0.0) / clock_us, 6))
        return ticks * clock_us

    def draw() -> FloatArray:
        return rng.random(len(result))

    phase = draw()
    dur = cut(result[:, at["Flow Duration"]], phase)
    result[:, at["Flow Duration"]] = dur
    # The flow's first packet is a forward one.
    for way, packets, begin in (
        ("Flow", count["Fwd"] + count["Bwd"], phase),
        ("Fwd", count["Fwd"], phase),
        ("Bwd", count["Bwd"], draw()),
    ):
        gaps = np.maximum(packets - 1.0, 0.0)
        total = dur
        if way != "Flow":
            total = np.minimum(cut(result[:, at[f"{way} IAT Total"]], begin), dur)
            total = np.where(gaps > 0, total, 0.0)
            result[:, at[f"{way} IAT Total"]] = total
        mean = _divide(total, gaps)
        longest = cut(result[:, at[f"{way} IAT Max"]], draw())
        shortest = cut(result[:, at[f"{way} IAT Min"]], draw())
        longest = np.minimum(np.maximum(longest, np.ceil(mean / clock_us) * clock_us), total)
        shortest = np.minimum(shortest, np.floor(mean / clock_us) * clock_us)
        longest = np.where(gaps > 1, longest, total)
        shortest = np.where(gaps > 2, shortest, np.where(gaps > 1, total - longest, total))
        above, below = longest - mean, mean - shortest
        most = np.sqrt(np.maximum(_divide(gaps, gaps - 1.0) * above * below, 0.0))
        least = np.sqrt(_divide(above**2 + below**2, gaps - 1.0))
        stddev = np.minimum(np.maximum(result[:, at[f"{way} IAT Std"]], least), most)
        for part, values in (
            ("Mean", mean),
            ("Std", np.where(gaps > 1, stddev, 0.0)),
            ("Max", longest),
            ("Min", shortest),
        ):
            result[:, at[f"{way} IAT {part}"]] = values
    for name in ("Active", "Idle"):
        begin = draw()
        longest = cut(result[:, at[f"{name} Max"]], begin)
        shortest = cut(result[:, at[f"{name} Min"]], begin)
        result[:, at[f"{name} Max"]], result[:, at[f"{name} Min"]] = longest, shortest
        column = at[f"{name} Mean"]
        result[:, column] = np.clip(result[:, column], shortest, longest)


class NoWindows:
    """A flow's features are its own: it is complete as soon as it is seen."""

    names: tuple[str, ...] = ()
    forgotten = NOTHING_FORGOTTEN

    def push(
        self, flows: FlowBatch, keys: Mapping[str, NDArray[np.generic]]
    ) -> tuple[int, Columns]:
        """All flows are complete at once."""
        return len(flows), {}

    def flush(self) -> tuple[int, Columns]:
        """Nothing waits."""
        return 0, {}


def window_keys(flows: FlowBatch) -> dict[str, NDArray[np.generic]]:
    """Nothing is compared with other flows."""
    return {}


SCHEMA = Schema(
    name="cicids2017",
    title="CICIDS2017, the 78 columns of CICFlowMeter",
    features=_columns(),
    # CICFlowMeter ends a flow 120 s after its first packet; it has no idle timeout of its own.
    meter=MeterSettings(idle_timeout_s=120, active_timeout_s=120),
    remeasure=remeasure,
    window_keys=window_keys,
    windows=NoWindows,
)
