"""What the text of a session shows: KDD's content features, from the lines of both sides.

For telnet, rlogin, ftp, ftp's data, pop3, imap, smtp and http on the ports that KDD names them
by. Nothing of a session that is encrypted can be read, so there all stay 0, as they do for
every other protocol: the sessions that KDD was made of were all in plain text.

The rules are in the meanings of the features (:mod:`features.kdd`). They follow kddcup.names;
Lee and Stolfo, "A framework for constructing features and models for intrusion detection
systems", ACM TISSEC 3(4), 2000, section 5; the lists of hot ids and telltale text in the spirit
of Bro's policy scripts (Paxson, "Bro: a system for detecting network intruders in real-time",
1999, section 4.4); and, where those leave it open, the published rows
(tests/features/test_kdd_evidence.py).

The work on a packet is bounded: at most MAX_LINES lines of it are looked at, and of a line at most
MAX_LINE octets. What is kept of a session is one unfinished line a side.
"""

from __future__ import annotations

import re
from enum import IntEnum

MAX_LINE = 512
"""Octets kept of a line; the rest of it is skipped."""
MAX_LINES = 64
"""Lines of a packet that are looked at."""

CONTENT_FIELDS = (
    "hot", "failed_logins", "logged_in", "compromised", "root_shell", "su_attempted",
    "root_accesses", "file_creations", "shells", "access_files", "host_login", "guest_login",
)  # fmt: skip
"""Fields of the flow record that a :class:`Content` has as attributes of the same name."""


class Protocol(IntEnum):
    """Whose text it is."""

    NONE = 0
    TELNET = 1
    RLOGIN = 2
    FTP = 3
    FTP_DATA = 4
    POP3 = 5
    IMAP = 6
    SMTP = 7
    HTTP = 8


_PORTS = {
    20: Protocol.FTP_DATA, 21: Protocol.FTP, 23: Protocol.TELNET, 25: Protocol.SMTP,
    80: Protocol.HTTP, 110: Protocol.POP3, 143: Protocol.IMAP, 513: Protocol.RLOGIN,
    8001: Protocol.HTTP,
}  # fmt: skip
_FTP_DATA_PORT = 20
_TCP = 6


def protocol_of_port(port: int) -> Protocol:
    """Whose text TCP to a port is."""
    return _PORTS.get(port, Protocol.NONE)


_TLS_HANDSHAKE = b"\x16\x03"

GUEST_IDS = frozenset((b"anonymous", b"ftp", b"guest", b"visitor"))
"""User names of guests."""

ALWAYS_HOT_IDS = frozenset(
    b"backdoor bomb checkmate daemon demos lp nuucp own r00t rewt ruut sync tour tutor uucp".split()
)
"""User names that are hot even if the login fails."""

HOT_IDS = ALWAYS_HOT_IDS | frozenset(
    b"diag issadmin operator root smtp sundiag sys sysadm sysdiag sysop sysoper system toor".split()
)
"""User names that are hot if the login succeeds."""

_ACCESS_FILES = re.compile(
    rb"/etc/(?:passwd|shadow|group|hosts\.(?:equiv|allow|deny)|sudoers|inetd\.conf|ftpusers)"
    rb"|\.(?:rhosts|shosts|netrc|htaccess|htpasswd)\b|\bauthorized_keys\b|\bmaster\.passwd\b"
)
"""Files that say who may do what."""

_TELLTALE_INPUT = re.compile(
    rb"/bin/eject|eject|fdformat|ffbconfig|loadmodule|xploit|exploit|(?:shell|sploit)_?code"
    rb"|ff\.core|eggdrop|rootkit|sniffit|unset\s+hist|su\s+(?:daemon|news|adm)\b|cd\s+/dev/[a-z]{3}"
    rb"|>\s*/etc/passwd|gcc.*/bin/login|(?:cd|cat|more|vi)\s+[\"']?\.\.\.",
    re.IGNORECASE,
)
"""What intruders type."""

_TELLTALE_OUTPUT = re.compile(
    rb"^-r.s\S*\s.*\broot\b.*/bin/\w*sh\b|jump(?:ing)? to|trojaning in progress|uid=0\(root\)",
    re.IGNORECASE,
)
"""What intruders get to read."""

_TELLTALE_WORDS = (b"root", b"jump", b"trojan")
"""One of them is in all that _TELLTALE_OUTPUT finds; quick to look for."""

_COMPROMISED = (b"not found", b"no such file", b"jump to", b"jumping to")
_PRINTABLE = bytes(range(32, 127))
_ROOT = re.compile(rb"\broot\b")
_ROOT_PROMPT = re.compile(rb"^[^\s#]{0,64}(?: [^\s#]{0,64}){0,2}# ?$")
_PROMPT = re.compile(rb"^.{0,120}[$%>#] ?$")
_ASKS_USER = re.compile(rb"(?:login|username|user|name): ?$", re.IGNORECASE)
_ASKS_PASSWORD = re.compile(rb"passw(?:or)?d:? ?$", re.IGNORECASE)
_FAILED = re.compile(rb"incorrect|invalid|login failed|authorization failure|^sorry", re.IGNORECASE)
_SUCCEEDED = re.compile(rb"last (?:successful )?login|failures? since last", re.IGNORECASE)
_SHELL = re.compile(
    rb"(?:^|[;&|(]\s{0,8}|\b(?:exec|chroot|xterm -e) )(?:/\S{0,80}/)?(?:ba|c|k|tc|z|)sh(?:\s|$)"
    rb"|exec[\s\"'(]{1,8}/\S{0,80}sh\b"
)
_CREATES = re.compile(
    rb"(?:^|[;&|]\s{0,8})(?:/\S{0,80}/)?(?:touch|cp|mkdir|vi|vim|emacs|pico|ed|ln|tee|uudecode|cc|gcc)\s+\S"
    rb"|(?<![<>&0-9-])>{1,2}\s*(?!/dev/null|&)\S"
)
_SU_ROOT = re.compile(rb"^(?:/\S{0,80}/)?su(?:\s+-l?)?(?:\s+root)?\s*$")
_SYSTEM_PATH = re.compile(rb"/etc/|/bin/|/dev/|/usr/sbin/|/{8}|\.\./\.\.")
_CGI_COMMAND = re.compile(rb"/cgi-bin/.*(?:%0a|;|\||`)", re.IGNORECASE)

_IAC, _SB, _SE, _WILL = 255, 250, 240, 251
_PLAIN, _AFTER_IAC, _AFTER_VERB, _IN_SB, _IN_SB_IAC = range(5)


def strip_options(octets: bytes, state: int) -> tuple[bytes, int]:
    """Telnet data without its commands and options (RFC 854), and the state to go on with.

    `state` is 0 at first; it carries an option that a packet's end has cut in two.
    """
    if state == _PLAIN and _IAC not in octets:
        return octets, state
    text = bytearray()
    at = 0
    while at < len(octets):
        if state in (_PLAIN, _IN_SB):
            # Up to the next command, or to the end of the options.
            found = octets.find(_IAC, at)
            end = len(octets) if found < 0 else found
            if state == _PLAIN:
                text += octets[at:end]
            if found < 0:
                break
            state = _AFTER_IAC if state == _PLAIN else _IN_SB_IAC
            at = end + 1
            continue
        octet = octets[at]
        at += 1
        if state == _AFTER_VERB:
            state = _PLAIN
        elif state == _IN_SB_IAC:
            state = _PLAIN if octet == _SE else _IN_SB
        elif octet == _SB:
            state = _IN_SB
        elif _WILL <= octet < _IAC:
            state = _AFTER_VERB
        else:
            if octet == _IAC:
                text.append(octet)
            state = _PLAIN
    return bytes(text), state


def edited(line: bytes) -> bytes:
    """What is left of a typed line after its backspaces (BS and DEL); control octets go."""
    if not line.translate(None, _PRINTABLE):
        return line
    kept = bytearray()
    for octet in line:
        if octet in (8, 127):
            del kept[-1:]
        elif octet >= 32 or octet == 9:
            kept.append(octet)
    return bytes(kept)


def tells_of_compromise(line: bytes) -> bool:
    """Whether a line of a server is one of those that `num_compromised` counts."""
    low = line.lower()
    return any(words in low for words in _COMPROMISED)


class Lines:
    """Cuts the octets of one side into lines; keeps the unfinished one, bounded."""

    __slots__ = ("after_return", "next_seq", "options", "rest")

    def __init__(self) -> None:
        self.rest = b""
        self.after_return = False
        self.next_seq: int | None = None
        self.options = 0

    def fresh(self, seq: int, payload: bytes, size: int) -> bytes:
        """The part of a segment not seen before; a gap ends the unfinished line.

        `payload` may be cut by the snapshot length; `size` is its length on the wire.
        """
        if self.next_seq is None:
            self.next_seq = seq
        behind = (self.next_seq - seq) & 0xFFFFFFFF
        if behind >= 1 << 31:
            self.rest = b""
            behind = 0
        if behind >= size:
            return b""
        self.next_seq = (seq + size) & 0xFFFFFFFF
        return payload[behind:]

    def cut(self, octets: bytes) -> list[bytes]:
        """The lines that these octets complete, without their ends."""
        if not octets:
            return []
        if self.after_return and octets.startswith(b"\n"):
            octets = octets[1:]
        self.after_return = octets.endswith(b"\r")
        joined = self.rest + octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        parts = joined.split(b"\n", MAX_LINES)
        if len(parts) > MAX_LINES:
            # What is beyond the bound is not looked at, but for where its last line begins.
            parts[-1] = parts[-1][parts[-1].rfind(b"\n") + 1 :]
        self.rest = parts.pop()[:MAX_LINE]
        return [part[:MAX_LINE] for part in parts]

    def skip(self, octets: bytes) -> None:
        """As :meth:`cut`, of octets whose lines nobody wants."""
        end = max(octets.rfind(b"\n"), octets.rfind(b"\r")) + 1
        self.rest = (octets[end:] if end else self.rest + octets)[:MAX_LINE]
        self.after_return = octets.endswith(b"\r")


class Content:
    """KDD's content features of one connection, so far.

    Attributes:
        hot: hot indicators.
        failed_logins: logins that were refused.
        logged_in: 1 after a login.
        compromised: conditions that tell of a compromise.
        root_shell: 1 after a root prompt.
        su_attempted: 1 after ``su root``, 2 if it gave a root prompt.
        root_accesses: lines from the server that name root.
        file_creations: commands that make files.
        shells: commands that start a shell.
        access_files: commands that name access control files.
        host_login: 1 if the user is of the hot list.
        guest_login: 1 if the user is a guest.
    """

    __slots__ = (
        "_asked", "_command", "_dst", "_in_mail", "_opening", "_pending", "_protocol", "_src",
        "_tag", "_typed", "_user", *CONTENT_FIELDS,
    )  # fmt: skip

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._src, self._dst = Lines(), Lines()
        self._user = b""
        self._asked = b""
        """What the server asks for: b"user", b"password" or nothing."""
        self._pending = False
        """A password was given and not yet answered."""
        self._command = b""
        self._tag = b""
        self._typed = b""
        self._in_mail = False
        self._opening: bytes | None = b""
        self.hot = self.failed_logins = self.logged_in = self.compromised = 0
        self.root_shell = self.su_attempted = self.root_accesses = self.file_creations = 0
        self.shells = self.access_files = self.host_login = self.guest_login = 0

    @staticmethod
    def of(ip_protocol: int, src_port: int, dst_port: int) -> Content | None:
        """What follows the text of a connection; None where there is none that is known."""
        if ip_protocol != _TCP:
            return None
        protocol = protocol_of_port(dst_port)
        if protocol is Protocol.NONE and src_port == _FTP_DATA_PORT:
            protocol = Protocol.FTP_DATA
        return Content(protocol) if protocol is not Protocol.NONE else None

    def feed(self, from_dst: int, seq: int, payload: bytes, size: int) -> None:
        """A segment with payload: who sent it, its sequence number, what the capture has of it."""
        protocol = self._protocol
        if protocol is Protocol.NONE:
            return
        side = self._dst if from_dst else self._src
        octets = side.fresh(seq, payload, size)
        if not octets:
            return
        if octets.startswith(_TLS_HANDSHAKE):
            self._protocol = Protocol.NONE
            return
        if protocol is Protocol.HTTP:
            self._http(from_dst, octets)
            return
        if protocol is Protocol.RLOGIN and not from_dst and self._opening is not None:
            octets = self._open_rlogin(octets)
        if protocol in (Protocol.TELNET, Protocol.RLOGIN):
            octets, side.options = strip_options(octets, side.options)
            octets = octets.replace(b"\0", b"")
        elif self._idle(from_dst, side, octets):
            side.skip(octets)
            return
        lines = side.cut(octets)
        if protocol in (Protocol.TELNET, Protocol.RLOGIN):
            if from_dst:
                self._terminal_output(lines)
            else:
                for line in lines:
                    self._typed_line(edited(line))
            return
        take = _REPLIES[protocol] if from_dst else _COMMANDS[protocol]
        for line in lines:
            if line:
                take(self, line)

    def peek(self, from_dst: int, seq: int, payload: bytes, size: int) -> None:
        """As :meth:`feed`, for a meter that tells apart itself what is new of HTTP and of mail.

        Of mail it passes over whole lines that cannot count, so what follows them is no gap, but
        begins a line.
        """
        if self._protocol is Protocol.HTTP:
            self._http(from_dst, payload)
            return
        if self._protocol in (Protocol.POP3, Protocol.SMTP):
            side = self._dst if from_dst else self._src
            if side.next_seq != seq:
                side.next_seq, side.rest = seq, b""
        self.feed(from_dst, seq, payload, size)

    def _idle(self, from_dst: int, side: Lines, octets: bytes) -> bool:
        """Whether no line that these octets end can count: most of a file's and of a mail's."""
        if self._protocol is Protocol.FTP_DATA:
            return b"root" not in side.rest + octets
        if self._in_mail and not from_dst:
            return not octets.startswith(b".") and b"\n." not in octets and not side.rest
        return False

    # -------------------------------------------------------------------------------
    # Any protocol

    def _named(self, user: bytes) -> None:
        self._user = user.strip().strip(b'"').lower()[:MAX_LINE]
        if self._user in GUEST_IDS:
            self.guest_login = 1

    def _login(self) -> None:
        self._pending = False
        self.logged_in = 1
        if self._user in HOT_IDS:
            self.host_login = 1
            self.hot += 1

    def _refuse(self) -> None:
        self._pending = False
        self.failed_logins += 1
        if self._user in ALWAYS_HOT_IDS:
            self.host_login = 1
            self.hot += 1

    def _named_files(self, line: bytes) -> None:
        if _ACCESS_FILES.search(line):
            self.access_files += 1

    def _read(self, line: bytes) -> None:
        """A line of what a server shows."""
        if b"root" in line and _ROOT.search(line):
            self.root_accesses += 1
        if tells_of_compromise(line):
            self.compromised += 1

    def _listed(self, line: bytes) -> None:
        """A line of an FTP transfer, maybe of a directory's list."""
        if _ROOT.search(line):
            self.root_accesses += 1

    # -------------------------------------------------------------------------------
    # Telnet and rlogin

    def _open_rlogin(self, octets: bytes) -> bytes:
        """Read rlogin's opening (RFC 1282), four strings that a zero ends; return what follows."""
        opening = ((self._opening or b"") + octets)[: MAX_LINE + len(octets)]
        fields = opening.split(b"\0", 4)
        if len(fields) < 5 and len(opening) < MAX_LINE:
            self._opening = opening
            return b""
        self._opening = None
        if len(fields) < 5:
            return b""
        self._named(fields[2])
        # A trusted host is let in without a password.
        self._pending = True
        return fields[4]

    def _typed_line(self, line: bytes) -> None:
        self._typed = line
        if self._asked == b"user":
            self._asked = b""
            self._named(line)
        elif self._asked == b"password":
            self._asked = b""
            # The password of su is not that of a login.
            self._pending = not self.logged_in
        elif self._pending and line:
            # Whoever is asked nothing and types on has been let in.
            self._login()
            self._run(line)
        elif self.logged_in and line:
            self._run(line)

    def _run(self, line: bytes) -> None:
        """A command of someone logged in."""
        line = line.strip()
        self._named_files(line)
        if _CREATES.search(line):
            self.file_creations += 1
        if _SHELL.search(line):
            self.shells += 1
        if _TELLTALE_INPUT.search(line):
            self.hot += 1
        if _SU_ROOT.match(line):
            self.su_attempted = max(self.su_attempted, 1)

    def _terminal_output(self, lines: list[bytes]) -> None:
        typed = self._typed.strip()
        for line in lines:
            text = edited(line)
            if typed and text.endswith(typed):
                # The echo of what was typed, maybe after a prompt.
                text = text[: -len(typed)]
                typed = b""
            self._shown(text)
        rest, typing = edited(self._dst.rest), edited(self._src.rest)
        # What is being typed is echoed, and is no prompt.
        if not (typing and rest.endswith(typing)):
            self._prompted(rest)

    def _shown(self, line: bytes) -> None:
        if self._pending:
            if _SUCCEEDED.search(line):
                self._login()
            elif _FAILED.search(line):
                self._refuse()
        if self.logged_in:
            self._read(line)
            low = line.lower()
            if any(word in low for word in _TELLTALE_WORDS) and _TELLTALE_OUTPUT.search(line):
                self.hot += 1
            if b"uid=0(root)" in line:
                self.root_shell = 1

    def _prompted(self, rest: bytes) -> None:
        """The unfinished line: what the server waits with."""
        if not rest:
            return
        if _ASKS_PASSWORD.search(rest):
            self._asked = b"password"
        elif not self.logged_in and _ASKS_USER.search(rest):
            if self._pending:
                # Asked again, without a word about why.
                self._refuse()
            self._asked = b"user"
        elif _PROMPT.match(rest):
            if self._pending:
                self._login()
            if self.logged_in and _ROOT_PROMPT.match(rest):
                self.root_shell = 1
                if self.su_attempted:
                    self.su_attempted = 2

    # -------------------------------------------------------------------------------
    # FTP

    def _ftp_command(self, line: bytes) -> None:
        verb, _, argument = line.strip().partition(b" ")
        verb = verb.upper()
        self._command = verb
        if verb == b"USER":
            self._named(argument)
        elif verb in (b"STOR", b"STOU", b"APPE"):
            self.hot += 1
            self.file_creations += not self.guest_login
        elif verb == b"RETR":
            self.hot += self.guest_login
        elif verb == b"SITE" and argument[:4].upper() == b"EXEC":
            self.hot += 1
        if verb not in (b"USER", b"PASS"):
            self._named_files(argument)

    def _ftp_reply(self, line: bytes) -> None:
        if line.startswith(b"230"):
            if not self.logged_in:
                self._login()
        elif line.startswith(b"530 ") and self._command == b"PASS":
            self._refuse()
        elif line.startswith(b"550") and tells_of_compromise(line):
            self.compromised += 1

    # -------------------------------------------------------------------------------
    # Mail

    def _reply(self, line: bytes) -> None:
        self.logged_in = 1

    def _pop_command(self, line: bytes) -> None:
        verb, _, argument = line.strip().partition(b" ")
        if verb.upper() == b"USER":
            self._named(argument)

    def _imap_command(self, line: bytes) -> None:
        words = line.split(None, 3)
        if len(words) >= 3 and words[1].upper() == b"LOGIN":
            self._tag = words[0]
            self._named(words[2])

    def _imap_reply(self, line: bytes) -> None:
        if self._tag and line.startswith(self._tag + b" "):
            if line[len(self._tag) :].lstrip()[:2].upper() == b"OK":
                self._login()
            else:
                self._refuse()
            self._tag = b""

    def _smtp_command(self, line: bytes) -> None:
        if self._in_mail:
            self._in_mail = line != b"."
            return
        if line.strip().upper() == b"DATA":
            self._in_mail = True
        self._named_files(line)

    # -------------------------------------------------------------------------------
    # HTTP

    def _http(self, from_dst: int, octets: bytes) -> None:
        """Of a packet that begins a message its first line, nothing else."""
        line = octets[:MAX_LINE].split(b"\n", 1)[0]
        if from_dst:
            if line.startswith(b"HTTP/1.") and (line[9:12] == b"404" or tells_of_compromise(line)):
                self.compromised += 1
                self.hot += 1
            return
        self.logged_in = 1
        if not _REQUEST.match(line):
            return
        self._named_files(line)
        self.hot += bool(_SYSTEM_PATH.search(line)) + bool(_CGI_COMMAND.search(line))


_REQUEST = re.compile(rb"[A-Z]{3,10} ")
_COMMANDS = {
    Protocol.FTP: Content._ftp_command,
    Protocol.FTP_DATA: Content._listed,
    Protocol.POP3: Content._pop_command,
    Protocol.IMAP: Content._imap_command,
    Protocol.SMTP: Content._smtp_command,
}
_REPLIES = {
    Protocol.FTP: Content._ftp_reply,
    Protocol.FTP_DATA: Content._listed,
    Protocol.POP3: Content._reply,
    Protocol.IMAP: Content._imap_reply,
    Protocol.SMTP: Content._reply,
}
