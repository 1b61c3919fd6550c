"""Triage of a large conn.log: connections a second and memory, in both of Zeek's formats.

``python -m benchmarks.zeek_conn MODEL [--connections N]`` makes the log of an office (DNS, web,
refused connections; as many as it is told, 300 a second) and triages it as TSV, as JSON and
compressed, each in a process of its own. MODEL is a bundle of schema zeek-conn.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

COLUMNS = {
    "ts": "time", "uid": "string", "id.orig_h": "addr", "id.orig_p": "port",
    "id.resp_h": "addr", "id.resp_p": "port", "proto": "enum", "service": "string",
    "duration": "interval", "orig_bytes": "count", "resp_bytes": "count", "conn_state": "string",
    "local_orig": "bool", "local_resp": "bool", "missed_bytes": "count", "history": "string",
    "orig_pkts": "count", "orig_ip_bytes": "count", "resp_pkts": "count",
    "resp_ip_bytes": "count", "tunnel_parents": "set[string]", "ip_proto": "count",
}  # fmt: skip
START_S = 1_768_435_200.0
A_SECOND = 300.0
HOSTS, SERVERS = 1000, 5000

Row = tuple[object, ...]


def connections(count: int, seed: int = 1) -> Iterator[Row]:
    """Rows of :data:`COLUMNS`, in the order in which the connections ended; None is unset."""
    draw = random.Random(seed)
    hosts = [f"10.0.{at // 250}.{at % 250 + 1}" for at in range(HOSTS)]
    servers = [f"203.0.{draw.randrange(256)}.{draw.randrange(1, 255)}" for _ in range(SERVERS)]
    end_s = START_S
    for number in range(count):
        end_s += draw.expovariate(A_SECOND)
        ends = (f"C{number:017x}", draw.choice(hosts), draw.randrange(1025, 65535))
        sort = draw.random()
        if sort < 0.5:
            yield _query(draw, end_s, ends)
        elif sort < 0.9:
            yield _visit(draw, end_s, ends, draw.choice(servers))
        else:
            yield (end_s, *ends, draw.choice(hosts), draw.randrange(1, 1024), "tcp", None, None,
                   None, None, "S0", True, True, 0, "S", 1, 44, 0, 0, None, 6)  # fmt: skip


def _query(draw: random.Random, end_s: float, ends: tuple[str, str, int]) -> Row:
    took_s, asked, told = draw.expovariate(20), draw.randrange(28, 60), draw.randrange(60, 300)
    return (end_s - took_s, *ends, "10.0.0.53", 53, "udp", "dns", took_s, asked, told, "SF",
            True, True, 0, "Dd", 1, asked + 28, 1, told + 28, None, 17)  # fmt: skip


def _visit(draw: random.Random, end_s: float, ends: tuple[str, str, int], server: str) -> Row:
    took_s, asked = draw.expovariate(0.2), draw.randrange(200, 3000)
    told = int(draw.lognormvariate(9, 1.5))
    sent, got = 5 + asked // 1400, 5 + told // 1400
    service = draw.choice(("ssl", "ssl", "ssl", "http", None))
    return (end_s - took_s, *ends, server, 443 if service == "ssl" else 80, "tcp", service,
            took_s, asked, told, draw.choice(("SF", "SF", "SF", "S1", "RSTO")), True, False, 0,
            "ShADadFf", sent, asked + 40 * sent, got, told + 40 * got, None, 6)  # fmt: skip


def as_tsv(rows: Iterator[Row]) -> Iterator[bytes]:
    """The log in Zeek's own format."""
    yield b"#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n"
    yield ("#path\tconn\n" + "\t".join(["#fields", *COLUMNS]) + "\n").encode()
    yield ("\t".join(["#types", *COLUMNS.values()]) + "\n").encode()
    for row in rows:
        yield ("\t".join(map(_text, row)) + "\n").encode()


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, float):
        return f"{value:.6f}"
    return "-" if value is None else str(value)


def as_json(rows: Iterator[Row]) -> Iterator[bytes]:
    """The log as JSON."""
    for row in rows:
        named = zip(COLUMNS, row, strict=True)
        given = {name: value for name, value in named if value is not None}
        yield orjson.dumps(given, option=orjson.OPT_APPEND_NEWLINE)


def triage(model: str, log: Path, folder: Path) -> tuple[float, float, float]:
    """Seconds, seconds of processor time and mebibytes at most that a triage took."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "sensor.cli", "triage", "--zeek-conn", str(log), "-q",
               "--model", model, "-l", str(folder)]  # fmt: skip
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"triage of {log} ended with {process.returncode}")
    worked_s = used.ru_utime + used.ru_stime
    return time.monotonic() - begun, worked_s, used.ru_maxrss / 1024


def main() -> int:
    """Make the logs, triage them, print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", metavar="MODEL", help="a bundle of schema zeek-conn")
    parser.add_argument("--connections", type=int, default=1_000_000, metavar="N")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flowvane-zeek-") as name:
        folder = Path(name)
        for form, write in (("tsv", as_tsv), ("json", as_json)):
            with (folder / form).open("wb") as file:
                file.writelines(write(connections(args.connections)))
        with (folder / "tsv").open("rb") as plain, gzip.open(folder / "tsv.gz", "wb", 1) as packed:
            shutil.copyfileobj(plain, packed)
        (folder / "one").write_bytes(b"".join(as_tsv(connections(1))))
        took_s, idle_s, mib = triage(args.model, folder / "one", folder / "log")
        print(f"one connection: {took_s:.1f} s, {idle_s:.1f} s of processor time, {mib:.0f} MiB")
        for form in ("tsv", "json", "tsv.gz"):
            took_s, worked_s, mib = triage(args.model, folder / form, folder / "log")
            print(
                f"{form}: {args.connections:,} connections in {took_s:.1f} s, "
                f"{args.connections / took_s:,.0f} a second, {worked_s:.1f} s of processor time, "
                f"{args.connections / max(worked_s - idle_s, 0.01):,.0f} a second of it beyond "
                f"the start, {mib:.0f} MiB at most"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
