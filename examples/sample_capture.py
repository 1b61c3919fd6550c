"""Makes a small capture of ten minutes in a small office, with four attacks in it.

Usage::

    python examples/sample_capture.py -o sample.pcap [--seed 7]

writes `sample.pcap` and `sample.truth.json`, which says what there is to find. The same seed
gives the same octets. The tap sits on the office's switch: it sees what the office's hosts say
to each other and to the world outside, whose frames carry the router's MAC.

Nothing here is a real host: inside addresses are RFC 1918, outside ones are reserved for
documentation (RFC 5737), names are reserved too (RFC 2606).
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

if __package__ in (None, ""):  # run as a script: Python looked for modules beside it only
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples import traffic
from examples.traffic import LINUX, WINDOWS, Frame, Host, Side, Stack, TcpConversation, TcpSession

SECOND_US = 1_000_000
START_US = int(datetime(2026, 1, 15, 9, tzinfo=UTC).timestamp()) * SECOND_US
DURATION_S = 600.0

OUTSIDE = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
CLIENT, SERVER = Side.CLIENT, Side.SERVER


def at_us(seconds: float) -> int:
    """Time of `seconds` after the capture's start, µs since the epoch."""
    return START_US + round(seconds * SECOND_US)


# ---------------------------------------------------------------------------------------
# The network


@dataclass(frozen=True, slots=True)
class Site:
    """A web site."""

    name: str
    host: Host
    secure: bool


class Office:
    """Who is there, how far each is from the tap, and which ports are taken."""

    _ROUTER_MAC = "02:00:5e:00:00:01"
    _LAN_US = (120.0, 350.0)

    def __init__(self, rng: Random) -> None:
        """Settle the hosts; `rng` also decides the ports and delays to come."""
        self.rng = rng
        self._one_way_us: dict[str, float] = {}
        self._port: dict[str, int] = {}
        self.clients = [
            self._inside(100 + number, LINUX if number % 5 in (2, 4) else WINDOWS)
            for number in range(1, 17)
        ]
        self.resolver = self._inside(10, LINUX)
        self.intranet = self._inside(20, LINUX)
        self.shell = self._inside(22, LINUX)
        self.mail = self._inside(25, LINUX)
        self.website = self._inside(80, LINUX)
        self.resolvers = [self.outside(ip) for ip in ("198.51.100.53", "203.0.113.53")]
        self.clocks = [self.outside(ip) for ip in ("192.0.2.123", "198.51.100.123")]
        self.mail_peers = [self.outside(ip) for ip in ("192.0.2.25", "203.0.113.26")]
        self.shells = [self.outside(ip) for ip in ("198.51.100.22", "203.0.113.23")]
        self.archive = self.outside("192.0.2.21")
        self.visitors = [self.outside(f"203.0.113.{number}") for number in range(130, 160, 3)]
        self.sites = [
            Site("intranet.office.example", self.intranet, secure=False),
            *[
                Site(name, self.outside(ip), secure)
                for name, ip, secure in (
                    ("www.news.example", "192.0.2.80", True),
                    ("static.news.example", "192.0.2.81", True),
                    ("www.weather.example", "192.0.2.90", False),
                    ("shop.example.com", "198.51.100.80", True),
                    ("img.shop.example.com", "198.51.100.81", True),
                    ("wiki.example.org", "198.51.100.90", True),
                    ("mirror.example.org", "198.51.100.91", False),
                    ("blog.example.net", "203.0.113.80", False),
                    ("forum.example.net", "203.0.113.81", False),
                    ("docs.example.net", "203.0.113.82", True),
                    ("search.example", "203.0.113.90", True),
                )
            ],
        ]

    def _inside(self, number: int, stack: Stack) -> Host:
        ip = f"10.20.30.{number}"
        self._one_way_us[ip] = self.rng.uniform(*self._LAN_US) / 2
        return Host(f"02:00:5e:10:00:{number:02x}", ip, 128 if stack is WINDOWS else 64, stack)

    def outside(self, ip: str, stack: Stack = LINUX) -> Host:
        """A host on the other side of the router, 3 to 80 ms of round trip away."""
        round_trip_us = min(80_000.0, max(3_000.0, self.rng.lognormvariate(math.log(18e3), 0.7)))
        self._one_way_us[ip] = round_trip_us / 2
        hops = 4 + round(round_trip_us / 8000) + self.rng.randrange(5)
        initial = 128 if stack is WINDOWS else 64
        return Host(self._ROUTER_MAC, ip, initial - hops, stack)

    def spoofed(self, ip: str) -> Host:
        """Nobody: what a packet with a made-up source looks like behind the router."""
        return Host(self._ROUTER_MAC, ip, 255 - self.rng.randrange(8, 24))

    def known(self, ip: str) -> bool:
        """Whether there is a host of that address."""
        return ip in self._one_way_us

    def port(self, host: Host) -> int:
        """An ephemeral port of `host` that it did not use before."""
        last = self._port.get(host.ip)
        if last is None:
            last = self.rng.randrange(49152, 58000)
        self._port[host.ip] = last + self.rng.randrange(1, 8)
        if self._port[host.ip] > 65535:
            raise RuntimeError(f"{host.ip} has no ephemeral port left")
        return self._port[host.ip]

    def path(self, client: Host, server: Host, bits_per_s: float = 1e8) -> traffic.Path:
        """The way between two hosts."""
        one_way = self._one_way_us
        return traffic.Path(one_way[client.ip], one_way[server.ip], bits_per_s=bits_per_s)

    def conversation(
        self, client: Host, server: Host, server_port: int, client_port: int | None = None
    ) -> TcpConversation:
        """A TCP connection with numbers of its own, its times still to be given."""
        rng = self.rng
        return TcpConversation(
            client,
            server,
            self.port(client) if client_port is None else client_port,
            server_port,
            client_isn=rng.getrandbits(32),
            server_isn=rng.getrandbits(32),
            client_clock_ms=rng.getrandbits(32),
            server_clock_ms=rng.getrandbits(32),
            client_ip_id=rng.getrandbits(16),
            server_ip_id=rng.getrandbits(16),
            pad=True,
        )

    def connect(
        self,
        client: Host,
        server: Host,
        server_port: int,
        start_s: float,
        *,
        bits_per_s: float = 1e8,
        ack_every: int = 2,
    ) -> TcpSession:
        """A TCP connection just opened."""
        session = TcpSession(
            self.conversation(client, server, server_port),
            self.path(client, server, bits_per_s),
            self.rng,
            at_us(start_s),
            ack_every=ack_every,
        )
        session.connect()
        return session

    def ask(
        self,
        client: Host,
        server: Host,
        server_port: int,
        start_s: float,
        exchanges: Iterable[tuple[Callable[[int], bytes], Callable[[int], bytes]]],
        work_us: float = 300.0,
    ) -> list[Frame]:
        """Questions and answers over one UDP flow.

        `exchanges` are pairs of what makes the question and the answer from the time (µs
        since the epoch) at which each is sent.
        """
        rng, path, now = self.rng, self.path(client, server), float(at_us(start_s))
        messages: list[tuple[int, Side, bytes]] = []
        for question, answer in exchanges:
            asked = now + path.delay(CLIENT, rng)
            served = asked + path.delay(SERVER, rng) + work_us * rng.lognormvariate(0.0, 0.5)
            answered = served + path.delay(SERVER, rng)
            messages.append((round(asked), CLIENT, question(round(now))))
            messages.append((round(answered), SERVER, answer(round(served))))
            now = answered + path.delay(CLIENT, rng) + rng.lognormvariate(0.0, 0.5) * 100
        return traffic.udp_exchange(
            client,
            server,
            self.port(client),
            server_port,
            messages,
            client_ip_id=rng.getrandbits(16),
            server_ip_id=rng.getrandbits(16),
            pad=True,
        )


class Recording:
    """Frames gathered so far, and how many flows of which kind they belong to."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.frames: list[Frame] = []
        self.flows: Counter[str] = Counter()

    def add(self, kind: str, frames: list[Frame], flows: int = 1) -> None:
        """Take the frames of `flows` flows."""
        self.frames += frames
        self.flows[kind] += flows


# ---------------------------------------------------------------------------------------
# Text

_COMMON = (
    "the of and to in is that for it as was with be by on not he this are or his from at which "
    "but have an had they you were their one all we can her has there been if more when will "
    "would who so no report meeting office server update network order price winter project "
    "letter market number question answer library garden window paper music river morning "
    "station house people water light travel picture season weather history reader story"
)
_WORDS = _COMMON.split()
_BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:134.0) Gecko/20100101 Firefox/134.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 "
    "Safari/537.36",
)


def prose(rng: Random, octets: int) -> str:
    """About `octets` characters of words in lines."""
    lines: list[str] = []
    size = 0
    while size < octets:
        lines.append(" ".join(rng.choices(_WORDS, k=rng.randrange(8, 14))).capitalize() + ".")
        size += len(lines[-1]) + 2
    return "\r\n".join(lines)


def log_normal(rng: Random, median: float, sigma: float, most: float = math.inf) -> float:
    """A log-normal number: `sigma` is the standard deviation of its logarithm."""
    return min(most, rng.lognormvariate(math.log(median), sigma))


def object_octets(rng: Random) -> int:
    """Size of something on a web page."""
    return round(log_normal(rng, 800, 1.2, 40_000)) + 60


# ---------------------------------------------------------------------------------------
# The web


def http_request(rng: Random, site: str, path: str, browser: str, body: str = "") -> bytes:
    """A GET request, or a POST request if there is a body."""
    lines = [
        f"{'POST' if body else 'GET'} {path} HTTP/1.1",
        f"Host: {site}",
        f"User-Agent: {browser}",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language: en-US,en;q=0.5",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
    ]
    if rng.random() < 0.5:
        lines.append(f"Cookie: session={rng.getrandbits(128):032x}")
    if body:
        lines.append("Content-Type: application/x-www-form-urlencoded")
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("ascii")


def http_response(rng: Random, path: str) -> bytes:
    """The answer to a request for `path`."""
    chance = rng.random()
    status, kind, body = "200 OK", "text/html; charset=utf-8", b""
    if chance < 0.06:
        status = "304 Not Modified"
    elif chance < 0.09:
        status = "404 Not Found"
        body = b"<html><body><h1>Not Found</h1></body></html>\r\n"
    elif path.endswith(".png"):
        kind, body = "image/png", b"\x89PNG\r\n\x1a\n" + rng.randbytes(object_octets(rng))
    else:
        text = prose(rng, object_octets(rng))
        page = f"<!DOCTYPE html>\r\n<html><head><title>{path}</title></head><body><p>\r\n{text}"
        body = f"{page}\r\n</p></body></html>\r\n".encode("ascii")
    lines = [f"HTTP/1.1 {status}", "Server: nginx/1.26.2", f"Content-Type: {kind}"]
    if len(body) > 4096 and kind.startswith("text"):
        # Only looks compressed: what zlib makes of a text differs between its versions.
        body = b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + rng.randbytes(len(body) // 3)
        lines.append("Content-Encoding: gzip")
    lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + body


def part(rng: Random, session: TcpSession) -> None:
    """End a web connection one of the ways they end."""
    chance = rng.random()
    if chance < 0.62:
        session.close(CLIENT, log_normal(rng, 4e5, 1.2, 2e7))
    elif chance < 0.92:
        session.close(SERVER, log_normal(rng, 5e6, 0.4, 2e7), answer_us=rng.uniform(0, 9e4))
    elif chance < 0.97:
        session.abort(CLIENT, log_normal(rng, 1e6, 1.0, 2e7))
    else:
        session.leave_open()


def http_connection(
    office: Office, client: Host, site: Site, start_s: float, objects: int
) -> list[Frame]:
    """Fetch `objects` objects from a site over one connection."""
    rng = office.rng
    session = office.connect(client, site.host, 80, start_s)
    browser = _BROWSERS[sum(client.ip.encode()) % len(_BROWSERS)]
    for number in range(objects):
        path = "/" + "/".join(rng.choices(_WORDS, k=rng.randrange(1, 4)))
        if number or rng.random() < 0.3:
            path += ".png"
        form = ""
        if path[-4:] != ".png" and rng.random() < 0.12:
            form = "&".join(f"{word}={rng.choice(_WORDS)}" for word in rng.sample(_WORDS, 4))
        think_us = log_normal(rng, 3e4 if number else 200, 1.0)
        session.send(CLIENT, http_request(rng, site.name, path, browser, form), think_us)
        session.send(SERVER, http_response(rng, path), log_normal(rng, 8e3, 1.0))
    part(rng, session)
    return session.frames


def tls_open(session: TcpSession, rng: Random, name: str) -> None:
    """The full handshake of TLS 1.3."""
    client_hello, server_hello = traffic.tls_hellos(name, rng)
    session.send(CLIENT, client_hello, log_normal(rng, 400, 0.6))
    certificate = traffic.tls_records(rng.randrange(800, 1500), rng)
    flight = server_hello + traffic.TLS_CHANGE_CIPHER_SPEC + certificate
    session.send(SERVER, flight, log_normal(rng, 1500, 0.6))
    finished = traffic.TLS_CHANGE_CIPHER_SPEC + traffic.tls_records(36, rng)
    session.send(CLIENT, finished, log_normal(rng, 900, 0.6))


def tls_connection(
    office: Office, client: Host, site: Site, start_s: float, objects: int
) -> list[Frame]:
    """The same as :func:`http_connection`, encrypted."""
    rng = office.rng
    session = office.connect(client, site.host, 443, start_s)
    tls_open(session, rng, site.name)
    for number in range(objects):
        request = traffic.tls_records(rng.randrange(180, 700), rng)
        session.send(CLIENT, request, log_normal(rng, 3e4 if number else 300, 1.0))
        reply = traffic.tls_records(object_octets(rng), rng)
        session.send(SERVER, reply, log_normal(rng, 9e3, 1.0))
    part(rng, session)
    return session.frames


def look_up(
    office: Office, recording: Recording, client: Host, name: str, ip: str, start_s: float
) -> float:
    """Resolve `name`, perhaps through a cache on the way; return the time of the answer, s."""
    rng = office.rng

    def ask(asker: Host, resolver: Host, begin_s: float, records: tuple[str, ...]) -> float:
        exchanges = []
        for record in records:
            query_id = rng.getrandbits(16)
            question = traffic.dns_query(query_id, name, record)
            addresses = [ip] if record == "A" else []
            answer = traffic.dns_answer(query_id, name, addresses, record, rng.randrange(20, 3600))
            exchanges.append((lambda _, q=question: q, lambda _, a=answer: a))
        frames = office.ask(asker, resolver, 53, begin_s, exchanges)
        recording.add("dns", frames)
        return (frames[-1][0] - START_US) / SECOND_US

    records = ("A", "AAAA") if rng.random() < 0.35 else ("A",)
    if rng.random() < 0.15:  # set up by hand, past the office's own resolver
        return ask(client, rng.choice(office.resolvers), start_s, records)
    if rng.random() < 0.5:  # not in the resolver's cache
        forwarded = ask(office.resolver, rng.choice(office.resolvers), start_s + 0.0006, ("A",))
        asked = ask(client, office.resolver, start_s, ("A",))
        return max(forwarded, asked)
    return ask(client, office.resolver, start_s, records)


def page_view(office: Office, recording: Recording, client: Host, start_s: float) -> None:
    """Look at one page: a look-up, and connections to its site and perhaps to a second one."""
    rng = office.rng
    site = rng.choice(office.sites)
    known = rng.random() < 0.15
    ready_s = (
        start_s if known else look_up(office, recording, client, site.name, site.host.ip, start_s)
    )
    for number in range(rng.choice((1, 1, 1, 2, 2, 4))):
        begin_s = ready_s + 0.002 + (log_normal(rng, 0.12, 0.9, 5.0) if number else 0.0)
        objects = rng.choice((1, 1, 1, 1, 2, 3))
        fetch = tls_connection if site.secure else http_connection
        kind = "tls" if site.secure else "http"
        recording.add(kind, fetch(office, client, site, begin_s, objects))


def arrivals(rng: Random, count: int, end_s: float) -> list[float]:
    """Times of a Poisson process that is known to have had `count` arrivals by `end_s`, s."""
    return sorted(rng.uniform(0.0, end_s) for _ in range(count))


def browsing(office: Office, recording: Recording) -> None:
    """Clients look at some pages in a row, then do something else for a while."""
    rng = office.rng
    for start_s in arrivals(rng, 76, DURATION_S - 30):
        client, now = rng.choice(office.clients), start_s
        for _ in range(rng.choice((1, 2, 2, 3, 4))):
            page_view(office, recording, client, now)
            now += log_normal(rng, 9, 0.8, 40)
            if now > DURATION_S - 30:
                break


def idle_look_ups(office: Office, recording: Recording) -> None:
    """Programs look names up without anybody looking at a page."""
    rng = office.rng
    for start_s in arrivals(rng, 120, DURATION_S - 10):
        site, client = rng.choice(office.sites), rng.choice([*office.clients, office.mail])
        look_up(office, recording, client, site.name, site.host.ip, start_s)


def visits(office: Office, recording: Recording, closed_s: tuple[float, float]) -> None:
    """People from outside look at the office's web site, except while it cannot answer."""
    rng = office.rng
    site = Site("www.office.example", office.website, secure=False)
    for start_s in arrivals(rng, 60, DURATION_S - 30):
        if not closed_s[0] <= start_s <= closed_s[1]:
            visitor, objects = rng.choice(office.visitors), rng.choice((1, 2, 3))
            recording.add("http", http_connection(office, visitor, site, start_s, objects))


# ---------------------------------------------------------------------------------------
# Mail


def dialogue(session: TcpSession, rng: Random, text: Iterable[tuple[Side, str, float]]) -> None:
    """Lines that the two sides say in turn, each after about so many µs."""
    for side, line, median_us in text:
        session.send(side, (line + "\r\n").encode("ascii"), log_normal(rng, median_us, 0.7))


def letter(rng: Random, sender: str, receiver: str) -> str:
    """A mail, up to and without the dot that ends it."""
    head = [
        f"From: <{sender}>",
        f"To: <{receiver}>",
        f"Subject: {' '.join(rng.choices(_WORDS, k=5)).capitalize()}",
        "Date: Thu, 15 Jan 2026 09:00:00 +0000",
        f"Message-ID: <{rng.getrandbits(64):016x}@{sender.split('@')[1]}>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
    ]
    return "\r\n".join(head) + "\r\n\r\n" + prose(rng, round(log_normal(rng, 1600, 0.9, 20_000)))


def person(rng: Random, domain: str) -> str:
    """Somebody's mail address."""
    return f"{rng.choice(_WORDS)}.{rng.choice(_WORDS)}@{domain}"


def smtp_delivery(
    office: Office, client: Host, server: Host, domains: tuple[str, str], start_s: float
) -> list[Frame]:
    """Hand over a mail from somebody of one domain to somebody of the other."""
    rng = office.rng
    sender, receiver = person(rng, domains[0]), person(rng, domains[1])
    session = office.connect(client, server, 25, start_s)
    queue_id = f"{rng.getrandbits(40):010X}"
    dialogue(
        session,
        rng,
        (
            (SERVER, f"220 mail.{domains[1]} ESMTP Postfix", 4e4),
            (CLIENT, f"EHLO mail.{domains[0]}", 900),
            (SERVER, f"250-mail.{domains[1]}\r\n250-SIZE 26214400\r\n250-8BITMIME\r\n250 DSN", 700),
            (CLIENT, f"MAIL FROM:<{sender}> SIZE={rng.randrange(900, 9000)}", 900),
            (SERVER, "250 2.1.0 Ok", 3000),
            (CLIENT, f"RCPT TO:<{receiver}>", 600),
            (SERVER, "250 2.1.5 Ok", 9000),
            (CLIENT, "DATA", 600),
            (SERVER, "354 End data with <CR><LF>.<CR><LF>", 600),
            (CLIENT, letter(rng, sender, receiver) + "\r\n.", 1500),
            (SERVER, f"250 2.0.0 Ok: queued as {queue_id}", 3e4),
            (CLIENT, "QUIT", 800),
            (SERVER, "221 2.0.0 Bye", 300),
        ),
    )
    session.close(SERVER, 200)
    return session.frames


def pop3_visit(office: Office, client: Host, start_s: float) -> list[Frame]:
    """Fetch what mail there is."""
    rng = office.rng
    session = office.connect(client, office.mail, 110, start_s)
    user, letters = rng.choice(_WORDS), rng.choice((0, 0, 1, 2))
    lines: list[tuple[Side, str, float]] = [
        (SERVER, "+OK POP3 server ready", 6000),
        (CLIENT, f"USER {user}", 900),
        (SERVER, "+OK", 700),
        (CLIENT, f"PASS {rng.getrandbits(48):012x}", 900),
        (SERVER, "+OK Logged in.", 2e4),
        (CLIENT, "STAT", 800),
        (SERVER, f"+OK {letters} {letters * 2100}", 800),
    ]
    for number in range(1, letters + 1):
        mail = letter(rng, person(rng, "example.com"), f"{user}@office.example")
        lines.append((CLIENT, f"RETR {number}", 900))
        lines.append((SERVER, f"+OK {len(mail)} octets\r\n{mail}\r\n.", 3000))
    session_end: list[tuple[Side, str, float]] = [
        (CLIENT, "QUIT", 900),
        (SERVER, "+OK Logging out.", 900),
    ]
    dialogue(session, rng, lines + session_end)
    session.close(SERVER, 200)
    return session.frames


def imap_visit(office: Office, client: Host, start_s: float) -> list[Frame]:
    """Look into the inbox and read a mail."""
    rng = office.rng
    session = office.connect(client, office.mail, 143, start_s)
    user = rng.choice(_WORDS)
    mail = letter(rng, person(rng, "example.com"), f"{user}@office.example")
    count = rng.randrange(3, 90)
    dialogue(
        session,
        rng,
        (
            (SERVER, "* OK [CAPABILITY IMAP4rev1 IDLE LITERAL+] IMAP server ready.", 6000),
            (CLIENT, f'a1 LOGIN {user} "{rng.getrandbits(48):012x}"', 900),
            (SERVER, "a1 OK [CAPABILITY IMAP4rev1 IDLE SORT] Logged in", 2e4),
            (CLIENT, "a2 SELECT INBOX", 900),
            (SERVER, f"* FLAGS (\\Answered \\Seen)\r\n* {count} EXISTS\r\na2 OK Completed.", 3000),
            (CLIENT, f"a3 FETCH {count} BODY[]", 5e5),
            (SERVER, f"* {count} FETCH (BODY[] {{{len(mail)}}}\r\n{mail})\r\na3 OK Done.", 4000),
            (CLIENT, "a4 LOGOUT", 6e6),
            (SERVER, "* BYE Logging out\r\na4 OK Logout completed.", 900),
        ),
    )
    session.close(SERVER, 200)
    return session.frames


def mail(office: Office, recording: Recording) -> None:
    """Mail goes out and comes in, and people look for it."""
    rng, end_s = office.rng, DURATION_S - 20
    for start_s in arrivals(rng, 12, end_s):
        frames = smtp_delivery(
            office, rng.choice(office.clients), office.mail, ("office.example",) * 2, start_s
        )
        recording.add("smtp", frames)
    for start_s in arrivals(rng, 18, end_s):
        peer, inbound = rng.choice(office.mail_peers), rng.random() < 0.5
        ends = (peer, office.mail) if inbound else (office.mail, peer)
        domains = ("office.example", "example.com")
        if inbound:
            domains = domains[::-1]
        recording.add("smtp", smtp_delivery(office, *ends, domains, start_s))
    for start_s in arrivals(rng, 12, end_s):
        recording.add("pop3", pop3_visit(office, rng.choice(office.clients), start_s))
    for start_s in arrivals(rng, 10, end_s):
        recording.add("imap", imap_visit(office, rng.choice(office.clients), start_s))


# ---------------------------------------------------------------------------------------
# ssh


def ssh_open(session: TcpSession, rng: Random, client_software: str) -> None:
    """Everything before the first password: banners, key exchange, service request."""
    session.send(CLIENT, f"SSH-2.0-{client_software}\r\n".encode("ascii"), 300)
    session.send(SERVER, b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u4\r\n", log_normal(rng, 8e3, 0.5))
    session.send(CLIENT, traffic.ssh_kex_init(rng), log_normal(rng, 900, 0.5))
    session.send(SERVER, traffic.ssh_kex_init(rng), log_normal(rng, 900, 0.5))
    session.send(CLIENT, traffic.ssh_packet(b"\x1e" + rng.randbytes(36)), log_normal(rng, 2e3, 0.5))
    reply = traffic.ssh_packet(b"\x1f" + rng.randbytes(51 + 36 + 83))
    new_keys = traffic.ssh_packet(b"\x15")
    session.send(SERVER, reply + new_keys, log_normal(rng, 5e3, 0.5))
    session.send(CLIENT, new_keys, log_normal(rng, 2e3, 0.5))
    session.send(CLIENT, rng.randbytes(44), 100)
    session.send(SERVER, rng.randbytes(44), log_normal(rng, 700, 0.5))


def ssh_session(
    office: Office, client: Host, server: Host, start_s: float, duration_s: float
) -> list[Frame]:
    """Log in with a key and work at the prompt for about `duration_s`."""
    rng = office.rng
    session = office.connect(client, server, 22, start_s)
    ssh_open(session, rng, "OpenSSH_9.6")
    for ask, answer in ((60, 60), (492, 324), (624, 28), (112, 44), (460, 108), (0, 620)):
        if ask:
            session.send(CLIENT, rng.randbytes(ask), log_normal(rng, 3e3, 0.6))
        session.send(SERVER, rng.randbytes(answer), log_normal(rng, 4e3, 0.8))
    end_us = at_us(min(start_s + duration_s, DURATION_S - 8))
    while session.news_us(CLIENT) < end_us:
        pause_us = log_normal(rng, 6e6, 0.8, 2.5e7)
        for _ in range(rng.randrange(2, 11)):
            session.send(CLIENT, rng.randbytes(36), pause_us)
            session.send(SERVER, rng.randbytes(36), log_normal(rng, 400, 0.5))
            pause_us = log_normal(rng, 1.6e5, 0.5)
        session.send(CLIENT, rng.randbytes(36), pause_us)
        output = 36 + 8 * round(log_normal(rng, 25, 1.2, 700))
        session.send(SERVER, rng.randbytes(output), log_normal(rng, 6e3, 1.2))
    session.send(CLIENT, rng.randbytes(36), 3e5)
    session.send(SERVER, rng.randbytes(176), 900)
    session.send(CLIENT, rng.randbytes(96), 500)
    session.close(CLIENT, 100, answer_us=3000)
    return session.frames


def shells(office: Office, recording: Recording) -> None:
    """A few people work on machines elsewhere."""
    rng = office.rng
    for start_s in arrivals(rng, 12, DURATION_S - 60):
        server = rng.choice([office.shell, *office.shells])
        duration_s = log_normal(rng, 50, 0.7, 200)
        client = rng.choice(office.clients)
        recording.add("ssh", ssh_session(office, client, server, start_s, duration_s))


# ---------------------------------------------------------------------------------------
# Small things


def clock_checks(office: Office, recording: Recording) -> None:
    """Hosts ask what time it is."""
    rng = office.rng
    for start_s in arrivals(rng, 50, DURATION_S - 5):
        client, server = rng.choice(office.clients), rng.choice(office.clocks)
        exchange = (
            lambda now: traffic.ntp_message(now, from_server=False),
            lambda now: traffic.ntp_message(now, from_server=True),
        )
        recording.add("ntp", office.ask(client, server, 123, start_s, [exchange]))


def pings(office: Office, recording: Recording) -> None:
    """Somebody wonders whether a host is up."""
    rng = office.rng
    for start_s in arrivals(rng, 12, DURATION_S - 10):
        client = rng.choice(office.clients)
        target = rng.choice([office.mail, office.resolvers[0], office.sites[1].host])
        path, identifier = office.path(client, target), rng.getrandbits(16)
        ip_id, frames = rng.getrandbits(15), []
        for sequence in range(1, 5):
            sent = at_us(start_s + sequence - 1) + path.delay(CLIENT, rng)
            back = sent + 2 * path.delay(SERVER, rng) + 30
            payload = bytes(range(0x10, 0x40)) + rng.randbytes(8)
            frames += [
                (
                    round(when),
                    traffic.icmp_echo_frame(
                        *ends, identifier, sequence, payload, reply=reply, ip_id=ip_id + sequence
                    ),
                )
                for when, ends, reply in (
                    (sent, (client, target), False),
                    (back, (target, client), True),
                )
            ]
        recording.add("icmp", frames)


def ftp_download(office: Office, recording: Recording, client: Host, start_s: float) -> None:
    """Fetch a file in passive mode: a control connection and one for the data."""
    rng, server = office.rng, office.archive
    control = office.connect(client, server, 21, start_s)
    data_port = rng.randrange(40_000, 48_000)
    passive = ",".join([*server.ip.split("."), str(data_port // 256), str(data_port % 256)])
    size = round(log_normal(rng, 14_000, 0.6, 60_000))
    dialogue(
        control,
        rng,
        (
            (SERVER, "220 FTP archive ready.", 2e4),
            (CLIENT, "USER anonymous", 900),
            (SERVER, "331 Please specify the password.", 900),
            (CLIENT, "PASS guest@office.example", 900),
            (SERVER, "230 Login successful.", 3e4),
            (CLIENT, "TYPE I", 900),
            (SERVER, "200 Switching to Binary mode.", 900),
            (CLIENT, "PASV", 900),
            (SERVER, f"227 Entering Passive Mode ({passive}).", 900),
        ),
    )
    opened_s = (control.news_us(CLIENT) - START_US) / SECOND_US
    transfer = office.connect(client, server, data_port, opened_s)
    path = f"pub/{rng.choice(_WORDS)}.tar.gz"
    start = f"150 Opening BINARY mode data connection for {path} ({size} bytes)."
    waited_us = max(0.0, transfer.news_us(CLIENT) - control.news_us(CLIENT))
    control.send(CLIENT, f"RETR {path}\r\n".encode("ascii"), waited_us + 300)
    control.send(SERVER, (start + "\r\n").encode("ascii"), 900)
    started_us = control.news_us(SERVER)
    transfer.send(SERVER, rng.randbytes(size), max(0.0, started_us - transfer.news_us(SERVER)))
    transfer.close(SERVER)
    sent_us = max(0.0, transfer.news_us(SERVER) - control.news_us(SERVER))
    control.send(SERVER, b"226 Transfer complete.\r\n", sent_us)
    dialogue(control, rng, ((CLIENT, "QUIT", 9e5), (SERVER, "221 Goodbye.", 900)))
    control.close(SERVER, 200)
    recording.add("ftp", control.frames)
    recording.add("ftp-data", transfer.frames)


def downloads(office: Office, recording: Recording) -> None:
    """Old archives are still there."""
    rng = office.rng
    for start_s in arrivals(rng, 5, DURATION_S - 30):
        ftp_download(office, recording, rng.choice(office.clients), start_s)


# ---------------------------------------------------------------------------------------
# What to find


@dataclass(frozen=True, slots=True)
class Attack:
    """One thing to find, and all its frames."""

    name: str
    sources: tuple[str, ...]
    """Addresses, or networks in CIDR notation."""
    destination: str
    port: int | None
    """The destination's port, or None where there are many."""
    flows: int
    """Different pairs of (address, port) and (address, port)."""
    frames: list[Frame]

    def truth(self) -> dict[str, Any]:
        """What the truth file says about it; times also in µs since the epoch."""
        first_us, last_us = self.frames[0][0], self.frames[-1][0]
        return {
            "name": self.name,
            "source": list(self.sources),
            "destination": self.destination,
            "port": self.port,
            "first": iso_time(first_us),
            "last": iso_time(last_us),
            "first_us": first_us,
            "last_us": last_us,
            "flows": self.flows,
            "packets": len(self.frames),
        }


def iso_time(time_us: int) -> str:
    """`time_us` since the epoch as ISO 8601, UTC, to the µs."""
    seconds, rest_us = divmod(time_us, SECOND_US)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_us)
    return moment.isoformat(timespec="microseconds")


_SCANNED_ALWAYS = (21, 22, 23, 25, 53, 80, 110, 139, 143, 443, 445, 993, 3306, 3389, 5900, 8080)


def port_scan(office: Office, start_s: float) -> Attack:
    """Try 1,000 ports of the intranet's server within about 20 s, as `nmap -sS` does.

    Three are open, some 3 % drop the SYN, which is tried once more from the next port.
    """
    rng, target = office.rng, office.intranet
    # nmap builds its SYN itself: a small window, no options but the MSS, a TTL of its own.
    computer = office.clients[8]
    scanner = Host(computer.mac, computer.ip, 43, Stack(1024, mss_option=True))
    path = office.path(scanner, target)
    ports = [*_SCANNED_ALWAYS, *rng.sample(range(1024, 10_000), 1000 - len(_SCANNED_ALWAYS))]
    ports = list(dict.fromkeys(ports))
    rng.shuffle(ports)
    source_port, open_ports = rng.randrange(33_000, 48_000), {22, 80, 445}
    frames: list[Frame] = []
    flows, now_s = 0, start_s

    def probe(port: int, attempt: int, sent_s: float) -> None:
        wire = office.conversation(scanner, target, port, source_port + attempt)
        sent_us = at_us(sent_s)
        back_us = sent_us + round(2 * path.delay(SERVER, rng)) + 20
        wire.segment(sent_us, CLIENT, "S")
        if port in open_ports:
            wire.segment(back_us, SERVER, "SA")
            gone_us = back_us + round(2 * path.delay(CLIENT, rng)) + 10
            # From the computer's own TCP, which knows of no SYN.
            wire.segment(gone_us, CLIENT, "R", window=0, ttl=computer.ttl)
        elif not silent:
            wire.segment(back_us, SERVER, "RA", seq=0, window=0)
        frames.extend(wire.frames)

    for port in ports:
        silent = port not in open_ports and rng.random() < 0.03
        probe(port, 0, now_s)
        if silent:
            probe(port, 1, now_s + 1.0 + rng.uniform(0.0, 0.2))
        flows += 2 if silent else 1
        now_s += rng.expovariate(len(ports) / 19.0)
    return Attack("port scan", (scanner.ip,), target.ip, None, flows, sorted(frames))


def syn_flood(office: Office, start_s: float) -> Attack:
    """Send the web server 3,000 SYNs from made-up sources within 10 s.

    It answers until its backlog is full, then only when a place in it happens to fall free.
    """
    rng, target = office.rng, office.website
    backlog, again_s = 128, (1.0, 3.0)
    networks = [network.rsplit(".", 1)[0] for network in OUTSIDE]
    used: set[tuple[str, int]] = set()
    frames: list[Frame] = []
    answered = 0
    for start in sorted(start_s + rng.uniform(0.0, 10.0) for _ in range(3000)):
        source = (f"{rng.choice(networks)}.{rng.randrange(1, 255)}", rng.randrange(1024, 65536))
        while source in used or office.known(source[0]):
            source = (f"{rng.choice(networks)}.{rng.randrange(1, 255)}", rng.randrange(1024, 65536))
        used.add(source)
        wire = office.conversation(office.spoofed(source[0]), target, 80, source[1])
        wire.segment(at_us(start), CLIENT, "S", window=rng.choice((512, 1024, 5840)))
        if answered < backlog or rng.random() < 0.01:
            answered += 1
            first = start + log_normal(rng, 250e-6, 0.3)
            isn = wire.next_seq(SERVER)
            wire.segment(at_us(first), SERVER, "SA")
            for wait_s in again_s:
                wire.segment(at_us(first + wait_s), SERVER, "SA", seq=isn)
        frames += wire.frames
    return Attack("SYN flood", OUTSIDE, target.ip, 80, len(used), sorted(frames))


def password_guessing(office: Office, start_s: float) -> Attack:
    """Try some 180 passwords of the ssh server over 60 connections within about 60 s."""
    rng, target = office.rng, office.shell
    guesser = office.outside("203.0.113.99")
    frames: list[Frame] = []
    now_s, flows = start_s, 0
    while flows < 60:
        session = office.connect(guesser, target, 22, now_s)
        ssh_open(session, rng, "libssh_0.9.6")
        for attempt in range(3):
            session.send(CLIENT, rng.randbytes(60 + 84 * (attempt > 0)), log_normal(rng, 2e3, 0.4))
            # The server takes its time to say no (pam_faildelay).
            refusal_us = log_normal(rng, 1.6e6, 0.15) if attempt else log_normal(rng, 4e3, 0.4)
            session.send(SERVER, rng.randbytes(60), refusal_us)
        session.close(CLIENT, log_normal(rng, 900, 0.4), answer_us=log_normal(rng, 800, 0.4))
        frames += session.frames
        flows += 1
        now_s += 0.55 + rng.expovariate(1 / 0.38)
    return Attack("ssh password guessing", (guesser.ip,), target.ip, 22, flows, sorted(frames))


def big_upload(office: Office, start_s: float) -> Attack:
    """One client sends 2.5 MB to a host outside, as fast as the uplink lets it."""
    rng, source = office.rng, office.clients[11]
    target = office.outside("198.51.100.200")
    session = office.connect(source, target, 443, start_s, bits_per_s=1.2e6, ack_every=3)
    tls_open(session, rng, "drop.example.net")
    session.send(CLIENT, traffic.tls_records(420, rng), 400)
    session.send(SERVER, traffic.tls_records(90, rng), 9e3)
    session.send(CLIENT, traffic.tls_records(2_500_000, rng), 5e3)
    session.send(SERVER, traffic.tls_records(260, rng), 2e4)
    session.close(CLIENT, 3e3)
    return Attack("large upload", (source.ip,), target.ip, 443, 1, sorted(session.frames))


# ---------------------------------------------------------------------------------------
# All of it

_FLOOD_S = 492.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A whole capture and what there is to find in it."""

    frames: list[Frame]
    """In order of time."""
    truth: dict[str, Any]


def background(office: Office) -> Recording:
    """Ten minutes of an office in which nothing is wrong."""
    recording = Recording()
    browsing(office, recording)
    idle_look_ups(office, recording)
    visits(office, recording, closed_s=(_FLOOD_S - 10, _FLOOD_S + 15))
    for activity in (mail, shells, clock_checks, pings, downloads):
        activity(office, recording)
    return recording


def make_sample(seed: int) -> Sample:
    """Make the capture of `seed`."""
    office = Office(Random(seed))
    recording = background(office)
    attacks = [
        port_scan(office, 151.3),
        password_guessing(office, 243.8),
        big_upload(office, 388.1),
        syn_flood(office, _FLOOD_S),
    ]
    streams = [sorted(recording.frames), *[attack.frames for attack in attacks]]
    frames = list(heapq.merge(*streams))
    truth = {
        "seed": seed,
        "first": iso_time(frames[0][0]),
        "last": iso_time(frames[-1][0]),
        "packets": len(frames),
        "background_flows": dict(sorted(recording.flows.items())),
        "attacks": [attack.truth() for attack in attacks],
    }
    return Sample(frames, truth)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="capture file to write")
    parser.add_argument("--seed", type=int, default=7, help="which capture (default: 7)")
    options = parser.parse_args(arguments)
    sample = make_sample(options.seed)
    traffic.write_pcap(options.output, sample.frames)
    truth = json.dumps(sample.truth, indent=2) + "\n"
    options.output.with_suffix(".truth.json").write_text(truth, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
