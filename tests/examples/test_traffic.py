"""The traffic builder says exactly what it was told, and what TCP would say."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path as FilePath
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dns import DNS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet
from scapy.utils import PcapNgReader, RawPcapNgReader, RawPcapReader

from examples import traffic
from examples.traffic import LINUX, WINDOWS, Frame, Host, Path, Side, TcpConversation, TcpSession

CLIENT, SERVER = Side.CLIENT, Side.SERVER
ANN = Host("02:00:00:00:00:01", "10.0.0.1")
BOB = Host("02:00:00:00:00:02", "192.0.2.7", ttl=57)
ANN6 = Host("02:00:00:00:00:01", "2001:db8::1")
BOB6 = Host("02:00:00:00:00:02", "2001:db8::7", ttl=57)
NOON_US = 1_768_478_400_000_000


def decode(frames: list[Frame]) -> list[Packet]:
    """Scapy's reading of the frames in order of time."""
    return [Ether(frame) for _, frame in sorted(frames)]


def numbers(packet: Packet) -> tuple[str, int, int, int]:
    """Flags, sequence number, acknowledgement number and payload octets."""
    tcp = packet[TCP]
    return str(tcp.flags), tcp.seq, tcp.ack, len(tcp.payload)


# ---------------------------------------------------------------------------------------
# One packet


def test_checksum_is_that_of_the_rfc() -> None:
    # RFC 1071, section 3: the words sum to ddf2.
    assert traffic.internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    assert traffic.internet_checksum(b"\x12") == 0xFFFF - 0x1200
    assert traffic.internet_checksum(b"\xff\xff") == 0
    assert traffic.internet_checksum(b"\0\0") == 0xFFFF


ports = st.integers(0, 65535)
payloads = st.binary(max_size=40)
ends = st.sampled_from([(ANN, BOB), (BOB, ANN), (ANN6, BOB6)])
vlans = st.none() | st.integers(0, 4095)
ttls = st.none() | st.integers(1, 255)


@settings(deadline=None)
@given(
    ends,
    ports,
    ports,
    st.sets(st.sampled_from("FSRPAUEC")),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    payloads,
    ports,
    ports,
    ttls,
    vlans,
)
def test_tcp_octets_are_scapys(
    hosts: tuple[Host, Host],
    source_port: int,
    target_port: int,
    letters: set[str],
    seq: int,
    ack: int,
    payload: bytes,
    window: int,
    ip_id: int,
    ttl: int | None,
    vlan: int | None,
) -> None:
    flags = "".join(sorted(letters))
    frame = traffic.tcp_frame(
        *hosts,
        source_port,
        target_port,
        flags,
        seq=seq,
        ack=ack,
        payload=payload,
        window=window,
        ip_id=ip_id,
        ttl=ttl,
        vlan=vlan,
    )
    packet = traffic.tcp_packet(
        *hosts,
        source_port,
        target_port,
        flags,
        seq=seq,
        ack=ack,
        payload=payload,
        window=window,
        ip_id=ip_id,
        ttl=ttl,
        vlan=vlan,
    )
    assert frame == bytes(packet)


@settings(deadline=None)
@given(ends, ports, ports, payloads, ports, ttls, vlans)
def test_udp_octets_are_scapys(
    hosts: tuple[Host, Host],
    source_port: int,
    target_port: int,
    payload: bytes,
    ip_id: int,
    ttl: int | None,
    vlan: int | None,
) -> None:
    frame = traffic.udp_frame(
        *hosts, source_port, target_port, payload, ip_id=ip_id, ttl=ttl, vlan=vlan
    )
    packet = traffic.udp_packet(
        *hosts, source_port, target_port, payload, ip_id=ip_id, ttl=ttl, vlan=vlan
    )
    assert frame == bytes(packet)


@settings(deadline=None)
@given(ports, ports, payloads, st.booleans(), vlans)
def test_icmp_octets_are_scapys(
    identifier: int, sequence: int, payload: bytes, reply: bool, vlan: int | None
) -> None:
    frame = traffic.icmp_echo_frame(ANN, BOB, identifier, sequence, payload, reply=reply, vlan=vlan)
    packet = traffic.icmp_echo_packet(
        ANN, BOB, identifier, sequence, payload, reply=reply, vlan=vlan
    )
    assert frame == bytes(packet)


def test_a_udp_checksum_of_zero_is_sent_as_ones() -> None:
    plain = Ether(traffic.udp_frame(ANN, BOB, 1, 2, b"\0\0"))[UDP].chksum
    # Adding the checksum to the sum makes it all ones, whose complement is zero.
    frame = traffic.udp_frame(ANN, BOB, 1, 2, plain.to_bytes(2, "big"))
    assert Ether(frame)[UDP].chksum == 0xFFFF


def test_sizes_are_those_of_the_headers() -> None:
    assert len(traffic.tcp_frame(ANN, BOB, 1, 2, "S")) == 14 + 20 + 20
    assert len(traffic.tcp_frame(ANN, BOB, 1, 2, "S", pad=True)) == 60
    assert len(traffic.tcp_frame(ANN, BOB, 1, 2, "S", payload=bytes(7), pad=True)) == 61
    assert len(traffic.tcp_frame(ANN6, BOB6, 1, 2, "S", vlan=5)) == 14 + 4 + 40 + 20
    assert len(traffic.udp_frame(ANN, BOB, 1, 2, bytes(100))) == 14 + 20 + 8 + 100


def test_vlan_ttl_and_addresses_are_those_given() -> None:
    packet = Ether(traffic.tcp_frame(BOB, ANN, 80, 1025, "SA", vlan=42, ttl=3))
    assert packet[Dot1Q].vlan == 42
    assert (packet[IP].src, packet[IP].dst, packet[IP].ttl) == (BOB.ip, ANN.ip, 3)
    assert (packet.src, packet.dst) == (BOB.mac, ANN.mac)
    assert Ether(traffic.udp_frame(BOB6, ANN6, 53, 1025))[IPv6].hlim == BOB6.ttl


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(ValueError, match="different IP versions"):
        traffic.tcp_frame(ANN, BOB6, 1, 2, "S")
    with pytest.raises(ValueError, match="multiple of 4"):
        traffic.tcp_frame(ANN, BOB, 1, 2, "S", options=b"\1")
    with pytest.raises(KeyError):
        traffic.tcp_frame(ANN, BOB, 1, 2, "X")


# ---------------------------------------------------------------------------------------
# Conversations with times given


def test_segments_are_numbered_and_keep_their_times() -> None:
    wire = TcpConversation(ANN, BOB, 1025, 80, client_isn=1000, server_isn=5000)
    wire.handshake(NOON_US, NOON_US + 3, NOON_US + 5)
    wire.segment(NOON_US + 7, CLIENT, "PA", b"hello")
    wire.segment(NOON_US + 11, SERVER, "PA", b"you too")
    wire.segment(NOON_US + 13, SERVER, "PA", b"you too", seq=5001)  # once more
    wire.farewell(CLIENT, NOON_US + 17, NOON_US + 19, NOON_US + 23)
    assert [time - NOON_US for time, _ in wire.frames] == [0, 3, 5, 7, 11, 13, 17, 19, 23]
    assert [numbers(packet) for packet in decode(wire.frames)] == [
        ("S", 1000, 0, 0),
        ("SA", 5000, 1001, 0),
        ("A", 1001, 5001, 0),
        ("PA", 1001, 5001, 5),
        ("PA", 5001, 1006, 7),
        ("PA", 5001, 1006, 7),
        ("FA", 1006, 5008, 0),
        ("FA", 5008, 1007, 0),
        ("A", 1007, 5009, 0),
    ]
    assert [packet[TCP].dport for packet in decode(wire.frames)[:2]] == [80, 1025]


def test_sequence_numbers_wrap() -> None:
    wire = TcpConversation(ANN, BOB, 1025, 80, client_isn=2**32 - 2)
    wire.handshake(0, 1, 2)
    wire.segment(3, CLIENT, "PA", b"abc")
    wire.segment(4, SERVER, "A")
    assert [numbers(packet)[1:3] for packet in decode(wire.frames)[3:]] == [
        (2**32 - 1, 1),
        (1, 2),
    ]
    assert wire.next_seq(CLIENT) == 2


def test_explicit_numbers_win() -> None:
    wire = TcpConversation(ANN, BOB, 1025, 80)
    wire.segment(1, CLIENT, "A", b"xy", seq=77, ack=88, window=99, ttl=11)
    packet = decode(wire.frames)[0]
    assert numbers(packet) == ("A", 77, 88, 2)
    assert (packet[TCP].window, packet[IP].ttl) == (99, 11)
    assert wire.next_seq(CLIENT) == 79


def test_options_are_used_when_both_sides_offer_them() -> None:
    def spoken(client: traffic.Stack, server: traffic.Stack) -> tuple[int, list[Packet]]:
        ends = (Host(ANN.mac, ANN.ip, 64, client), Host(BOB.mac, BOB.ip, 64, server))
        wire = TcpConversation(*ends, 1025, 80, client_clock_ms=500, server_clock_ms=9000)
        wire.handshake(1_000_000, 1_020_000, 1_040_000)
        return wire.max_payload, [packet[TCP] for packet in decode(wire.frames)]

    room, (syn, synack, ack) = spoken(LINUX, LINUX)
    assert room == 1448
    assert dict(syn.options)["MSS"] == 1460
    assert dict(syn.options)["Timestamp"] == (1500, 0)
    assert dict(synack.options)["Timestamp"] == (10_020, 1500)
    assert dict(ack.options)["Timestamp"] == (1540, 10_020)
    assert dict(synack.options)["WScale"] == 7
    assert (syn.window, ack.window) == (64240, 64240 >> 7)

    room, (syn, synack, ack) = spoken(WINDOWS, LINUX)
    assert room == 1460
    assert "Timestamp" not in dict(synack.options)
    assert (ack.options, ack.dataofs) == ([], 5)
    assert ack.window == 64240 >> 8

    room, (syn, synack, ack) = spoken(LINUX, traffic.PLAIN)
    assert room == 1460
    assert (synack.options, ack.options) == ([], [])
    assert ack.window == 64240


def test_udp_exchange_goes_both_ways() -> None:
    frames = traffic.udp_exchange(
        ANN, BOB, 5353, 53, [(10, CLIENT, b"who"), (12, SERVER, b"me!!")], client_ip_id=4
    )
    assert [time for time, _ in frames] == [10, 12]
    question, answer = decode(frames)
    assert (question[IP].src, question[UDP].sport, question[UDP].dport) == (ANN.ip, 5353, 53)
    assert (answer[IP].src, answer[UDP].sport, answer[UDP].len) == (BOB.ip, 53, 12)
    assert question[IP].id == 4


# ---------------------------------------------------------------------------------------
# Conversations on a path

WAY = Path(client_us=100.0, server_us=10_000.0, jitter=0.0)


def session(
    path: Path = WAY, stack: traffic.Stack = LINUX, ack_every: int = 2, seed: int = 1
) -> TcpSession:
    ends = (Host(ANN.mac, ANN.ip, 64, stack), Host(BOB.mac, BOB.ip, 57, stack))
    wire = TcpConversation(*ends, 1025, 80, client_isn=100, server_isn=2**32 - 1000)
    opened = TcpSession(wire, path, Random(seed), NOON_US, ack_every=ack_every)
    opened.connect()
    return opened


def heard_by_reader(frames: list[Frame], sender: str) -> bytes:
    """What `sender` said, put together in order of time; nothing may be missing or repeated."""
    said, expected = b"", None
    for packet in decode(frames):
        if packet[IP].src == sender:
            tcp = packet[TCP]
            assert expected is None or tcp.seq == expected
            payload = bytes(tcp.payload)
            said += payload
            expected = (tcp.seq + len(payload) + ("S" in tcp.flags) + ("F" in tcp.flags)) % 2**32
    return said


def test_the_path_gives_the_times() -> None:
    frames = session().frames
    syn, synack, ack = (time - NOON_US for time, _ in frames)
    assert syn == 100  # from the client to the tap
    assert 20_000 < synack - syn < 20_400  # to the server and back, and its work
    assert 200 < ack - synack < 600  # to the client and back, and its work


def test_a_lone_segment_is_acknowledged_late_and_a_quick_answer_carries_it() -> None:
    late = session()
    late.send(CLIENT, b"question")
    late.send(SERVER, b"answer", after_us=100_000)
    late.leave_open()
    rows = [numbers(packet) for packet in decode(late.frames)][3:]
    assert [row[0] for row in rows] == ["PA", "A", "PA", "A"]
    times = [time for time, _ in sorted(late.frames)][3:]
    assert times[1] - times[0] == pytest.approx(20_000 + TcpSession.DELAYED_ACK_US, abs=2)

    quick = session()
    quick.send(CLIENT, b"question")
    quick.send(SERVER, b"answer", after_us=1000)
    assert [numbers(packet)[0] for packet in decode(quick.frames)][3:] == ["PA", "PA"]


def test_a_long_message_starts_slowly() -> None:
    talk = session()
    start = len(talk.frames)
    talk.send(SERVER, bytes(1448 * 30))
    data = [time for time, frame in talk.frames[start:] if len(frame) > 1000]
    gaps = [after - before for before, after in pairwise(data)]
    # Ten segments in a row, then a round trip's wait for the first acknowledgement.
    assert all(gap < 500 for gap in gaps[:9])
    assert gaps[9] > 15_000


@pytest.mark.parametrize("how", ["close", "answered late", "abort", "open"])
@pytest.mark.parametrize("ack_every", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_or_known_too_early(how: str, ack_every: int, seed: int) -> None:
    rng = Random(seed)
    path = Path(rng.uniform(50, 40_000), rng.uniform(50, 40_000), jitter=0.4, bits_per_s=2e7)
    talk = session(path, rng.choice((LINUX, WINDOWS)), ack_every, seed)
    said = {CLIENT: b"", SERVER: b""}
    for _ in range(14):
        side = rng.choice((CLIENT, SERVER))
        message = rng.randbytes(rng.choice((1, 100, 1448, 5000, 30_000)))
        said[side] += message
        talk.send(side, message, rng.choice((0.0, 500.0, 39_000.0, 300_000.0)))
    first = rng.choice((CLIENT, SERVER))
    if how == "close":
        talk.close(first)
    elif how == "answered late":
        talk.close(first, 1e4, answer_us=2e5)
    elif how == "abort":
        talk.abort(first)
    else:
        talk.leave_open()
    assert heard_by_reader(talk.frames, ANN.ip) == said[CLIENT]
    assert heard_by_reader(talk.frames, BOB.ip) == said[SERVER]
    # Unwrapped, the numbers one side has sent bound what the other may acknowledge.
    base = {ANN.ip: 100, BOB.ip: 2**32 - 1000}
    sent = {ANN.ip: 0, BOB.ip: 0}
    acknowledged = {ANN.ip: 0, BOB.ip: 0}
    for packet in decode(talk.frames):
        me, you, tcp = packet[IP].src, packet[IP].dst, packet[TCP]
        if "A" in tcp.flags:
            upto = (tcp.ack - base[you]) % 2**32
            assert acknowledged[you] <= upto <= sent[you]
            acknowledged[you] = upto
        end = (tcp.seq - base[me]) % 2**32 + len(tcp.payload) + ("S" in tcp.flags)
        sent[me] = max(sent[me], end + ("F" in tcp.flags))
    if how != "abort":
        assert acknowledged == sent


def test_sessions_of_one_seed_are_one() -> None:
    def talk(seed: int) -> list[Frame]:
        made = session(Path(100.0, 9000.0), seed=seed)
        made.send(CLIENT, bytes(20_000))
        made.close(CLIENT)
        return made.frames

    assert talk(3) == talk(3)
    assert talk(3) != talk(4)


# ---------------------------------------------------------------------------------------
# Applications


def test_dns_messages_decode() -> None:
    question = DNS(traffic.dns_query(7, "www.example.com"))
    assert question.qd[0].qname == b"www.example.com."
    answer = DNS(traffic.dns_answer(7, "www.example.com", ["192.0.2.1", "192.0.2.2"]))
    assert (answer.id, answer.qr, answer.ancount) == (7, 1, 2)
    assert [record.rdata for record in answer.an] == ["192.0.2.1", "192.0.2.2"]
    assert DNS(traffic.dns_answer(7, "www.example.com", [], "AAAA")).ancount == 0


def test_ntp_messages_tell_the_time() -> None:
    message = traffic.ntp_message(NOON_US + 500_000, from_server=True)
    seconds, fraction = struct.unpack("!II", message[40:])
    assert len(message) == 48
    assert seconds - 2_208_988_800 == NOON_US // 1_000_000
    assert fraction == 1 << 31


def test_tls_lengths_add_up() -> None:
    hellos = traffic.tls_hellos("www.example.com", Random(1))
    for kind, hello in zip((1, 2), hellos, strict=True):
        assert struct.unpack("!H", hello[3:5])[0] == len(hello) - 5
        assert hello[5] == kind
        assert int.from_bytes(hello[6:9], "big") == len(hello) - 9
    assert b"www.example.com" in hellos[0]
    records = traffic.tls_records(40_000, Random(1))
    sizes = []
    while records:
        size = struct.unpack("!H", records[3:5])[0]
        sizes.append(size - 17)
        records = records[5 + size :]
    assert sizes == [16_384, 16_384, 7232]


@given(st.binary(max_size=300))
def test_ssh_packets_are_padded_to_blocks(payload: bytes) -> None:
    packet = traffic.ssh_packet(payload)
    size, padding = struct.unpack("!IB", packet[:5])
    assert len(packet) == 4 + size
    assert len(packet) % 8 == 0
    assert padding >= 4
    assert packet[5 : 5 + size - 1 - padding] == payload


# ---------------------------------------------------------------------------------------
# Files

times = st.lists(st.integers(0, 2**32 * 1_000_000 - 1), max_size=8)


@settings(deadline=None, max_examples=30)
@given(times)
def test_files_keep_times_to_the_microsecond(
    tmp_path_factory: pytest.TempPathFactory, moments: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    packets: list[tuple[int, bytes | Packet]] = [
        (moment, traffic.udp_packet(ANN, BOB, 1, 2, bytes(number)))
        for number, moment in enumerate(moments)
    ]
    for nanosecond in (False, True):
        path = folder / f"{nanosecond}.pcap"
        traffic.write_pcap(path, packets, nanosecond=nanosecond)
        unit = 1000 if nanosecond else 1
        data, at = path.read_bytes(), 24
        for moment, packet in packets:
            seconds, rest, kept, whole = struct.unpack_from("<IIII", data, at)
            assert (seconds * 1_000_000 * unit + rest) == moment * unit
            assert (kept, whole) == (len(packet), len(packet))
            at += 16 + kept
        assert at == len(data)
    traffic.write_pcapng(folder / "x.pcapng", packets)
    with PcapNgReader(str(folder / "x.pcapng")) as reader:  # its times are decimals, exact
        got = [(int(packet.time * 1_000_000), bytes(packet)) for packet in reader]
    assert got == [(moment, bytes(packet)) for moment, packet in packets]


def test_files_are_read_back_by_scapy(tmp_path: FilePath) -> None:
    frames = [(NOON_US + 1, traffic.icmp_echo_frame(ANN, BOB, 1, 2, b"ping"))]
    for nanosecond, unit in ((False, 1), (True, 1000)):
        traffic.write_pcap(tmp_path / "x.pcap", frames, nanosecond)
        with RawPcapReader(str(tmp_path / "x.pcap")) as reader:
            assert (reader.linktype, reader.nano) == (1, nanosecond)
            ((frame, metadata),) = list(reader)
        assert (metadata.sec, metadata.usec) == (NOON_US // 1_000_000, unit)
        assert bytes(Ether(frame)[ICMP].payload) == b"ping"


def test_a_snapshot_is_cut_but_tells_the_whole_length(tmp_path: FilePath) -> None:
    frames = [(NOON_US, traffic.udp_frame(ANN, BOB, 1, 2, bytes(500)))]
    traffic.write_pcap(tmp_path / "x.pcap", frames, snaplen=99)
    traffic.write_pcapng(tmp_path / "x.pcapng", frames, snaplen=99)
    with RawPcapReader(str(tmp_path / "x.pcap")) as reader:
        assert [(len(frame), meta.wirelen) for frame, meta in reader] == [(99, 542)]
    with RawPcapNgReader(str(tmp_path / "x.pcapng")) as ng_reader:
        assert [(len(frame), meta.wirelen) for frame, meta in ng_reader] == [(99, 542)]
