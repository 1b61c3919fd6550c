"""What the configuration says of an output, with the keys and the defaults of suricata.yaml.

A key is a field's name with hyphens for underscores. Where suricata.yaml has no such key, the
field says so (docs/outputs.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sensor.outputs.rotation import Rotation

FACILITIES = {
    "kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "security": 4, "syslog": 5, "lpr": 6,
    "news": 7, "uucp": 8, "cron": 9, "authpriv": 10, "ftp": 11,
    **{f"local{number}": 16 + number for number in range(8)},
}  # fmt: skip
"""Facilities of syslog by name (RFC 3164, 4.1.1; authpriv and ftp as in Linux's syslog.h)."""

LEVELS = {
    "emergency": 0, "alert": 1, "critical": 2, "error": 3, "warning": 4, "notice": 5, "info": 6,
    "debug": 7,
}  # fmt: skip
"""Levels of syslog by the names that suricata.yaml gives them."""


class FileType(StrEnum):
    """Kinds of output."""

    REGULAR = "regular"
    UNIX_STREAM = "unix_stream"
    UNIX_DGRAM = "unix_dgram"
    REDIS = "redis"
    SYSLOG = "syslog"


class RedisMode(StrEnum):
    """What a line becomes in Redis; ``list``, ``channel`` and ``stream`` are other names."""

    LIST = "list"
    LPUSH = "lpush"
    RPUSH = "rpush"
    CHANNEL = "channel"
    PUBLISH = "publish"
    STREAM = "stream"
    XADD = "xadd"


@dataclass(frozen=True, kw_only=True)
class Pipelining:
    """How many lines go to Redis at once.

    Attributes:
        enabled: as many as `batch_size`, where that many are there; else one by one.
        batch_size: lines in one transaction; what is there is never kept back to fill it.
    """

    enabled: bool = True
    batch_size: int = 100

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: the key and what is wrong.
        """
        if self.batch_size < 1:
            raise ValueError(f"batch-size: {self.batch_size} is less than 1")


@dataclass(frozen=True, kw_only=True)
class RedisSpec:
    """The `redis` block.

    Attributes:
        server: host name or address, or the path of a Unix socket.
        port: TCP port.
        username: for servers with ACLs; not a key of suricata.yaml.
        password: None for no AUTH; not a key of suricata.yaml.
        mode: what a line becomes.
        key: the list, channel or stream.
        stream_maxlen: entries to which a stream is trimmed; 0 for no trimming.
        stream_trim_exact: trimmed to exactly that many, else to a few tens more.
        pipelining: how many lines go at once.
    """

    server: str = "127.0.0.1"
    port: int = 6379
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    mode: RedisMode = RedisMode.LIST
    key: str = "flowvane"
    stream_maxlen: int = 100_000
    stream_trim_exact: bool = False
    pipelining: Pipelining = field(default_factory=Pipelining)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: the key and what is wrong.
        """
        _check_port(self.port)
        if not self.server:
            raise ValueError("server: is empty")
        if not self.key:
            raise ValueError("key: is empty")
        if self.stream_maxlen < 0:
            raise ValueError(f"stream-maxlen: {self.stream_maxlen} is negative")


@dataclass(frozen=True, kw_only=True)
class SyslogSpec:
    """The `syslog` block, which suricata.yaml does not have.

    Attributes:
        socket: the daemon's datagram socket.
        server: a host to send to over UDP instead; None for the socket.
        port: its port.
        max_line: bytes of the longest message; longer ones are lost.
    """

    socket: str = "/dev/log"
    server: str | None = None
    port: int = 514
    max_line: int = 8192

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: the key and what is wrong.
        """
        _check_port(self.port)
        if not self.socket:
            raise ValueError("socket: is empty")
        if not 480 <= self.max_line <= 65_507:
            raise ValueError(f"max-line: {self.max_line} is not within 480 and 65507")


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """Where events go: what an `eve-log` says beside its types.

    Attributes:
        filetype: kind of output.
        filename: the file, or the socket of unix_stream and unix_dgram; within the log
            directory unless absolute.
        filemode: permissions of a new file, less the umask.
        rotate_interval: see :class:`sensor.outputs.rotation.Rotation`.
        rotate_size: bytes, as there; not a key of suricata.yaml.
        rotate_count: as there; not a key of suricata.yaml.
        identity: what syslog calls us.
        facility: of syslog, a name of `FACILITIES` in any case.
        level: of syslog, a name of `LEVELS` in any case.
        syslog: more for syslog.
        redis: for redis.
        queue_size: lines that wait for the reader at most; not a key of suricata.yaml.
        retry_max: seconds between two attempts at most; not a key of suricata.yaml.
    """

    filetype: FileType = FileType.REGULAR
    filename: str = "eve.json"
    filemode: int = 0o640
    rotate_interval: str | None = None
    rotate_size: int = 0
    rotate_count: int = 5
    identity: str = "flowvane"
    facility: str = "local0"
    level: str = "info"
    syslog: SyslogSpec = field(default_factory=SyslogSpec)
    redis: RedisSpec = field(default_factory=RedisSpec)
    queue_size: int = 16_384
    retry_max: float = 30.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: the key and what is wrong.
        """
        self.rotation  # noqa: B018 (checks)
        if not self.filename:
            raise ValueError("filename: is empty")
        if not 0 <= self.filemode <= 0o777:
            raise ValueError(f"filemode: {self.filemode:o} is not within 0 and 777")
        if self.facility.lower() not in FACILITIES:
            raise ValueError(f"facility: {self.facility!r} is not one of {', '.join(FACILITIES)}")
        if self.level.lower() not in LEVELS:
            raise ValueError(f"level: {self.level!r} is not one of {', '.join(LEVELS)}")
        if not self.identity or not self.identity.isascii() or set(self.identity) & set(" :[]\n"):
            raise ValueError(f"identity: {self.identity!r} is not a word that syslog can print")
        if self.queue_size < 1:
            raise ValueError(f"queue-size: {self.queue_size} is less than 1")
        if not 0.1 <= self.retry_max <= 3600:
            raise ValueError(f"retry-max: {self.retry_max} is not within 0.1 and 3600 s")

    @property
    def rotation(self) -> Rotation:
        """When a regular file is begun anew.

        Raises:
            ValueError: the key and what is wrong.
        """
        return Rotation(self.rotate_interval, self.rotate_size, self.rotate_count)


def _check_port(port: int) -> None:
    if not 1 <= port <= 65_535:
        raise ValueError(f"port: {port} is not within 1 and 65535")
