"""Event lines to a real Redis server: list, channel, stream; and what befalls servers."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from sensor.errors import OutputError
from sensor.outputs.base import Loss, Undelivered
from sensor.outputs.choice import open_output
from sensor.outputs.queued import Backoff, Queued
from sensor.outputs.redis import Redis
from sensor.outputs.spec import FileType, OutputSpec, Pipelining, RedisMode, RedisSpec
from tests.helpers import need_tools, until

AT_ONCE = Backoff(first_s=1e-3, most_s=1e-2)


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b'{"number":%d}\n' % number for number in range(first, first + count)]


def bare(lines: list[bytes]) -> list[bytes]:
    return [line.rstrip(b"\n") for line in lines]


class Server:
    """A Redis server of our own, that keeps nothing, on a Unix socket and a port of loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket = folder, str(folder / "s")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        command = [
            "redis-server", "--bind", "127.0.0.1", "--port", str(self.port),
            "--unixsocket", self.socket, "--dir", str(self.folder),
            "--save", "", "--appendonly", "no",
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=self.socket, protocol=2, socket_timeout=20)


@pytest.fixture(scope="module")
def started() -> Iterator[Server]:
    need_tools("redis-server")
    folder = Path(tempfile.mkdtemp(prefix="fv"))
    server = Server(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def server(started: Server) -> Server:
    """The server, empty, as it was started."""
    started.client.flushall()
    return started


def output_to(there: Server, **values: Any) -> Redis:
    return Redis(RedisSpec(**{"server": there.socket, **values}))


@pytest.mark.parametrize("mode", ["list", "lpush", "rpush"])
@pytest.mark.parametrize("pipelining", [Pipelining(batch_size=3), Pipelining(enabled=False)])
def test_lines_are_pushed_to_a_list(server: Server, mode: str, pipelining: Pipelining) -> None:
    output = output_to(server, mode=RedisMode(mode), pipelining=pipelining)
    output.write([])
    output.write(numbered(8))
    output.reopen()
    output.write(numbered(1, 8))
    output.close()
    # LPUSH puts the last in front: who reads with RPOP or BRPOP gets them in order.
    order = 1 if mode == "rpush" else -1
    assert server.client.lrange("flowvane", 0, -1) == bare(numbered(9))[::order]


@pytest.mark.parametrize("mode", ["channel", "publish"])
def test_lines_are_published_to_a_channel(server: Server, mode: str) -> None:
    output = output_to(server, mode=RedisMode(mode), key="eve")
    with pytest.raises(Undelivered, match="nobody has subscribed") as caught:
        output.write(numbered(2))
    failure = caught.value
    assert (failure.cause, failure.written, failure.lost) == (Loss.READER_GONE, 0, 2)
    with server.client.pubsub(ignore_subscribe_messages=False) as reader:
        reader.subscribe("eve")
        assert reader.get_message(timeout=20)["type"] == "subscribe"
        output.write(numbered(5))
        got = [reader.get_message(timeout=20)["data"] for _ in range(5)]
    output.close()
    assert got == bare(numbered(5))


@pytest.mark.parametrize("mode", ["stream", "xadd"])
def test_lines_are_added_to_a_stream_that_is_trimmed(server: Server, mode: str) -> None:
    trimmed = output_to(
        server, mode=RedisMode(mode), key="trimmed", stream_maxlen=4, stream_trim_exact=True
    )
    about = output_to(server, mode=RedisMode(mode), key="about", stream_maxlen=4)
    whole = output_to(server, mode=RedisMode(mode), key="whole", stream_maxlen=0)
    for output in (trimmed, about, whole):
        output.write(numbered(500))
        output.close()

    def entries(key: str) -> list[bytes]:
        return [fields[b"eve"] for _, fields in server.client.xrange(key)]

    assert entries("trimmed") == bare(numbered(4, 496))
    assert entries("whole") == bare(numbered(500))
    assert 4 <= len(entries("about")) < 500


def test_by_tcp_with_a_name_and_a_password(server: Server) -> None:
    server.client.acl_setuser(
        "sensor", enabled=True, passwords=["+secret"], commands=["+@all"], keys=["*"]
    )
    here = {"server": "127.0.0.1", "port": server.port, "username": "sensor"}
    output = output_to(server, **here, password="secret")
    output.write(numbered(3))
    output.close()
    assert server.client.llen("flowvane") == 3
    output = output_to(server, **here, password="wrong")
    message = f"redis 127.0.0.1:{server.port} list flowvane: cannot be written: "
    with pytest.raises(Undelivered, match=re.escape(message)) as caught:
        output.write(numbered(1))
    assert caught.value.cause is Loss.REFUSED
    assert "secret" not in repr(RedisSpec(password="secret"))


def test_what_the_server_refuses_is_refused_whole_and_can_be_given_again(server: Server) -> None:
    client = server.client
    output = output_to(server, pipelining=Pipelining(batch_size=4))
    client.set("flowvane", "something else")
    with pytest.raises(Undelivered, match="WRONGTYPE") as caught:
        output.write(numbered(10))
    assert (caught.value.cause, caught.value.written, caught.value.lost) == (Loss.REFUSED, 0, 0)
    client.delete("flowvane")
    client.config_set("maxmemory", 1)
    with pytest.raises(Undelivered) as caught:
        output.write(numbered(10))
    assert caught.value.cause is Loss.REFUSED
    client.config_set("maxmemory", 0)
    assert client.llen("flowvane") == 0
    output.write(numbered(10))
    output.close()
    assert client.lrange("flowvane", 0, -1) == bare(numbered(10))[::-1]


def test_a_server_that_fills_up_takes_whole_batches(server: Server) -> None:
    client, lines = server.client, [b"%d" % number + b"x" * 50_000 for number in range(120)]
    output = output_to(server, pipelining=Pipelining(batch_size=60))
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 4_500_000)
    with pytest.raises(Undelivered) as caught:
        output.write(lines)
    client.config_set("maxmemory", 0)
    written = caught.value.written
    assert client.llen("flowvane") == written < 120
    output.write(lines[written:])
    output.close()
    assert client.lrange("flowvane", 0, -1) == lines[::-1]


def test_a_server_that_is_restarted_gets_the_lines_that_waited(server: Server) -> None:
    output = Queued(output_to(server), backoff=AT_ONCE)
    output.write(numbered(5))
    until(lambda: output.counters.queued == 0)
    server.stop()
    output.write(numbered(5, 5))
    told: list[str] = []

    def failed() -> bool:
        told.extend(output.notices())
        return bool(told)

    until(failed)
    assert output.counters.queued == 5
    server.start()
    until(lambda: output.counters.queued == 0)
    output.close()
    counters = output.counters
    assert (counters.written, counters.lost, counters.reconnects) == (10, 0, 1)
    # It kept nothing of before.
    assert server.client.lrange("flowvane", 0, -1) == bare(numbered(5, 5))[::-1]
    assert [*told, *output.notices()][-1].endswith(": works again")


def test_a_server_that_stands_still_is_left_and_come_back_to(server: Server) -> None:
    output = Queued(Redis(RedisSpec(server=server.socket), wait_s=0.2), backoff=AT_ONCE)
    output.write(numbered(5))
    until(lambda: output.counters.queued == 0)
    server.process.send_signal(signal.SIGSTOP)
    try:
        output.write(numbered(5, 5))
        until(lambda: any("tried again" in told for told in output.notices()))
    finally:
        server.process.send_signal(signal.SIGCONT)
    until(lambda: output.counters.queued == 0)
    output.close()
    assert output.counters.written == 10
    # A batch whose answer did not come may be there more than once, but whole.
    got = server.client.lrange("flowvane", 0, -1)[::-1]
    batches = [got[start : start + 5] for start in range(0, len(got), 5)]
    assert [batch for batch, _ in itertools.groupby(batches)] == [
        bare(numbered(5)), bare(numbered(5, 5)),
    ]  # fmt: skip


def test_no_server_at_all_costs_nothing_but_the_lines(tmp_path: Path) -> None:
    spec = OutputSpec(filetype=FileType.REDIS, redis=RedisSpec(server=str(tmp_path / "none")))
    output = open_output(spec, tmp_path)
    output.write(numbered(5))
    output.close(within_s=0.01)
    assert output.counters.dropped == {Loss.READER_GONE: 5}


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(OutputError, match=r"pip install 'flowvane\[redis\]'"):
        Redis(RedisSpec())


def test_other_outputs_do_not_import_it() -> None:
    code = "import sys, sensor.outputs.choice; sys.exit('redis' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=os.curdir)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"port": 0}, "port: 0"),
        ({"server": ""}, "server: "),
        ({"key": ""}, "key: "),
        ({"stream_maxlen": -1}, "stream-maxlen: -1"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{complaint}"):
        RedisSpec(**values)
    with pytest.raises(ValueError, match=r"^batch-size: 0"):
        Pipelining(batch_size=0)
