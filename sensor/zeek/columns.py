"""The columns of some lines of conn.log, whichever of its two formats they are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from features.schema import FloatArray
from features.zeek_conn import NO, UNSET, YES

NEEDED = (
    "ts", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto", "conn_state", "orig_pkts",
    "orig_ip_bytes", "resp_pkts", "resp_ip_bytes",
)  # fmt: skip
"""Columns that have a value in every record that can be scored."""
DECLARED = (*NEEDED, "service", "duration", "orig_bytes", "resp_bytes", "missed_bytes", "history")
"""Columns that must be in the header, as they would pass for unset else."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_S = 253_402_300_799.0  # 9999-12-31, the end of what a timestamp can say
_MILLISECONDS_FROM = 1e11
"""A `ts` from here on is in milliseconds (JSON::TS_MILLIS): in seconds it would be year 5138."""
_US = timedelta(microseconds=1)


class Fault(StrEnum):
    """Why a line was not read."""

    CUT = "cut off"
    FIELDS = "with another number of fields than the header"
    HEADER = "without a header that fits"
    JSON = "that are no JSON object"
    LACKING = "that lack a value"
    VALUE = "with a value that is wrong"
    OTHER_LOG = "of another log"


class Faulty(Exception):
    """A line cannot be read; the message says what is wrong with it."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault


def shown(value: object) -> str:
    """A value as a message shows it."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


class Columns(Protocol):
    """``[B]`` lines by column. What a line does not have is unset there."""

    count: int

    def numbers(self, name: str) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Numbers ``[B]``, 0 where unset, and where that is.

        Raises:
            Faulty: one is no number.
        """

    def times_us(self, name: str) -> NDArray[np.int64]:
        """Times ``[B]`` in microseconds since the epoch.

        Raises:
            Faulty: one is no time, or unset.
        """

    def given(self, name: str) -> bool:
        """Whether all have a value."""

    def texts(self, name: str) -> Sequence[bytes]:
        """Texts, ``b""`` where unset."""

    def truths(self, name: str) -> NDArray[np.uint8]:
        """NO, YES or UNSET, ``[B]``.

        Raises:
            Faulty: one is none.
        """

    def filled(self, name: str) -> NDArray[np.bool_]:
        """Whether a set has members, ``[B]``."""


def epoch_us(seconds: FloatArray, name: str) -> NDArray[np.int64]:
    """Seconds since the epoch ``[B]``, or milliseconds from 1e11 on, as microseconds.

    Raises:
        Faulty: one is before 1970, after 9999, or not finite.
    """
    seconds = np.where(seconds >= _MILLISECONDS_FROM, seconds / 1000.0, seconds)
    good = (seconds >= 0.0) & (seconds <= _LAST_S)
    if not good.all():
        raise Faulty(Fault.VALUE, f"{name} is {seconds[~good][0]:g}, which is no time")
    return np.rint(seconds * 1e6).astype(np.int64)


class TsvColumns:
    """Lines of Zeek's own format."""

    def __init__(
        self, lines: Sequence[bytes], separator: bytes, places: Mapping[str, int], width: int,
        unset: bytes, empty: bytes,
    ) -> None:  # fmt: skip
        """Split lines into `width` fields, of which `places` says where each column is.

        Raises:
            Faulty: a line has another number of fields.
        """
        rows = [line.split(separator) for line in lines]
        for row in rows:
            if len(row) != width:
                raise Faulty(Fault.FIELDS, f"has {len(row)} fields, the header {width}")
        self.count = len(rows)
        self._columns = list(zip(*rows, strict=True))
        self._places, self._unset, self._empty = places, unset, empty

    def _column(self, name: str) -> Sequence[bytes]:
        at = self._places.get(name)
        return (self._unset,) * self.count if at is None else self._columns[at]

    def numbers(self, name: str) -> tuple[FloatArray, NDArray[np.bool_]]:
        """See :class:`Columns`."""
        values = np.array(self._column(name), np.bytes_)
        unset = values == self._unset
        try:
            return np.where(unset, b"0", values).astype(np.float64), unset
        except ValueError:
            raise _no_number(name, self._column(name)) from None

    def times_us(self, name: str) -> NDArray[np.int64]:
        """See :class:`Columns`."""
        return epoch_us(self.numbers(name)[0], name)

    def given(self, name: str) -> bool:
        """See :class:`Columns`."""
        column = self._column(name)
        return not any(blank in column for blank in (self._unset, self._empty, b""))

    def texts(self, name: str) -> Sequence[bytes]:
        """See :class:`Columns`."""
        blank = (self._unset, self._empty)
        return [b"" if text in blank else text for text in self._column(name)]

    def truths(self, name: str) -> NDArray[np.uint8]:
        """See :class:`Columns`."""
        values = {b"F": NO, b"T": YES, self._unset: UNSET}
        return _looked_up(name, self._column(name), values)

    def filled(self, name: str) -> NDArray[np.bool_]:
        """See :class:`Columns`."""
        return np.array([text != b"" for text in self.texts(name)])


class JsonColumns:
    """Lines of JSON objects, as Zeek's ``LogAscii::use_json`` writes them."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        """Read the lines.

        Raises:
            Faulty: one is no JSON object, or of another log than conn.
        """
        self._rows: list[dict[str, Any]] = []
        for line in lines:
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise Faulty(Fault.JSON, f"is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise Faulty(Fault.JSON, f"is no JSON object: {shown(line)}")
            if (path := row.get("_path", "conn")) != "conn":
                raise Faulty(Fault.OTHER_LOG, f"is of Zeek's log {shown(path)}, not of conn")
            self._rows.append(row)
        self.count = len(self._rows)

    def _column(self, name: str) -> list[Any]:
        return [row.get(name) for row in self._rows]

    def numbers(self, name: str) -> tuple[FloatArray, NDArray[np.bool_]]:
        """See :class:`Columns`."""
        values = self._column(name)
        unset = np.array([value is None for value in values])
        try:
            given = [0 if value is None else value for value in values]
            return np.array(given, np.float64).reshape(self.count), unset
        except (ValueError, TypeError, OverflowError):
            raise _no_number(name, values) from None

    def times_us(self, name: str) -> NDArray[np.int64]:
        """See :class:`Columns`: numbers, or texts as JSON::TS_ISO8601 has them."""
        values = self._column(name)
        if not isinstance(values[0], str):
            return epoch_us(self.numbers(name)[0], name)
        try:
            return np.array([_iso_us(value) for value in values], np.int64)
        except (ValueError, TypeError, OverflowError) as error:
            raise Faulty(Fault.VALUE, f"{name} is no time: {error}") from error

    def given(self, name: str) -> bool:
        """See :class:`Columns`."""
        return not any(value is None or value == "" for value in self._column(name))

    def texts(self, name: str) -> Sequence[bytes]:
        """See :class:`Columns`."""
        return [b"" if value is None else str(value).encode() for value in self._column(name)]

    def truths(self, name: str) -> NDArray[np.uint8]:
        """See :class:`Columns`."""
        values = [value if value is None else str(value) for value in self._column(name)]
        return _looked_up(name, values, {"False": NO, "True": YES, None: UNSET})

    def filled(self, name: str) -> NDArray[np.bool_]:
        """See :class:`Columns`."""
        return np.array([bool(value) for value in self._column(name)])


def _iso_us(text: str) -> int:
    """Microseconds since the epoch; a time without a zone is in UTC."""
    time = datetime.fromisoformat(text)
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _US


def _looked_up(name: str, values: Sequence[Any], codes: Mapping[Any, int]) -> NDArray[np.uint8]:
    try:
        return np.array([codes[value] for value in values], np.uint8)
    except KeyError as error:
        raise Faulty(Fault.VALUE, f"{name} is {shown(error.args[0])}, not a truth value") from None


def _no_number(name: str, values: Sequence[Any]) -> Faulty:
    """What is said of the first of `values` that is no number."""
    for value in values:
        try:
            float(value if value not in (None, b"-") else 0)
        except (ValueError, TypeError, OverflowError):
            return Faulty(Fault.VALUE, f"{name} is {shown(value)}, not a number")
    return Faulty(Fault.VALUE, f"{name} is not a number")
