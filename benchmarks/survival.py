"""Takes away, one after the other, what a `flowvane run` depends on, and gives it back.

    python -m benchmarks.survival [--only KIND…] [--pps 5000]

In a network namespace and a mount namespace of its own, as root, with ip, tcpreplay and
redis-server. Packets come in all the while, and every flow makes an alert and a `flow` event.
Prints a line for each: whether the sensor was still there and went on; what was lost, by cause, as
the last `stats` event says; how many lines are due (two a flow, less those lost), and how many
there are in the file, or were read.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.daemon import Daemon, last_stats, write_conversations
from benchmarks.live import OURS, THEIRS, ip, lab, replay

_STATS = {"eve-log": {"filename": "stats.json", "types": [{"stats": {"interval": 1}}]}}
_WAIT_S = 60.0
AWAY_S = 3.0
"""How long what it depends on is away."""


class Player:
    """The load; it goes on, whatever becomes of its interface."""

    def __init__(self, capture: Path, pps: int) -> None:
        self._capture, self._pps = capture, pps
        self.begin()

    def begin(self) -> None:
        """Replay from now on."""
        self._process = replay(self._capture, self._pps, loops=1_000_000)

    def end(self) -> None:
        """No more packets."""
        self._process.kill()
        self._process.wait()


class Reader:
    """Listens on a Unix socket and counts whole lines, for as long as it is there."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen(1)
        self.lines = 0
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        self._connection, _ = self._listening.accept()
        while part := self._connection.recv(1 << 20):
            self.lines += part.count(b"\n")

    def leave(self) -> None:
        """Hang up, and listen no more."""
        self._listening.close()
        if self._connection is not None:
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()


def outputs(**keys: Any) -> list[str]:
    """Options: one output for alerts and flows, and one for `stats`."""
    written = [{"eve-log": {"types": ["alert", "flow"], "retry-max": 1, **keys}}, _STATS]
    return ["--linger", "0.2", "--fpr", "0.999", "--set", f"outputs={json.dumps(written)}"]


def until(true: Callable[[], bool]) -> bool:
    """Wait for something; whether it came to pass."""
    end = time.monotonic() + _WAIT_S
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    return true()


def counts(folder: Path) -> dict[str, int]:
    """What the last `stats` event says of packets and lines."""
    log = folder / "stats.json"
    if not log.exists() or not log.stat().st_size:
        return {}
    event = last_stats(log)
    ours: dict[str, int] = event["metadata"]["flowints"]
    return {**ours, **event["stats"]["capture"], "read": event["stats"]["decoder"]["pkts"]}


def lines_written(folder: Path) -> int:
    """Lines that outputs have taken so far."""
    return counts(folder).get("flowvane_lines_written", 0)


def told(daemon: Daemon, **more: Any) -> dict[str, Any]:
    """Stop the sensor; what it says of itself, its losses by cause."""
    alive = daemon.process.poll() is None
    line = daemon.stop()
    last = counts(daemon.folder)
    lost = {
        name.removeprefix("flowvane_"): count
        for name, count in last.items()
        if count and ("lost" in name or "drops" in name or name.endswith("_packets"))
        and name != "kernel_packets"
    }  # fmt: skip
    found = re.match(r"([\d,]+) alerts in ([\d,]+) flows", line)
    if found is None:
        raise SystemExit(f"flowvane said: {line}")
    given = sum(int(number.replace(",", "")) for number in found.groups())
    missing = sum(count for name, count in lost.items() if name.startswith("lines_lost"))
    return {
        "survived": alive, **more, "reconnects": last["flowvane_lines_reconnects"], "lost": lost,
        "line": line, "lines_due": given - missing,
    }  # fmt: skip


def going_on(daemon: Daemon) -> bool:
    """Whether events are written again."""
    before = lines_written(daemon.folder)
    return until(lambda: lines_written(daemon.folder) > before + 500)


def disk_full(folder: Path, player: Player) -> dict[str, Any]:
    """A file system of 4 MiB fills up; then the file there is moved out of the way."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=True)
    log, moved = disk / "eve.json", folder / "eve.json.1"
    with Daemon(folder, outputs(filename=str(log), **{"queue-size": 1000})) as daemon:
        full = until(lambda: counts(folder).get("flowvane_lines_lost_disk_full", 0) > 0)
        moved.write_bytes(log.read_bytes())
        subprocess.run(["mount", "-o", "remount,size=400m", str(disk)], check=True)
        again = going_on(daemon)
        player.end()
        said = told(daemon, full=full, resumed=again)
    lines = log.read_bytes().split(b"\n")
    whole = sum(1 for line in lines if line and json.loads(line))
    subprocess.run(["umount", str(disk)], check=True)
    return {**said, "lines": whole}


def reader_gone(folder: Path, player: Player) -> dict[str, Any]:
    """The reader of a Unix socket hangs up, and another one comes later."""
    path = folder / "reader"
    first = Reader(path)
    keys = {"filetype": "unix_stream", "filename": str(path), "queue-size": 1000}
    with Daemon(folder, outputs(**keys)) as daemon:
        came = until(lambda: first.lines > 500)
        first.leave()
        time.sleep(AWAY_S)
        second = Reader(path)
        again = until(lambda: second.lines > 500)
        player.end()
        said = told(daemon, read_before=came, resumed=again)
    second.leave()
    return {**said, "lines": first.lines + second.lines}


def redis_restarted(folder: Path, player: Player) -> dict[str, Any]:
    """A Redis server, of its own and on a port of its own, is ended and started anew."""
    server = ["redis-server", "--port", "16379", "--bind", "127.0.0.1", "--save", "",
              "--appendonly", "yes", "--dir", str(folder), "--loglevel", "warning"]  # fmt: skip
    listed = ["redis-cli", "-p", "16379", "llen", "flowvane"]

    def length() -> int:
        ran = subprocess.run(listed, capture_output=True, text=True)
        return int(ran.stdout) if ran.stdout.strip().isdigit() else 0

    keys = {"filetype": "redis", "redis": {"port": 16379}, "queue-size": 1000}
    running = subprocess.Popen(server, stdout=subprocess.DEVNULL)
    try:
        with Daemon(folder, outputs(**keys)) as daemon:
            came = until(lambda: length() > 500)
            running.terminate()
            running.wait()
            time.sleep(AWAY_S)
            running = subprocess.Popen(server, stdout=subprocess.DEVNULL)
            until(lambda: length() > 0)
            before = length()
            again = until(lambda: length() > before + 500)
            player.end()
            said = told(daemon, read_before=came, resumed=again)
        return {**said, "lines": length()}
    finally:
        running.terminate()
        running.wait()


def interface_removed(folder: Path, player: Player) -> dict[str, Any]:
    """The interface is deleted, and made anew."""

    def remake() -> None:
        ip("link", "del", OURS)
        time.sleep(AWAY_S)
        ip("link", "add", OURS, "type", "veth", "peer", "name", THEIRS)
        for name in (OURS, THEIRS):
            ip("link", "set", name, "addrgenmode", "none", "up")

    return _without_interface(folder, player, remake)


def interface_down(folder: Path, player: Player) -> dict[str, Any]:
    """The interface goes down, and up again."""

    def down_and_up() -> None:
        ip("link", "set", OURS, "down")
        time.sleep(AWAY_S)
        ip("link", "set", OURS, "up")

    return _without_interface(folder, player, down_and_up)


def _without_interface(folder: Path, player: Player, happens: Callable[[], None]) -> dict[str, Any]:
    with Daemon(folder, outputs()) as daemon:
        came = until(lambda: lines_written(folder) > 500)
        happens()
        player.end()  # it stops with its interface
        player.begin()
        again = going_on(daemon)
        player.end()
        said = told(daemon, read_before=came, resumed=again)
        warned = [line.rpartition("warning: ")[2] for line in daemon.text("stderr").splitlines()]
    lines = (folder / "eve.json").read_bytes().splitlines()
    return {**said, "lines": sum(1 for line in lines if json.loads(line)), "told": warned}


KINDS: dict[str, Callable[[Path, Player], dict[str, Any]]] = {
    each.__name__: each
    for each in (disk_full, reader_gone, redis_restarted, interface_removed, interface_down)
}


def tried(kinds: Sequence[str], pps: int, folder: Path) -> None:
    """Try each with a sensor of its own, and print what became of it."""
    capture = folder / "load.pcap"
    write_conversations(capture, 5_000)
    for kind in kinds:
        own = folder / kind
        own.mkdir()
        player = Player(capture, pps)
        try:
            print(json.dumps({"kind": kind, **KINDS[kind](own, player)}), flush=True)
        finally:
            player.end()


def main() -> None:
    """Try, print a line of JSON for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--pps", type=int, default=5_000)
    args = parser.parse_args()
    lab(mounts=True)
    ip("link", "set", "lo", "up")
    with tempfile.TemporaryDirectory(prefix="flowvane-") as folder:
        tried(args.only, args.pps, Path(folder))


if __name__ == "__main__":
    main()
