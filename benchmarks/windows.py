"""What KDD's windows cost a flow: ``python -m benchmarks.windows``.

Prints microseconds a flow of a stream pushed in batches of 100, 1,000 and 10,000, the least of
five turns: the windows alone, and with the keys that they compare.
"""

from __future__ import annotations

import time

import numpy as np

from features import kdd
from features.flows import FlowBatch, TcpState, empty_flows
from features.windows import KddWindows

FLOWS = 100_000
TURNS = 5


def traffic(hosts: int, seed: int = 1) -> FlowBatch:
    """TCP flows to so many hosts, some 500 a second, a third of them failed."""
    rng = np.random.default_rng(seed)
    flows = empty_flows(FLOWS)
    flows["protocol"] = 6
    flows["dst_ip"][:, 12:] = (
        rng.integers(0, hosts, FLOWS).astype(">u4").view(np.uint8).reshape(-1, 4)
    )
    flows["dst_port"] = rng.choice([80, 443, 22, 53, 25, 4444, 9999], FLOWS)
    flows["src_port"] = rng.integers(1024, 65_536, FLOWS)
    flows["src_tcp_state"] = rng.choice([TcpState.SYN_SENT, TcpState.CLOSED], FLOWS)
    flows["dst_tcp_state"] = rng.choice([TcpState.RESET, TcpState.CLOSED], FLOWS)
    flows["last_us"] = 1_700_000_000_000_000 + np.cumsum(rng.integers(0, 4000, FLOWS))
    return flows


def cost_us(flows: FlowBatch, batch: int) -> tuple[float, float]:
    """Microseconds a flow, of the windows and with their keys."""
    best = [np.inf, np.inf]
    for _ in range(TURNS):
        windows = KddWindows()
        alone = whole = 0.0
        for start in range(0, len(flows), batch):
            part = flows[start : start + batch]
            begin = time.perf_counter()
            keys = kdd.window_keys(part)
            keyed = time.perf_counter()
            windows.push(part, keys)
            end = time.perf_counter()
            alone, whole = alone + end - keyed, whole + end - begin
        best = [min(best[0], alone), min(best[1], whole)]
    return best[0] / len(flows) * 1e6, best[1] / len(flows) * 1e6


def main() -> None:
    """Print the table."""
    for hosts in (20, 1_000_000):
        flows = traffic(hosts)
        cost_us(flows[:1000], 1000)
        for batch in (100, 1_000, 10_000):
            alone, whole = cost_us(flows, batch)
            print(
                f"{hosts:>9,} hosts, batches of {batch:>6,}: "
                f"windows {alone:.2f} us a flow, with keys {whole:.2f} us"
            )


if __name__ == "__main__":
    main()
