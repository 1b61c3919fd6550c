"""Both meters measure the same of TCP as no stack sends it: random flags, numbers and payloads."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from examples import traffic
from features.flows import FLOW_DTYPE
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
    """Segments of random connections, times in whole milliseconds."""
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
            frames.append((at_us, frame))
            at_us += 1000 * random.choice((0, 1, 30, 999, 1001, 5001, 130_000))
    return sorted(frames)


@pytest.mark.parametrize("seed", range(2))
def test_random_segments_are_measured_alike(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "random.pcap"
    traffic.write_pcap(path, random_frames(seed))
    own, stock = (
        np.sort(np.concatenate(metered(path, "flow", meter)), order=["src_port", "dst_port",
                "first_us"])
        for meter in ("compiled", "stock")
    )  # fmt: skip
    assert len(own) == len(stock) > CONNECTIONS
    for name in FLOW_DTYPE.names or ():
        if name in UNSEEN_BY_STOCK:
            continue
        if own[name].dtype.kind == "f":
            np.testing.assert_allclose(own[name], stock[name], rtol=1e-9, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(own[name], stock[name], err_msg=name)
