"""NFStream's C engine: its record layouts, its functions for compiled code, and its captures.

Nothing here is written by hand that the engine can tell: sizes, offsets and bit positions come
from its cffi declarations, the functions' addresses from its shared object. The time of a packet
in microseconds is in none of NFStream's records, but in the header that libpcap keeps inside its
handle; where, is found out at start on a capture whose times are known.
"""

from __future__ import annotations

import ctypes
import importlib
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
from numpy.typing import NDArray

DISSECTED_PACKETS = 20
"""Packets of a flow that nDPI looks at, NFStream's own default."""
SNAPLEN = 65_495
"""Octets of a packet that are captured live: see :func:`sensor.captures.too_long`."""
FILE, LIVE = 0, 1
"""NFStream's modes of a capture: one file, or an interface."""

SYMBOL_PREFIX = "flowvane_"
"""Compiled code finds the engine's functions by names that begin with this."""
_FUNCTIONS = (
    "capture_next", "meter_initialize_flow", "meter_update_flow", "meter_expire_flow",
    "meter_free_flow",
)  # fmt: skip
_MORE_FUNCTIONS = (
    "capture_open", "capture_set_fanout", "capture_set_timeout", "capture_set_promisc",
    "capture_set_snaplen", "capture_activate", "capture_close", "dissector_init",
    "dissector_configure", "dissector_cleanup",
)  # fmt: skip
"""Those that are called from here only."""

_NUMPY_TYPES = {
    "uint8_t": "u1", "uint16_t": "u2", "uint32_t": "u4", "uint64_t": "u8", "int8_t": "i1",
    "int16_t": "i2", "int32_t": "i4", "int64_t": "i8", "double": "f8", "unsigned int": "u4",
}  # fmt: skip

# What the loop reads of the engine's records; other fields it leaves to the engine.
_PACKET_FIELDS = (
    "direction", "time", "src_ip", "dst_ip", "src_port", "dst_port", "ip_version", "protocol",
    "vlan_id", "raw_size", "ip_size", "transport_size", "payload_size", "ip_content_len",
    "ip_content", "tunnel_id",
)  # fmt: skip
_FLOW_FIELDS = (
    "src_ip", "dst_ip", "src_port", "dst_port", "protocol", "ip_version", "vlan_id", "tunnel_id",
    "bidirectional_packets", "bidirectional_last_seen_ms",
    *(f"{way}_{name}" for way in ("src2dst", "dst2src") for name in (
        "packets", "bytes", "max_ps", "stddev_ps", "psh_packets",
    )),
    *(f"bidirectional_{flag}_packets" for flag in ("fin", "syn", "rst", "ack", "cwr", "ece")),
    "application_name", "category_name", "requested_server_name", "c_hash",
)  # fmt: skip
_TCP_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")


class UnknownEngine(Exception):
    """This build of NFStream's engine is not one that the compiled meter can drive."""


@cache
def _ffi() -> tuple[Any, Any]:
    # Not by way of the package nfstream, which loads pandas: a fifth of a second of each start.
    try:
        engine = importlib.import_module("_lib_engine")
        return engine.ffi, engine.lib
    except (ImportError, AttributeError) as error:
        raise UnknownEngine(f"NFStream's engine cannot be loaded: {error}") from error


def _dtype(record: str, wanted: tuple[str, ...]) -> np.dtype[np.void]:
    """A structured dtype that views some fields of one of the engine's records.

    Raises:
        UnknownEngine: a field is missing or of a type that we do not know.
    """
    ffi, _ = _ffi()
    fields = dict(ffi.typeof(record).fields)
    names, formats, offsets = [], [], []
    for name in wanted:
        if name not in fields:
            raise UnknownEngine(f"{record} has no field {name}")
        kind = fields[name].type
        length = None
        if kind.kind == "array":
            kind, length = kind.item, kind.length
        if kind.kind == "pointer":
            code = "u8"
        elif kind.cname == "char":
            code, length = f"S{length}", None
        elif kind.cname in _NUMPY_TYPES:
            code = _NUMPY_TYPES[kind.cname]
        else:
            raise UnknownEngine(f"{record}: field {name} is of type {kind.cname}")
        names.append(name)
        formats.append(code if length is None else (code, (length,)))
        offsets.append(fields[name].offset)
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": ffi.sizeof(record)}
    )


def _flags_offset() -> int:
    """Where a packet's TCP flags are, as one octet in the header's own order (RFC 9293, 3.1)."""
    ffi, _ = _ffi()
    fields = dict(ffi.typeof("struct nf_packet").fields)
    at = {(fields[flag].offset, fields[flag].bitshift) for flag in _TCP_FLAGS if flag in fields}
    offset = min(at)[0] if at else 0
    if at != {(offset, shift) for shift in range(8)} or fields["fin"].bitshift != 0:
        raise UnknownEngine("struct nf_packet: its TCP flags are not the header's octet")
    return int(offset)


@cache
def packet_dtype() -> np.dtype[np.void]:
    """``struct nf_packet``, with `flags`, its TCP flags as the header's octet.

    Raises:
        UnknownEngine: its layout is not understood.
    """
    plain = _dtype("struct nf_packet", _PACKET_FIELDS)
    fields: dict[str, Any] = {
        name: (plain.fields[name][0], plain.fields[name][1])  # type: ignore[index]
        for name in _PACKET_FIELDS
    }
    fields["flags"] = (np.dtype("u1"), _flags_offset())
    return np.dtype(
        {
            "names": list(fields),
            "formats": [kind for kind, _ in fields.values()],
            "offsets": [offset for _, offset in fields.values()],
            "itemsize": plain.itemsize,
        }
    )


@cache
def flow_dtype() -> np.dtype[np.void]:
    """``struct nf_flow``, the fields that are read of it.

    Raises:
        UnknownEngine: its layout is not understood.
    """
    return _dtype("struct nf_flow", _FLOW_FIELDS)


@cache
def register() -> None:
    """Make the engine's functions known to compiled code, under :data:`SYMBOL_PREFIX`.

    Raises:
        UnknownEngine: a function is missing.
    """
    ffi, lib = _ffi()
    for name in _FUNCTIONS + _MORE_FUNCTIONS:
        if not hasattr(lib, name):
            raise UnknownEngine(f"the engine has no function {name}")
    for name in _FUNCTIONS:
        address = int(ffi.cast("uintptr_t", ffi.addressof(lib, name)))
        llvmlite.binding.add_symbol(SYMBOL_PREFIX + name, address)


_KNOWN_TIMES_US = (1_700_000_000_123_456, 1_700_000_001_000_007, 4_000_000_000_999_999)
_HANDLE_BYTES = 640
"""As much of libpcap's handle as is looked at."""
_HEADER = struct.Struct("<qqII")
"""``struct pcap_pkthdr`` of a 64-bit libpcap: seconds, microseconds, captured and wire length."""
_FRAME = bytes.fromhex(
    "020000000002020000000001080045000020000100004011b6c70a0000010a00000200050006000c0000deadbeef"
)


@cache
def _shared_object() -> ctypes.CDLL:
    return ctypes.CDLL(importlib.import_module("_lib_engine").__file__)


def libpcap(name: str) -> Any:
    """A function of the libpcap that is in the engine's shared object, as ctypes calls it.

    Raises:
        UnknownEngine: it is not there.
    """
    try:
        return getattr(_shared_object(), name)
    except (ImportError, OSError, AttributeError) as error:
        raise UnknownEngine(f"libpcap's {name} cannot be called: {error}") from error


@cache
def handle_offsets() -> tuple[int, int]:
    """Where, in libpcap's handle, the header of the last packet is, and the address of its octets.

    The octets' address is there for files only. Asked of `pcap_next_ex`, which the engine's
    shared object exports, and then checked packet by packet behind the engine's own reader, on a
    capture with known times.

    Raises:
        UnknownEngine: it cannot be found; there are no microseconds to be had.
    """
    ffi, lib = _ffi()
    next_ex = libpcap("pcap_next_ex")
    next_ex.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p]
    with tempfile.TemporaryDirectory(prefix="flowvane-") as folder:
        path = Path(folder) / "clock.pcap"
        path.write_bytes(_known_capture())
        with opened(path) as handle:
            header, data = ctypes.c_void_p(), ctypes.c_void_p()
            if next_ex(handle, ctypes.byref(header), ctypes.byref(data)) != 1:
                raise UnknownEngine("libpcap does not read the capture of known times")
            offset = (header.value or 0) - handle
            if not 0 < offset < _HANDLE_BYTES:
                raise UnknownEngine("libpcap keeps no packet header in its handle")
            words = np.frombuffer(ctypes.string_at(handle, _HANDLE_BYTES), np.uint64)
            buffers = np.flatnonzero(words == data.value) * words.itemsize
            if not len(buffers):
                raise UnknownEngine("libpcap keeps no packet's address in its handle")
        packet = ffi.new("struct nf_packet *")
        with opened(path) as handle:
            for wanted in _KNOWN_TIMES_US:
                found = lib.capture_next(ffi.cast("struct pcap *", handle), packet, 1, 1, 0, FILE)
                seconds, micros, captured, _ = _HEADER.unpack(
                    ctypes.string_at(handle + offset, _HEADER.size)
                )
                seconds &= 0xFFFFFFFF
                if (found, seconds * 1_000_000 + micros, captured) != (1, wanted, len(_FRAME)):
                    raise UnknownEngine("the header in libpcap's handle has other times")
    return offset, int(buffers[0])


def _known_capture() -> bytes:
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)]
    for time_us in _KNOWN_TIMES_US:
        seconds, micros = divmod(time_us, 1_000_000)
        parts.append(struct.pack("<IIII", seconds, micros, len(_FRAME), len(_FRAME)) + _FRAME)
    return b"".join(parts)


def open_capture(path: str) -> int:
    """Open a capture file; the address of libpcap's handle.

    Raises:
        OSError: it cannot be opened; the message is libpcap's.
    """
    ffi, lib = _ffi()
    error = ffi.new("char[]", 512)
    capture = lib.capture_open(path.encode(), FILE, error, 0)
    # Each answers 0 where it went well; the order is NFStream's own.
    if (
        not capture
        or lib.capture_set_fanout(capture, FILE, error, 0)
        or lib.capture_set_timeout(capture, FILE, error)
        or lib.capture_set_promisc(capture, FILE, error, 0)
        or lib.capture_set_snaplen(capture, FILE, error, SNAPLEN)
        or lib.capture_activate(capture, FILE, error)
    ):
        reason = ffi.string(error).decode(errors="replace").strip()
        raise OSError(reason or "the engine cannot open it")
    return int(ffi.cast("uintptr_t", capture))


def clear_buffer(handle: int) -> None:
    """Zero the room that libpcap has for the packets of a file.

    Of a TCP header that was cut off the engine reads what is behind the packet: there the same
    file is to have the same octets on every run, not what the memory was used for before.
    """
    _, buffer_at = handle_offsets()
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_usable_size"):  # no glibc, no musl
        return
    libc.malloc_usable_size.argtypes = [ctypes.c_void_p]
    libc.malloc_usable_size.restype = ctypes.c_size_t
    buffer = ctypes.c_void_p.from_address(handle + buffer_at)
    ctypes.memset(buffer, 0, libc.malloc_usable_size(buffer))


def close_capture(handle: int) -> None:
    """Close what :func:`open_capture` opened."""
    ffi, lib = _ffi()
    lib.capture_close(ffi.cast("struct pcap *", handle))


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A capture file, open; the address of its handle."""
    handle = open_capture(str(path))
    try:
        yield handle
    finally:
        close_capture(handle)


def new_dissector() -> int:
    """A new nDPI detection module; its address.

    Raises:
        UnknownEngine: the engine was built against another nDPI than the one it has.
    """
    ffi, lib = _ffi()
    sizes = ffi.new("struct dissector_checker *")
    sizes.flow_size = ffi.sizeof("struct ndpi_flow_struct")
    sizes.flow_tcp_size = ffi.sizeof("struct ndpi_flow_tcp_struct")
    sizes.flow_udp_size = ffi.sizeof("struct ndpi_flow_udp_struct")
    dissector = lib.dissector_init(sizes)
    if not dissector:
        raise UnknownEngine("nDPI's records have other sizes than the engine expects")
    lib.dissector_configure(dissector)
    return int(ffi.cast("uintptr_t", dissector))


def free_dissector(address: int) -> None:
    """Free what :func:`new_dissector` made."""
    ffi, lib = _ffi()
    lib.dissector_cleanup(ffi.cast("struct ndpi_detection_module_struct *", address))


def packet_buffer() -> NDArray[np.void]:
    """Room for a ``struct nf_packet``, and one that stays zero: shape ``[2]``."""
    return np.zeros(2, packet_dtype())
