"""Capture files: what is in them, what is wrong with them, and a form that any meter reads.

Formats: classic pcap (draft-ietf-opsawg-pcap), micro- and nanoseconds, either byte order, and
the variant with Kuznetzov's longer record header; pcapng (draft-ietf-opsawg-pcapng); each also
compressed by gzip or xz. What libpcap would stumble over (a cut tail, interfaces of different
link types, Linux cooked v2) is written to a temporary copy that it reads.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Protocol, Self

import numpy as np

from sensor.errors import InputError
from sensor.unpack import PACKED_MAGIC, Damaged, unpacked
from sensor.walk import PCAPNG_PACKET, walk_pcap, walk_pcapng

LINKTYPE_NAMES = {
    0: "BSD loopback", 1: "Ethernet", 9: "PPP", 12: "raw IP", 14: "raw IP", 50: "PPP in HDLC",
    101: "raw IP", 104: "Cisco HDLC", 105: "IEEE 802.11", 108: "OpenBSD loopback",
    113: "Linux cooked v1", 127: "IEEE 802.11 with radiotap", 195: "IEEE 802.15.4",
    228: "raw IPv4", 229: "raw IPv6", 249: "USBPcap", 276: "Linux cooked v2",
}  # fmt: skip
"""Names of the link types a user is likely to meet (tcpdump.org/linktypes.html)."""

LINKTYPE_SLL, LINKTYPE_SLL2 = 113, 276
METERED_LINKTYPES = frozenset({0, 1, 9, 12, 14, 50, 101, 104, 113, 127, 228, 229})
"""Link types that NFStream's engine decodes."""

MAX_RECORD_BYTES = 262_144
"""libpcap's own limit for a packet; a record that claims more is damage."""

ENGINE_BYTES = 65_495
"""Octets of a packet in which NFStream's engine is sure to find the end of its headers."""

_PCAP_MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1, 16),
    b"\xa1\xb2\xc3\xd4": (">", 1, 16),
    b"\x4d\x3c\xb2\xa1": ("<", 1000, 16),
    b"\xa1\xb2\x3c\x4d": (">", 1000, 16),
    b"\x34\xcd\xb2\xa1": ("<", 1, 24),
    b"\xa1\xb2\xcd\x34": (">", 1, 24),
}
_LIBPCAP_VERSIONS = {(2, 4), (543, 0)}
"""Versions of a file that libpcap reads as we do: it swaps the two lengths of older ones, and
refuses others. A file that says so is more likely damaged than that old."""
_PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
_PCAPNG_ORDER = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_IP_AT = {0: 4, 1: 14, 12: 0, 14: 0, 101: 0, 113: 16, 228: 0, 229: 0}
"""Where an IP header is in a packet, by link type; of others it is not that simple."""
_TUNNEL_PORTS = {2152, 5247, 37008}
"""Ports of UDP in which the engine looks for packets within: GTP-U, CAPWAP data, TZSP."""
_SIMPLE = 3
_LIBPCAP_BLOCK_BYTES = 16 << 20
_PACKET_FIELDS = {2: "HHIIII", _SIMPLE: "I", 6: "IIIII"}
"""Fixed fields of the obsolete, the simple and the enhanced packet block."""
_OTHER_FORMATS = {
    b"\x28\xb5\x2f\xfd": "zstd-compressed: decompress it first (zstd -d)",
    b"BZh": "bzip2-compressed: decompress it first (bunzip2)",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"snoop": "in snoop format: convert it first (editcap -F pcap)",
    b"GMBU": "in Network Monitor format: convert it first (editcap -F pcap)",
    b"XCP\x00": "in NetXRay format: convert it first (editcap -F pcap)",
}


class Packet(NamedTuple):
    """One record of a capture file: where it stands and what its header says."""

    time_us: int
    link_type: int
    data_at: int
    captured: int
    length: int


class Tally(NamedTuple):
    """Packets of one link type: how many, and the least and the greatest of their times."""

    link_type: int
    packets: int
    first_us: int
    last_us: int

    @classmethod
    def of(cls, packet: Packet) -> Tally:
        """One packet."""
        return cls(packet.link_type, 1, packet.time_us, packet.time_us)


def shown(path: Path) -> str:
    """The name of a file as text; bytes that are no UTF-8 are spelled out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Part:
    """A file that a meter can open: one link type, whole records only."""

    path: Path
    link_type: int
    packets: int
    first_us: int
    last_us: int


@dataclass(frozen=True, slots=True)
class Capture:
    """A capture file that was looked through.

    Attributes:
        path: as the user named it.
        parts: what to meter, one a link type.
        packets: packets in the file.
        problem: what is wrong with the rest of the file, if anything; names place and cause.
    """

    path: Path
    parts: tuple[Part, ...]
    packets: int
    problem: str = ""


class _Damage(Exception):
    """The file ends or goes wrong here; what came before is good."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


class CaptureSpool:
    """Looks captures through, and keeps the readable copies of those that need one.

    A context manager: leaving it removes the copies.
    """

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="flowvane-"))
        self._copies = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def _readable(self, path: Path) -> Path:
        """`path`, or a link to it by a name that libpcap's caller can spell."""
        try:
            str(path.resolve()).encode("utf-8")
        except UnicodeEncodeError:
            link = self._new_copy()
            link.symlink_to(path.resolve())
            return link
        return path

    def _new_copy(self) -> Path:
        self._copies += 1
        return self._directory / f"{self._copies}.pcap"

    def open(self, path: Path) -> Capture:
        """Look `path` through.

        Raises:
            InputError: nothing in the file can be read; the message names it and says why.
        """
        try:
            if path.is_dir():
                raise InputError(f"{path}: is a directory: name the capture files in it")
            with path.open("rb") as raw:
                magic = raw.read(8)
            if not magic:
                raise InputError(f"{path}: is empty")
            plain, problem = self._readable(path), ""
            if magic.startswith(PACKED_MAGIC):
                plain, problem = self._decompress(path)
            return self._inspect(path, plain, problem)
        except OSError as error:
            raise InputError(f"{path}: {(error.strerror or str(error)).lower()}") from error

    def _decompress(self, path: Path) -> tuple[Path, str]:
        copy = self._new_copy()
        with path.open("rb") as packed, copy.open("wb") as plain:
            try:
                plain.writelines(unpacked(packed))
            except Damaged as error:
                return copy, str(error)
        return copy, ""

    def _inspect(self, path: Path, plain: Path, problem: str) -> Capture:
        with plain.open("rb") as file:
            if not plain.stat().st_size:
                raise InputError(f"{path}: is empty{_and(problem)}")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return self._look_through(path, plain, data, problem)

    def _look_through(self, path: Path, plain: Path, data: mmap.mmap, problem: str) -> Capture:
        reader = _reader(data)
        if reader is None:
            raise InputError(f"{path}: {_what_else(data[:512])}{_and(problem)}")
        census: dict[int, _Census] = {}
        try:
            for tally in reader.tallies():
                census.setdefault(tally.link_type, _Census()).add(tally)
        except _Damage as damage:
            problem = problem or f"{damage.reason} at offset {damage.offset}"
            reader.end = damage.offset
            rewrite = True
        else:
            rewrite = reader.varied
        packets = sum(each.packets for each in census.values())
        if problem:
            problem = f"{problem}; {packets} packets before it are used"
        unknown = census.keys() - METERED_LINKTYPES - {LINKTYPE_SLL2}
        if unknown and unknown == census.keys():
            raise InputError(f"{path}: link type {_link_names(unknown)} cannot be metered")
        if unknown:
            problem = (
                f"{problem + '; ' if problem else ''}packets of link type "
                f"{_link_names(unknown)} cannot be metered and are left out"
            )
        if not packets:
            parts: tuple[Part, ...] = ()
        elif rewrite or unknown or LINKTYPE_SLL2 in census:
            parts = self._rewrite(reader, census)
        else:
            parts = tuple(each.part(plain, link_type) for link_type, each in census.items())
        return Capture(path, parts, packets, problem)

    def _rewrite(self, reader: _Reader, census: dict[int, _Census]) -> tuple[Part, ...]:
        """Copy the packets that can be metered into classic pcap files, one a link type."""
        parts: list[Part] = []
        copies: dict[int, IO[bytes]] = {}
        with ExitStack() as stack:
            for link_type, each in sorted(census.items()):
                target = LINKTYPE_SLL if link_type == LINKTYPE_SLL2 else link_type
                if target not in METERED_LINKTYPES:
                    continue
                copy = self._new_copy()
                copies[link_type] = stack.enter_context(copy.open("wb"))
                header = (0xA1B2C3D4, 2, 4, 0, 0, MAX_RECORD_BYTES, target)
                copies[link_type].write(struct.pack("<IHHiIII", *header))
                parts.append(each.part(copy, target))
            for packet in reader.packets():
                if packet.link_type not in copies:
                    continue
                frame = reader.data[packet.data_at : packet.data_at + packet.captured]
                length = packet.length
                if too_long(frame, packet.link_type):
                    frame = frame[:ENGINE_BYTES]
                if packet.link_type == LINKTYPE_SLL2:
                    frame, length = _cooked_v1(frame), length - 4
                seconds, micros = divmod(packet.time_us, 1_000_000)
                record = (seconds & 0xFFFFFFFF, micros, len(frame), max(length, len(frame)))
                copies[packet.link_type].write(struct.pack("<IIII", *record) + frame)
        return tuple(parts)


@dataclass(slots=True)
class _Census:
    """How many packets of a link type there are, and when."""

    packets: int = 0
    first_us: int = 0
    last_us: int = 0

    def add(self, tally: Tally) -> None:
        self.first_us = min(self.first_us, tally.first_us) if self.packets else tally.first_us
        self.last_us = max(self.last_us, tally.last_us) if self.packets else tally.last_us
        self.packets += tally.packets

    def part(self, path: Path, link_type: int) -> Part:
        return Part(path, link_type, self.packets, self.first_us, self.last_us)


def _and(problem: str) -> str:
    return f"; {problem}" if problem else ""


def _link_names(link_types: Set[int]) -> str:
    return ", ".join(
        f"{number} ({LINKTYPE_NAMES[number]})" if number in LINKTYPE_NAMES else str(number)
        for number in sorted(link_types)
    )


def _what_else(head: bytes) -> str:
    """What a file that is no capture looks like, by its first bytes."""
    for magic, what in _OTHER_FORMATS.items():
        if head.startswith(magic):
            return what
    if all(byte >= 32 or byte in b"\t\n\r" for byte in head):
        return "is a text file, not a pcap or pcapng capture"
    return "is not a pcap or pcapng capture"


def _cooked_v1(data: bytes) -> bytes:
    """A Linux cooked v2 frame with a v1 header, which says the same in another order."""
    if len(data) < 20:
        return data
    protocol, kind, hardware, width = data[:2], data[10:11], data[8:10], data[11:12]
    return b"\0" + kind + hardware + b"\0" + width + data[12:20] + protocol + data[20:]


def too_long(frame: bytes, link_type: int) -> bool:
    """Whether NFStream's engine might not come to the end of a packet's headers.

    It keeps in 16 bits where it stands in a packet: beyond 65,535 octets it begins again, and
    goes round for good if header after header leads there (IP in IP, VLAN tags, MPLS labels,
    tunnels). Of longer packets only those are safe whose first IP header is followed by TCP or
    by UDP that is no tunnel; the others are cut to :data:`ENGINE_BYTES`.
    """
    if len(frame) <= ENGINE_BYTES:
        return False
    at = _IP_AT.get(link_type, -1)
    if at < 0 or (at >= 14 and frame[at - 2 : at] not in (b"\x08\x00", b"\x86\xdd")):
        return True
    four = frame[at] >> 4 == 4
    transport = at + (4 * (frame[at] & 15) if four else 40)
    protocol = frame[at + (9 if four else 6)]
    ports = struct.unpack_from(">HH", frame, transport)
    return protocol != 6 and (protocol != 17 or not _TUNNEL_PORTS.isdisjoint(ports))


class _Reader(Protocol):
    """Walks the records of a capture, any number of times.

    Attributes:
        data: the whole file.
        end: offset at which to stop, for a walk that knows where the damage is.
    """

    data: mmap.mmap
    end: int

    @property
    def varied(self) -> bool:
        """Whether the file has something that libpcap does not read, though it can be read."""

    def packets(self) -> Iterator[Packet]:
        """The packets, in the order of the file.

        Raises:
            _Damage: the file goes wrong before `end`.
        """

    def tallies(self) -> Iterator[Tally]:
        """How many packets there are and when, many at once; as :meth:`packets` otherwise."""


def _reader(data: mmap.mmap) -> _Reader | None:
    """The reader for a file, by its first bytes."""
    if data[:4] in _PCAP_MAGIC:
        return _PcapReader(data)
    return _PcapngReader(data) if data[:4] == _PCAPNG_MAGIC else None


class _PcapReader:
    """Classic pcap."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.end = len(data)
        self._cut = False

    @property
    def varied(self) -> bool:
        order = _PCAP_MAGIC[self.data[:4]][0]
        known = struct.unpack_from(order + "HH", self.data, 4) in _LIBPCAP_VERSIONS
        return self._cut or not known

    def tallies(self) -> Iterator[Tally]:
        order, per_micro, header_bytes = _PCAP_MAGIC[self.data[:4]]
        offset = 24
        while True:
            if len(self.data) >= offset:
                link_type = struct.unpack_from(order + "I", self.data, 20)[0] & 0xFFFF
                offset, packets, first_us, last_us, _ = walk_pcap(
                    np.frombuffer(self.data, np.uint8), offset, self.end, order == "<", per_micro,
                    header_bytes, ENGINE_BYTES,
                ).tolist()  # fmt: skip
                if packets:
                    yield Tally(link_type, packets, first_us, last_us)
            packet = next(self.packets(offset), None)
            if packet is None:
                return
            offset = packet.data_at + packet.captured
            self._cut = self._cut or too_long(self.data[packet.data_at : offset], packet.link_type)
            yield Tally.of(packet)

    def packets(self, offset: int = 24) -> Iterator[Packet]:
        data, end = self.data, self.end
        order, per_micro, header_bytes = _PCAP_MAGIC[data[:4]]
        if len(data) < 24:
            raise _Damage(0, "the file header is cut")
        link_type = struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF
        # libpcap takes the fraction of a second as signed.
        unpack = struct.Struct(order + "IiII").unpack_from
        while offset < end:
            begin = offset + header_bytes
            if begin > end:
                raise _Damage(offset, "cut within a packet header")
            seconds, fraction, captured, length = unpack(data, offset)
            if captured > MAX_RECORD_BYTES:
                raise _Damage(offset, f"a packet claims {captured} bytes")
            if begin + captured > end:
                raise _Damage(offset, "cut within a packet")
            time_us = seconds * 1_000_000 + fraction // per_micro
            yield Packet(time_us, link_type, begin, captured, length)
            offset = begin + captured


@dataclass(frozen=True, slots=True)
class _Interface:
    """A pcapng interface, as its description block says; `odd` if libpcap would refuse it."""

    link_type: int
    snaplen: int
    ticks_per_s: int
    offset_s: int
    odd: bool

    @classmethod
    def parse(cls, body: bytes, order: str) -> Self:
        """The interface of a description block with this body."""
        link_type, _, snaplen = struct.unpack_from(order + "HHI", body)
        ticks_per_s, offset_s, at, odd = 1_000_000, 0, 8, False
        seen: set[int] = set()
        while at + 4 <= len(body):
            code, width = struct.unpack_from(order + "HH", body, at)
            value = body[at + 4 : at + 4 + width]
            if code == 0:
                break
            odd = odd or code in seen or len(value) < width
            if code in (9, 14):
                seen.add(code)
            if code == 9 and len(value) == 1:
                exponent = value[0] & 0x7F
                # A clock beyond 10^-18 s is damage, not a clock.
                base = 2 if value[0] & 0x80 else 10
                most = 18 if base == 10 else 62
                ticks_per_s = base ** min(exponent, most)
                odd = odd or exponent > most
            elif code == 14 and len(value) == 8:
                (offset_s,) = struct.unpack(order + "q", value)
            elif code in (9, 14):
                odd = True
            at += 4 + (width + 3) // 4 * 4
        return cls(link_type, snaplen, ticks_per_s, offset_s, odd)


class _PcapngReader:
    """pcapng: enhanced, simple and obsolete packet blocks of all sections."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.end = len(data)
        self._kinds: set[tuple[int, int]] = set()
        self._orders: set[str] = set()
        self._odd = False

    @property
    def varied(self) -> bool:
        return self._odd or len(self._kinds) > 1 or len(self._orders) > 1

    def packets(self) -> Iterator[Packet]:
        for found in self._walk(at_once=False):
            if isinstance(found, Packet):
                yield found

    def tallies(self) -> Iterator[Tally]:
        for found in self._walk(at_once=True):
            yield Tally.of(found) if isinstance(found, Packet) else found

    def _walk(self, at_once: bool) -> Iterator[Packet | Tally]:
        """The packets; with `at_once` ordinary ones that follow each other as one tally."""
        data, end = self.data, self.end
        offset, order, last_us = 0, "<", 0
        section: list[_Interface] = []
        while offset < end:
            if at_once and (run := self._run(offset, order, section)) is not None:
                offset, tally, last_us = run
                yield tally
                continue
            if offset + 12 > end:
                raise _Damage(offset, "cut within a block header")
            if data[offset : offset + 4] == _PCAPNG_MAGIC:
                order = _PCAPNG_ORDER.get(data[offset + 8 : offset + 12], "")
                if not order:
                    raise _Damage(offset, "a section header without its byte-order mark")
                section = []
                self._orders.add(order)
                version = data[offset + 12 : offset + 14]
                self._odd = self._odd or version != struct.pack(order + "H", 1)
            kind, total = struct.unpack_from(order + "II", data, offset)
            if total < 12 or total % 4 or total > 1 << 28:
                raise _Damage(offset, f"a block claims {total} bytes")
            if offset + total > end:
                raise _Damage(offset, "cut within a block")
            if struct.unpack_from(order + "I", data, offset + total - 4) != (total,):
                raise _Damage(offset, "a block whose two lengths disagree")
            self._odd = self._odd or total > _LIBPCAP_BLOCK_BYTES
            if kind == 1:
                if total < 20:
                    raise _Damage(offset, "an interface block too short for its fields")
                section.append(_Interface.parse(data[offset + 8 : offset + total - 4], order))
                self._kinds.add((section[-1].link_type, section[-1].snaplen))
                self._odd = self._odd or section[-1].odd
            elif kind in _PACKET_FIELDS:
                packet = self._packet(kind, total, offset, order, section, last_us)
                last_us = packet.time_us
                yield packet
            offset += total

    def _run(
        self, offset: int, order: str, section: Sequence[_Interface]
    ) -> tuple[int, Tally, int] | None:
        """Ordinary packets of one interface from `offset` on, if any.

        Returns:
            The offset behind them, the packets, and the time of the last one.
        """
        if offset + 32 > self.end:
            return None
        kind, _, number = struct.unpack_from(order + "III", self.data, offset)
        if kind != PCAPNG_PACKET or number >= len(section):
            return None
        interface = section[number]
        ticks_per_us, odd = divmod(interface.ticks_per_s, 1_000_000)
        if odd or not ticks_per_us:
            return None
        behind, packets, first_us, last_us, latest_us = walk_pcapng(
            np.frombuffer(self.data, np.uint8), offset, self.end, order == "<", number,
            ticks_per_us, interface.offset_s * 1_000_000, interface.snaplen, ENGINE_BYTES,
        ).tolist()  # fmt: skip
        if not packets:
            return None
        return behind, Tally(interface.link_type, packets, first_us, last_us), latest_us

    def _packet(
        self,
        kind: int,
        total: int,
        offset: int,
        order: str,
        section: Sequence[_Interface],
        last_us: int,
    ) -> Packet:
        """The packet of a block; `last_us` is the time of the one before it."""
        fields = struct.Struct(order + _PACKET_FIELDS[kind])
        if total < 12 + fields.size:
            raise _Damage(offset, "a packet block too short for its fields")
        values = fields.unpack_from(self.data, offset + 8)
        number = 0 if kind == _SIMPLE else values[0]
        if number >= len(section):
            raise _Damage(offset, f"a packet of interface {number}, which was not described")
        interface = section[number]
        if kind == _SIMPLE:
            # A simple packet block has no time: the packet before it is the best there is.
            (length,), time_us = values, last_us
            captured = min(length, total - 16, interface.snaplen or length)
        else:
            high, low, captured, length = values[-4:]
            ticks = (high << 32) | low
            time_us = ticks * 1_000_000 // interface.ticks_per_s + interface.offset_s * 1_000_000
        if captured > min(total - 12 - fields.size, MAX_RECORD_BYTES):
            raise _Damage(offset, f"a packet claims {captured} bytes")
        begin = offset + 8 + fields.size
        self._odd = self._odd or captured > (interface.snaplen or captured)
        frame = self.data[begin : begin + captured]
        self._odd = self._odd or too_long(frame, interface.link_type)
        return Packet(time_us, interface.link_type, begin, captured, length)


@dataclass(frozen=True, slots=True)
class Chain:
    """Parts metered as one capture: each begins where the one before it ended.

    `captures[i]` is the file, as the user named it, that `parts[i]` came from.
    """

    parts: tuple[Part, ...]
    captures: tuple[Path, ...]

    @property
    def packets(self) -> int:
        """Packets in all parts."""
        return sum(part.packets for part in self.parts)

    @property
    def last_us(self) -> int:
        """Time of the last packet."""
        return max(part.last_us for part in self.parts)

    def file_at(self, time_us: int) -> Path:
        """The file that has the packet of this time: the last that begins no later."""
        chosen = self.captures[0]
        for part, path in zip(self.parts, self.captures, strict=True):
            if part.first_us <= time_us:
                chosen = path
        return chosen


def chain(captures: Sequence[Capture], max_gap_us: int) -> list[Chain]:
    """Order captures by time and join those that continue each other.

    Files that a capture program rotated follow each other without overlap; a flow goes on
    from one to the next. Files that overlap, or lie further apart than `max_gap_us` (the idle
    timeout: no flow would survive it), have nothing to do with each other and are metered
    apart. The order in which the files are given makes no difference.
    """
    found = [(part, capture.path) for capture in captures for part in capture.parts]
    found.sort(key=lambda item: (item[0].first_us, item[0].last_us, str(item[1])))
    chains: list[list[tuple[Part, Path]]] = []
    for part, path in found:
        if chains:
            last = chains[-1][-1][0]
            gap_us = part.first_us - last.last_us
            if 0 <= gap_us < max_gap_us and part.link_type == last.link_type:
                chains[-1].append((part, path))
                continue
        chains.append([(part, path)])
    return [
        Chain(tuple(part for part, _ in members), tuple(path for _, path in members))
        for members in chains
    ]
