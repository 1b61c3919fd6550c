"""Capture files of every format and in every state of repair.

What a part promises, that a meter can read all of it, is checked with libpcap itself: the one
in NFStream's engine, which is what the meter reads with.
"""

from __future__ import annotations

import bz2
import ctypes
import gzip
import itertools
import lzma
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import _lib_engine
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import traffic
from features.registry import SCHEMAS
from sensor.captures import ENGINE_BYTES, Capture, CaptureSpool, Chain, Part, chain, too_long
from sensor.errors import InputError
from sensor.meter.compiled.meter import CompiledMeter

steady = settings(max_examples=100, deadline=None, database=None, derandomize=True)

ANN = traffic.Host("02:00:00:00:00:01", "10.0.0.1")
BOB = traffic.Host("02:00:00:00:00:02", "10.0.0.2")
FRAME = traffic.udp_frame(ANN, BOB, 1000, 2000, b"payload")
START_US = 1_700_000_000_123_456
SECOND = 1_000_000

PCAP_US, PCAP_NS, PCAP_KUZNETZOV = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
ETHERNET, RAW_IP, SLL, SLL2 = 1, 101, 113, 276

Record = tuple[int, bytes]
RECORDS: list[Record] = [(START_US + number * SECOND, FRAME[: 60 - number]) for number in range(4)]


# ---------------------------------------------------------------------------------------
# Files, octet by octet


def pcap(
    records: Sequence[Record],
    *,
    order: str = "<",
    magic: int = PCAP_US,
    link_type: int = ETHERNET,
    snaplen: int = 65535,
) -> bytes:
    """A classic pcap file; times in µs."""
    parts = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type)]
    for time_us, data in records:
        seconds, fraction = divmod(time_us, SECOND)
        fraction *= 1000 if magic == PCAP_NS else 1
        parts.append(struct.pack(f"{order}IIII", seconds, fraction, len(data), len(data)))
        if magic == PCAP_KUZNETZOV:
            parts.append(struct.pack(f"{order}IHBB", 3, 0x0800, 0, 0))
        parts.append(data)
    return b"".join(parts)


@dataclass(frozen=True)
class Ng:
    """Blocks of a pcapng file in one byte order (draft-ietf-opsawg-pcapng)."""

    order: str = "<"

    def block(self, kind: int, body: bytes) -> bytes:
        """Any block."""
        body += bytes(-len(body) % 4)
        length = struct.pack(f"{self.order}I", len(body) + 12)
        return struct.pack(f"{self.order}I", kind) + length + body + length

    def option(self, code: int, value: bytes) -> bytes:
        """One option, padded."""
        return struct.pack(f"{self.order}HH", code, len(value)) + value + bytes(-len(value) % 4)

    @property
    def section(self) -> bytes:
        """A section header."""
        return self.block(0x0A0D0D0A, struct.pack(f"{self.order}IHHq", 0x1A2B3C4D, 1, 0, -1))

    def interface(
        self, link_type: int = ETHERNET, snaplen: int = 65535, options: bytes = b""
    ) -> bytes:
        """An interface description."""
        return self.block(1, struct.pack(f"{self.order}HHI", link_type, 0, snaplen) + options)

    def packet(
        self, ticks: int, data: bytes = FRAME, number: int = 0, captured: int | None = None
    ) -> bytes:
        """An enhanced packet block; `captured` may lie."""
        claimed = len(data) if captured is None else captured
        head = (number, ticks >> 32, ticks & 0xFFFFFFFF, claimed, len(data))
        return self.block(6, struct.pack(f"{self.order}IIIII", *head) + data)

    def simple(self, data: bytes = FRAME) -> bytes:
        """A simple packet block."""
        return self.block(3, struct.pack(f"{self.order}I", len(data)) + data)

    def obsolete(self, ticks: int, data: bytes = FRAME, number: int = 0) -> bytes:
        """A packet block of old."""
        head = (number, 0xFFFF, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
        return self.block(2, struct.pack(f"{self.order}HHIIII", *head) + data)

    def file(self, records: Sequence[Record]) -> bytes:
        """One section with one interface."""
        packets = b"".join(self.packet(time_us, data) for time_us, data in records)
        return self.section + self.interface() + packets


NG = Ng()
PCAP, PCAPNG = pcap(RECORDS), NG.file(RECORDS)


# ---------------------------------------------------------------------------------------
# libpcap


class _Header(ctypes.Structure):
    """pcap_pkthdr."""

    _fields_ = (
        ("seconds", ctypes.c_int64), ("micros", ctypes.c_int64),
        ("captured", ctypes.c_uint32), ("length", ctypes.c_uint32),
    )  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What libpcap makes of a file; `refused` where it does not even open it."""

    refused: str
    link_type: int
    times_us: list[int]
    data: list[bytes]
    error: str


def libpcap(path: Path) -> Seen:
    """Read a file to its end with the engine's libpcap."""
    library = ctypes.CDLL(_lib_engine.__file__)
    library.pcap_open_offline.restype = ctypes.c_void_p
    library.pcap_geterr.restype = ctypes.c_char_p
    for name in ("pcap_datalink", "pcap_geterr", "pcap_close", "pcap_next_ex"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    complaint = ctypes.create_string_buffer(256)
    handle = library.pcap_open_offline(str(path).encode(), complaint)
    if not handle:
        return Seen(complaint.value.decode(), -1, [], [], "")
    header, data = ctypes.POINTER(_Header)(), ctypes.POINTER(ctypes.c_uint8)()
    library.pcap_next_ex.argtypes = [ctypes.c_void_p, *[ctypes.c_void_p] * 2]
    times, packets = [], []
    while (result := library.pcap_next_ex(handle, ctypes.byref(header), ctypes.byref(data))) == 1:
        # Seconds are signed there; the sensor puts the era right.
        times.append(header.contents.seconds % (1 << 32) * SECOND + header.contents.micros)
        packets.append(ctypes.string_at(data, header.contents.captured))
    error = "" if result == -2 else library.pcap_geterr(handle).decode()
    link_type = library.pcap_datalink(handle)
    library.pcap_close(handle)
    return Seen("", link_type, times, packets, error)


# ---------------------------------------------------------------------------------------
# Looking through


@pytest.fixture
def spool() -> Iterator[CaptureSpool]:
    with CaptureSpool() as opened:
        yield opened


@pytest.fixture
def look(spool: CaptureSpool, tmp_path: Path) -> Callable[[bytes], Capture]:
    """Look octets through as a file."""
    numbers = itertools.count()

    def open_octets(octets: bytes) -> Capture:
        path = tmp_path / f"{next(numbers)}.cap"
        path.write_bytes(octets)
        return spool.open(path)

    return open_octets


Look = Callable[[bytes], Capture]


def check_parts(capture: Capture) -> None:
    """libpcap reads each part to its end, and finds in it what the part says."""
    for part in capture.parts:
        seen = libpcap(part.path)
        assert (seen.refused, seen.error) == ("", "")
        assert len(seen.times_us) == part.packets
        assert (min(seen.times_us), max(seen.times_us)) == (part.first_us, part.last_us)


def complaint(open_it: Callable[[], object]) -> str:
    """The message of the InputError that is raised: one line."""
    with pytest.raises(InputError) as caught:
        open_it()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [PCAP_US, PCAP_NS, PCAP_KUZNETZOV])
def test_classic_pcap(look: Look, order: str, magic: int) -> None:
    capture = look(pcap(RECORDS, order=order, magic=magic))
    assert (capture.packets, capture.problem) == (4, "")
    (part,) = capture.parts
    assert part == Part(capture.path, ETHERNET, 4, START_US, START_US + 3 * SECOND)
    check_parts(capture)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng(look: Look, order: str) -> None:
    capture = look(Ng(order).file(RECORDS))
    assert (capture.packets, capture.problem) == (4, "")
    (part,) = capture.parts
    assert (part.link_type, part.packets) == (ETHERNET, 4)
    assert (part.first_us, part.last_us) == (START_US, START_US + 3 * SECOND)
    check_parts(capture)


@pytest.mark.parametrize("plain", [PCAP, PCAPNG], ids=["pcap", "pcapng"])
@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gzip", "xz"])
def test_compressed(look: Look, plain: bytes, pack: Callable[[bytes], bytes]) -> None:
    capture = look(pack(plain))
    assert (capture.packets, capture.problem) == (4, "")
    (part,) = capture.parts
    assert part.path != capture.path
    assert (part.first_us, part.last_us) == (START_US, START_US + 3 * SECOND)
    check_parts(capture)


def test_a_gzip_file_of_several_members_is_one_file(look: Look) -> None:
    capture = look(gzip.compress(PCAP[:100]) + gzip.compress(PCAP[100:]))
    assert (capture.packets, capture.problem) == (4, "")


def test_what_the_builder_writes(spool: CaptureSpool, tmp_path: Path) -> None:
    for write, name in ((traffic.write_pcap, "a.pcap"), (traffic.write_pcapng, "a.pcapng")):
        write(tmp_path / name, RECORDS)
        capture = spool.open(tmp_path / name)
        assert (capture.packets, capture.problem) == (4, "")
        check_parts(capture)


def test_seconds_beyond_2038_are_unsigned(look: Look) -> None:
    late_us = 0x9000_0000 * SECOND
    capture = look(pcap([(late_us, FRAME), (late_us + 1, FRAME)]))
    assert (capture.parts[0].first_us, capture.parts[0].last_us) == (late_us, late_us + 1)


def test_microseconds_below_zero_are_what_libpcap_makes_of_them(look: Look) -> None:
    # They occur: in 2 of 3,230 captures of public collections.
    octets = bytearray(pcap(RECORDS))
    struct.pack_into("<i", octets, PCAP_EDGES[2] + 4, -250_000)
    capture = look(bytes(octets))
    assert capture.parts[0].last_us == START_US // SECOND * SECOND + 3 * SECOND - 250_000
    check_parts(capture)


def test_packets_may_lie_out_of_order(look: Look) -> None:
    capture = look(pcap(RECORDS[::-1]))
    assert (capture.parts[0].first_us, capture.parts[0].last_us) == (
        START_US,
        START_US + 3 * SECOND,
    )


@pytest.mark.parametrize(
    "octets", [pcap([]), NG.file([]), NG.section], ids=["pcap", "pcapng", "section"]
)
def test_a_file_without_packets_has_no_parts(look: Look, octets: bytes) -> None:
    capture = look(octets)
    assert (capture.packets, capture.problem, capture.parts) == (0, "", ())


def test_the_frame_check_length_is_no_part_of_the_link_type(look: Look) -> None:
    # The upper half of the field says that frames end with 4 octets of check sequence.
    capture = look(pcap(RECORDS, link_type=ETHERNET | 0x2400_0000))
    assert capture.parts[0].link_type == ETHERNET


def test_the_copies_are_gone_when_the_spool_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(PCAP))
    with CaptureSpool() as spool:
        copy = spool.open(path).parts[0].path
        assert copy.exists()
    assert not copy.exists()
    assert not copy.parent.exists()
    assert path.exists()


# ---------------------------------------------------------------------------------------
# pcapng's fields


def opt_resolution(value: int) -> bytes:
    return NG.option(9, bytes([value]))


@pytest.mark.parametrize(
    ("options", "ticks", "time_us"),
    [
        (b"", 1_700_000_000_000_001, 1_700_000_000_000_001),
        (opt_resolution(6), 1_700_000_000_000_001, 1_700_000_000_000_001),
        (opt_resolution(9), 1_700_000_000_000_001_999, 1_700_000_000_000_001),
        (opt_resolution(3), 1_700_000_000_001, 1_700_000_000_001_000),
        (opt_resolution(0), 1_700_000_000, 1_700_000_000_000_000),
        (opt_resolution(0x80 | 10), 1_700_000_000 * 1024 + 512, 1_700_000_000_500_000),
        (NG.option(14, struct.pack("<q", 1_700_000_000)), 5, 1_700_000_000_000_005),
        (NG.option(14, struct.pack("<q", -10)), 1_700_000_000_000_000, 1_699_999_990_000_000),
        (
            opt_resolution(9) + NG.option(14, struct.pack("<q", 1_700_000_000)),
            1_234_567,
            1_700_000_000_001_234,
        ),
        # Other options, and whatever follows the end of options, mean nothing here.
        (
            NG.option(2, b"eth0") + opt_resolution(9),
            1_700_000_000_000_001_000,
            1_700_000_000_000_001,
        ),
        (NG.option(0, b"") + opt_resolution(9), 1_700_000_000_000_001, 1_700_000_000_000_001),
    ],
    ids=[
        "default", "10^-6", "10^-9", "10^-3", "seconds", "2^-10", "offset", "offset back",
        "offset of a fine clock", "other options", "end of options",
    ],
)  # fmt: skip
def test_pcapng_clocks(look: Look, options: bytes, ticks: int, time_us: int) -> None:
    capture = look(NG.section + NG.interface(options=options) + NG.packet(ticks))
    assert (capture.packets, capture.problem) == (1, "")
    assert capture.parts[0].first_us == time_us
    check_parts(capture)


def test_interfaces_may_have_clocks_of_their_own(look: Look) -> None:
    octets = NG.section + NG.interface() + NG.interface(options=opt_resolution(9))
    capture = look(octets + NG.packet(START_US) + NG.packet((START_US + 7) * 1000, number=1))
    assert (capture.parts[0].first_us, capture.parts[0].last_us) == (START_US, START_US + 7)
    check_parts(capture)


def test_a_simple_packet_has_the_time_of_the_packet_before_it(look: Look) -> None:
    capture = look(NG.section + NG.interface() + NG.packet(START_US) + NG.simple())
    assert (capture.packets, capture.problem) == (2, "")
    assert (capture.parts[0].first_us, capture.parts[0].last_us) == (START_US, START_US)
    # To libpcap the second is of 1970, but NFStream does not let time run backwards.
    assert len(libpcap(capture.parts[0].path).times_us) == 2


def test_a_simple_packet_is_cut_at_the_snapshot_length(look: Look) -> None:
    data = struct.pack("<I", 1000) + FRAME[:20]
    capture = look(NG.section + NG.interface(snaplen=20) + NG.block(3, data))
    assert (capture.packets, capture.problem) == (1, "")
    (seen,) = libpcap(capture.parts[0].path).data
    assert seen == FRAME[:20]


def test_packet_blocks_of_old_are_read(look: Look) -> None:
    capture = look(NG.section + NG.interface() + NG.obsolete(START_US))
    assert (capture.packets, capture.problem) == (1, "")
    assert capture.parts[0].first_us == START_US
    check_parts(capture)


def test_blocks_of_other_kinds_are_passed_over(look: Look) -> None:
    statistics, names, private = NG.block(5, bytes(12)), NG.block(4, bytes(4)), NG.block(0xBAD, b"")
    octets = NG.section + names + NG.interface() + private + NG.packet(START_US) + statistics
    capture = look(octets)
    assert (capture.packets, capture.problem) == (1, "")
    check_parts(capture)


def test_each_section_describes_its_interfaces_anew(look: Look) -> None:
    first = NG.section + NG.interface() + NG.interface() + NG.packet(START_US, number=1)
    capture = look(first + NG.section + NG.interface() + NG.packet(START_US + 5))
    assert (capture.packets, capture.problem) == (2, "")
    check_parts(capture)
    # Interface 1 of the first section is none of the second's.
    capture = look(first + NG.section + NG.interface() + NG.packet(START_US + 5, number=1))
    assert capture.packets == 1
    assert "interface 1" in capture.problem


def test_packets_before_any_interface_are_damage(look: Look) -> None:
    capture = look(NG.section + NG.packet(START_US))
    assert (capture.packets, capture.parts) == (0, ())
    assert "interface 0" in capture.problem


# ---------------------------------------------------------------------------------------
# Link types


def test_mixed_link_types_become_parts(look: Look) -> None:
    raw = FRAME[14:]
    octets = NG.section + NG.interface(ETHERNET) + NG.interface(RAW_IP)
    octets += NG.packet(START_US, FRAME) + NG.packet(START_US + 1, raw, 1)
    octets += NG.packet(START_US + 2, FRAME) + NG.packet(START_US + 9, raw, 1)
    octets += NG.packet(START_US + 5, FRAME)
    capture = look(octets)
    assert (capture.packets, capture.problem) == (5, "")
    summary = [(p.link_type, p.packets, p.first_us, p.last_us) for p in capture.parts]
    assert summary == [
        (ETHERNET, 3, START_US, START_US + 5),
        (RAW_IP, 2, START_US + 1, START_US + 9),
    ]
    check_parts(capture)
    ether, ip = (libpcap(part.path) for part in capture.parts)
    assert ether.data == [FRAME] * 3
    assert ip.data == [raw] * 2
    assert ether.link_type == 1
    assert ip.link_type == 12  # LINKTYPE_RAW is libpcap's DLT_RAW


def test_mixed_snapshot_lengths_become_one_readable_part(look: Look) -> None:
    octets = NG.section + NG.interface(snaplen=100) + NG.interface(snaplen=200)
    capture = look(octets + NG.packet(START_US) + NG.packet(START_US + 1, number=1))
    assert (capture.packets, capture.problem, len(capture.parts)) == (2, "", 1)
    check_parts(capture)


def test_link_types_that_cannot_be_metered_are_named_and_left_out(look: Look) -> None:
    octets = NG.section + NG.interface(ETHERNET) + NG.interface(195) + NG.interface(4711)
    octets += NG.packet(START_US) + NG.packet(START_US, number=1) + NG.packet(START_US, number=2)
    capture = look(octets)
    assert [part.link_type for part in capture.parts] == [ETHERNET]
    assert "195 (IEEE 802.15.4), 4711" in capture.problem
    check_parts(capture)


@pytest.mark.parametrize(
    "octets",
    [pcap(RECORDS, link_type=195), NG.section + NG.interface(195) + NG.packet(1)],
    ids=["pcap", "pcapng"],
)
def test_a_file_that_cannot_be_metered_at_all_is_refused(look: Look, octets: bytes) -> None:
    message = complaint(lambda: look(octets))
    assert "195 (IEEE 802.15.4)" in message
    assert ".cap" in message


def test_cooked_v2_becomes_v1(look: Look) -> None:
    ip = FRAME[14:]
    # Protocol, reserved, interface 3, ARPHRD 1, sent by us (4), address of 6 octets.
    v2 = struct.pack("!HHIHBB8s", 0x0800, 0, 3, 1, 4, 6, b"\2\0\0\0\0\1") + ip
    capture = look(pcap([(START_US, v2), (START_US + 1, v2)], link_type=SLL2))
    assert (capture.packets, capture.problem) == (2, "")
    (part,) = capture.parts
    assert (part.link_type, part.packets) == (SLL, 2)
    check_parts(capture)
    # Sent by us, ARPHRD 1, address of 6 octets, protocol.
    v1 = struct.pack("!HHH8sH", 4, 1, 6, b"\2\0\0\0\0\1", 0x0800) + ip
    assert libpcap(part.path).data == [v1, v1]


# ---------------------------------------------------------------------------------------
# What is no capture


OTHERS = {
    "nothing": (b"", "is empty"),
    "a script": (b"#!/bin/sh\necho hello\n", "is a text file"),
    "a program": (b"\x7fELF\x02\x01\x01\x00", "is not a pcap or pcapng capture"),
    "half a magic number": (b"\x0a\x0d", ""),
    "zeros": (bytes(100), "is not a pcap or pcapng capture"),
    "zstd": (b"\x28\xb5\x2f\xfd\x00", "zstd -d"),
    "bzip2": (bz2.compress(PCAP), "bunzip2"),
    "zip": (b"PK\x03\x04rest", "zip archive"),
    "snoop": (b"snoop\0\0\0\0\0\0\2", "snoop"),
    "packed text": (gzip.compress(b"hello\n"), "is a text file"),
    "packed nothing": (gzip.compress(b""), "is empty"),
    "packed noise": (lzma.compress(b"\x00\x01\x02"), "is not a pcap or pcapng capture"),
}


@pytest.mark.parametrize(("octets", "reason"), OTHERS.values(), ids=OTHERS)
def test_other_files_are_refused_by_name_and_with_a_reason(
    look: Look, octets: bytes, reason: str
) -> None:
    message = complaint(lambda: look(octets))
    assert reason in message
    assert "0.cap: " in message


def test_places_that_are_no_file_are_refused(spool: CaptureSpool, tmp_path: Path) -> None:
    assert "is a directory" in complaint(lambda: spool.open(tmp_path))
    missing = tmp_path / "missing.pcap"
    assert complaint(lambda: spool.open(missing)) == f"{missing}: no such file or directory"
    below = tmp_path / "file"
    below.write_bytes(PCAP)
    assert "not a directory" in complaint(lambda: spool.open(below / "x.pcap"))
    long = tmp_path / ("x" * 300)
    assert "name too long" in complaint(lambda: spool.open(long))


# ---------------------------------------------------------------------------------------
# Cut files


def edges(octets: bytes, blocks: Sequence[bytes]) -> list[int]:
    """Where each of `blocks`, the packets of a file, ends."""
    at, found = 0, []
    for block in blocks:
        at = octets.index(block, at) + len(block)
        found.append(at)
    return found


PCAP_EDGES = edges(PCAP, [data for _, data in RECORDS])
PCAPNG_EDGES = edges(PCAPNG, [NG.packet(time_us, data) for time_us, data in RECORDS])


@pytest.mark.parametrize(
    ("octets", "ends", "head"),
    [(PCAP, PCAP_EDGES, 24), (PCAPNG, PCAPNG_EDGES, PCAPNG_EDGES[0] - len(NG.packet(*RECORDS[0])))],
    ids=["pcap", "pcapng"],
)
def test_a_file_cut_anywhere_is_read_up_to_there(
    look: Look, octets: bytes, ends: list[int], head: int
) -> None:
    assert ends[-1] == len(octets)
    for cut in range(len(octets)):
        if cut < 4:
            complaint(lambda cut=cut: look(octets[:cut]))  # type: ignore[misc]
            continue
        capture = look(octets[:cut])
        whole = sum(end <= cut for end in ends)
        assert capture.packets == whole, cut
        at_an_edge = cut in ends or cut == head or (octets is PCAPNG and cut == len(NG.section))
        assert bool(capture.problem) != at_an_edge, cut
        if capture.problem:
            assert "cut" in capture.problem
            assert f"{whole} packets before it are used" in capture.problem
        assert sum(part.packets for part in capture.parts) == whole
        check_parts(capture)


def packets_in(plain: bytes) -> int:
    """How many packets of PCAP its first octets hold."""
    return sum(end <= len(plain) for end in PCAP_EDGES)


def inflate(packed: bytes) -> bytes:
    """What can be had of cut gzip data."""
    try:
        return zlib.decompressobj(wbits=31).decompress(packed)
    except zlib.error:
        return b""


def unxz(packed: bytes) -> bytes:
    """What can be had of cut xz data."""
    return lzma.LZMADecompressor().decompress(packed)


@pytest.mark.parametrize(
    ("packed", "unpack"),
    [
        (gzip.compress(PCAP), inflate),
        (gzip.compress(PCAP, compresslevel=0), inflate),
        (lzma.compress(PCAP), unxz),
    ],
    ids=["gzip", "gzip stored", "xz"],
)
def test_compressed_data_cut_anywhere_is_read_as_far_as_it_unpacks(
    look: Look, packed: bytes, unpack: Callable[[bytes], bytes]
) -> None:
    for cut in range(1, len(packed)):
        plain = unpack(packed[:cut])
        if len(plain) < 4:
            complaint(lambda cut=cut: look(packed[:cut]))  # type: ignore[misc]
            continue
        capture = look(packed[:cut])
        assert capture.packets == packets_in(plain), cut
        assert "compressed data is damaged" in capture.problem, cut
        check_parts(capture)


@pytest.mark.parametrize(
    "pack", [gzip.compress, lambda data: lzma.compress(data, preset=0)], ids=["gzip", "xz"]
)
def test_half_of_a_large_compressed_file_is_not_lost(
    look: Look, pack: Callable[[bytes], bytes]
) -> None:
    rng = random.Random(3)
    records = [(START_US + n, rng.randbytes(1000)) for n in range(3000)]
    packed = pack(pcap(records))
    capture = look(packed[: len(packed) // 2])
    # Noise does not compress: half of the file is half of the packets, but for a buffer's worth.
    assert capture.packets > 1350
    assert "compressed data is damaged" in capture.problem
    check_parts(capture)


# ---------------------------------------------------------------------------------------
# Damaged files


def test_an_absurd_length_ends_a_pcap(look: Look) -> None:
    octets = bytearray(PCAP)
    struct.pack_into("<I", octets, PCAP_EDGES[1] + 8, 0x7FFFFFFF)
    capture = look(bytes(octets))
    assert capture.packets == 2
    assert f"a packet claims {0x7FFFFFFF} bytes at offset {PCAP_EDGES[1]}" in capture.problem
    check_parts(capture)


@pytest.mark.parametrize("total", [0, 4, 11, 13, 0x7FFFFFFC, 0xFFFFFFFF])
def test_an_absurd_block_length_ends_a_pcapng(look: Look, total: int) -> None:
    octets = bytearray(PCAPNG)
    struct.pack_into("<I", octets, PCAPNG_EDGES[1] + 4, total)
    capture = look(bytes(octets))
    assert capture.packets == 2
    assert f"{total} bytes at offset {PCAPNG_EDGES[1]}" in capture.problem
    check_parts(capture)


@pytest.mark.parametrize("captured", [len(FRAME) + 4, 0x7FFFFFFF, 0xFFFFFFFF])
def test_an_absurd_length_ends_a_pcapng(look: Look, captured: int) -> None:
    lying = NG.packet(START_US, FRAME[:60], captured=captured)
    capture = look(NG.file(RECORDS[:1]) + lying)
    assert capture.packets == 1
    assert f"a packet claims {captured} bytes" in capture.problem
    check_parts(capture)


def test_a_section_without_byte_order_ends_a_pcapng(look: Look) -> None:
    section = NG.section.replace(struct.pack("<I", 0x1A2B3C4D), bytes(4))
    capture = look(NG.file(RECORDS) + section)
    assert capture.packets == 4
    assert "byte-order" in capture.problem


GOOD = NG.section + NG.interface() + NG.packet(START_US)
MORE = NG.packet(START_US + 1)
BIG = Ng(">")


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(GOOD + MORE[:-4] + bytes(4) + MORE, id="block lengths that disagree"),
        pytest.param(
            GOOD + BIG.section + BIG.interface() + BIG.packet(START_US), id="both byte orders"
        ),
        pytest.param(
            NG.section + NG.interface(snaplen=30) + MORE + NG.packet(START_US, FRAME[:20]),
            id="a packet longer than the interface's snapshot length",
        ),
        pytest.param(GOOD + NG.block(0xBAD, bytes(20 << 20)) + MORE, id="a block of 20 MiB"),
        pytest.param(
            GOOD + NG.interface(options=opt_resolution(127)) + MORE, id="a clock of 10^-127 s"
        ),
        pytest.param(GOOD + NG.block(1, b"\1\0\0\0") + MORE, id="an interface without its fields"),
        pytest.param(
            GOOD + NG.interface(options=NG.option(9, b"\6\0")) + MORE, id="a clock of two octets"
        ),
        pytest.param(
            GOOD + NG.interface(options=opt_resolution(6) * 2) + MORE, id="a clock said twice"
        ),
        pytest.param(
            GOOD + NG.interface(options=struct.pack("<HH", 2, 400)) + MORE,
            id="an option longer than its block",
        ),
        pytest.param(
            GOOD + NG.section.replace(struct.pack("<HH", 1, 0), struct.pack("<HH", 2, 0)) + GOOD,
            id="a section of another version",
        ),
        pytest.param(
            pcap([(START_US, bytes(300_000)), (START_US, FRAME)], snaplen=1 << 20),
            id="a packet longer than any",
        ),
        pytest.param(pcap(RECORDS, snaplen=30), id="packets longer than the file says"),
        pytest.param(pcap(RECORDS, snaplen=0), id="no snapshot length"),
    ],
)
def test_what_libpcap_stumbles_over_is_told_or_copied(look: Look, octets: bytes) -> None:
    # NFStream passes over libpcap's errors and loses packets without a word.
    check_parts(look(octets))


def flipped(octets: bytes, seed: int) -> bytes:
    """`octets` with one to four of them changed."""
    rng = random.Random(seed)
    changed = bytearray(octets)
    for _ in range(rng.choice([1, 1, 2, 4])):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


FLIPPED = {
    "pcap": PCAP, "pcapng": PCAPNG, "gzip": gzip.compress(PCAP, mtime=0), "xz": lzma.compress(PCAP),
}  # fmt: skip


@pytest.mark.parametrize("octets", FLIPPED.values(), ids=FLIPPED)
def test_damage_of_any_kind_is_an_input_error_or_a_capture(look: Look, octets: bytes) -> None:
    for seed in range(300):
        try:
            capture = look(flipped(octets, seed))
        except InputError as error:
            assert "\n" not in str(error)
            continue
        assert capture.packets >= sum(part.packets for part in capture.parts)
        assert all(part.packets and part.first_us <= part.last_us for part in capture.parts)


@pytest.mark.parametrize("octets", [PCAP, PCAPNG], ids=["pcap", "pcapng"])
def test_libpcap_reads_all_of_a_damaged_file_that_was_counted(look: Look, octets: bytes) -> None:
    for seed in range(300):
        try:
            capture = look(flipped(octets, seed))
        except InputError:
            continue
        for part in capture.parts:
            seen = libpcap(part.path)
            # What it refuses to open, the meter reports.
            if not seen.refused:
                assert (len(seen.times_us), seen.error) == (part.packets, ""), seed


# ---------------------------------------------------------------------------------------
# Chains


def capture_of(name: str, first_s: float, last_s: float, link_type: int = ETHERNET) -> Capture:
    """A capture with packets between two times."""
    path = Path(name)
    part = Part(path, link_type, 10, round(first_s * SECOND), round(last_s * SECOND))
    return Capture(path, (part,), 10)


def names(chains: Sequence[Chain]) -> list[list[str]]:
    return [[path.name for path in each.captures] for each in chains]


GAP_US = 60 * SECOND


def test_rotated_files_are_one_chain() -> None:
    captures = [capture_of("a", 0, 10), capture_of("b", 10.5, 20), capture_of("c", 20, 30)]
    (whole,) = chain(captures, GAP_US)
    assert names([whole]) == [["a", "b", "c"]]
    assert whole.packets == 30
    assert whole.last_us == 30 * SECOND
    assert [part.first_us for part in whole.parts] == [0, 10.5 * SECOND, 20 * SECOND]


def test_files_that_overlap_are_apart() -> None:
    assert names(chain([capture_of("a", 0, 10), capture_of("b", 9.9, 20)], GAP_US)) == [
        ["a"],
        ["b"],
    ]
    assert names(chain([capture_of("a", 0, 10), capture_of("b", 2, 3)], GAP_US)) == [["a"], ["b"]]


def test_files_are_apart_from_the_idle_timeout_on() -> None:
    a = capture_of("a", 0, 10)
    assert names(chain([a, capture_of("b", 69.999999, 80)], GAP_US)) == [["a", "b"]]
    assert names(chain([a, capture_of("b", 70, 80)], GAP_US)) == [["a"], ["b"]]


def test_files_of_different_link_types_are_apart() -> None:
    captures = [capture_of("a", 0, 10), capture_of("b", 11, 20, RAW_IP)]
    assert names(chain(captures, GAP_US)) == [["a"], ["b"]]


def test_captures_without_packets_are_in_no_chain() -> None:
    empty = Capture(Path("empty"), (), 0)
    assert names(chain([empty, capture_of("a", 0, 10)], GAP_US)) == [["a"]]
    assert chain([], GAP_US) == []


@given(
    spans=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)), max_size=8),
    seed=st.integers(0, 2**32 - 1),
)
@steady
def test_the_order_of_the_files_makes_no_difference(
    spans: list[tuple[int, int]], seed: int
) -> None:
    captures = [capture_of(f"{n}", at, at + length) for n, (at, length) in enumerate(spans)]
    shuffled = random.Random(seed).sample(captures, len(captures))
    assert chain(captures, GAP_US) == chain(shuffled, GAP_US)


@given(spans=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)), max_size=8))
@steady
def test_each_file_is_in_one_chain_and_continues_the_one_before(
    spans: list[tuple[int, int]],
) -> None:
    captures = [capture_of(f"{n}", at, at + length) for n, (at, length) in enumerate(spans)]
    chains = chain(captures, GAP_US)
    found = [name for each in names(chains) for name in each]
    assert sorted(found) == sorted(capture.path.name for capture in captures)
    for each in chains:
        for before, after in itertools.pairwise(each.parts):
            assert 0 <= after.first_us - before.last_us < GAP_US


def test_a_packet_is_in_the_last_file_that_begins_no_later() -> None:
    captures = [capture_of("a", 5, 10), capture_of("b", 10, 20), capture_of("c", 25, 30)]
    (whole,) = chain(captures, GAP_US)
    at = {0: "a", 5: "a", 9: "a", 10: "b", 20: "b", 24.999999: "b", 25: "c", 99: "c"}
    for second, name in at.items():
        assert whole.file_at(round(second * SECOND)).name == name


def test_a_chain_names_files_as_the_user_did(look: Look) -> None:
    capture = look(gzip.compress(PCAP))
    (whole,) = chain([capture], GAP_US)
    assert whole.captures == (capture.path,)
    assert whole.parts[0].path != capture.path
    assert whole.file_at(START_US) == capture.path


# ---------------------------------------------------------------------------------------
# What libpcap or the engine would stumble over


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [(0, 0), (1, 4), (2, 0), (2, 9), (3, 4), (32770, 4)])
def test_a_damaged_version_costs_nothing(look: Look, order: str, version: tuple[int, int]) -> None:
    # libpcap refuses most of these, and takes the two lengths of a packet in 2.0 as swapped.
    frame = traffic.udp_frame(ANN, BOB, 1, 2, bytes(100))
    whole = bytearray(pcap([*RECORDS[:3], (RECORDS[3][0], frame)], order=order))
    struct.pack_into(f"{order}I", whole, len(whole) - len(frame) - 4, 4 * len(frame))
    capture = look(whole[:4] + struct.pack(f"{order}HH", *version) + whole[8:])
    assert (capture.packets, capture.problem) == (4, "")
    check_parts(capture)


ADDRESSES = bytes(range(12))
IP_IN_IP = bytes.fromhex("48000020000000004004000001020304050607080000000000000000")
WITHOUT_END = {
    "MPLS labels": ADDRESSES + b"\x88\x47" + bytes(65_600),
    "VLAN tags": ADDRESSES + b"\x81\x00" + b"\x00\x01\x81\x00" * 16_400,
    "IP in IP": ADDRESSES + b"\x08\x00" + (IP_IN_IP + bytes(4)) * 2060,
}


@pytest.mark.parametrize("make", [pcap, NG.file], ids=["pcap", "pcapng"])
@pytest.mark.parametrize("frame", WITHOUT_END.values(), ids=WITHOUT_END.keys())
def test_headers_without_end_are_cut_where_the_engine_ends(
    look: Look, frame: bytes, make: Callable[[Sequence[Record]], bytes]
) -> None:
    records = [*RECORDS[:2], (RECORDS[2][0], frame), *RECORDS[2:]]
    capture = look(make(records))
    assert (capture.packets, capture.problem) == (5, "")
    (part,) = capture.parts
    check_parts(capture)
    assert captured(part.path) == [len(data[:ENGINE_BYTES]) for _, data in records]
    # The engine as it is would read the whole frame for good.
    meter = CompiledMeter(chain([capture], SECOND), SCHEMAS["flow"].meter)
    flows = np.concatenate(list(meter.flows()))
    assert flows["src_packets"].tolist() == [4]
    assert meter.counters.not_metered == 1


def captured(path: Path) -> list[int]:
    """How many octets of each packet a classic pcap has."""
    data, at, found = path.read_bytes(), 24, []
    while at < len(data):
        found.append(struct.unpack_from("<I", data, at + 8)[0])
        at += 16 + found[-1]
    return found


LONG = {
    "tcp": traffic.tcp_frame(ANN, BOB, 1, 2, "A", payload=bytes(65_495)),
    "udp": traffic.udp_frame(ANN, BOB, 1, 2, bytes(65_507)),
}


@pytest.mark.parametrize("frame", LONG.values(), ids=LONG.keys())
def test_long_packets_of_ordinary_traffic_stay_whole(look: Look, frame: bytes) -> None:
    assert len(frame) > ENGINE_BYTES
    capture = look(pcap([(START_US, frame), (START_US, FRAME), (START_US, frame)]))
    assert [part.path for part in capture.parts] == [capture.path]
    assert capture.packets == 3


@pytest.mark.parametrize(
    ("link_type", "frame", "cut"),
    [
        (ETHERNET, LONG["udp"], False),
        (ETHERNET, traffic.udp_frame(ANN, BOB, 2152, 2, bytes(65_507)), True),
        (ETHERNET, traffic.udp_frame(ANN, BOB, 1, 37008, bytes(65_507)), True),
        (RAW_IP, LONG["udp"][14:] + bytes(14), False),
        (SLL, bytes(14) + LONG["udp"][12:], False),
        (SLL, bytes(14) + b"\x81\x00" + LONG["udp"][14:], True),
        (127, LONG["udp"], True),
        (RAW_IP, b"\x60" + bytes(5) + b"\x06" + bytes(65_500), False),
        (RAW_IP, b"\x60" + bytes(5) + b"\x00" + bytes(65_500), True),
        (ETHERNET, WITHOUT_END["MPLS labels"][:ENGINE_BYTES], False),
    ],
)
def test_which_packets_are_too_long(link_type: int, frame: bytes, cut: bool) -> None:
    assert too_long(frame, link_type) == cut
