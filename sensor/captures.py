"""Capture files: what is in them, what is wrong with them, and a form that any meter reads.

Formats: classic pcap (draft-ietf-opsawg-pcap), micro- and nanoseconds, either byte order, and
the variant with Kuznetzov's longer record header; pcapng (draft-ietf-opsawg-pcapng); each also
compressed by gzip or xz. What libpcap would stumble over (a cut tail, interfaces of different
link types, Linux cooked v2) is written to a temporary copy that it reads.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from sensor.errors import InputError

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

_PCAP_MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1, 16),
    b"\xa1\xb2\xc3\xd4": (">", 1, 16),
    b"\x4d\x3c\xb2\xa1": ("<", 1000, 16),
    b"\xa1\xb2\x3c\x4d": (">", 1000, 16),
    b"\x34\xcd\xb2\xa1": ("<", 1, 24),
    b"\xa1\xb2\xcd\x34": (">", 1, 24),
}
_PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
_GZIP_MAGIC, _XZ_MAGIC = b"\x1f\x8b", b"\xfd7zXZ\x00"
_OTHER_FORMATS = {
    b"\x28\xb5\x2f\xfd": "zstd-compressed: decompress it first (zstd -d)",
    b"BZh": "bzip2-compressed: decompress it first (bunzip2)",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"snoop": "in snoop format: convert it first (editcap -F pcap)",
    b"GMBU": "in Network Monitor format: convert it first (editcap -F pcap)",
    b"XCP\x00": "in NetXRay format: convert it first (editcap -F pcap)",
}


@dataclass(frozen=True, slots=True)
class Packet:
    """One record of a capture file: where it stands and what its header says."""

    time_us: int
    link_type: int
    data_at: int
    captured: int
    length: int


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
            plain, problem = path, ""
            if magic.startswith((_GZIP_MAGIC, _XZ_MAGIC)):
                plain, problem = self._decompress(path, magic)
            return self._inspect(path, plain, problem)
        except OSError as error:
            raise InputError(f"{path}: {(error.strerror or str(error)).lower()}") from error

    def _decompress(self, path: Path, magic: bytes) -> tuple[Path, str]:
        copy = self._new_copy()
        opener = gzip.open if magic.startswith(_GZIP_MAGIC) else lzma.open
        problem = ""
        with opener(path, "rb") as packed, copy.open("wb") as plain:
            try:
                shutil.copyfileobj(packed, plain, 1 << 20)
            except (EOFError, gzip.BadGzipFile, lzma.LZMAError) as error:
                problem = f"the compressed data is damaged ({error})"
        return copy, problem

    def _inspect(self, path: Path, plain: Path, problem: str) -> Capture:
        packets: list[Packet] = []
        link_types: set[int] = set()
        rewrite = False
        with plain.open("rb") as file:
            magic = file.read(4)
            if magic in _PCAP_MAGIC:
                reader = _read_pcap(file, magic)
            elif magic == _PCAPNG_MAGIC:
                interfaces: list[_Interface] = []
                reader = _read_pcapng(file, interfaces)
            else:
                raise InputError(f"{path}: {_what_else(plain)}{_and(problem)}")
            try:
                for packet in reader:
                    packets.append(packet)
                    link_types.add(packet.link_type)
            except _Damage as damage:
                if not problem:
                    problem = f"{damage.reason} at offset {damage.offset}"
                rewrite = True
            if magic == _PCAPNG_MAGIC:
                # libpcap wants one link type and one snapshot length in a pcapng file.
                rewrite = rewrite or len({i.fixed for i in interfaces}) > 1
            if problem:
                problem = f"{problem}; {len(packets)} packets before it are used"
            unknown = link_types - METERED_LINKTYPES - {LINKTYPE_SLL2}
            if unknown and unknown == link_types:
                raise InputError(f"{path}: link type {_link_names(unknown)} cannot be metered")
            if unknown:
                problem = (
                    f"{problem + '; ' if problem else ''}packets of link type "
                    f"{_link_names(unknown)} cannot be metered and are left out"
                )
            if rewrite or unknown or LINKTYPE_SLL2 in link_types:
                parts = self._rewrite(file, packets)
            else:
                parts = _whole(plain, packets)
        return Capture(path, parts, len(packets), problem)

    def _rewrite(self, file: IO[bytes], packets: Sequence[Packet]) -> tuple[Part, ...]:
        """Copy the packets that can be metered into classic pcap files, one a link type."""
        parts = []
        for link_type in sorted({packet.link_type for packet in packets}):
            target = LINKTYPE_SLL if link_type == LINKTYPE_SLL2 else link_type
            if target not in METERED_LINKTYPES:
                continue
            chosen = [packet for packet in packets if packet.link_type == link_type]
            copy = self._new_copy()
            with copy.open("wb") as out:
                header = (0xA1B2C3D4, 2, 4, 0, 0, MAX_RECORD_BYTES, target)
                out.write(struct.pack("<IHHiIII", *header))
                for packet in chosen:
                    file.seek(packet.data_at)
                    data = file.read(packet.captured)
                    length = packet.length
                    if link_type == LINKTYPE_SLL2:
                        data, length = _cooked_v1(data), length - 4
                    seconds, micros = divmod(packet.time_us, 1_000_000)
                    record = (seconds & 0xFFFFFFFF, micros, len(data), max(length, len(data)))
                    out.write(struct.pack("<IIII", *record) + data)
            parts.append(_part(copy, target, chosen))
        return tuple(parts)


def _and(problem: str) -> str:
    return f"; {problem}" if problem else ""


def _part(path: Path, link_type: int, packets: Sequence[Packet]) -> Part:
    times = [packet.time_us for packet in packets]
    return Part(path, link_type, len(packets), min(times), max(times))


def _whole(path: Path, packets: Sequence[Packet]) -> tuple[Part, ...]:
    return (_part(path, packets[0].link_type, packets),) if packets else ()


def _link_names(link_types: set[int]) -> str:
    return ", ".join(
        f"{number} ({LINKTYPE_NAMES[number]})" if number in LINKTYPE_NAMES else str(number)
        for number in sorted(link_types)
    )


def _what_else(path: Path) -> str:
    """What a file that is no capture looks like."""
    with path.open("rb") as file:
        head = file.read(512)
    for magic, what in _OTHER_FORMATS.items():
        if head.startswith(magic):
            return what
    if head and all(byte >= 32 or byte in b"\t\n\r" for byte in head):
        return "is a text file, not a pcap or pcapng capture"
    return "is not a pcap or pcapng capture"


def _cooked_v1(data: bytes) -> bytes:
    """A Linux cooked v2 frame with a v1 header, which says the same in another order."""
    if len(data) < 20:
        return data
    protocol, kind, hardware, width = data[:2], data[10:11], data[8:10], data[11:12]
    return b"\0" + kind + hardware + b"\0" + width + data[12:20] + protocol + data[20:]


def _read_pcap(file: IO[bytes], magic: bytes) -> Iterator[Packet]:
    order, per_micro, header_bytes = _PCAP_MAGIC[magic]
    header = file.read(20)
    if len(header) < 20:
        raise _Damage(0, "the file header is cut")
    snaplen, link_field = struct.unpack(order + "II", header[12:])
    link_type = link_field & 0xFFFF
    largest = max(MAX_RECORD_BYTES, snaplen if snaplen < 1 << 28 else 0)
    offset = 24
    size = file.seek(0, 2)
    file.seek(offset)
    unpack = struct.Struct(order + "IIII").unpack_from
    while offset < size:
        head = file.read(header_bytes)
        if len(head) < header_bytes:
            raise _Damage(offset, "cut within a packet header")
        seconds, fraction, captured, length = unpack(head)
        if captured > largest:
            raise _Damage(offset, f"a packet claims {captured} bytes")
        if offset + header_bytes + captured > size:
            raise _Damage(offset, "cut within a packet")
        time_us = seconds * 1_000_000 + fraction // per_micro
        yield Packet(time_us, link_type, offset + header_bytes, captured, length)
        offset += header_bytes + captured
        file.seek(offset)


@dataclass(frozen=True, slots=True)
class _Interface:
    """A pcapng interface: `fixed` is what libpcap wants to be the same in a file."""

    link_type: int
    snaplen: int
    ticks_per_s: int
    offset_s: int

    @property
    def fixed(self) -> tuple[int, int]:
        return self.link_type, self.snaplen


def _interface(body: bytes, order: str) -> _Interface:
    link_type, _, snaplen = struct.unpack_from(order + "HHI", body)
    ticks_per_s, offset_s, at = 1_000_000, 0, 8
    while at + 4 <= len(body):
        code, width = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + width]
        if code == 0:
            break
        if code == 9 and width == 1:
            exponent = value[0] & 0x7F
            # A clock beyond 10^-18 s is damage, not a clock.
            base = 2 if value[0] & 0x80 else 10
            ticks_per_s = base ** min(exponent, 18 if base == 10 else 62)
        elif code == 14 and width == 8:
            (offset_s,) = struct.unpack(order + "q", value)
        at += 4 + (width + 3) // 4 * 4
    return _Interface(link_type, snaplen, ticks_per_s, offset_s)


def _read_pcapng(file: IO[bytes], interfaces: list[_Interface]) -> Iterator[Packet]:
    """Packets of all sections; `interfaces` is filled with all interfaces met."""
    size = file.seek(0, 2)
    offset, order, last_us = 0, "<", 0
    section: list[_Interface] = []
    while offset < size:
        file.seek(offset)
        head = file.read(12)
        if len(head) < 12:
            raise _Damage(offset, "cut within a block header")
        if head[:4] == _PCAPNG_MAGIC:
            order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(head[8:12], "")
            if not order:
                raise _Damage(offset, "a section header without its byte-order mark")
            section = []
        kind, total = struct.unpack_from(order + "II", head)
        if total < 12 or total % 4 or total > 1 << 28:
            raise _Damage(offset, f"a block claims {total} bytes")
        if offset + total > size:
            raise _Damage(offset, "cut within a block")
        file.seek(offset + 8)
        if kind == 1 and total >= 20:
            interface = _interface(file.read(total - 12), order)
            section.append(interface)
            interfaces.append(interface)
        elif kind in (2, 3, 6):
            packet = _pcapng_packet(file, kind, total, offset, order, section, last_us)
            last_us = packet.time_us
            yield packet
        offset += total


def _pcapng_packet(
    file: IO[bytes],
    kind: int,
    total: int,
    offset: int,
    order: str,
    section: Sequence[_Interface],
    last_us: int,
) -> Packet:
    """The packet of an enhanced (6), simple (3) or obsolete (2) packet block."""
    fixed = 4 if kind == 3 else 20
    body = file.read(fixed)
    if total < 12 + fixed:
        raise _Damage(offset, "a packet block too short for its fields")
    if kind == 3:
        (length,) = struct.unpack(order + "I", body)
        number, captured = 0, min(length, total - 16)
    elif kind == 6:
        number, high, low, captured, length = struct.unpack(order + "IIIII", body)
    else:
        number, _, high, low, captured, length = struct.unpack(order + "HHIIII", body)
    if number >= len(section):
        raise _Damage(offset, f"a packet of interface {number}, which was not described")
    if captured > total - 12 - fixed:
        raise _Damage(offset, f"a packet claims {captured} bytes")
    interface = section[number]
    if kind == 3:
        # A simple packet block has no time: the packet before it is the best there is.
        captured = min(captured, interface.snaplen or captured)
        time_us = last_us
    else:
        ticks = (high << 32) | low
        time_us = ticks * 1_000_000 // interface.ticks_per_s + interface.offset_s * 1_000_000
    return Packet(time_us, interface.link_type, offset + 8 + fixed, captured, length)


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
