"""Both meters measure the same of TCP as no stack sends it: random flags, numbers and payloads."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from examples import traffic
from features.flows import FLOW_DTYPE, NEVER
from sensor.meter import content
from tests.helpers import ANN, BOB, metered

START_US = 1_700_000_000_000_000
CONNECTIONS, SEGMENTS = 150, 14
TEXTS = (
    b"GET /../etc/passwd HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\n\r\n", b"USER anonymous\r\nPASS x\r\n", b"230 logged in\r\n",
    b"login: ", b"\r\nLogin incorrect\r\n", b"\x16\x03\x01", b"\n" * 5,
)  # fmt: skip
UNSEEN_BY_STOCK = {"wrong_fragments"}


def random_frames(seed: int) -> list[traffic.Frame]:
    """Segments of random connections and some datagrams, times in whole milliseconds."""
    random = Random(seed)
    frames: list[traffic.Frame] = []
    for number in range(CONNECTIONS):
        at_us = START_US + 1000 * random.randrange(3_000_000)
        server_port = random.choice((21, 23, 80, 443, 5000))
        base = random.choice((0, 1 << 31, (1 << 32) - 300, random.randrange(1 << 32)))
        for _ in range(random.randrange(1, SEGMENTS)):
            payload = random.choice((b"", bytes(random.randrange(1400)), random.choice(TEXTS)))
            flags = "".join(flag for flag in "FSRPAU" if random.random() < 0.3)
            seq = (base + random.randrange(-200, 3000)) & 0xFFFFFFFF
            ends = (ANN, BOB, 10_000 + number, server_port)
            if random.random() < 0.5:
                ends = (BOB, ANN, server_port, 10_000 + number)
            frame = traffic.tcp_frame(*ends, flags, seq=seq, ack=random.randrange(5000),
                                      payload=payload,
                                      window=random.randrange(1 << 16))  # fmt: skip
            if random.random() < 0.1:
                frame = traffic.udp_frame(*ends, payload)
            frames.append((at_us, frame))
            at_us += 1000 * random.choice((0, 1, 30, 999, 1001, 5001, 130_000))
    return sorted(frames)


@pytest.mark.parametrize(("schema", "seed"), [("flow", 0), ("flow", 1), ("unsw-nb15", 2)])
def test_random_packets_are_measured_alike(tmp_path: Path, schema: str, seed: int) -> None:
    path = tmp_path / "random.pcap"
    traffic.write_pcap(path, random_frames(seed))
    own, stock = (
        np.sort(np.concatenate(metered(path, schema, meter)), order=["src_port", "dst_port",
                "protocol", "first_us"])
        for meter in ("compiled", "stock")
    )  # fmt: skip
    assert len(own) == len(stock) > CONNECTIONS
    for side in ("src", "dst"):
        assert np.count_nonzero(own[f"{side}_before_us"] != NEVER) > 50
    for name in FLOW_DTYPE.names or ():
        if name in UNSEEN_BY_STOCK:
            continue
        if own[name].dtype.kind == "f":
            np.testing.assert_allclose(own[name], stock[name], rtol=1e-9, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(own[name], stock[name], err_msg=name)


LINES = (
    "EHLO a.example", "MAIL FROM:<ann@a.example>", "RCPT TO:<root@b.example>", "DATA", "data",
    "QUIT", "Subject: /etc/passwd", "Dear all,", "", ".", "..", ".x", "a line of a mail " * 30,
    "RSET", "VRFY /etc/shadow", " DATA", "USER ftp", "user guest", "PASS x", "RETR 1", "LIST",
    "Uhu", "USER anonymous", "DELE .rhosts", "please see authorized_keys", "\x16\x03",
)  # fmt: skip
REPLIES = ("+OK", "-ERR no", "250 ok", "354 go on", "", "530 no", "\x16\x03\x01")


def mail_frames(seed: int) -> tuple[list[traffic.Frame], dict[int, content.Content]]:
    """Sessions with mail servers, cut anywhere; and what reading all of their text shows."""
    random = Random(seed)
    frames: list[traffic.Frame] = []
    shown = {}
    for number in range(CONNECTIONS):
        server_port, client_port = random.choice((25, 110)), 10_000 + number
        session = content.Content.of(6, client_port, server_port)
        assert session is not None
        at_us, seqs = START_US + number, [100, 200]
        frames.append((at_us, traffic.tcp_frame(ANN, BOB, client_port, server_port, "S", seq=99)))
        for _ in range(random.randrange(1, 40)):
            from_dst = random.random() < 0.2
            lines = random.choices(REPLIES if from_dst else LINES, k=random.choice((1, 1, 1, 2, 9)))
            text = "".join(line + "\r\n" for line in lines).encode("latin-1")
            for piece in pieces(text, random):
                seq, seqs[from_dst] = seqs[from_dst], seqs[from_dst] + len(piece)
                kept = random.random()
                if kept < 0.05:
                    continue  # lost on the way to the sensor
                back = random.randrange(len(piece)) if kept > 0.95 else 0
                for begin, part in ((seq, piece), (seq + back, piece[back:]))[: 1 + bool(back)]:
                    at_us += 1000
                    ends = (ANN, BOB, client_port, server_port)
                    if from_dst:
                        ends = (BOB, ANN, server_port, client_port)
                    frames.append((at_us, traffic.tcp_frame(*ends, "PA", seq=begin, payload=part)))
                    session.feed(from_dst, begin, part, len(part))
        shown[client_port] = session
    return sorted(frames), shown


def pieces(text: bytes, random: Random) -> list[bytes]:
    """A text as it came, or cut somewhere."""
    if random.random() < 0.7 or len(text) < 3:
        return [text]
    cut = random.randrange(1, len(text))
    return [text[:cut], text[cut:]]


@pytest.mark.parametrize("seed", range(3))
def test_of_mail_nothing_that_counts_is_passed_over(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "mail.pcap"
    frames, shown = mail_frames(seed)
    traffic.write_pcap(path, frames)
    flows = np.concatenate(metered(path, "kdd"))
    assert len(flows) == CONNECTIONS
    for flow in flows:
        session = shown[int(flow["src_port"])]
        for name in content.CONTENT_FIELDS:
            assert flow[name] == getattr(session, name), (name, int(flow["src_port"]))
    for name in ("access_files", "logged_in", "guest_login"):
        assert np.unique(flows[name]).size > 1
