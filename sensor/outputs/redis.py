"""`filetype: redis`: events to a list, a channel or a stream of a Redis server."""

from __future__ import annotations

from collections.abc import Sequence

from sensor.errors import OutputError
from sensor.outputs.base import WAIT_S, Loss, Undelivered
from sensor.outputs.spec import RedisMode, RedisSpec

_COMMANDS = {
    RedisMode.LIST: "LPUSH", RedisMode.LPUSH: "LPUSH", RedisMode.RPUSH: "RPUSH",
    RedisMode.CHANNEL: "PUBLISH", RedisMode.PUBLISH: "PUBLISH",
    RedisMode.STREAM: "XADD", RedisMode.XADD: "XADD",
}  # fmt: skip
_STREAM_FIELD = "eve"
"""The field of a stream's entries that holds the event, as Suricata names it."""


class Redis:
    """Sends each line, without its newline, by the command that Suricata uses for the mode.

    The lines of a batch go in one transaction (MULTI, EXEC): all or none. When the connection
    breaks before the answer is here, nobody knows which, and the batch is refused: given again,
    its lines may be there twice, but none is missing.
    """

    def __init__(self, spec: RedisSpec, *, wait_s: float = WAIT_S) -> None:
        """Send to the server of `spec`, waiting up to `wait_s` seconds for each answer.

        Raises:
            OutputError: the redis package is not installed.
        """
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise OutputError(
                "filetype redis needs the redis package: pip install 'flowvane[redis]'"
            ) from error
        self._redis, self._spec = redis, spec
        self._step = spec.pipelining.batch_size if spec.pipelining.enabled else 1
        self._client = redis.Redis(
            host=spec.server, port=spec.port,
            unix_socket_path=spec.server if "/" in spec.server else None,
            username=spec.username, password=spec.password,
            socket_timeout=wait_s, socket_connect_timeout=wait_s,
            protocol=2,  # known to every server
            retry=Retry(NoBackoff(), 0),  # whoever writes decides when to try again
        )  # fmt: skip

    @property
    def name(self) -> str:
        """The server and what the lines go to."""
        spec = self._spec
        server = spec.server if "/" in spec.server else f"{spec.server}:{spec.port}"
        return f"redis {server} {spec.mode} {spec.key}"

    def _command(self, line: bytes) -> list[str | bytes]:
        spec, event = self._spec, line.rstrip(b"\n")
        verb = _COMMANDS[spec.mode]
        if verb != "XADD":
            return [verb, spec.key, event]
        how = "=" if spec.stream_trim_exact else "~"
        trim = ["MAXLEN", how, str(spec.stream_maxlen)] if spec.stream_maxlen else []
        return [verb, spec.key, *trim, "*", _STREAM_FIELD, event]

    def write(self, lines: Sequence[bytes]) -> None:
        """Send lines; with none, connect.

        Raises:
            Undelivered: no server, no answer, or the server refuses; or nobody has subscribed
                to the channel, and lines are lost.
        """
        written = 0
        try:
            if not lines:
                self._client.ping()
            for start in range(0, len(lines), self._step):
                batch = lines[start : start + self._step]
                pipeline = self._client.pipeline(transaction=True)
                for line in batch:
                    pipeline.execute_command(*self._command(line))  # type: ignore[no-untyped-call]
                answers = pipeline.execute()
                if _COMMANDS[self._spec.mode] == "PUBLISH" and not any(answers):
                    message = f"{self.name}: nobody has subscribed to the channel"
                    raise Undelivered(message, Loss.READER_GONE, written, len(batch))
                written += len(batch)
        except self._redis.RedisError as error:
            gone = isinstance(error, self._redis.ConnectionError | self._redis.TimeoutError)
            refused = isinstance(error, self._redis.AuthenticationError) or not gone
            cause = Loss.REFUSED if refused else Loss.READER_GONE
            message = f"{self.name}: cannot be written: {str(error) or type(error).__name__}"
            raise Undelivered(" ".join(message.split()), cause, written) from error

    def reopen(self) -> None:
        """Nothing: logrotate is not about servers."""

    def close(self) -> None:
        """Hang up."""
        self._client.close()
