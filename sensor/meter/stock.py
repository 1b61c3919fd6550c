"""The stock meter: NFStreamer with an NFPlugin, in a process of its own.

The worker (:mod:`sensor.meter.stock_worker`) writes frames (:mod:`sensor.meter.frames`) to a pipe.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import IO, cast

import numpy as np

from features.flows import FLOW_DTYPE, Ending, FlowBatch
from features.schema import NEVER_EARLY, MeterSettings
from sensor.captures import Chain
from sensor.meter.base import MeterCounters, idle_by
from sensor.meter.frames import CHAIN_DONE, FAILED, FLOWS, FRAME

CLOCK_US = 1000
"""NFStream's public times are whole milliseconds."""


class StockMeter:
    """Meters chains of capture files, one after the other; each chain is an origin.

    A chain on which NFStream fails is reported in the counters, its packets counted as lost
    as far as their flows had not come out, and the next chain is metered.
    """

    clock_us = CLOCK_US
    early = NEVER_EARLY
    progress_us: int | None = None

    def __init__(self, chains: Sequence[Chain], settings: MeterSettings) -> None:
        self.counters = MeterCounters()
        self._chains = chains
        self._settings = settings

    def flows(self) -> Generator[FlowBatch, None, None]:
        """Batches of flows; the origin of a flow is the index of its chain."""
        start = 0
        while start < len(self._chains):
            start += yield from self._run(start)

    def _run(self, start: int) -> Generator[FlowBatch, None, int]:
        """Meter the chains from `start` on; return how many are dealt with."""
        job = {
            "idle_timeout_s": self._settings.idle_timeout_s,
            "active_timeout_s": self._settings.active_timeout_s,
            "origins": list(range(start, len(self._chains))),
            "chains": [[str(p.path.absolute()) for p in c.parts] for c in self._chains[start:]],
        }
        with tempfile.TemporaryFile() as errors:
            worker = start_worker("stock_worker", [], subprocess.PIPE, errors)
            try:
                # A worker that is gone already is told of when nothing can be read from it.
                with suppress(BrokenPipeError), cast(IO[bytes], worker.stdin) as pipe:
                    pipe.write(json.dumps(job).encode())
                with cast(IO[bytes], worker.stdout) as pipe:
                    return (yield from self._read(pipe, errors, start))
            finally:
                end_worker(worker)

    def _read(
        self, pipe: IO[bytes], errors: IO[bytes], start: int
    ) -> Generator[FlowBatch, None, int]:
        current, metered = start, 0
        while current < len(self._chains):
            chain = self._chains[current]
            kind, body = read_frame(pipe)
            if kind == FLOWS:
                batch = np.frombuffer(body, FLOW_DTYPE).copy()
                quiet = batch["ending"] == Ending.IDLE
                batch[quiet] = idle_by(batch[quiet], chain.last_us, self._settings)
                packets = int(batch["src_packets"].sum() + batch["dst_packets"].sum())
                metered += packets
                self.counters.metered += packets
                self.counters.flows += len(batch)
                yield batch
                continue
            self.counters.read += chain.packets
            if kind == CHAIN_DONE:
                self.counters.not_metered += max(chain.packets - metered, 0)
                if not metered:
                    self.counters.empty_origins.add(current)
            else:
                reason = json.loads(body)["reason"] if body else last_words(errors)
                self.counters.lost += max(chain.packets - metered, 0)
                names = ", ".join(dict.fromkeys(str(path) for path in chain.captures))
                self.counters.problems.append(f"{names}: metering failed: {reason}")
                return current + 1 - start
            current, metered = current + 1, 0
        return current - start


def start_worker(
    module: str, arguments: Sequence[str], stdin: int, errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a program of this package, which writes frames to its standard output, a pipe.

    Args:
        module: its name in ``sensor.meter``.
        arguments: of its command line.
        stdin: a file descriptor, or ``subprocess.PIPE``.
        errors: a file for what it says beside the frames.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", f"sensor.meter.{module}", *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=errors,
        # Where this process finds its modules, but not the folder it was called in.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        # A group of its own: Ctrl-C is for this process, and the end of the worker
        # takes the meter that it forked with it.
        start_new_session=True,
    )


def end_worker(worker: subprocess.Popen[bytes]) -> None:
    """End a program that :func:`start_worker` started, and the meter that it forked."""
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def last_words(errors: IO[bytes]) -> str:
    """The last line of what a worker said beside its frames."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "the metering process ended without a word"


def read_frame(pipe: IO[bytes]) -> tuple[bytes, bytes]:
    """The next frame's kind and body; FAILED and nothing where the pipe ends instead."""
    head = pipe.read(FRAME.size)
    if len(head) < FRAME.size:
        return FAILED, b""
    kind, length = FRAME.unpack(head)
    body = pipe.read(length)
    return (kind, body) if len(body) == length else (FAILED, b"")
