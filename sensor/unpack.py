"""Files compressed by gzip or xz, unpacked so that nothing before damage is lost."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from typing import IO, Any

_GZIP_MAGIC, _XZ_MAGIC = b"\x1f\x8b", b"\xfd7zXZ\x00"
PACKED_MAGIC = (_GZIP_MAGIC, _XZ_MAGIC)
"""What such files begin with."""

_CHUNK_BYTES = 4096
"""Compressed bytes unpacked at a time: damage costs what is in one such chunk at the most."""


class Damaged(Exception):
    """The compressed data goes wrong, or ends early; what came before is good."""


def unpacked(packed: IO[bytes]) -> Iterator[bytes]:
    """The bytes of a file that begins with one of :data:`PACKED_MAGIC`, member after member.

    Raises:
        Damaged: the message says how.
    """
    magic = packed.read(len(_XZ_MAGIC))
    packed.seek(0)
    make = _gunzip if magic.startswith(_GZIP_MAGIC) else lzma.LZMADecompressor
    try:
        yield from _members(packed, make)
    except (zlib.error, lzma.LZMAError) as error:
        raise Damaged(f"the compressed data is damaged ({str(error).lower()})") from error


def _gunzip() -> Any:
    return zlib.decompressobj(wbits=31)


def _members(packed: IO[bytes], make: Any) -> Iterator[bytes]:
    member, begun = make(), False
    while chunk := packed.read(_CHUNK_BYTES):
        while chunk:
            if member.eof:
                # Padding of zeros may follow a member (gzip, xz); another one may too.
                chunk = chunk.lstrip(b"\0")
                if not chunk:
                    break
                member = make()
            yield member.decompress(chunk)
            begun = True
            chunk = member.unused_data if member.eof else b""
    if not (begun and member.eof):
        raise Damaged("the compressed data is damaged (cut)")
