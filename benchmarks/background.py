"""Benign captures of many programs as one capture that can be replayed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scapy.utils import RawPcapNgReader, RawPcapReader

from benchmarks.flood import START_US
from examples.traffic import write_pcap

_ETHERNET = 1
_MOST = 1514
"""Octets of a frame that a veth pair takes as it comes."""


def frames_of(path: Path) -> Iterator[bytes]:
    """The Ethernet frames of a capture that are whole and not too long; none of another kind."""
    with RawPcapReader(str(path)) as reader:
        if isinstance(reader, RawPcapNgReader):
            return
        if reader.linktype != _ETHERNET:
            return
        for frame, about in reader:
            if 14 < len(frame) == about.wirelen <= _MOST:
                yield frame


def write_background(path: Path, folder: Path) -> tuple[int, int]:
    """Write the frames of all captures below `folder`, one capture after the other.

    Returns:
        How many captures had any, and how many packets there are.
    """
    frames: list[bytes] = []
    captures = 0
    for capture in sorted(folder.rglob("*.pcap")):
        before = len(frames)
        frames += frames_of(capture)
        captures += len(frames) > before
    if not frames:
        raise SystemExit(f"{folder}: no capture of Ethernet frames (*.pcap) in it")
    write_pcap(path, [(START_US, frame) for frame in frames])
    return captures, len(frames)
