"""What plain text shows, in compiled code: HTTP messages, FTP commands, and what is to be peeked.

The rules for HTTP and FTP are those of :mod:`sensor.meter.stock_plugin`. What KDD's content
features need is read by :mod:`sensor.meter.content`, in Python: here is decided which packets it
has to see: of HTTP first lines that can count, of mail what may be a command that counts, of other
sessions all text.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sensor.meter.compiled.memory import Number, inlined, load_u8, load_u32
from sensor.meter.content import MAX_LINE, Protocol, protocol_of_port
from sensor.meter.plaintext import FTP_COMMANDS, HTTP_METHODS, MOST_HEAD, UNTIL_CLOSE

FTP_PORT = 21
_FTP_LINES = 64
_SPACE = tuple(b" \t\n\r\x0b\f")
_CR, _LF, _BLANK, _COLON = 13, 10, 32, 58

_NONE, _HTTP = int(Protocol.NONE), int(Protocol.HTTP)
_POP3, _SMTP = int(Protocol.POP3), int(Protocol.SMTP)
_FTP_DATA = int(Protocol.FTP_DATA)
_FTP_DATA_PORT = 20
TEXT_OF_PORT = np.array([int(protocol_of_port(port)) for port in range(65_536)], np.uint8)
"""Whose text TCP to a port is: a :class:`sensor.meter.content.Protocol`."""


def _word(text: bytes) -> Number:
    """Four octets as :func:`load_u32` reads them."""
    return int.from_bytes(text.ljust(4, b" ")[:4], "little")


_METHODS = np.frombuffer(b"".join(m.ljust(12, b"\0") for m in HTTP_METHODS), np.uint8)
_METHODS = _METHODS.reshape(-1, 12).copy()
_DATA = np.uint32(_word(b"data"))
_COMMAND_WORDS = np.array(sorted(_word(command) for command in FTP_COMMANDS), np.uint32)

# An HTTP request's line, and one of mail's commands, can only count if it has one of these.
_TELLING_WORDS = np.array(
    sorted(
        _word(text)
        for text in (
            b"/etc", b"/bin", b"/dev", b"/usr", b"////", b"../.", b"/cgi", b".rho", b".sho",
            b".net", b".hta", b".htp", b"auth", b"mast",
        )
    ),
    np.uint32,
)  # fmt: skip
_TELLING_OCTETS = tuple(b"./am")
_DOT, _D, _U = tuple(b".du")
_LENGTH_NAME = np.frombuffer(b"content-length", np.uint8).copy()
_MOST_DIGITS = 18

# Where in a header line the reading stands.
_BEFORE_NAME, _IN_NAME, _AFTER_NAME, _BEFORE_VALUE, _IN_VALUE, _AFTER_VALUE, _OTHER = range(7)


@inlined
def _is_space(octet: int) -> Number:
    return octet in _SPACE


@inlined
def _lower(octet: int) -> Number:
    return octet + 32 if 65 <= octet <= 90 else octet


@inlined
def _begins_http(payload: int, captured: int) -> Number:
    """Whether it begins with ``HTTP/1.``."""
    return (
        captured >= 7
        and load_u32(np.uint64(payload)) == np.uint32(0x50545448)
        and load_u8(np.uint64(payload + 4)) == 47
        and load_u8(np.uint64(payload + 5)) == 49
        and load_u8(np.uint64(payload + 6)) == 46
    )


@inlined
def _begins_230(payload: int, captured: int) -> Number:
    """Whether it begins with FTP's reply that a user is logged in (RFC 959, section 4.2)."""
    return (
        captured >= 3
        and load_u8(np.uint64(payload)) == 50
        and load_u8(np.uint64(payload + 1)) == 51
        and load_u8(np.uint64(payload + 2)) == 48
    )


@inlined
def begins_request(payload: int, captured: int) -> Number:
    """Whether it begins with one of the request methods and a blank."""
    if captured < 4:
        return False
    first = load_u8(np.uint64(payload))
    if first < 67 or first > 84:  # "CONNECT" to "TRACE"
        return False
    for row in range(_METHODS.shape[0]):
        at = 0
        while _METHODS[row, at]:
            if at >= captured or load_u8(np.uint64(payload + at)) != _METHODS[row, at]:
                break
            at += 1
        if not _METHODS[row, at]:
            return True
    return False


@inlined
def ftp_commands(payload: int, captured: int) -> Number:
    """How many of the first 64 lines are FTP commands."""
    found = 0
    at = 0
    for _ in range(_FTP_LINES):
        if at >= captured:
            break
        # The word that begins the line, without white space around it, in upper case.
        word, length, gap, more = np.uint32(0x20202020), 0, False, True
        while at < captured:
            octet = np.int64(load_u8(np.uint64(payload + at)))
            at += 1
            if octet == _LF:
                break
            if not more:
                continue
            if octet == _BLANK:
                more = False
            elif _is_space(octet):
                gap = length > 0
            else:
                if 97 <= octet <= 122:
                    octet -= 32
                if gap or length >= 4:
                    length = 5  # white space within, or too long: no command
                else:
                    shift = np.uint32(8 * length)
                    word = (word & ~(np.uint32(0xFF) << shift)) | (np.uint32(octet) << shift)
                    length += 1
        if 3 <= length <= 4:
            place = np.searchsorted(_COMMAND_WORDS, np.uint32(word))
            if place < len(_COMMAND_WORDS) and _COMMAND_WORDS[place] == np.uint32(word):
                found += 1
    return found


@inlined
def _head_octet(state: Any, octet: int) -> None:
    """One octet of a response's head: its status, and what ``Content-Length`` says."""
    if 9 <= state.head_bytes < 12:
        state.head_status = (state.head_status << 8) | octet
    if octet == _CR:
        state.head_end = 3 if state.head_end == 2 else 1
    elif octet == _LF:
        if state.head_end == 1 or state.head_end == 3:
            state.head_end += 1
            if (
                not state.head_line
                and not state.head_has_length
                and state.head_digits
                and state.head_part in (_IN_VALUE, _AFTER_VALUE)
            ):
                state.head_has_length = 1
            if not state.head_has_length:
                state.head_length = 0
                state.head_digits = 0
            state.head_line = 0
            state.head_part = _BEFORE_NAME
            state.head_at = 0
            return
        state.head_end = 0
    else:
        state.head_end = 0
    if not state.head_line and not state.head_has_length:
        _header_octet(state, octet)


@inlined
def _header_octet(state: Any, octet: int) -> None:
    """One octet of a header line, after the status line."""
    part = state.head_part
    if part == _OTHER:
        return
    if part <= _AFTER_NAME and octet == _COLON:
        whole = state.head_at == len(_LENGTH_NAME)
        state.head_part = _BEFORE_VALUE if whole else _OTHER
    elif _is_space(octet):
        if part == _IN_NAME:
            state.head_part = _AFTER_NAME
        elif part == _IN_VALUE:
            state.head_part = _AFTER_VALUE
    elif part <= _IN_NAME:
        at = state.head_at
        if at < len(_LENGTH_NAME) and _lower(octet) == _LENGTH_NAME[at]:
            state.head_at += 1
            state.head_part = _IN_NAME
        else:
            state.head_part = _OTHER
    elif part in (_BEFORE_VALUE, _IN_VALUE) and 48 <= octet <= 57:
        state.head_part = _IN_VALUE
        if state.head_digits < _MOST_DIGITS:
            state.head_length = state.head_length * 10 + octet - 48
        state.head_digits += 1
    else:
        state.head_part = _OTHER


@inlined
def _response(state: Any, payload: int, captured: int, size: int) -> None:
    """A packet of an HTTP/1 response's head, which may go over several packets."""
    if not state.head_bytes:
        state.head_status = 0
        state.head_end = 0
        state.head_part = _BEFORE_NAME
        state.head_at = 0
        state.head_digits = 0
        state.head_length = 0
        state.head_has_length = 0
        state.head_line = 1
    for at in range(captured):
        _head_octet(state, np.int64(load_u8(np.uint64(payload + at))))
        state.head_bytes += 1
        if state.head_end == 4:
            state.head_bytes = 0
            _body_begins(state, size - at - 1)
            return
    if state.head_bytes >= MOST_HEAD:
        state.head_bytes = 0


@inlined
def _body_begins(state: Any, here: int) -> None:
    """The head is over: `here` octets of the packet follow it (RFC 9112, section 6.3)."""
    status = state.head_status
    if (status >> 16) == 49 or status == 0x323034 or status == 0x333034:  # 1xx, 204, 304
        state.body_left = 0
        return
    if state.head_has_length:
        here = min(here, state.head_length)
        state.body_left = state.head_length - here
    else:
        state.body_left = UNTIL_CLOSE
    state.http_body_bytes += here


@inlined
def messages(
    state: Any, from_dst: int, dst_port: int, payload: int, captured: int, size: int
) -> None:
    """HTTP requests and response bodies, FTP commands and logins, as far as plain text shows."""
    if from_dst:
        if state.head_bytes or _begins_http(payload, captured):
            _response(state, payload, captured, size)
        elif state.body_left:
            seen = min(size, state.body_left)
            state.http_body_bytes += seen
            state.body_left -= seen
        elif dst_port == FTP_PORT and _begins_230(payload, captured):
            state.ftp_logins += 1
    elif begins_request(payload, captured):
        state.http_requests += 1
    elif dst_port == FTP_PORT:
        state.ftp_commands += ftp_commands(payload, captured)


@inlined
def text_of(protocol: int, src_port: int, dst_port: int) -> Number:
    """Whose text a flow is, as :meth:`sensor.meter.content.Content.of` says it."""
    if protocol != 6:
        return _NONE
    text = TEXT_OF_PORT[dst_port]
    if text == _NONE and src_port == _FTP_DATA_PORT:
        return _FTP_DATA
    return text


@inlined
def _unseen(way: Any, seq: int, size: int) -> Number:
    """How many octets of a segment were seen before, or -1 if there is nothing new in it.

    As :meth:`sensor.meter.content.Lines.fresh`.
    """
    if not way.has_text:
        way.has_text = 1
        way.text_seq = seq
    behind: Number = (np.int64(way.text_seq) - seq) & 0xFFFFFFFF
    if behind >= 1 << 31:
        behind = 0
    if behind >= size:
        return -1
    way.text_seq = (seq + size) & 0xFFFFFFFF
    return behind


@inlined
def _line_length(payload: int, captured: int) -> Number:
    most = min(captured, MAX_LINE)
    for at in range(most):
        if load_u8(np.uint64(payload + at)) == _LF:
            return at
    return most


@inlined
def _request_tells(payload: int, length: int) -> Number:
    """Whether a request's line may name a file, a path or a command that counts."""
    for at in range(length - 3):
        octet = _lower(np.int64(load_u8(np.uint64(payload + at))))
        if octet in _TELLING_OCTETS:
            # In lower case; the other octets of the words stay as they are.
            word = load_u32(np.uint64(payload + at)) | np.uint32(0x20202020)
            for number in range(len(_TELLING_WORDS)):
                if _TELLING_WORDS[number] == word:
                    return True
    return False


@inlined
def _reply_tells(payload: int, length: int) -> Number:
    """Whether a status line is of a 404, or has more than a few words."""
    if length >= 12:
        code = load_u32(np.uint64(payload + 8)) >> np.uint32(8)
        if code == np.uint32(0x343034):
            return True
    for at in range(7, length - 3):
        octet = _lower(np.int64(load_u8(np.uint64(payload + at))))
        after = _lower(np.int64(load_u8(np.uint64(payload + at + 1))))
        # "not found", "no such file", "jump to"
        if (octet == 110 and after == 111) or (octet == 106 and after == 117):
            return True
    return False


@inlined
def _tls(payload: int, captured: int) -> Number:
    """Whether it begins with a TLS handshake record: from there on nothing can be read."""
    return (
        captured >= 2 and load_u8(np.uint64(payload)) == 22 and load_u8(np.uint64(payload + 1)) == 3
    )


@inlined
def wants_peek(
    state: Any, way: Any, from_dst: int, seq: int, payload: int, captured: int, size: int
) -> Number:
    """How many octets of a segment's text to skip before it is peeked, or -1 for no peek.

    HTTP's and mail's segments are told apart here: what was seen before is skipped, and what
    cannot count is not peeked. Other text is peeked whole.
    """
    if state.text not in (_HTTP, _SMTP, _POP3):
        return 0
    gap = way.has_text and (np.int64(way.text_seq) - seq) & 0xFFFFFFFF >= 1 << 31
    if gap and not from_dst:
        state.text_in_line = 0
    behind: Number = _unseen(way, seq, size)
    if behind < 0 or behind >= captured:
        return -1
    payload += behind
    captured -= behind
    if _tls(payload, captured):
        state.text = _NONE
        return -1
    if state.text == _HTTP:
        skip = _wants_http(state, from_dst, payload, captured)
    elif from_dst:
        skip = _wants_reply(state, payload, captured)
    elif state.text_in_mail:
        skip = _wants_mail(state, payload, captured)
    else:
        skip = _wants_command(state, payload, captured)
    return behind + skip if skip >= 0 else -1


@inlined
def _wants_http(state: Any, from_dst: int, payload: int, captured: int) -> Number:
    """0 for a message's first line that may count, else -1."""
    if from_dst:
        if not _begins_http(payload, captured):
            return -1
        return 0 if _reply_tells(payload, _line_length(payload, captured)) else -1
    state.text_logged_in = 1
    first = load_u8(np.uint64(payload))
    if first < 65 or first > 90:
        return -1
    return 0 if _request_tells(payload, _line_length(payload, captured)) else -1


@inlined
def _wants_reply(state: Any, payload: int, captured: int) -> Number:
    """Of a mail server only counts that it has answered with a line: -1 once that is known."""
    if state.text_logged_in:
        return -1
    first = load_u8(np.uint64(payload))
    if first != _CR and first != _LF:
        for at in range(captured):
            if load_u8(np.uint64(payload + at)) == _LF:
                state.text_logged_in = 1
                return -1
    return 0


@inlined
def _next_line(payload: int, at: int, captured: int) -> Number:
    """Where the next line begins, `captured` if there is none."""
    while at < captured and load_u8(np.uint64(payload + at)) != _LF:
        at += 1
    return min(at + 1, captured)


@inlined
def _dot_alone(payload: int, at: int, captured: int) -> Number:
    """Whether a line is a dot and nothing else, or may be once the next segment has come."""
    if load_u8(np.uint64(payload + at)) != _DOT:
        return False
    return at + 1 == captured or load_u8(np.uint64(payload + at + 1)) in (_CR, _LF)


@inlined
def _wants_mail(state: Any, payload: int, captured: int) -> Number:
    """Within a mail: the line to begin with if one may be the dot that ends it, else -1."""
    begin = _next_line(payload, 0, captured) if state.text_in_line else 0
    at = begin
    while at < captured and not _dot_alone(payload, at, captured):
        at = _next_line(payload, at, captured)
    state.text_in_line = load_u8(np.uint64(payload + captured - 1)) != _LF
    if at >= captured:
        return -1
    state.text_in_mail = 0
    return begin


@inlined
def _wants_command(state: Any, payload: int, captured: int) -> Number:
    """0 for commands of a mail client that may count, or are not whole lines, else -1."""
    whole = not state.text_in_line and load_u8(np.uint64(payload + captured - 1)) == _LF
    state.text_in_line = load_u8(np.uint64(payload + captured - 1)) != _LF
    if not whole:
        return 0
    verb = _U if state.text == _POP3 else _D
    at = 0
    while at < captured:
        octet = _lower(np.int64(load_u8(np.uint64(payload + at))))
        if octet in (verb, _DOT) or octet <= _BLANK:
            state.text_in_mail = state.text == _SMTP and _is_data(payload, captured)
            return 0
        at = _next_line(payload, at, captured)
    return 0 if _lone_return(payload, captured) or _request_tells(payload, captured) else -1


@inlined
def _is_data(payload: int, captured: int) -> Number:
    """Whether it is SMTP's command DATA and nothing else (RFC 5321, section 4.1.1.4)."""
    if captured != 6 or load_u8(np.uint64(payload + 4)) != _CR:
        return False
    return load_u32(np.uint64(payload)) | np.uint32(0x20202020) == _DATA


@inlined
def _lone_return(payload: int, captured: int) -> Number:
    """Whether there is a CR with no LF behind it; the last octet is an LF."""
    for at in range(captured - 1):
        if load_u8(np.uint64(payload + at)) == _CR and load_u8(np.uint64(payload + at + 1)) != _LF:
            return True
    return False
