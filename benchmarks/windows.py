"""What the windows of each schema cost: ``python -m benchmarks.windows``.

Prints microseconds a flow of a stream pushed in batches of 100, 1,000 and 10,000, the least of
several turns: the windows alone, and with the keys that they compare. Then the memory of the
`flow` schema's context while a million hosts, each new, come by.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.context import ContextWindows
from features.flow import window_keys as context_keys
from features.flows import FlowBatch, TcpState, empty_flows
from features.registry import SCHEMAS
from features.schema import Schema

FLOWS = 100_000
TURNS = 7
BATCHES = (100, 1_000, 10_000)
MANY_HOSTS = 1_000_000
DISTINCT_HOSTS = 2 * MANY_HOSTS
"""Hosts that come by while the memory is watched: each flow has two that were never seen."""

_START_US = 1_700_000_000_000_000
_PORTS = np.array([80, 443, 22, 53, 25, 4444, 9999])
_APPLICATIONS = np.array(
    [b"HTTP", b"TLS.Google", b"SSH", b"DNS.GoogleServices", b"SMTP", b"Unknown", b"Unknown"]
)


def addresses(numbers: NDArray[np.int64], net: int) -> NDArray[np.uint8]:
    """IPv4 addresses ``[B, 16]`` of numbers below 2^24, in the network `net`.0.0.0/8."""
    octets = np.zeros((len(numbers), 16), np.uint8)
    octets[:, 10:12] = 0xFF
    octets[:, 12:] = (numbers + (net << 24)).astype(">u4").view(np.uint8).reshape(-1, 4)
    return octets


def traffic(hosts: int, seed: int = 1) -> FlowBatch:
    """TCP flows to so many hosts, some 500 a second, many of them failed, a third with names."""
    rng = np.random.default_rng(seed)
    flows = empty_flows(FLOWS)
    flows["protocol"], flows["ip_version"] = 6, 4
    flows["src_ip"] = addresses(rng.integers(0, 250, FLOWS), 10)
    flows["dst_ip"] = addresses(rng.integers(0, hosts, FLOWS), 11)
    kind = rng.integers(0, len(_PORTS), FLOWS)
    flows["dst_port"], flows["application"] = _PORTS[kind], _APPLICATIONS[kind]
    flows["src_port"] = rng.integers(1024, 65_536, FLOWS)
    flows["src_payload_bytes"] = rng.integers(0, 2, FLOWS) * 100
    flows["src_packets"] = flows["dst_packets"] = 3
    flows["src_bytes"] = flows["dst_bytes"] = 300
    flows["src_tcp_state"] = rng.choice([TcpState.SYN_SENT, TcpState.CLOSED], FLOWS)
    flows["dst_tcp_state"] = rng.choice([TcpState.RESET, TcpState.CLOSED], FLOWS)
    named = kind < 3
    names = np.array([f"host{number}.example.org".encode() for number in range(2000)])
    flows["server_name"][named] = names[rng.integers(0, len(names), int(named.sum()))]
    prints = np.array([f"t13d1516h2_8daaf6152771_{number:012x}".encode() for number in range(50)])
    flows["client_fingerprint"][kind == 1] = prints[
        rng.integers(0, len(prints), int((kind == 1).sum()))
    ]
    flows["last_us"] = _START_US + np.cumsum(rng.integers(0, 4000, FLOWS))
    flows["first_us"] = flows["last_us"] - 10_000
    return flows


def cost_us(
    schema: Schema, flows: FlowBatch, batch: int, turns: int = TURNS
) -> tuple[float, float]:
    """Microseconds a flow, of the windows and with their keys."""
    best = [np.inf, np.inf]
    for _ in range(turns):
        windows = schema.windows()
        alone = whole = 0.0
        for start in range(0, len(flows), batch):
            part = flows[start : start + batch]
            begin = time.perf_counter()
            keys = schema.window_keys(part)
            keyed = time.perf_counter()
            windows.push(part, keys)
            end = time.perf_counter()
            alone, whole = alone + end - keyed, whole + end - begin
        best = [min(best[0], alone), min(best[1], whole)]
    return best[0] / len(flows) * 1e6, best[1] / len(flows) * 1e6


def _resident_mb() -> float:
    """Resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory() -> None:
    """Print what the context takes while hosts come by that were never seen."""
    windows = ContextWindows()
    part = traffic(20)[:10_000]
    before = _resident_mb()
    for start in range(0, DISTINCT_HOSTS, 2 * len(part)):
        numbers = start // 2 + np.arange(len(part))
        part["src_ip"], part["dst_ip"] = addresses(numbers, 10), addresses(numbers, 11)
        part["last_us"] += 40_000_000
        windows.push(part, context_keys(part))
        seen = start + 2 * len(part)
        if seen in (MANY_HOSTS // 2, MANY_HOSTS, DISTINCT_HOSTS):
            print(
                f"{seen:>9,} hosts: context {windows.nbytes / 1e6:.0f} MB when full, the process "
                f"grew by {_resident_mb() - before:.0f} MB; known {windows.known}, "
                f"forgotten {windows.forgotten}"
            )


def main() -> None:
    """Print the tables."""
    for name, schema in SCHEMAS.items():
        if not schema.windows().names:
            print(f"{name}: no windows")
            continue
        for hosts in (20, MANY_HOSTS):
            flows = traffic(hosts)
            cost_us(schema, flows[:1000], 1000, turns=1)  # compiles
            for batch in BATCHES:
                alone, whole = cost_us(schema, flows, batch)
                print(
                    f"{name}: {hosts:>9,} hosts, batches of {batch:>6,}: "
                    f"windows {alone:.2f} us a flow, with keys {whole:.2f} us"
                )
    memory()


if __name__ == "__main__":
    main()
