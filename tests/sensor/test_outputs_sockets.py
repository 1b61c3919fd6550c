"""Event lines to Unix sockets and to syslog: whole, in order, whatever the reader does."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.errors import OutputError
from sensor.outputs.base import Loss, Output, Undelivered
from sensor.outputs.choice import open_direct, open_output
from sensor.outputs.queued import Backoff, Queued
from sensor.outputs.spec import FileType, OutputSpec, SyslogSpec
from sensor.outputs.syslog import Syslog
from sensor.outputs.unix_dgram import UnixDgram
from sensor.outputs.unix_stream import UnixStream
from tests.helpers import until

AT_ONCE = Backoff(first_s=1e-4, most_s=1e-3)
SHORT_S = 0.02


def numbered(count: int, first: int = 0, size: int = 0) -> list[bytes]:
    filler = b"x" * size
    return [b'{"number":%d,"filler":"%s"}\n' % (n, filler) for n in range(first, first + count)]


@pytest.fixture
def place() -> Iterator[Path]:
    """A path for a socket, short enough for one."""
    folder = Path(tempfile.mkdtemp(prefix="fv"))
    yield folder / "s"
    shutil.rmtree(folder)


def listening(path: Path, kind: socket.SocketKind) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(str(path))
    listener.settimeout(20)
    if kind is socket.SOCK_STREAM:
        listener.listen()
    return listener


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    connection.settimeout(20)
    return b"".join(iter(lambda: connection.recv(65_536), b""))


# unix_stream


def test_stream_connects_and_sends_lines(place: Path) -> None:
    with listening(place, socket.SOCK_STREAM) as listener:
        output = UnixStream(place)
        output.write([])
        reader, _ = listener.accept()
        output.write(numbered(3))
        output.write(numbered(2, 3))
        output.reopen()
        output.close()
        with reader:
            assert everything(reader) == b"".join(numbered(5))


@pytest.mark.parametrize("make", [UnixStream, UnixDgram])
def test_nobody_there_is_said_and_lines_can_be_given_again(
    place: Path, make: type[UnixStream | UnixDgram]
) -> None:
    output = make(place)
    with pytest.raises(Undelivered, match=f"{place}: cannot be written: no such file") as caught:
        output.write(numbered(2))
    assert (caught.value.cause, caught.value.written) == (Loss.READER_GONE, 0)
    kind = socket.SOCK_STREAM if make is UnixStream else socket.SOCK_DGRAM
    listening(place, kind).close()
    with pytest.raises(Undelivered, match="connection refused") as caught:
        output.write(numbered(2))
    assert caught.value.cause is Loss.READER_GONE
    with listening(place, kind):
        output.write(numbered(2))
    output.close()


@pytest.mark.parametrize("make", [UnixStream, UnixDgram])
def test_a_path_that_no_socket_can_have(make: type[UnixStream | UnixDgram]) -> None:
    with pytest.raises(OutputError, match="longer than the 107 bytes"):
        make(Path("/" + "x" * 107))
    make(Path("/" + "x" * 106)).close()


def test_a_slow_stream_reader_is_waited_for_a_moment_and_its_line_finished(place: Path) -> None:
    lines = numbered(40, size=50_000)
    with listening(place, socket.SOCK_STREAM) as listener:
        output = UnixStream(place, wait_s=SHORT_S)
        with pytest.raises(
            Undelivered, match="cannot be written: the reader takes nothing"
        ) as caught:
            output.write(lines)
        assert caught.value.cause is Loss.QUEUE_FULL
        written = caught.value.written
        assert 0 < written < len(lines)
        with pytest.raises(Undelivered) as caught:
            output.write(lines[written:])
        assert caught.value.written == 0
        reader, _ = listener.accept()
        with reader:
            got: list[bytes] = []
            thread = threading.Thread(target=lambda: got.append(everything(reader)))
            thread.start()
            while written < len(lines):
                try:
                    output.write(lines[written:])
                    written = len(lines)
                except Undelivered as failure:
                    written += failure.written
            output.close()
            thread.join()
    assert got == [b"".join(lines)]


def test_a_stream_never_goes_on_in_the_middle_of_a_line(place: Path) -> None:
    lines = numbered(40, size=50_000)
    with listening(place, socket.SOCK_STREAM) as listener:
        output = UnixStream(place, wait_s=SHORT_S)
        with pytest.raises(Undelivered) as caught:
            output.write(lines)
        whole = caught.value.written
        first, _ = listener.accept()
        # Another line than the one that is out in part: a new connection.
        output.write([b"other\n"])
        second, _ = listener.accept()
        output.close()
        with first, second:
            got = everything(first)
            assert everything(second) == b"other\n"
    assert got[: got.rindex(b"\n") + 1] == b"".join(lines[:whole])
    assert lines[whole].startswith(got[got.rindex(b"\n") + 1 :])
    # The reader hangs up in the middle of a line: the same.
    with listening(place, socket.SOCK_STREAM) as listener:
        output = UnixStream(place, wait_s=SHORT_S)
        with pytest.raises(Undelivered) as caught:
            output.write(lines)
        whole = caught.value.written
        listener.accept()[0].close()
        with pytest.raises(Undelivered) as caught:
            output.write(lines[whole:])
        assert (caught.value.cause, caught.value.written) == (Loss.READER_GONE, 0)
        output.write(lines[whole : whole + 2])
        output.close()
        with listener.accept()[0] as reader:
            assert everything(reader) == b"".join(lines[whole : whole + 2])


class FlakyReader:
    """Reads a stream and hangs up after so many bytes, again and again; then reads on."""

    def __init__(self, path: Path, hangs_up_after: list[int]) -> None:
        self.connections: list[bytes] = []
        self._listener = listening(path, socket.SOCK_STREAM)
        self._hangs_up_after = hangs_up_after
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for after in self._hangs_up_after:
            with self._listener.accept()[0] as connection:
                got = b""
                while len(got) < after and (more := connection.recv(after - len(got))):
                    got += more
            self.connections.append(got)
            if len(got) < after:
                return
        with self._listener.accept()[0] as connection:
            self.connections.append(everything(connection))

    def join(self) -> None:
        self._thread.join(20)
        self._listener.close()


@settings(deadline=None, database=None, max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    hangs_up_after=st.lists(st.integers(0, 3_000), max_size=4),
)
def test_whatever_a_stream_reader_does_its_lines_are_whole_and_in_order(
    sizes: list[int], hangs_up_after: list[int]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fv"))
    reader = FlakyReader(folder / "s", hangs_up_after)
    output = Queued(UnixStream(folder / "s"), backoff=AT_ONCE)
    for number, size in enumerate(sizes):
        output.write(numbered(size, 100 * number, size=50))
        until(lambda: output.counters.queued == 0)
    # Until the reader is at its last connection.
    first = 1000
    while len(reader.connections) < len(hangs_up_after):
        output.write(numbered(20, first, size=50))
        first += 20
        until(lambda: output.counters.queued == 0)
    output.write([b"last\n"])
    output.close(20)
    reader.join()
    shutil.rmtree(folder)
    counters = output.counters
    assert counters.written == counters.given
    whole: list[bytes] = []
    for got in reader.connections:
        whole += got.splitlines(keepends=True)
        if whole and not whole[-1].endswith(b"\n"):
            whole.pop()  # it hung up there itself
    assert whole.pop() == b"last\n"
    known = {
        *(line for n, size in enumerate(sizes) for line in numbered(size, 100 * n, size=50)),
        *numbered(first - 1000, 1000, size=50),
    }
    assert set(whole) <= known
    numbers = [int(re.findall(rb"\d+", line)[0]) for line in whole]
    assert numbers == sorted(set(numbers))


# unix_dgram


def test_a_datagram_is_a_line(place: Path) -> None:
    with listening(place, socket.SOCK_DGRAM) as reader:
        output = UnixDgram(place)
        output.write(numbered(5))
        assert [reader.recv(65_536) for _ in range(5)] == numbered(5)
        output.reopen()
        output.close()


def test_a_datagram_reader_that_is_slow_or_comes_back(place: Path) -> None:
    lines = numbered(2_000)
    reader = listening(place, socket.SOCK_DGRAM)
    output = UnixDgram(place, wait_s=SHORT_S)
    with pytest.raises(Undelivered) as caught:
        output.write(lines)
    assert caught.value.cause is Loss.QUEUE_FULL
    written = caught.value.written
    assert [reader.recv(65_536) for _ in range(written)] == lines[:written]
    output.write(lines[written : written + 1])
    assert reader.recv(65_536) == lines[written]
    reader.close()
    with pytest.raises(Undelivered) as caught:
        output.write(lines[:2])
    assert (caught.value.cause, caught.value.written) == (Loss.READER_GONE, 0)
    with listening(place, socket.SOCK_DGRAM) as reader:
        output.write(lines[:2])
        assert [reader.recv(65_536) for _ in range(2)] == lines[:2]
    output.close()


def test_a_line_that_no_datagram_holds_is_lost_alone(place: Path) -> None:
    lines = [b"1\n", b"x" * (1 << 22) + b"\n", b"3\n"]
    with listening(place, socket.SOCK_DGRAM) as reader:
        output = open_output(OutputSpec(filetype=FileType.UNIX_DGRAM, filename="s"), place.parent)
        output.write(lines)
        assert [reader.recv(65_536) for _ in range(2)] == [b"1\n", b"3\n"]
        output.close()
    assert output.counters.dropped == {Loss.TOO_LONG: 1}
    assert output.notices() == [
        f"{place}: cannot be written: message too long; such lines are lost"
    ]


# syslog


def syslog_spec(**own: object) -> OutputSpec:
    return OutputSpec(
        filetype=FileType.SYSLOG, facility="Local5", level="Notice",
        syslog=SyslogSpec(**own),  # type: ignore[arg-type]
    )  # fmt: skip


def test_syslog_gets_what_syslog3_would_send(place: Path) -> None:
    with listening(place, socket.SOCK_DGRAM) as daemon:
        output = open_direct(syslog_spec(socket=str(place)), place.parent)
        output.write([b'{"a":1}\n', b'{"a":2}\n'])
        got = [daemon.recv(65_536).decode() for _ in range(2)]
        output.close()
    form = rf"<173>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d flowvane\[{os.getpid()}\]: "
    for number, message in enumerate(got, 1):
        assert re.fullmatch(form + rf'{{"a":{number}}}', message)


def test_syslog_over_udp_names_the_host() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(20)
        spec = syslog_spec(server="127.0.0.1", port=daemon.getsockname()[1])
        output = Syslog(spec, clock=lambda: 1_767_225_600.0 + 86_400 * 4)
        output.write([b"{}\n"])
        got = daemon.recv(65_536).decode()
        output.close()
    host = re.escape(socket.gethostname().split(".")[0])
    form = rf"<173>Jan  [456] \d\d:\d\d:\d\d {host} flowvane\[{os.getpid()}\]: {{}}"
    assert re.fullmatch(form, got)


def test_a_line_too_long_for_syslog_is_lost_alone(place: Path) -> None:
    with listening(place, socket.SOCK_DGRAM) as daemon:
        output = open_output(syslog_spec(socket=str(place), max_line=500), place.parent)
        output.write([b"1\n", b"x" * 500 + b"\n", b"3\n"])
        assert [daemon.recv(65_536)[-1:] for _ in range(2)] == [b"1", b"3"]
        output.close()
    assert output.counters.dropped == {Loss.TOO_LONG: 1}


def test_syslog_that_is_restarted_or_cannot_be_found(place: Path) -> None:
    listening(place, socket.SOCK_DGRAM).close()
    output: Output = Syslog(syslog_spec(socket=str(place)))
    with pytest.raises(Undelivered) as caught:
        output.write([b"1\n"])
    assert caught.value.cause is Loss.READER_GONE
    with listening(place, socket.SOCK_DGRAM) as daemon:
        output.write([b"1\n"])
        assert daemon.recv(65_536).endswith(b": 1")
    output.close()


def test_a_name_that_cannot_be_looked_up_is_a_reader_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    output = Syslog(syslog_spec(server="nowhere.invalid"))
    with pytest.raises(Undelivered, match=r"udp nowhere\.invalid:514: .*not known") as caught:
        output.write([b"1\n"])
    assert caught.value.cause is Loss.READER_GONE


# What may be configured


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"filename": ""}, "filename: "),
        ({"filemode": 0o1000}, "filemode: "),
        ({"rotate_interval": "weekly"}, "rotate-interval: 'weekly'"),
        ({"rotate_interval": "0h"}, "rotate-interval: '0h'"),
        ({"rotate_size": -1}, "rotate-size: -1"),
        ({"rotate_count": 0}, "rotate-count: 0"),
        ({"facility": "local8"}, "facility: 'local8'"),
        ({"level": "loud"}, "level: 'loud'"),
        ({"identity": "two words"}, "identity: "),
        ({"queue_size": 0}, "queue-size: 0"),
        ({"retry_max": 0}, "retry-max: 0"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{complaint}"):
        OutputSpec(**values)  # type: ignore[arg-type]
