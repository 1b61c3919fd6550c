"""The keys of the configuration: each with its type, range, unit, default and meaning.

A key is an attribute here, with dashes for underscores. Everything else reads these declarations:
the check of a file, the file with all defaults, the page and the JSON Schema.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from sensor.config import defaults

ITEM = "[]"
"""In a pattern: any item of a list."""
Pattern = tuple[str, ...]
"""Where a key is declared: names, and :data:`ITEM` below a list."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a number, as people read it."""

    name: str


@dataclass(frozen=True, slots=True)
class Words:
    """What a text must be, where its type alone does not say."""

    text: str


class Section(BaseModel):
    """A mapping of the configuration: no other keys than its own, no types but the declared."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False,
        alias_generator=lambda name: name.replace("_", "-"),
    )  # fmt: skip


def wrong(reason: str, *below: str | int) -> PydanticCustomError:
    """An error at the path `below` the value that a validator sees."""
    return PydanticCustomError("wrong", "{reason}", {"reason": reason, "below": below})


File = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$"), Words("the path of a file")]
FileOrNone = Annotated[
    str | None, Field(min_length=1, pattern=r"^[^\x00]+$"), Words("the path of a file")
]
Folder = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$"), Words("the path of a folder")]
Seconds = Annotated[float, Field(ge=0), Unit("seconds")]
WholeSeconds = Annotated[int, Field(ge=1), Unit("seconds")]


class Interface(Section):
    """One interface, in the place of an item of Suricata's `af-packet`."""

    interface: Annotated[str, Words("the name of an interface, 15 characters at most")] = Field(
        min_length=1, max_length=15, pattern=r"^[^\s/\x00]+$", examples=["eth0"],
        description="Interface to capture on.",
    )  # fmt: skip
    threads: int = Field(
        defaults.THREADS, ge=1, le=256,
        description="Capture threads; the kernel gives each a share of the flows.",
    )  # fmt: skip
    buffer: Annotated[int, Unit("MiB")] = Field(
        defaults.BUFFER_MIB, ge=1, le=2047,
        description="What the kernel keeps for each thread while nobody reads.",
    )  # fmt: skip
    disable_promisc: bool = Field(
        False,
        description="Take only packets that are for this host, as Suricata's key of that name.",
    )


class ZeekConn(Section):
    """Zeek's log of connections, followed in the place of interfaces."""

    filename: FileOrNone = Field(
        None, description="Zeek's conn.log, TSV or JSON, to follow as Zeek writes and rotates it, "
        "in the place of `interfaces` (docs/zeek.md); null: none.",
    )  # fmt: skip
    from_start: bool = Field(
        False, description="Begin with what is in the file at the start, not at its end."
    )


class StatsSettings(Section):
    """Of the `stats` events."""

    interval: WholeSeconds = Field(8, description="Time from one `stats` event to the next.")


class Stats(Section):
    """An item of `types` that says more than its name."""

    stats: StatsSettings = Field(StatsSettings(), description="`stats` events, with settings.")


SECRETS = frozenset({"password"})
"""Names of keys whose values are not shown unasked."""
EventName = Literal["alert", "anomaly", "flow", "stats"]
_NAME, _SETTINGS = "<name>", "<settings>"
"""Tags of the two ways to write an event type; no key begins so."""


def _written_as(value: Any) -> str:
    return _SETTINGS if isinstance(value, dict | Stats) else _NAME


EventType = Annotated[
    Annotated[EventName, Tag(_NAME)] | Annotated[Stats, Tag(_SETTINGS)], Discriminator(_written_as)
]


class Pipelining(Section):
    """How many events go to Redis at once."""

    enabled: bool = Field(True, description="Send several at once, where several are there.")
    batch_size: Annotated[int, Unit("events")] = Field(
        100, ge=1, description="So many at once at most; none is kept back for others to come."
    )


class Redis(Section):
    """Where and how events go to a Redis server, as in Suricata's `redis`."""

    server: Annotated[str, Words("a host name, an address, or the path of a socket")] = Field(
        "127.0.0.1", min_length=1, description="Where the server is."
    )
    port: int = Field(6379, ge=1, le=65535, description="Its TCP port.")
    username: str | None = Field(
        None, min_length=1, description="User, for servers with access lists; null: none."
    )
    password: str | None = Field(None, min_length=1, description="Password; null: none.")
    mode: Literal["list", "lpush", "rpush", "channel", "publish", "stream", "xadd"] = Field(
        "list",
        description="`list` (or `lpush`) and `rpush` push to a list, `channel` (or `publish`) "
        "publishes, `stream` (or `xadd`) adds to a stream.",
    )
    key: str = Field(
        "flowvane", min_length=1, description="Name of the list, of the channel or of the stream."
    )
    stream_maxlen: Annotated[int, Unit("events")] = Field(
        100_000, ge=0, description="Length that a stream is cut to, about; 0: it is not cut."
    )
    stream_trim_exact: bool = Field(
        False, description="Cut the stream to that length exactly, which is slower."
    )
    pipelining: Pipelining = Field(Pipelining(), description="How many events go at once.")


class Syslog(Section):
    """Where a syslog daemon is; suricata.yaml has no such block."""

    socket: Annotated[str, Words("the path of a socket")] = Field(
        "/dev/log", min_length=1, description="The daemon's datagram socket."
    )
    server: Annotated[str | None, Words("a host name or an address")] = Field(
        None, min_length=1, description="Host to send to over UDP in its place; null: the socket."
    )
    port: int = Field(514, ge=1, le=65535, description="Its UDP port.")
    max_line: Annotated[int, Unit("bytes")] = Field(
        8192, ge=480, le=65507, description="Longest message; longer ones are lost and counted."
    )


Facility = Literal[
    "auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news", "security",
    "syslog", "user", "uucp", "local0", "local1", "local2", "local3", "local4", "local5",
    "local6", "local7",
]  # fmt: skip
Level = Literal[
    "Emergency", "Alert", "Critical", "Error", "Warning", "Notice", "Info", "Debug"
]  # fmt: skip


class EveLog(Section):
    """An EVE-JSON output, as in Suricata's `eve-log`."""

    enabled: bool = Field(True, description="Whether events are written here.")
    filetype: Literal["regular", "unix_stream", "unix_dgram", "redis", "syslog"] = Field(
        "regular",
        description="Where events go: a file, a socket of another program, Redis, syslog.",
    )
    filename: File = Field(
        "eve.json",
        description="File to append to, or socket to write to; unless it begins with a slash, in "
        "`default-log-dir`.",
    )
    filemode: Annotated[int, Words("permissions in octal digits, as 640")] = Field(
        640, ge=0, le=777, description="Permissions of a new file, less the umask."
    )
    rotate_interval: Annotated[
        str | None, Words("minute, hour, day, a number with s, m, h, d or w as 30m")
    ] = Field(
        None, pattern=r"^(minute|hour|day|[1-9][0-9]{0,5}[smhdw])$",
        description="Begin a new file so often; null: never.",
    )  # fmt: skip
    rotate_size: Annotated[int, Unit("bytes")] = Field(
        0, ge=0, description="Begin a new file when this one is so large; 0: never."
    )
    rotate_count: Annotated[int, Unit("files")] = Field(
        5, ge=1, description="Keep so many files that were rotated."
    )
    queue_size: Annotated[int, Unit("events")] = Field(
        16_384, ge=1,
        description="Events that wait for a reader at most; more are lost and counted.",
    )  # fmt: skip
    retry_max: Annotated[float, Unit("seconds")] = Field(
        30.0, ge=0.1, le=3600, description="Time between two attempts to connect, at most."
    )
    identity: Annotated[str, Words("a word of ASCII letters")] = Field(
        "flowvane", pattern=r"^[!-9;-Z\\^-~]+$",
        description="Name of the program, of `filetype: syslog`.",
    )  # fmt: skip
    facility: Facility = Field("local0", description="Facility, of `filetype: syslog`.")
    level: Level = Field("Info", description="Severity, of `filetype: syslog`.")
    syslog: Syslog = Field(Syslog(), description="Daemon, of `filetype: syslog`.")
    redis: Redis = Field(Redis(), description="Server, of `filetype: redis`.")
    community_id: bool = Field(True, description="Whether events have a `community_id`.")
    types: list[EventType] = Field(
        ["alert"], min_length=1,
        description="Events that are written: `alert` (or `anomaly` in its place) for flows that "
        "do not fit, `flow` for every flow, `stats` for the sensor's own counters.",
    )  # fmt: skip

    @field_validator("filemode")
    @classmethod
    def _octal(cls, digits: int) -> int:
        if set(str(digits)) & set("89"):
            raise wrong(f"must be octal digits, not {digits}")
        return digits

    @field_validator("types")
    @classmethod
    def _each_once(cls, listed: list[EventName | Stats]) -> list[EventName | Stats]:
        names = ["stats" if isinstance(each, Stats) else each for each in listed]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise wrong(f"{name} is named twice", at)
            if name in ("alert", "anomaly") and {"alert", "anomaly"} <= {*names[: at + 1]}:
                raise wrong("give alert or anomaly, not both", at)
        return listed


class Output(Section):
    """An item of `outputs`; the name of the only kind there is, and its settings."""

    eve_log: EveLog = Field(EveLog(), description="An EVE-JSON output.")


class Grouping(Section):
    """How alerts that belong together become one."""

    enabled: bool = Field(
        False,
        description="Write one alert with a count for alerts of the same source, destination and "
        "kind; the first one at once.",
    )
    first_update: WholeSeconds = Field(
        10, description="Time from the first alert to the next event of its group, which counts "
        "those between; each later interval is three times as long as the one before.",
    )  # fmt: skip
    longest_interval: WholeSeconds = Field(
        3600, description="What such intervals grow to, at most."
    )
    quiet: WholeSeconds = Field(
        300, description="A group ends when no alert came for so long, with a last event."
    )


class Metrics(Section):
    """The endpoint for Prometheus."""

    enabled: bool = Field(False, description="Serve metrics over HTTP, for Prometheus.")
    listen: Annotated[str, Words("an address and a port, as 127.0.0.1:9469 or [::1]:9469")] = Field(
        "127.0.0.1:9469", pattern=r"^(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):[0-9]{1,5}$",
        description="Address and port to listen on.",
    )  # fmt: skip


class Learn(Section):
    """What is done where there is no model yet."""

    enabled: bool = Field(
        False,
        description="Where the folder that `model` names is not there yet, learn it from the "
        "interfaces first, then alert (docs/daemon.md); where it is there, this changes nothing.",
    )
    lasting: Annotated[str, Words("a number with s, m, h, d or w as 24h")] = Field(
        defaults.LEARN_FOR, alias="for", pattern=r"^[1-9][0-9]{0,5}[smhdw]$",
        description="How long is captured to learn from, over all starts together.",
    )  # fmt: skip
    flows: Annotated[int | None, Unit("flows")] = Field(
        None, ge=1, description="Stop capturing earlier, after so many flows; null: do not."
    )
    meanwhile: Annotated[
        str | None, Words("the name of a model that ships, or a bundle's folder")
    ] = Field(
        None, min_length=1, description="What flows are scored by until then; null: nothing, and "
        "there are no events until the model is learnt.",
    )  # fmt: skip


class Config(Section):
    """The whole configuration."""

    sensor_name: str | None = Field(
        None, min_length=1, description="Name of this sensor, `host` in events; null: none."
    )
    interfaces: list[Interface] = Field(
        [], description="Interfaces to capture on. `-i` names others in their place."
    )
    zeek_conn: ZeekConn = Field(
        ZeekConn(), description="Zeek's own connections in the place of packets."
    )
    model: Annotated[str, Words("the name of a model that ships, or a bundle's folder")] = Field(
        defaults.MODEL, min_length=1, description="What flows are scored by."
    )
    learn: Learn = Field(Learn(), description="To begin without a model.")
    false_positive_rate: float | None = Field(
        defaults.FALSE_POSITIVE_RATE, gt=0, lt=1,
        description="Share of benign flows that may be alerted; null with an `alert-budget`.",
    )  # fmt: skip
    alert_budget: Annotated[float | None, Unit("alerts an hour")] = Field(
        None,
        ge=1,
        description="In place of `false-positive-rate`: alerts that are wanted at most "
        f"(docs/eve.md); the rate is {defaults.FALSE_POSITIVE_RATE} at most then.",
    )
    default_log_dir: Folder = Field(
        defaults.LOG_DIR,
        description="Folder of outputs whose `filename` does not begin with a slash.",
    )
    outputs: list[Output] = Field([Output()], min_length=1, description="Where events are written.")
    eve_version: Literal[7, 8] = Field(
        7, description="Major version of Suricata whose EVE schema events keep to."
    )
    suppress: FileOrNone = Field(
        None, description="File of suppression rules (docs/suppression.md); null: none."
    )
    grouping: Grouping = Field(Grouping(), description="One alert for a burst of them.")
    recalibrate: bool = Field(
        True,
        description="Correct p-values by the flows of the last day, within bounds (docs/eve.md).",
    )
    most_flows: Annotated[int, Unit("flows")] = Field(
        defaults.MOST_FLOWS, ge=1,
        description="Flows under way at once for each thread, about 3 kB each; when there are "
        "more, the least recently seen one is ended.",
    )  # fmt: skip
    linger: Seconds = Field(
        defaults.LINGER_S,
        description="End a TCP flow so long after its RST or its second FIN, or after a SYN that "
        "made no connection; 0: by the idle timeout, as the models that ship were trained on.",
    )
    meter: Literal["compiled", "stock"] = Field(
        defaults.METER,
        description="`compiled`: NFStream's engine driven by machine code; `stock`: by NFStreamer, "
        "slower, with times to the millisecond. Where the engine is not known it is stock, with a "
        "warning.",
    )
    stop_within: Seconds = Field(
        defaults.STOP_WITHIN_S,
        description="After SIGTERM or Ctrl-C: score what is under way for so long, then count the "
        "rest as lost.",
    )
    pidfile: FileOrNone = Field(
        None,
        description="File to write the process id to, removed at the end; null: none. A start is "
        "refused while the process in it runs.",
    )
    metrics: Metrics = Field(Metrics(), description="The sensor's counters for Prometheus.")

    @model_validator(mode="before")
    @classmethod
    def _budget_in_place_of_rate(cls, data: Any) -> Any:
        """With a budget, the rate's default does not hold."""
        if isinstance(data, dict) and data.get("alert-budget") is not None:
            return {"false-positive-rate": None, **data}
        return data

    @model_validator(mode="after")
    def _rate_or_budget(self) -> Config:
        given = [self.false_positive_rate, self.alert_budget]
        if given.count(None) != 1:
            raise wrong("give either false-positive-rate or alert-budget", "false-positive-rate")
        return self

    @model_validator(mode="after")
    def _one_source(self) -> Config:
        if self.interfaces and self.zeek_conn.filename is not None:
            raise wrong("give either interfaces or a log of Zeek's", "zeek-conn", "filename")
        return self

    @model_validator(mode="after")
    def _can_be_learnt(self) -> Config:
        learn = self.learn
        if not learn.enabled:
            return self
        if self.zeek_conn.filename is not None:
            raise wrong("only interfaces are learnt from, not a log of Zeek's", "learn", "enabled")
        if "/" not in self.model:
            raise wrong(
                "with learn.enabled, the path of the folder that the learnt model is to be in, "
                f"with a slash; not {self.model}", "model",
            )  # fmt: skip
        if learn.meanwhile == self.model:
            raise wrong("is the model that is to be learnt", "learn", "meanwhile")
        return self

    @property
    def rate(self) -> float:
        """The false-positive rate that holds; with a budget, the highest that may."""
        if self.false_positive_rate is None:
            return defaults.FALSE_POSITIVE_RATE
        return self.false_positive_rate

    @field_validator("interfaces")
    @classmethod
    def _each_once(cls, listed: list[Interface]) -> list[Interface]:
        names = [each.interface for each in listed]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise wrong(f"{name} is named twice", at, "interface")
        return listed


def plain(config: Section) -> dict[str, Any]:
    """A configuration as mappings, lists and values, as a file would give it."""
    values: dict[str, Any] = config.model_dump(by_alias=True)
    return values


@dataclass(frozen=True, slots=True)
class Key:
    """A declared key, or an item of a declared list.

    Attributes:
        pattern: where it is.
        field: its declaration; that of the list, for an item.
        kind: its type, without what annotates it.
    """

    pattern: Pattern
    field: FieldInfo
    kind: Any

    @property
    def text(self) -> str:
        """The pattern as people write it: ``outputs[].eve-log.filename``."""
        return path_text(self.pattern)

    @property
    def unit(self) -> str:
        """The unit of its number; nothing for other keys."""
        return "".join(each.name for each in self.field.metadata if isinstance(each, Unit))


def path_text(path: tuple[str | int, ...]) -> str:
    """A path or pattern as people write it: ``outputs[0].eve-log.filename``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part == ITEM or not text:
            text += part
        else:
            text += f".{part}"
    return text


def pattern_of(path: tuple[str | int, ...]) -> Pattern:
    """The pattern that a path is an instance of."""
    return tuple(ITEM if isinstance(part, int) else part for part in path)


@cache
def declared() -> dict[Pattern, Key]:
    """All keys by where they are, in the order of their declaration."""
    return {key.pattern: key for key in _keys_of(Config, ())}


def _keys_of(section: type[Section], above: Pattern) -> Iterator[Key]:
    for field in section.model_fields.values():
        pattern = (*above, field.alias or "")
        yield Key(pattern, field, field.annotation)
        yield from _keys_below(field.annotation, field, pattern)


def _keys_below(kind: Any, field: FieldInfo, pattern: Pattern) -> Iterator[Key]:
    for arm in arms(kind):
        if get_origin(arm) is list:
            (item,) = get_args(arm)
            yield Key((*pattern, ITEM), field, item)
            yield from _keys_below(item, field, (*pattern, ITEM))
        elif isinstance(arm, type) and issubclass(arm, Section):
            yield from _keys_of(arm, pattern)


def arms(kind: Any) -> list[Any]:
    """The types that a type is made of, if it is a union, without what annotates them."""
    if get_origin(kind) is Annotated:
        return arms(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [arm for each in get_args(kind) for arm in arms(each)]
    return [kind]
