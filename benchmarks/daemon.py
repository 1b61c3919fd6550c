"""A `flowvane run` as a process of its own, for what is tried on it: started, watched, ended.

It captures on :data:`benchmarks.live.OURS`, in the network namespace that
:func:`benchmarks.live.lab` made.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from benchmarks.flood import START_US, conversation
from benchmarks.live import OURS
from examples.traffic import write_pcap

PATIENCE_S = 180.0
"""Who waits longer has found a fault; the very first start compiles for up to a minute."""
EVERYTHING = ("--fpr", "0.999", "--set", "outputs.0.eve-log.types=[alert, flow]")
"""Options by which every flow is an alert and a `flow` event."""


class Daemon:
    """The process; it is killed where the block ends before it has.

    Attributes:
        folder: its log directory, with what it says in `stdout` and `stderr`.
        process: the process.
    """

    def __init__(self, folder: Path, options: Sequence[str] = (), *, nice: int = 0) -> None:
        """Start it, and wait until it captures.

        Args:
            folder: a directory of its own; files of a run before are gone on with.
            options: more options.
            nice: what its niceness is changed by.

        Raises:
            SystemExit: it ended, or took too long.
        """
        self.folder = folder
        path = folder / "notify"
        path.unlink(missing_ok=True)
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(path))
        self._manager.settimeout(1.0)
        command = [sys.executable, "-m", "sensor.cli", "run", "-i", OURS, "-l", str(folder)]
        if nice:
            command = ["nice", "-n", str(nice), *command]
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            self.process = subprocess.Popen(
                [*command, *options], stdout=out, stderr=err,
                env={**os.environ, "NOTIFY_SOCKET": str(path)},
            )  # fmt: skip
        self.wait_ready()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()
        if self.process.poll() is None:
            self.kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def wait_ready(self) -> None:
        """Wait until it says that it is ready: capturing, or done with a reload.

        Raises:
            SystemExit: it ended, or took too long.
        """
        for _ in range(round(PATIENCE_S)):
            try:
                while not self._manager.recv(4096).startswith(b"READY=1"):
                    pass
                return
            except TimeoutError:
                if self.process.poll() is not None:
                    break
        raise SystemExit(f"flowvane is not ready: {self.text('stderr') or 'it says nothing'}")

    def text(self, name: str) -> str:
        """What it has said so far on `stdout` or `stderr`."""
        return (self.folder / name).read_text("utf-8")

    def kill(self) -> None:
        """End it by kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> str:
        """End it by SIGTERM; the last line that it said."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        said = self.text("stdout").splitlines()
        if self.process.returncode or not said:
            raise SystemExit(f"exit code {self.process.returncode}: {self.text('stderr')}")
        return said[-1]

    def resident_mib(self) -> float:
        """Resident memory (proc(5), statm)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def descriptors(self) -> int:
        """Open file descriptors."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


def write_conversations(path: Path, count: int) -> int:
    """A capture of so many TCP conversations from handshake to farewell; how many packets."""
    frames = [
        frame for number in range(count) for frame in conversation(number, START_US + 500 * number)
    ]
    frames.sort(key=lambda frame: frame[0])
    write_pcap(path, frames)
    return len(frames)


def last_stats(path: Path) -> dict[str, Any]:
    """The last `stats` event of a log."""
    lines = [line for line in path.read_bytes().splitlines() if b'"event_type":"stats"' in line]
    event: dict[str, Any] = orjson.loads(lines[-1])
    return event
