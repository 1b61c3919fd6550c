"""A socket on an interface, opened through the engine's own libpcap.

Not through the engine's functions, because those hide libpcap's reasons, hold packets back for a
second, block for ever on a silent link, and put every socket into a fanout group, in which the
kernel reassembles fragments before anybody sees them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import secrets
import select
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sensor.captures import METERED_LINKTYPES
from sensor.errors import InputError
from sensor.meter.compiled.engine import SNAPLEN, UnknownEngine, libpcap

_ERROR_BYTES = 256
_NO_SUCH_DEVICE, _NO_PERMISSION, _NOT_UP, _NO_PROMISCUOUS = -5, -8, -9, -11
"""What `pcap_activate` returns (pcap/pcap.h)."""
_FANOUT_HASH_DEFRAG = 0x8000
"""PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_DEFRAG (linux/if_packet.h): a flow goes to one socket
of the group, in both directions; fragments are put together first, for they have no ports."""
_SO_ATTACH_FILTER = 26
_RETURN_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)
"""BPF's `ret #0`: no packet passes."""
_SIOCGIFFLAGS, _IFF_UP, _IFF_LOOPBACK = 0x8913, 1, 8
_ALL = "any"
"""libpcap's name of all interfaces as one."""
_COUNTER = 1 << 32
"""libpcap's counters begin anew here."""


class InterfaceDown(Exception):
    """The interface is there, or was, but nothing can be captured on it now."""


class State(Enum):
    """What an interface is, beside what its socket says."""

    UP = "up"
    DOWN = "down"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """How packets are taken from an interface.

    Attributes:
        buffer_bytes: of the kernel's ring for each socket: what it takes while nobody reads.
        block_ms: the kernel hands packets on when a block of the ring is full, or so old.
        promiscuous: also take packets that are for other hosts.
    """

    buffer_bytes: int = 64 << 20
    block_ms: int = 100
    promiscuous: bool = True


@dataclass(frozen=True, slots=True)
class Tap:
    """An interface and how it is captured.

    Attributes:
        name: of the interface.
        capture: how packets are taken from it.
        threads: that take them, the kernel giving a share of the flows to each.
    """

    name: str
    capture: CaptureSettings = CaptureSettings()
    threads: int = 1


@dataclass(slots=True)
class SocketCounts:
    """Packets since a socket was opened: all that the kernel had for it, and those it dropped.

    Those that the kernel dropped are among those received; those that the interface dropped are
    not.
    """

    received: int = 0
    dropped: int = 0
    dropped_by_interface: int = 0


class _PcapStat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in ("received", "dropped", "by_interface")]


def _call(name: str, handle: int | None, *arguments: Any) -> int:
    function = libpcap(name)
    function.restype = ctypes.c_int
    result: int = function(ctypes.c_void_p(handle), *arguments)
    return result


def fanout_group() -> int:
    """A number for a new fanout group: not taken by another process, as far as chance can tell."""
    return secrets.randbelow(0xFFFF) + 1


def check(taps: Iterable[Tap]) -> None:
    """See that interfaces can be captured, or could be if they were up.

    Raises:
        InputError: one cannot.
    """
    for tap in taps:
        try:
            with contextlib.suppress(InterfaceDown):
                Interface(tap.name, tap.capture).close()
        except UnknownEngine as error:
            raise InputError(f"{tap.name}: cannot be captured: {error}") from error


class Interface:
    """One socket on an interface; not for use from several threads at once."""

    def __init__(self, name: str, settings: CaptureSettings, group: int | None = None) -> None:
        """Begin to capture.

        Args:
            name: of the interface.
            settings: how.
            group: the fanout group of the sockets that share the interface's packets.

        Raises:
            InputError: there is no such interface, no permission, or no way to read it.
            InterfaceDown: it is down.
        """
        self.name = name
        self._settings = settings
        self._index = _index_of(name)
        self.handle = self._open(group)
        self._fd = _call("pcap_get_selectable_fd", self.handle)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._counts, self._last = SocketCounts(), (0, 0, 0)
        # The kernel has what goes over the loopback twice there; libpcap skips one of the two.
        self.doubled = name == _ALL or bool((_flags_of(name) or 0) & _IFF_LOOPBACK)

    def _open(self, group: int | None) -> int:
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        create = libpcap("pcap_create")
        create.restype = ctypes.c_void_p
        handle = create(self.name.encode(), error)
        if not handle:
            raise InputError(f"{self.name}: cannot be captured: {_text(error.value)}")
        try:
            self._begin(handle, group)
        except BaseException:
            libpcap("pcap_close")(ctypes.c_void_p(handle))
            raise
        return int(handle)

    def _begin(self, handle: int, group: int | None) -> None:
        """Set everything, and begin to capture."""
        settings = self._settings
        for function, value in (
            ("pcap_set_snaplen", SNAPLEN), ("pcap_set_promisc", int(settings.promiscuous)),
            ("pcap_set_timeout", settings.block_ms),
            ("pcap_set_buffer_size", settings.buffer_bytes),
        ):  # fmt: skip
            _call(function, handle, ctypes.c_int(value))
        if group is not None:
            _call(
                "pcap_set_fanout_linux", handle, ctypes.c_int(1),
                ctypes.c_uint16(_FANOUT_HASH_DEFRAG), ctypes.c_uint16(group),
            )  # fmt: skip
        self._check(handle, _call("pcap_activate", handle))
        link_type = _call("pcap_datalink", handle)
        if link_type not in METERED_LINKTYPES:
            raise InputError(f"{self.name}: NFStream decodes no packets of link type {link_type}")
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        if _call("pcap_setnonblock", handle, ctypes.c_int(1), error):
            raise InputError(f"{self.name}: cannot be captured: {_text(error.value)}")

    def _check(self, handle: int, status: int) -> None:
        """Raise what a status of `pcap_activate` means; warnings (above 0) mean nothing."""
        if status >= 0:
            return
        if status == _NO_SUCH_DEVICE:
            raise InputError(f"{self.name}: no such interface; `ip link` lists those there are")
        if status in (_NO_PERMISSION, _NO_PROMISCUOUS):
            raise InputError(
                f"{self.name}: no permission to capture; run as root, or with CAP_NET_RAW"
            )
        if status == _NOT_UP or self.state() is not State.UP:
            raise InterfaceDown(self.name)
        get_error = libpcap("pcap_geterr")
        get_error.restype = ctypes.c_char_p
        reason = _text(get_error(ctypes.c_void_p(handle)) or b"")
        raise InputError(f"{self.name}: cannot be captured: {reason or f'libpcap says {status}'}")

    def wait(self, seconds: float) -> bool:
        """Wait until there may be packets, no longer than `seconds`.

        Returns:
            False if the socket reports an error: the interface went down.
        """
        events = self._poll.poll(seconds * 1000)
        return not any(event & ~select.POLLIN for _, event in events)

    def state(self) -> State:
        """What the interface is now; one that was made anew under the same name is GONE."""
        if self.name == _ALL:
            return State.UP
        index, flags = _index_of(self.name), _flags_of(self.name)
        if flags is None or index != self._index:
            return State.GONE
        return State.UP if flags & _IFF_UP else State.DOWN

    def counts(self) -> SocketCounts:
        """What became of the packets so far; to be asked more often than once in 2^32 packets."""
        stat = _PcapStat()
        if _call("pcap_stats", self.handle, ctypes.byref(stat)) == 0:
            now = (stat.received, stat.dropped, stat.by_interface)
            more = [(new - old) % _COUNTER for new, old in zip(now, self._last, strict=True)]
            counts = self._counts
            counts.received += more[0]
            counts.dropped += more[1]
            counts.dropped_by_interface += more[2]
            self._last = now
        return self._counts

    def shut(self) -> None:
        """Let no further packet into the ring; those in it can still be read."""
        instruction = ctypes.create_string_buffer(_RETURN_NOTHING, len(_RETURN_NOTHING))
        program = struct.pack("HP", 1, ctypes.addressof(instruction))
        with socket.socket(fileno=_duplicate(self._fd)) as same:
            same.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def close(self) -> None:
        """End the capture; packets that are still in the ring are dropped."""
        if self.handle:
            libpcap("pcap_close")(ctypes.c_void_p(self.handle))
            self.handle = 0


def _duplicate(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)


def _index_of(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _flags_of(name: str) -> int | None:
    """The IFF_* flags of an interface, or None if there is none (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, name.encode()[:15].ljust(40, b"\0"))
        except OSError:
            return None
    flags: int = struct.unpack_from("H", answer, 16)[0]
    return flags


def _text(reason: bytes) -> str:
    return reason.decode(errors="replace").strip()
