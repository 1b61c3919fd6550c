"""Every schema there is keeps the promises that models and documentation rely on."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features import kdd, unsw_nb15
from features.flows import FLOW_DTYPE, NEVER, FlowBatch, empty_flows
from features.registry import SCHEMAS
from features.schema import Feature, FlowView, Kind, MeterSettings, Schema
from features.stream import TIME_FIELDS, FeatureStream
from tests.helpers import as_record

steady = settings(max_examples=40, deadline=None, database=None, derandomize=True)

# Columns of UNSW_NB15_training-set.csv between `id` and `attack_cat`.
UNSW_ORDER = """
    dur proto service state spkts dpkts sbytes dbytes rate sttl dttl sload dload sloss dloss sinpkt
    dinpkt sjit djit swin stcpb dtcpb dwin tcprtt synack ackdat smean dmean trans_depth
    response_body_len ct_srv_src ct_state_ttl ct_dst_ltm ct_src_dport_ltm ct_dst_sport_ltm
    ct_dst_src_ltm is_ftp_login ct_ftp_cmd ct_flw_http_mthd ct_src_ltm ct_srv_dst is_sm_ips_ports
""".split()
# kddcup.names.
KDD_ORDER = """
    duration protocol_type service flag src_bytes dst_bytes land wrong_fragment urgent hot
    num_failed_logins logged_in num_compromised root_shell su_attempted num_root
    num_file_creations num_shells num_access_files num_outbound_cmds is_host_login
    is_guest_login count srv_count serror_rate srv_serror_rate rerror_rate srv_rerror_rate
    same_srv_rate diff_srv_rate srv_diff_host_rate dst_host_count dst_host_srv_count
    dst_host_same_srv_rate dst_host_diff_srv_rate dst_host_same_src_port_rate
    dst_host_srv_diff_host_rate dst_host_serror_rate dst_host_srv_serror_rate
    dst_host_rerror_rate dst_host_srv_rerror_rate
""".split()


@pytest.fixture(params=list(SCHEMAS.values()), ids=list(SCHEMAS))
def schema(request: pytest.FixtureRequest) -> Schema:
    chosen: Schema = request.param
    return chosen


every_schema = pytest.mark.parametrize("schema", list(SCHEMAS.values()), ids=list(SCHEMAS))


def random_flows(seed: int, count: int) -> FlowBatch:
    """`count` valid flows in order of last time; every field takes its extremes often."""
    rng = np.random.default_rng(seed)
    flows = empty_flows(count)

    def pick(*choices: float) -> NDArray[np.int64]:
        return rng.choice(np.array(choices, np.int64), count)

    for name in ("vlan_id", "src_port", "dst_port", "src_window", "dst_window"):
        flows[name] = np.where(
            pick(0, 1), pick(0, 21, 53, 80, 65535), rng.integers(0, 65536, count)
        )
    for name in ("src_ttl", "dst_ttl", "src_tcp_flags", "dst_tcp_flags", "icmp_type", "icmp_code"):
        flows[name] = np.where(pick(0, 1), pick(0, 1, 3, 8, 255), rng.integers(0, 256, count))
    flows["protocol"] = np.where(
        pick(0, 1, 1), pick(1, 6, 6, 6, 17, 17, 58), rng.integers(0, 256, count)
    )
    flows["ip_version"] = pick(4, 6)
    flows["ending"] = pick(0, 1, 2, 3, 4, 5)
    for side in ("src", "dst"):
        flows[f"{side}_ip"] = rng.integers(0, 2, (count, 16))
        flows[f"{side}_tcp_base"] = pick(0, 1, 2**31, 2**32 - 1)
        flows[f"{side}_retransmitted"] = pick(0, 0, 1, 2**32 - 1)
        flows[f"{side}_urgent"] = pick(0, 0, 1, 2**32 - 1)
        # The source sent at least the first packet.
        packets = pick(1, 2, 3, 10, 1_000_000) - (side == "dst") * pick(0, 1)
        flows[f"{side}_packets"] = packets
        flows[f"{side}_bytes"] = packets * pick(0, 1, 60, 1514) + np.minimum(packets, pick(0, 7))
        flows[f"{side}_payload_bytes"] = packets * pick(0, 0, 1, 1460)
        # Fields of features/cic.py, which need not hang together to give finite values.
        for name in ("payload_min", "payload_max", "data_packets", "header_bytes", "header_min",
                     "push", "piat_max_us", "piat_min_us", "bulks", "bulk_packets", "bulk_bytes",
                     "bulk_span"):  # fmt: skip
            flows[f"{side}_{name}"] = pick(0, 0, 1, 1460, 2**32 - 1)
        flows[f"{side}_payload_squares"] = pick(0, 1, 2_131_600, 2**53)
    for name in ("fin", "syn", "rst", "ack", "cwr", "ece"):
        flows[f"{name}_packets"] = pick(0, 0, 1, 2**32 - 1)
    flows["subflows"] = pick(0, 1, 3)
    for name in ("active", "idle"):
        for part in ("mean", "stddev", "max", "min"):
            flows[f"{name}_{part}"] = pick(0, 5_000_001, 119_000_000)
    flows["first_us"] = pick(0, 1, 1_700_000_000_000_000, 4_000_000_000_000_000)
    span = pick(0, 1, 999, 1000, 60_000_000, 5_000_000_000)
    flows["last_us"] = flows["first_us"] + span
    flows["src_first_us"] = flows["first_us"]
    flows["src_last_us"] = flows["first_us"] + span * (flows["src_packets"] > 1)
    spoke = flows["dst_packets"] > 0
    flows["dst_first_us"] = np.where(spoke, flows["first_us"] + span // 2, NEVER)
    flows["dst_last_us"] = np.where(spoke, flows["last_us"], NEVER)
    shaken = (flows["protocol"] == 6) & spoke
    flows["syn_us"] = np.where(shaken | (pick(0, 1) == 1), flows["first_us"], NEVER)
    flows["synack_us"] = np.where(shaken & (pick(0, 1) == 1), flows["dst_first_us"], NEVER)
    flows["ack_us"] = np.where(flows["synack_us"] != NEVER, flows["last_us"], NEVER)
    for name in ("http_requests", "ftp_commands", "ftp_logins"):
        flows[name] = pick(0, 0, 1, 2, 2**32 - 1)
    flows["http_body_bytes"] = pick(0, 1, 2**50)
    for name in ("src_payload_packets", "dst_push_packets", "src_size_max"):
        flows[name] = pick(0, 1, 7, 2**32 - 1)
    flows["early_payload"] = rng.choice([0, 1, -1, 1460, -65535, 65535], (count, 8))
    for name in ("server_name", "client_fingerprint", "category"):
        flows[name] = rng.choice(np.array([b"", b"a", b"a.b", b"Web", b".", b"x" * 80]), count)
    names = np.array([b"", b"Unknown", b"DNS.Google", b"HTTP", b"TLS", b".", b"FTP_CONTROL"])
    flows["application"] = rng.choice(names, count)
    return flows[np.argsort(flows["last_us"], kind="stable")]


batches = st.builds(random_flows, st.integers(0, 2**32 - 1), st.integers(0, 130))


def view_of(schema: Schema, flows: FlowBatch) -> FlowView:
    """The flows as the only ones of a stream, all windows closed."""
    flows, windows = as_record(schema, flows), schema.windows()
    done, columns = windows.push(flows, schema.window_keys(flows))
    rest, others = windows.flush()
    assert done + rest == len(flows)
    joined = {name: np.concatenate([columns[name], others[name]]) for name in windows.names}
    return FlowView(flows, joined, 1)


def fits(feature: Feature, values: NDArray[np.float64]) -> bool:
    """Whether `values` are what the feature's kind allows."""
    whole = values == np.floor(values)
    if feature.kind is Kind.RATE:
        return bool(((values >= 0) & (values <= 1)).all())
    if feature.kind is Kind.BINARY:
        return bool(((values == 0) | (values == 1)).all())
    if feature.kind is Kind.COUNT:
        return bool((whole & (values >= 0)).all())
    if feature.kind is Kind.CATEGORICAL:
        return bool((whole & (values >= -1) & (values < len(feature.vocabulary))).all())
    return feature.unit.startswith("signed") or bool((values >= 0).all())


# ---------------------------------------------------------------------------------------
# What is declared


def test_the_registry_has_each_schema_by_its_name() -> None:
    assert list(SCHEMAS) == ["unsw-nb15", "kdd", "cicids2017", "flow", "zeek-conn"]
    assert all(schema.name == name for name, schema in SCHEMAS.items())


def test_unsw_has_the_42_columns_in_the_official_order() -> None:
    assert list(unsw_nb15.SCHEMA.names) == UNSW_ORDER
    assert len(UNSW_ORDER) == 42


def test_kdd_has_the_41_columns_in_the_official_order() -> None:
    assert list(kdd.SCHEMA.names) == KDD_ORDER
    assert len(KDD_ORDER) == 41


def test_names_are_unique(schema: Schema) -> None:
    assert len(set(schema.names)) == len(schema.features)


def test_a_schema_with_a_name_twice_is_refused(schema: Schema) -> None:
    with pytest.raises(ValueError, match="twice"):
        replace(schema, features=(*schema.features, schema.features[0]))


def test_each_feature_is_measurable_or_says_why_not(schema: Schema) -> None:
    for feature in schema.features:
        assert feature.live == (feature.measure is not None) == (not feature.unavailable)
        assert feature.meaning
        assert feature.unit
        assert feature.source


def test_each_category_has_a_vocabulary_of_distinct_terms(schema: Schema) -> None:
    for feature in schema.features:
        assert bool(feature.vocabulary) == (feature.kind is Kind.CATEGORICAL)
        assert len(set(feature.vocabulary)) == len(feature.vocabulary)


@pytest.mark.parametrize(
    "wrong",
    [
        {"measure": None, "unavailable": ""},
        {"measure": lambda view: view.dur_s, "unavailable": "no"},
        {"unavailable": "no", "vocabulary": ("a",)},
        {"unavailable": "no", "kind": Kind.CATEGORICAL},
    ],
)
def test_a_contradictory_feature_is_refused(wrong: dict[str, object]) -> None:
    arguments: dict[str, object] = {"kind": Kind.COUNT, **wrong}
    with pytest.raises(ValueError, match="feature x"):
        Feature("x", unit="s", meaning="m", source="d", **arguments)  # type: ignore[arg-type]


def test_the_windows_give_columns_of_the_schema(schema: Schema) -> None:
    assert set(schema.windows().names) <= set(schema.names)


def test_index_finds_columns_and_refuses_others(schema: Schema) -> None:
    assert schema.index([schema.names[3], schema.names[0]]).tolist() == [3, 0]
    with pytest.raises(KeyError):
        schema.index(["no such feature"])


def test_select_leaves_out_what_is_not_live_and_what_is_of_the_test_bed(schema: Schema) -> None:
    of = {feature.name: feature for feature in schema.features}
    assert schema.select() == schema.names
    live = schema.select(live=True, testbed=False)
    assert all(of[name].live and not of[name].testbed for name in live)
    left = set(schema.names) - set(live)
    assert all(not of[name].live or of[name].testbed for name in left)


def test_values_are_shown_as_a_person_writes_them() -> None:
    features = {feature.name: feature for feature in unsw_nb15.SCHEMA.features}
    assert features["proto"].show(unsw_nb15.PROTOCOLS.index("udp")) == "udp"
    assert features["proto"].show(-1) == "(unknown)"
    assert features["spkts"].show(12.0) == "12"
    assert features["dur"].show(0.5) == "0.5"
    assert float(features["dur"].show(0.123456)) == pytest.approx(0.123456, rel=0.01)


# ---------------------------------------------------------------------------------------
# The digest


def changed(schema: Schema, which: str, **changes: object) -> Schema:
    """`schema` with the feature `which` changed."""
    features = tuple(
        replace(feature, **changes) if feature.name == which else feature  # type: ignore[arg-type]
        for feature in schema.features
    )
    return replace(schema, features=features)


Change = Callable[[Schema], Schema]
CHANGES: dict[str, Change] = {
    "name": lambda s: changed(s, s.names[0], name="other"),
    "meaning": lambda s: changed(s, s.names[0], meaning="something else"),
    "unit": lambda s: changed(s, s.names[0], unit="fortnight"),
    "kind": lambda s: changed(s, _amount(s).name, kind=Kind.RATE),
    "new term": lambda s: changed(s, _category(s).name, vocabulary=(*_category(s).vocabulary, "+")),
    "order of terms": lambda s: changed(
        s, _category(s).name, vocabulary=_category(s).vocabulary[::-1]
    ),
    "order of features": lambda s: replace(s, features=s.features[::-1]),
    "fewer features": lambda s: replace(s, features=s.features[:-1]),
    "name of the schema": lambda s: replace(s, name="other"),
    "idle timeout": lambda s: replace(
        s, meter=MeterSettings(s.meter.idle_timeout_s + 1, s.meter.active_timeout_s)
    ),
    "active timeout": lambda s: replace(
        s, meter=MeterSettings(s.meter.idle_timeout_s, s.meter.active_timeout_s + 1)
    ),
}


def _amount(schema: Schema) -> Feature:
    return next(feature for feature in schema.features if feature.kind is Kind.COUNT)


def _category(schema: Schema) -> Feature:
    return next(feature for feature in schema.features if feature.vocabulary)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_digest_changes_with_what_a_column_means(schema: Schema, change: Change) -> None:
    assert change(schema).digest != schema.digest


def test_the_digest_is_of_the_declaration_alone(schema: Schema) -> None:
    assert schema.digest == replace(schema, title="another title").digest
    assert len(schema.digest) == 64


def test_no_two_schemas_share_a_digest() -> None:
    assert len({schema.digest for schema in SCHEMAS.values()}) == len(SCHEMAS)


# ---------------------------------------------------------------------------------------
# What is measured


@every_schema
@given(flows=batches)
@steady
def test_every_live_feature_gives_one_finite_value_of_its_kind(
    schema: Schema, flows: FlowBatch
) -> None:
    view = view_of(schema, flows)
    for feature in schema.features:
        if feature.measure is None:
            continue
        values = np.asarray(feature.measure(view))
        assert values.shape == (len(flows),), feature.name
        values = values.astype(np.float64)
        assert np.isfinite(values).all(), feature.name
        assert fits(feature, values), feature.name


def test_no_flows_give_no_values(schema: Schema) -> None:
    view = view_of(schema, empty_flows())
    for feature in schema.features:
        if feature.measure is not None:
            assert np.asarray(feature.measure(view)).shape == (0,), feature.name


@every_schema
@given(flows=batches, clock_us=st.sampled_from([1, 10, 1000, 1_000_000]))
@steady
def test_rows_have_nan_just_where_nothing_can_be_measured(
    schema: Schema, flows: FlowBatch, clock_us: int
) -> None:
    stream = FeatureStream(schema, clock_us)
    rows = np.concatenate([stream.push(as_record(schema, flows))[1], stream.flush()[1]])
    assert rows.shape == (len(flows), len(schema.features))
    for column, feature in enumerate(schema.features):
        values = rows[:, column]
        if feature.live:
            assert np.isfinite(values).all(), feature.name
            assert fits(feature, values), feature.name
        else:
            assert np.isnan(values).all(), feature.name


@every_schema
@given(flows=batches, clock_us=st.sampled_from([10, 1000]))
@steady
def test_a_coarse_clock_is_the_same_as_a_meter_that_has_it(
    schema: Schema, flows: FlowBatch, clock_us: int
) -> None:
    cut = flows.copy()
    for name in TIME_FIELDS:
        cut[name] = [time if time == NEVER else time - time % clock_us for time in flows[name]]
    rows = []
    for batch, clock in ((flows, clock_us), (cut, 1)):
        stream = FeatureStream(schema, clock)
        of_schema = as_record(schema, batch)
        rows.append(np.concatenate([stream.push(of_schema)[1], stream.flush()[1]]))
    np.testing.assert_array_equal(*rows)


def test_flows_of_another_record_are_refused(schema: Schema) -> None:
    (other,) = {each.record for each in SCHEMAS.values()} - {schema.record}
    with pytest.raises(ValueError, match=f"schema {schema.name} is measured from {schema.medium}"):
        FeatureStream(schema, 1).push(empty_flows(1, other))


def test_time_fields_are_all_the_times_of_a_flow() -> None:
    times = [name for name in FLOW_DTYPE.names or () if name.endswith("_us")]
    assert set(TIME_FIELDS) == {name for name in times if "piat" not in name}


# ---------------------------------------------------------------------------------------
# Codes


def flows_of(count: int, **fields: object) -> FlowBatch:
    """Flows of one source packet each, with `fields` set."""
    flows = empty_flows(count)
    flows["src_packets"] = 1
    for name, values in fields.items():
        flows[name] = values
    return flows


def terms(schema: Schema, name: str, flows: FlowBatch) -> list[str]:
    """What a category feature says of each flow, as terms."""
    feature = schema.features[schema.names.index(name)]
    assert feature.measure is not None
    values = np.asarray(feature.measure(view_of(schema, flows)), np.float64)
    return [feature.show(value) for value in values]


def test_unsw_protocols_are_argus_names_of_the_ip_numbers() -> None:
    # RFC 5237's registry, in Argus's spelling.
    named = {
        0: "zero", 1: "icmp", 2: "igmp", 6: "tcp", 8: "egp", 9: "igp", 17: "udp", 27: "rdp",
        33: "sep", 41: "ipv6", 46: "rsvp", 47: "gre", 50: "esp", 58: "ipv6-icmp", 88: "eigrp",
        89: "ospf", 94: "ipip", 103: "pim", 108: "ipcomp", 112: "vrrp", 115: "l2tp", 132: "sctp",
        133: "fc", 200: "unas", 255: "unas",
    }  # fmt: skip
    flows = flows_of(len(named), protocol=list(named))
    assert terms(unsw_nb15.SCHEMA, "proto", flows) == list(named.values())


def test_unsw_protocol_numbers_agree_with_the_systems_list() -> None:
    known = [name for name in ("tcp", "udp", "icmp", "gre", "esp", "ospf") if _number(name)]
    flows = flows_of(len(known), protocol=[_number(name) for name in known])
    assert terms(unsw_nb15.SCHEMA, "proto", flows) == known


def _number(name: str) -> int:
    try:
        return socket.getprotobyname(name)
    except OSError:  # a small container has no /etc/protocols
        return 0


def test_unsw_services_are_what_the_payload_speaks() -> None:
    names = {
        b"DNS": "dns", b"DNS.Google": "dns", b"HTTP": "http", b"HTTP.Google": "http",
        b"HTTP_Proxy": "http", b"TLS": "ssl", b"TLS.Amazon": "ssl", b"SMTPS": "ssl",
        b"SSH": "ssh", b"FTP_CONTROL": "ftp", b"FTP_DATA": "ftp-data", b"SMTP": "smtp",
        b"POP3": "pop3", b"DHCP": "dhcp", b"SNMP": "snmp", b"Radius": "radius", b"IRC": "irc",
        b"BitTorrent": "-", b"Unknown": "-", b"": "-", b"NTP": "-",
    }  # fmt: skip
    flows = flows_of(len(names), application=list(names), dst_payload_bytes=1)
    assert terms(unsw_nb15.SCHEMA, "service", flows) == list(names.values())
    # nDPI also guesses by port; Bro does not.
    flows["dst_payload_bytes"] = 0
    assert set(terms(unsw_nb15.SCHEMA, "service", flows)) == {"-"}


def test_kdd_services_are_the_responders_ports() -> None:
    cases = [
        (6, 80, "http"), (6, 443, "http_443"), (6, 8001, "http_8001"), (6, 2784, "http_2784"),
        (6, 20, "ftp_data"), (6, 21, "ftp"), (6, 22, "ssh"), (6, 23, "telnet"), (6, 25, "smtp"),
        (6, 53, "domain"), (17, 53, "domain_u"), (17, 69, "tftp_u"), (17, 123, "ntp_u"),
        (6, 79, "finger"), (6, 110, "pop_3"), (6, 113, "auth"), (6, 143, "imap4"),
        (6, 194, "IRC"), (6, 6667, "IRC"), (6, 6000, "X11"), (6, 6063, "X11"), (6, 6064, "other"),
        (6, 1, "private"), (6, 1023, "private"), (6, 1024, "other"), (6, 65535, "other"),
        (17, 80, "private"), (17, 2000, "other"), (47, 0, "other"),
    ]  # fmt: skip
    protocols, ports, names = zip(*cases, strict=True)
    flows = flows_of(len(cases), protocol=protocols, dst_port=ports)
    assert terms(kdd.SCHEMA, "service", flows) == list(names)


def test_kdd_services_of_icmp_are_its_types() -> None:
    cases = [
        (1, 8, 0, "eco_i"), (1, 0, 0, "ecr_i"), (1, 3, 3, "urp_i"), (1, 3, 1, "urh_i"),
        (1, 5, 0, "red_i"), (1, 11, 0, "tim_i"), (1, 13, 0, "icmp"),
        (58, 128, 0, "eco_i"), (58, 129, 0, "ecr_i"), (58, 135, 0, "icmp"), (58, 3, 1, "tim_i"),
    ]  # fmt: skip
    protocols, types, codes, names = zip(*cases, strict=True)
    flows = flows_of(len(cases), protocol=protocols, icmp_type=types, icmp_code=codes)
    assert terms(kdd.SCHEMA, "service", flows) == list(names)
    assert set(terms(kdd.SCHEMA, "protocol_type", flows)) == {"icmp"}
    assert set(terms(kdd.SCHEMA, "flag", flows)) == {"SF"}
