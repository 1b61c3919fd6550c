"""KDD's features of captures worked out by hand: what is on the wire, what must come out, why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Raw

from examples import traffic
from examples.traffic import Host, Side, TcpConversation
from features import kdd
from features.flows import unpack_address
from features.schema import Kind
from features.stream import FeatureStream
from sensor.captures import CaptureSpool, chain
from sensor.meter import content
from tests.helpers import METERS

START_US = 1_700_000_000_000_000
SECOND = 1_000_000
CLIENT = Host("02:00:00:00:00:01", "10.0.0.1")

C, S = Side.CLIENT, Side.SERVER
Rows = dict[str, list[dict[str, float]]]
"""Rows of a capture's flows by the destination's address."""
Step = tuple[Side, str, bytes]
"""Who sends, with what TCP flags, what payload."""

OPEN: tuple[Step, ...] = ((C, "S", b""), (S, "SA", b""), (C, "A", b""))
CLOSE: tuple[Step, ...] = ((C, "FA", b""), (S, "FA", b""), (C, "A", b""))


def said(*lines: tuple[Side, bytes]) -> tuple[Step, ...]:
    """A whole connection in which the lines are said."""
    return (*OPEN, *((side, "PA", line) for side, line in lines), *CLOSE)


def typed(text: bytes) -> list[tuple[Side, bytes]]:
    """Each character sent alone and echoed, as telnet does it."""
    steps = []
    for octet in text:
        steps += [(C, bytes([octet])), (S, bytes([octet]))]
    return [*steps, (C, b"\r\0"), (S, b"\r\n")]


def terminal(*lines: tuple[Side, bytes], user: bytes = b"ann") -> tuple[Step, ...]:
    """A telnet session of a user who is let in and sees a prompt."""
    return said(
        (S, b"\xff\xfd\x18\xff\xfd\x20"),
        (C, b"\xff\xfb\x18"),
        (S, b"\r\nhost login: "),
        *typed(user),
        (S, b"Password: "),
        (C, b"secret\r\0"),
        (S, b"\r\nLast login: Mon\r\n$ "),
        *lines,
    )


@dataclass(frozen=True)
class Case:
    """A connection and what its features are."""

    what: str
    steps: Sequence[Step]
    expected: dict[str, float | str]
    why: str
    port: int = 23
    client_port: int = 40_000
    step_us: int = 10_000
    extra: dict[str, int] = field(default_factory=dict)


NO_CONTENT = dict.fromkeys(kdd.SCHEMA.names[9:22], 0.0)  # fmt: skip

FTP_HELLO = ((S, b"220 ready\r\n"), (C, b"USER ann\r\n"), (S, b"331 password\r\n"),
             (C, b"PASS x\r\n"), (S, b"230 in\r\n"))  # fmt: skip
FTP_GUEST = ((S, b"220 ready\r\n"), (C, b"USER anonymous\r\n"), (S, b"331 address\r\n"),
             (C, b"PASS a@b\r\n"), (S, b"230 in\r\n"))  # fmt: skip

CASES = (
    # Basic features
    Case("a web request", said((C, b"GET / HTTP/1.0\r\n\r\n"),
                               (S, b"HTTP/1.0 200 OK\r\n\r\nhello")),
         {"protocol_type": "tcp", "service": "http", "flag": "SF", "src_bytes": 18, "dst_bytes": 24,
          "duration": 2, "land": 0, "urgent": 0, **NO_CONTENT, "logged_in": 1},
         "18 octets asked, 24 answered; 7 steps of 0.3 s are 2.1 s, in whole seconds 2; in KDD a "
         "web connection with a request is logged in", port=80, step_us=300_000),
    Case("TLS on the web's port", said((C, b"\x16\x03\x01\x00\x05hello"), (S, b"\x16\x03\x03ab")),
         NO_CONTENT, "nothing of an encrypted session can be read", port=80),
    Case("secure shell", said((S, b"SSH-2.0-x\r\n"), (C, b"SSH-2.0-y\r\n"), (S, b"root\r\n# ")),
         {"service": "ssh", **NO_CONTENT}, "secure shell is not looked into", port=22),
    Case("urgent data", (*OPEN, (C, "PAU", b"!"), (C, "PAU", b"!"), (S, "PAU", b"!"), *CLOSE),
         {"urgent": 3, "service": "other"}, "three segments with URG, of either side", port=40_001),
    Case("an unnamed port below 1024", said(), {"service": "private"}, "Bro's priv-N", port=999),
    Case("data of an active FTP transfer", said((C, b"octets")),
         {"service": "ftp_data", "src_bytes": 6, "num_root": 0},
         "the server opens it from port 20; 99 % of KDD's rows have source bytes only",
         port=50_000, client_port=20),
    Case("a directory's list", said((C, b"total 2\r\ndrwxr-xr-x 2 root sys 512 bin\r\n"
                                        b"-rw-r--r-- 1 root sys 12 a\r\n"
                                        b"-rw-r--r-- 1 ann a 9 b\r\n")),
         {"num_root": 2, "num_compromised": 0}, "two of four lines name root",
         port=50_000, client_port=20),
    # Connection states
    Case("S0", [(C, "S", b"")], {"flag": "S0"}, "a SYN that nobody answers", port=1),
    Case("S1", OPEN, {"flag": "S1"}, "opened, not closed", port=1),
    Case("S2", (*OPEN, (C, "FA", b""), (S, "A", b"")), {"flag": "S2"},
         "only the source closes", port=1),
    Case("S3", (*OPEN, (S, "FA", b""), (C, "A", b"")), {"flag": "S3"},
         "only the other closes", port=1),
    Case("REJ", [(C, "S", b""), (S, "RA", b"")], {"flag": "REJ"}, "a SYN refused", port=1),
    Case("REJ, and the source resets too", [(C, "S", b""), (S, "RA", b""), (C, "R", b"")],
         {"flag": "REJ"}, "both reset and nothing was carried", port=1),
    Case("RSTO", (*OPEN, (C, "PA", b"x"), (C, "RA", b"")), {"flag": "RSTO"},
         "the source resets", port=1),
    Case("RSTR", (*OPEN, (C, "PA", b"x"), (S, "R", b"")), {"flag": "RSTR"},
         "the other resets", port=1),
    Case("RSTR after the source's FIN", (*OPEN, (C, "PA", b"x"), (C, "FA", b""), (S, "R", b"")),
         {"flag": "RSTR"}, "closed by one, then reset by the other", port=1),
    Case("RSTO after the other's FIN", (*OPEN, (S, "FA", b""), (C, "R", b"")), {"flag": "RSTO"},
         "closed by one, then reset by the other", port=1),
    Case("SF, then a reset", (*OPEN, *CLOSE, (C, "R", b"")), {"flag": "SF"},
         "a reset after both FINs changes nothing", port=1),
    Case("RSTOS0", [(C, "S", b""), (C, "R", b"")], {"flag": "RSTOS0"},
         "SYN, then its sender resets", port=1),
    Case("SH", [(C, "S", b""), (C, "F", b"")], {"flag": "SH"}, "SYN and FIN, no answer", port=1),
    Case("SH without a SYN", [(C, "F", b"")], {"flag": "SH"},
         "nmap's FIN scan: KDD has its rows at SH", port=1),
    Case("REJ of a SYN-ACK", [(C, "SA", b""), (S, "R", b"")], {"flag": "REJ"},
         "as Zeek has it: the source's SYN-ACK is answered by a reset", port=1),
    Case("OTH: in the midst", [(C, "PA", b"x"), (S, "PA", b"y")], {"flag": "OTH"},
         "no SYN seen, not closed", port=1),
    Case("OTH: RSTRH", [(C, "A", b""), (S, "RA", b"")], {"flag": "OTH"},
         "the other resets what was not opened; KDD has no name for it", port=1),
    Case("OTH: SHR", [(C, "A", b""), (S, "FA", b"")], {"flag": "OTH"},
         "the other closes what was not opened; KDD has no name for it", port=1),
    Case("SF in the midst", [(C, "PA", b"x"), (C, "FA", b""), (S, "FA", b"")], {"flag": "SF"},
         "both close, however it began", port=1),
    # Telnet
    Case("telnet, let in", terminal(*typed(b"ls -l"), (S, b"total 0\r\n$ ")),
         {**NO_CONTENT, "logged_in": 1, "service": "telnet"}, "Last login, and nothing unusual"),
    Case("telnet, refused twice", said(
            (S, b"login: "), *typed(b"ann"), (S, b"Password: "), (C, b"a\r\0"),
            (S, b"\r\nLogin incorrect\r\nlogin: "), *typed(b"ann"), (S, b"Password: "),
            (C, b"b\r\0"), (S, b"\r\nLogin inc"), (S, b"orrect\r\n")),
         {**NO_CONTENT, "num_failed_logins": 2}, "two passwords, each answered by incorrect, one "
         "of them cut in two by a packet's end"),
    Case("telnet, asked again without a word", said(
            (S, b"login: "), (C, b"ann\r\n"), (S, b"Password: "), (C, b"a\r\n"), (S, b"login: ")),
         {"num_failed_logins": 1, "logged_in": 0}, "another login prompt is a refusal"),
    Case("telnet, a hot id refused", said(
            (S, b"login: "), (C, b"rewt\r\n"), (S, b"Password: "), (C, b"a\r\n"),
            (S, b"Login incorrect\r\n")),
         {"num_failed_logins": 1, "hot": 1, "is_host_login": 1, "logged_in": 0},
         "rewt is never innocent"),
    Case("telnet as root", terminal((S, b"\r\nhost# "), user=b"root"),
         {"is_host_login": 1, "hot": 1, "logged_in": 1, "root_shell": 1, "su_attempted": 0,
          "is_guest_login": 0}, "root is of the hot list once let in, and has a root prompt"),
    Case("telnet as a guest", terminal(user=b"guest"),
         {"is_guest_login": 1, "is_host_login": 0, "hot": 0, "logged_in": 1}, "the name is guest"),
    Case("telnet, su", terminal(*typed(b"su root"), (S, b"Password: "), (C, b"pw\r\0"),
                                (S, b"\r\nSorry\r\n$ ")),
         {"su_attempted": 1, "root_shell": 0, "num_failed_logins": 0, "num_root": 0},
         "tried in vain; the echo of `su root` names root, but is not the server's word"),
    Case("telnet, su to root", terminal(*typed(b"su -"), (S, b"Password: "), (C, b"pw\r\0"),
                                        (S, b"\r\n[root@host /root]# ")),
         {"su_attempted": 2, "root_shell": 1}, "a root prompt follows"),
    Case("telnet, an echo that looks like a root prompt", terminal(
            *typed(b"echo #"), (S, b"#\r\n$ ")), {"root_shell": 0}, "what is typed is echoed"),
    Case("telnet, names of root", terminal(*typed(b"ls -l /"), (S, b"drwx 2 root bin\r\n"
            b"drwx 2 root etc\r\ndrwx 2 ann home\r\n-rw- 1 ann rooted\r\n$ ")),
         {"num_root": 2}, "two lines name root; rooted is another word"),
    Case("telnet, files made", terminal(*typed(b"touch a"), *typed(b"echo b > c"), *typed(b"cat c"),
                                        *typed(b"cp c d"), *typed(b"ls 2>&1")),
         {"num_file_creations": 3, "hot": 0}, "touch, a redirection, cp; 2>&1 makes no file"),
    Case("telnet, shells", terminal(*typed(b"/bin/sh"), *typed(b"bash -i"), *typed(b"pushd x")),
         {"num_shells": 2, "num_file_creations": 0}, "sh and bash; pushd is none"),
    Case("telnet, access files", terminal(*typed(b"cat /etc/passwd"), *typed(b"vi .rhosts")),
         {"num_access_files": 2, "num_file_creations": 1}, "passwd and .rhosts, one in an editor"),
    Case("telnet, compromised", terminal(
            *typed(b"cat x"), (S, b"cat: x: No such file or directory\r\n$ "),
            *typed(b"y"), (S, b"y: not found\r\n$ "), *typed(b"z"),
            (S, b"Jumping to address\r\n$ ")),
         {"num_compromised": 3, "hot": 1}, "two errors and a jump, which is telltale too"),
    Case("telnet, hot", terminal(*typed(b"./eject"), (S, b"uid=0(root)\r\n# ")),
         {"hot": 2, "root_shell": 1, "num_root": 1}, "the exploit's name, and who one is after it"),
    Case("telnet, line ends cut in two", said(
            (S, b"login: "), (C, b"ann\r"), (S, b"\r\nPassword: "), (C, b"\n"), (C, b"pw\r"),
            (C, b"\n"), (S, b"\r\nLogin incorrect\r\n")),
         {"logged_in": 0, "num_failed_logins": 1}, "the \\n of a \\r\\n is no empty password"),
    Case("telnet, mended typing", terminal(*typed(b"su rx\x08oot")), {"su_attempted": 1},
         "a backspace takes the x back"),
    Case("telnet, sent twice", (*terminal(*typed(b"touch a"))[:-3],), {"num_file_creations": 1},
         "a retransmission is not a second command", extra={"repeat_last_data": 1}),
    Case("rlogin, trusted", said((C, b"\0"), (C, b"ann\0bob\0xterm/9600\0"), (S, b"\0"),
                                 (S, b"$ "), *typed(b"touch a")),
         {"service": "login", "logged_in": 1, "num_file_creations": 1, "is_guest_login": 0},
         "a prompt without a password", port=513),
    Case("rlogin, refused", said((C, b"\0ann\0guest\0vt100/9600\0"), (S, b"\0Password: "),
                                 (C, b"x\r"), (S, b"\r\nLogin incorrect\r\nlogin: ")),
         {"logged_in": 0, "num_failed_logins": 1, "is_guest_login": 1},
         "the server's user name is guest", port=513),
    # FTP
    Case("ftp, a user stores", said(*FTP_HELLO, (C, b"STOR a\r\n"), (S, b"226 ok\r\n"),
                                    (C, b"RETR b\r\n"), (S, b"226 ok\r\n")),
         {**NO_CONTENT, "logged_in": 1, "hot": 1, "num_file_creations": 1, "service": "ftp"},
         "230; storing makes a file and is hot, fetching is neither", port=21),
    Case("ftp, a guest fetches", said(*FTP_GUEST, (C, b"RETR a\r\n"), (S, b"226 ok\r\n"),
                                      (C, b"RETR b\r\n"), (S, b"226 ok\r\n")),
         {**NO_CONTENT, "logged_in": 1, "hot": 2, "is_guest_login": 1},
         "a guest's transfers are hot each", port=21),
    Case("ftp, refused", said((C, b"USER anonymous\r\n"), (S, b"331 ok\r\n"), (C, b"PASS x\r\n"),
                              (S, b"530 Login incorrect\r\n")),
         {**NO_CONTENT, "num_failed_logins": 1, "is_guest_login": 1},
         "530 to PASS; in KDD a guest refused is a guest too, and not hot", port=21),
    Case("ftp, trouble", said(*FTP_HELLO, (C, b"SITE EXEC sh\r\n"), (S, b"500 no\r\n"),
                              (C, b"RETR .rho"), (C, b"sts\r\n"),
                              (S, b"550 .rhosts: No such file or directory\r\n")),
         {"hot": 1, "num_access_files": 1, "num_compromised": 1, "num_outbound_cmds": 0},
         "SITE EXEC; an access file, its name cut by a packet's end, is not found", port=21),
    Case("ftp as root", said((C, b"USER root\r\n"), (C, b"PASS x\r\n"), (S, b"230 in\r\n")),
         {"is_host_login": 1, "hot": 1}, "root is of the hot list", port=21),
    Case("ftp over TLS", said((C, b"AUTH TLS\r\n"), (S, b"234 go\r\n"), (C, b"\x16\x03\x01\0\0"),
                              (C, b"USER root\r\n"), (S, b"230 in\r\n")),
         NO_CONTENT, "after a TLS handshake nothing is read", port=21),
    # Mail
    Case("pop3", said((S, b"+OK\r\n"), (C, b"USER guest\r\n"), (S, b"+OK\r\n"), (C, b"PASS x\r\n"),
                      (S, b"-ERR no\r\n")),
         {**NO_CONTENT, "logged_in": 1, "is_guest_login": 1, "service": "pop_3"},
         "KDD has every pop3 session that was answered at 1, guessed passwords among them, and "
         "counts no failures", port=110),
    Case("imap", said((S, b"* OK\r\n"), (C, b'a1 LOGIN "root" x\r\n'), (S, b"a1 NO\r\n"),
                      (C, b"a2 login ann y\r\n"), (S, b"* hello\r\na2 OK\r\n")),
         {**NO_CONTENT, "logged_in": 1, "num_failed_logins": 1, "service": "imap4"},
         "NO to one LOGIN and OK to the other, who is not root", port=143),
    Case("smtp", said((S, b"220 hi\r\n"), (C, b"MAIL FROM:<a>\r\n"), (S, b"250 ok\r\n"),
                      (C, b"RCPT TO:</etc/passwd>\r\n"), (S, b"250 ok\r\n"), (C, b"DATA\r\n"),
                      (S, b"354 go\r\n"), (C, b"/etc/shadow\r\nand so"), (C, b" on\r\n"),
                      (C, b"/etc/group\r\n.\r\n"), (S, b"250 ok\r\n"),
                      (C, b"VRFY /etc/hosts.equiv\r\n")),
         {**NO_CONTENT, "logged_in": 1, "num_access_files": 2, "service": "smtp"},
         "the server spoke; two commands name access files; the mail is not looked at", port=25),
    # HTTP
    Case("phf", said((C, b"GET /cgi-bin/phf?Qalias=x%0a/bin/cat%20/etc/passwd HTTP/1.0\r\n\r\n"),
                     (S, b"HTTP/1.0 200 OK\r\n\r\n")),
         {**NO_CONTENT, "logged_in": 1, "hot": 2, "num_access_files": 1},
         "a command for a program, in a system directory, on passwd: as KDD's phf rows", port=80),
    Case("back", said((C, b"GET " + b"/" * 400 + b" HTTP/1.0\r\n\r\n"),
                      (S, b"HTTP/1.1 404 Not Found\r\n\r\n")),
         {**NO_CONTENT, "logged_in": 1, "hot": 2, "num_compromised": 1},
         "slashes, and not found: as KDD's back rows", port=80),
)  # fmt: skip


def frames_of(number: int, case: Case) -> list[traffic.Frame]:
    """The case's packets, to a server of its own, 10 s after those of the case before."""
    server = Host("02:00:00:00:00:02", f"10.1.{number // 200}.{number % 200 + 1}")
    talk = TcpConversation(CLIENT, server, case.client_port, case.port)
    now = START_US + number * 10 * SECOND
    for side, flags, payload in case.steps:
        talk.segment(now, side, flags, payload)
        now += case.step_us
    if "repeat_last_data" in case.extra:
        # The last line of the client once more, at its old sequence number.
        line = [payload for side, _, payload in case.steps if side is C and payload][-1]
        talk.segment(now, C, "PA", line, seq=talk.next_seq(C) - len(line))
    return talk.frames


def measured(path: Path, by: str) -> Rows:
    """Rows of a capture's flows by the destination's address, flows in order of last time."""
    settings = kdd.SCHEMA.meter
    with CaptureSpool() as spool:
        chains = chain([spool.open(path)], settings.idle_timeout_s * SECOND)
        flows = np.concatenate(list(METERS[by](chains, settings).flows()))
    flows = flows[np.argsort(flows["last_us"], kind="stable")]
    rows = FeatureStream(kdd.SCHEMA, 1000).push(flows)[1]
    found: Rows = {}
    for flow, row in zip(flows, rows, strict=True):
        address = unpack_address(flow["dst_ip"], flow["ip_version"])
        found.setdefault(address, []).append(dict(zip(kdd.SCHEMA.names, row, strict=True)))
    return found


@pytest.fixture(scope="module", params=METERS)
def by(request: pytest.FixtureRequest) -> str:
    """The meter: what a packet means does not depend on it."""
    return str(request.param)


@pytest.fixture(scope="module")
def all_cases(by: str, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    path = tmp_path_factory.mktemp("kdd") / "cases.pcap"
    frames = [frame for number, case in enumerate(CASES) for frame in frames_of(number, case)]
    traffic.write_pcap(path, sorted(frames, key=lambda frame: frame[0]))
    return measured(path, by)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.what for case in CASES])
def test_features_of_a_connection(number: int, all_cases: Rows) -> None:
    case = CASES[number]
    (row,) = all_cases[f"10.1.{number // 200}.{number % 200 + 1}"]
    for name, expected in case.expected.items():
        feature = kdd.SCHEMA.features[kdd.SCHEMA.names.index(name)]
        value = feature.show(row[name]) if feature.kind is Kind.CATEGORICAL else row[name]
        assert value == expected, (name, case.why)


# ---------------------------------------------------------------------------------------
# Windows: connections of 40 ms each to two servers of their own, on ports of their own

REFUSED = [(C, "S", b""), (S, "RA", b"")]
UNANSWERED = [(C, "S", b"")]
NEAR, FAR = "10.9.0.1", "10.9.0.2"
# When it begins (s), to whom, on what port, from what port, what happens.
WINDOW_FLOWS = (
    (0.0, NEAR, 7001, 1, UNANSWERED),
    (0.1, NEAR, 7001, 3, REFUSED),
    (0.2, FAR, 7001, 2, said()),
    (0.3, NEAR, 7002, 2, said()),
    (5.0, NEAR, 7001, 2, REFUSED),
)
WINDOWS = {
    # Rows of NEAR in order; the third connection is FAR's only one.
    "count": ([1, 2, 3, 1], [1], "to the same host in 2 s"),
    "srv_count": ([1, 2, 1, 1], [3], "to the same port in 2 s"),
    "serror_rate": ([1, 0.5, 0.33, 0], [0], "the first is S0"),
    "srv_serror_rate": ([1, 0.5, 0, 0], [0.33], "the first is S0"),
    "rerror_rate": ([0, 0.5, 0.33, 1], [0], "the second and the last are REJ"),
    "srv_rerror_rate": ([0, 0.5, 0, 1], [0.33], "the second and the last are REJ"),
    "same_srv_rate": ([1, 1, 0.33, 1], [1], "one of three on port 7002"),
    "diff_srv_rate": ([0, 0, 0.67, 0], [0], "two ports among three"),
    "srv_diff_host_rate": ([0, 0, 0, 0], [0.67], "two hosts among three"),
    "dst_host_count": ([1, 2, 3, 4], [1], "to the same host of the last 255"),
    "dst_host_srv_count": ([1, 2, 1, 4], [3], "to the same port of the last 255"),
    "dst_host_same_srv_rate": ([1, 1, 0.33, 0.75], [1], "three of four on port 7001"),
    "dst_host_diff_srv_rate": ([0, 0, 0.67, 0.5], [0], "two ports among four"),
    "dst_host_same_src_port_rate": ([1, 0.5, 0.33, 0.5], [1], "two of four from port 2"),
    "dst_host_srv_diff_host_rate": ([0, 0, 0, 0.5], [0.67], "two hosts among four"),
    "dst_host_serror_rate": ([1, 0.5, 0.33, 0.25], [0], "one S0 of four"),
    "dst_host_srv_serror_rate": ([1, 0.5, 0, 0.25], [0.33], "one S0 of four"),
    "dst_host_rerror_rate": ([0, 0.5, 0.33, 0.5], [0], "two REJ of four"),
    "dst_host_srv_rerror_rate": ([0, 0.5, 0, 0.5], [0.33], "two REJ of four"),
}


def ip_frame(packet: IP) -> bytes:
    return b"\2" * 6 + b"\2" * 6 + b"\x08\0" + bytes(packet)


def fragments() -> list[traffic.Frame]:
    """A healthy datagram in two, one whose second part overlaps, a teardrop, a ping of death."""
    long, short = b"x" * 1472, b"\0" * 28

    def udp(port: int, size: int, data: bytes) -> bytes:
        return bytes(UDP(sport=9, dport=port, len=size) / Raw(data))

    def part(address: str, offset: int, more: bool, data: bytes, protocol: int = 17) -> bytes:
        flags = "MF" if more else 0
        return ip_frame(
            IP(src=CLIENT.ip, dst=address, id=7, flags=flags, frag=offset, proto=protocol)
            / Raw(data)
        )

    echo = bytes(ICMP(type=8, id=1, seq=1) / Raw(long))
    return [
        (START_US + number * 1000, frame)
        for number, frame in enumerate(
            [
                part("10.8.0.1", 0, True, udp(999, 3008, long)),
                part("10.8.0.1", 185, False, b"y" * 1528),
                part("10.8.0.2", 0, True, udp(999, 3008, long)),
                part("10.8.0.2", 10, False, b"y" * 1528),
                part("10.8.0.3", 0, True, udp(999, 36, short)),
                part("10.8.0.3", 3, False, b"\0" * 4),
                part("10.8.0.4", 0, True, echo, 1),
                *(part("10.8.0.4", 185 * n, n < 44, b"p" * 1480, 1) for n in range(1, 45)),
            ]
        )
    ]


@pytest.fixture(scope="module")
def others(by: str, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    frames: list[traffic.Frame] = []
    for start_s, address, port, client_port, steps in WINDOW_FLOWS:
        server = Host("02:00:00:00:00:02", address)
        talk = TcpConversation(CLIENT, server, client_port, port)
        for number, (side, flags, payload) in enumerate(steps):
            when = START_US + SECOND + int(start_s * SECOND) + number * 5_000
            talk.segment(when, side, flags, payload)
        frames += talk.frames
    frames += fragments()
    same = Host("02:00:00:00:00:02", "10.7.0.1")
    frames.append((START_US, traffic.tcp_frame(same, same, 139, 139, "S")))
    ping = Host("02:00:00:00:00:02", "10.7.0.2")
    for number in range(2):
        when = START_US + number * 1000
        frames.append((when, traffic.icmp_echo_frame(CLIENT, ping, 1, number, b"x" * 56)))
    frames.append(
        (
            START_US + 3000,
            traffic.udp_frame(CLIENT, Host(ping.mac, "10.7.0.3"), 40_000, 53, b"query"),
        )
    )
    path = tmp_path_factory.mktemp("kdd") / "others.pcap"
    traffic.write_pcap(path, sorted(frames, key=lambda frame: frame[0]))
    return measured(path, by)


@pytest.mark.parametrize("name", WINDOWS)
def test_features_of_a_connection_among_others(name: str, others: Rows) -> None:
    near, far, why = WINDOWS[name]
    assert [row[name] for row in others[NEAR]] == near, why
    assert [row[name] for row in others[FAR]] == far, why


def test_a_connection_with_itself_is_land(others: Rows) -> None:
    (row,) = others["10.7.0.1"]
    assert row["land"] == 1
    assert kdd.SERVICES[int(row["service"])] == "netbios_ssn"


def test_icmp_and_udp(others: Rows) -> None:
    (ping,) = others["10.7.0.2"]
    assert kdd.PROTOCOLS[int(ping["protocol_type"])] == "icmp"
    assert kdd.SERVICES[int(ping["service"])] == "eco_i"
    assert kdd.FLAGS[int(ping["flag"])] == "SF"
    # Two requests of 56 bytes with a header of 8; none of a destination that did not answer.
    assert (ping["src_bytes"], ping["dst_bytes"]) == (128, 0)
    (query,) = others["10.7.0.3"]
    assert kdd.SERVICES[int(query["service"])] == "domain_u"
    assert kdd.FLAGS[int(query["flag"])] == "SF"
    assert query["src_bytes"] == 5


WRONG_FRAGMENTS = {
    "10.8.0.1": (0, "the second part follows the first"),
    "10.8.0.2": (1, "the second part begins within the first and ends behind it"),
    "10.8.0.3": (3, "teardrop: a first part of 56 octets, a last one within it, so it ends before"),
    "10.8.0.4": (1, "ping of death: the last part ends at 66,600"),
}


@pytest.mark.parametrize("address", WRONG_FRAGMENTS)
def test_wrong_fragments(address: str, others: Rows, by: str) -> None:
    expected, why = WRONG_FRAGMENTS[address]
    (row,) = others[address]
    # Of a datagram, stock NFStreamer hands on the first fragment only.
    assert row["wrong_fragment"] == (expected if by == "compiled" else 0), why


def test_of_a_datagram_the_first_fragment_counts(others: Rows) -> None:
    # KDD saw as little of the bytes: its teardrops have 28, its pings of death 1,480.
    assert [row["src_bytes"] for row in others["10.8.0.3"]] == [28]
    assert [row["src_bytes"] for row in others["10.8.0.4"]] == [1480]


def test_every_feature_has_a_case() -> None:
    covered = {name for case in CASES for name in case.expected} | set(WINDOWS)
    assert set(kdd.SCHEMA.names) - covered == {"wrong_fragment"}


# ---------------------------------------------------------------------------------------
# Text as such


def test_telnet_options_are_stripped_wherever_they_are_cut() -> None:
    octets = b"a\xff\xfb\x18b\xff\xfa\x18\x00vt\xff\xff100\xff\xf0c\xff\xffd\xff\xf1e"
    for cut in range(len(octets) + 1):
        head, state = content.strip_options(octets[:cut], 0)
        tail, state = content.strip_options(octets[cut:], state)
        assert (head + tail, state) == (b"abc\xffde", 0)


def test_lines_are_bounded_and_gaps_end_them() -> None:
    lines = content.Lines()
    assert lines.cut(b"x" * 2000) == []
    assert len(lines.rest) == content.MAX_LINE
    assert lines.cut(b"y\nz\r\nlast") == [b"x" * content.MAX_LINE, b"z"]
    assert lines.rest == b"last"
    assert lines.cut(b"\r") == [b"last"]
    assert lines.cut(b"\n\nnext\r\n") == [b"", b"next"]
    assert len(lines.cut(b"\n" * 5000 + b"tail")) == content.MAX_LINES
    assert lines.rest == b"tail"
    assert lines.fresh(100, b"abc", 3) == b"abc"
    assert lines.fresh(101, b"bcd", 3) == b"d"
    assert lines.fresh(101, b"bcd", 3) == b""
    assert lines.rest == b"tail"
    assert lines.fresh(200, b"new", 3) == b"new"
    assert lines.rest == b""


def test_any_octets_in_any_pieces_do_no_harm() -> None:
    rng = np.random.default_rng(7)
    words = [b"login: ", b"Password: ", b"\r\n", b"\xff\xfa", b"# ", b"USER root", b"230 ", b"\0"]
    for port in (20, 21, 23, 25, 80, 110, 143, 513):
        session = content.Content.of(6, 40_000, port)
        assert session is not None
        seq = [0xFFFFFF00, 5]
        for _ in range(400):
            side = int(rng.integers(2))
            text = rng.bytes(int(rng.integers(1, 60))) + words[rng.integers(len(words))]
            session.feed(side, seq[side], text, len(text))
            seq[side] = (seq[side] + len(text)) & 0xFFFFFFFF
        assert session.su_attempted <= 2
    assert content.Content.of(17, 40_000, 23) is None
    assert content.Content.of(6, 40_000, 22) is None
