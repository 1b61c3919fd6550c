"""What several tests share: rows, detectors, flows, captures, Suricata's schemas, the command.

Whatever takes long to make is made once a process and kept.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import io
import itertools
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.typing import NDArray

from benchmarks import events
from examples import traffic
from examples.sample_capture import make_sample
from features.encoder import Encoded, Encoder
from features.flows import FlowBatch, empty_flows, pack_address
from features.history import previous_rows, windows_of
from features.registry import SCHEMAS
from features.schema import (
    Feature,
    FloatArray,
    Kind,
    Medium,
    MeterSettings,
    Schema,
    Windows,
)
from models.calibration import Calibration
from models.detector import Detector
from models.heads import FAMILIES, Heads
from models.kinds import KINDS
from models.kinds.autoencoders import AutoencoderConfig
from models.kinds.base import ModelKind, RowSet
from models.kinds.classifier import ClassifierConfig
from models.kinds.conv_vae import ConvVaeConfig
from models.kinds.host_conv_vae import HostConvVaeConfig
from models.kinds.prototypes import PrototypeConfig
from models.kinds.vae import VaeConfig
from models.recipe import FitConfig
from sensor.captures import CaptureSpool, Chain, chain
from sensor.cli import main
from sensor.meter.base import Meter
from sensor.meter.compiled.meter import CompiledMeter
from sensor.meter.stock import StockMeter
from sensor.verdict import Remainder
from training.fit import fit
from training.rows import TableRows

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("FLOWVANE_CORPUS") or ROOT.parent / "shared" / "data")
"""Where the data sets, captures and Suricata's schemas are, if they are."""

SAMPLE_SEED = 7
MODELS = {"nsl-kdd": "kdd", "unsw-nb15": "unsw-nb15"}
"""The models that ship, and the schema of each."""
PACKET_SCHEMAS = [name for name, each in SCHEMAS.items() if each.medium is Medium.PACKETS]
"""The schemas that a meter of packets can measure."""


def _run_directory() -> Path:
    """A directory of this test run, removed when the last of its processes ends."""
    run_id = os.environ.get("PYTEST_XDIST_TESTRUNUID", os.getpid())
    directory = Path(tempfile.gettempdir()) / f"flowvane-tests-{run_id}"
    user = directory / "users" / str(os.getpid())
    user.mkdir(parents=True)

    def leave() -> None:
        shutil.rmtree(user, ignore_errors=True)
        with contextlib.suppress(OSError):  # another worker may be leaving, too
            if not any(user.parent.iterdir()):
                shutil.rmtree(directory, ignore_errors=True)

    atexit.register(leave)
    # Compile what is the same once a run: most of the time of a small fit is the compiler.
    jax.config.update("jax_compilation_cache_dir", str(directory / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return user


SCRATCH = _run_directory()
"""Where this process keeps what it makes once."""


# Tools that some tests need


def need_tools(*names: str) -> None:
    """Skip the test where one of these programs is not installed; in CI, fail it."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"not installed: {', '.join(missing)}", pytrace=False)
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def until(true: Callable[[], bool], patience_s: float = 20.0) -> None:
    """Wait for something that other threads or processes do; a test that waits longer hangs."""
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.002)


# Rows and detectors


def make_rows(schema: Schema, count: int, seed: int = 0) -> FloatArray:
    """Rows ``[count, F]`` that look a little like traffic: two sorts, all features measured."""
    rng = np.random.default_rng(seed)
    sort = rng.integers(0, 2, count)
    columns = []
    for feature in schema.features:
        spread = rng.lognormal(0.0, 0.5, count)
        match feature.kind:
            case Kind.CATEGORICAL:
                terms = min(3, len(feature.vocabulary))
                values = np.where(rng.random(count) < 0.9, sort, rng.integers(0, terms, count))
            case Kind.BINARY:
                values = rng.random(count) < 0.1
            case Kind.RATE:
                values = np.where(sort == 0, 0.0, rng.random(count).round(2))
            case Kind.COUNT:
                values = np.floor(np.where(sort == 0, 2.0, 300.0) * spread)
            case Kind.CONTINUOUS:
                values = np.where(sort == 0, 0.0, 50.0 * spread)
        columns.append(np.asarray(values, np.float64))
    return np.column_stack(columns)


@functools.cache
def fitted_heads(schema: str, family: str) -> tuple[Encoder, Encoded, Heads]:
    """An encoder and heads fitted on 600 rows of the schema's live features."""
    made = SCHEMAS[schema]
    encoder = Encoder.fit(made, made.select(live=True, testbed=False), make_rows(made, 600))
    encoded = encoder.encode(make_rows(made, 600))
    return encoder, encoded, FAMILIES[family].fit(encoder, encoded)


VARIANTS: dict[str, tuple[ModelKind[Any], Any]] = {
    **{
        family: (KINDS["vae"], VaeConfig(heads=family, hidden=(16, 8), latent=3))
        for family in FAMILIES
    },
    "conv-vae": (
        KINDS["conv-vae"],
        ConvVaeConfig(channels=(4, 6), hidden=8, latent=3, last=2),
    ),
    "host-conv-vae": (
        KINDS["host-conv-vae"],
        HostConvVaeConfig(window=4, channels=(6, 4), hidden=(16, 8), latent=3),
    ),
    "prototype-vae": (
        KINDS["prototype-vae"],
        PrototypeConfig(hidden=(16, 8), latent=3, prototypes=20),
    ),
    "guarded-vae": (
        KINDS["guarded-vae"],
        PrototypeConfig(hidden=(16, 8), latent=3, prototypes=20, space="inputs", price=0.5),
    ),
    "deep-autoencoder": (
        KINDS["deep-autoencoder"],
        AutoencoderConfig(hidden=(16, 12, 8), latent=3, dropout=0.1),
    ),
    "autoencoder": (KINDS["autoencoder"], AutoencoderConfig(hidden=(16,), latent=4)),
    "classifier": (KINDS["classifier"], ClassifierConfig(hidden=(16, 8), features=20)),
}
"""Every kind of model, made small; of the dense variational autoencoder each family of heads."""
PAIRS = list(zip(VARIANTS, itertools.cycle(SCHEMAS), strict=False))
"""Every variant, and every schema; other pairs than those that ship."""


def plain_set(encoder: Encoder, rows: FloatArray, window: int = 1) -> RowSet:
    """Encoded rows that all count alike, each with those right before it."""
    count = len(rows)
    return RowSet(
        encoded=encoder.encode(rows),
        at=np.arange(count, dtype=np.int32),
        before=previous_rows(np.zeros(count, np.uint64), window - 1),
        attack=np.zeros(count, bool),
        weight=np.ones(count, np.float32),
    )


def windows(rows: FloatArray, window: int) -> FloatArray:
    """Windows ``[B, W, F]`` of rows ``[B, F]`` of one host."""
    return windows_of(rows, previous_rows(np.zeros(len(rows), np.uint64), window - 1))


def born(
    kind: ModelKind[Any], config: Any, encoder: Encoder, fitted: Mapping[str, Any], seed: int
) -> Any:
    """A network with weights out of numpy: Flax has a compiler make them, slowly."""
    rng = np.random.default_rng(seed)
    empty = nnx.eval_shape(lambda: kind.build(config, encoder, fitted, nnx.Rngs(0)))
    graph, state = nnx.split(empty)
    weights = []
    for path, leaf in nnx.to_flat_state(state):
        spread = rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        weights.append((path, leaf.replace(jnp.asarray(spread, leaf.dtype))))
    return nnx.merge(graph, nnx.from_flat_state(weights))


@functools.cache
def untrained(schema: str, variant: str) -> Detector:
    """A detector with random weights: all of a model but the training; also of schema `toy`."""
    made, (kind, config) = SCHEMAS.get(schema, TOY), VARIANTS[variant]
    rows = make_rows(made, 600)
    encoder = Encoder.fit(made, made.select(live=True, testbed=False), rows)
    some = plain_set(encoder, rows, kind.window(config))
    fitted = kind.fit_before(config, encoder, some)
    network = born(kind, config, encoder, fitted, seed=1)
    detector = Detector(
        name=f"untrained-{variant}",
        kind=kind,
        config=config,
        encoder=encoder,
        fitted=fitted | kind.fit_after(config, encoder, network, some, some),
        network=network,
        calibration=Calibration(np.zeros(1)),
        clock_us=1000,
        provenance={"made": "by a test"},
    )
    detector.calibration = Calibration(detector.score(make_rows(made, 99, 1)).score)
    return detector


NO_REMAINDER = Remainder(0.0, 0.0, "none")
"""Of an alert whose reasons are all of its score, or matter to nobody."""


# A toy to be trained in seconds: two sorts of flows


def _not_measured(view: Any) -> NDArray[np.generic]:
    raise NotImplementedError


def _no_windows() -> Windows:
    raise NotImplementedError


TERMS = ("tcp", "udp", "sctp", "never")
TOY = Schema(
    name="toy",
    title="two sorts of flows",
    features=tuple(
        Feature(name, kind, "1", name, "tests", _not_measured, vocabulary=terms)
        for name, kind, terms in (
            ("big", Kind.COUNT, ()),
            ("long", Kind.CONTINUOUS, ()),
            ("share", Kind.RATE, ()),
            ("proto", Kind.CATEGORICAL, TERMS),
        )
    ),
    meter=MeterSettings(60, 60),
    remeasure=lambda rows, clock_us, rng: rows,
    window_keys=lambda flows: {},
    windows=_no_windows,
)
TOY_FIT = FitConfig(epochs=40, batch=64, learning_rate=1e-2, patience=5)
TOY_SIZES: dict[str, tuple[ModelKind[Any], Any]] = {
    **VARIANTS,
    **{
        family: (KINDS["vae"], VaeConfig(heads=family, hidden=(32, 16), latent=4))
        for family in FAMILIES
    },
}
"""The variants, large enough for the toy."""
TOY_COUNT = 2000


def toy_rows(count: int = TOY_COUNT, seed: int = 0) -> FloatArray:
    """Half of the rows are big, short and over TCP, the others small, long and over UDP."""
    rng = np.random.default_rng(seed)
    sorts = []
    for sort, (big, long, share) in enumerate(((2000.0, 0.5, 0.2), (20.0, 50.0, 0.8))):
        half = count // 2
        columns = (
            rng.lognormal(np.log(big), 0.2, half).round(),
            rng.lognormal(np.log(long), 0.2, half),
            np.clip(rng.normal(share, 0.05, half), 0.0, 1.0),
            np.full(half, float(sort)),
        )
        sorts.append(np.column_stack(columns))
    return np.concatenate(sorts)


def toy_attacks(count: int = 400, seed: int = 5) -> FloatArray:
    """Rows of the two sorts with the time of the other."""
    rows = toy_rows(count, seed)
    rows[:, 1] = rows[::-1, 1]
    return rows


def toy_source(kind: ModelKind[Any], rows: FloatArray | None = None) -> TableRows:
    """The two sorts, shuffled; for a supervised kind with labelled attacks among them."""
    rows = toy_rows() if rows is None else rows
    attacks = toy_attacks() if kind.supervised else rows[:0]
    labels = np.repeat([False, True], [len(rows), len(attacks)])
    order = np.random.default_rng(3).permutation(len(labels))
    return TableRows(np.concatenate([rows, attacks])[order], labels[order])


def fit_toy(variant: str, rows: FloatArray | TableRows | None = None, **more: Any) -> Detector:
    """A detector freshly trained on the two sorts."""
    kind, network = TOY_SIZES[variant]
    given: dict[str, Any] = {"seed": 0, "config": TOY_FIT, "network": network, **more}
    if not isinstance(rows, TableRows):
        rows = toy_source(kind, rows)
    return fit(TOY, TOY.names, rows, name=f"toy-{variant}", clock_us=1, kind=kind, **given)


@functools.cache
def toy(variant: str) -> Detector:
    """The detector of :func:`fit_toy`, trained once."""
    return fit_toy(variant)


# Flows


def make_flow(**fields: Any) -> FlowBatch:
    """A FlowBatch of one row: a TCP flow of 2 and 1 packets, but for the `fields` given.

    Addresses may be text, the application too.
    """
    flow = empty_flows(1)
    given = {
        "first_us": 1_768_467_600_000_000,
        "last_us": 1_768_467_601_500_000,
        "src_ip": "10.0.0.1",
        "dst_ip": "10.0.0.2",
        "src_port": 40_000,
        "dst_port": 80,
        "protocol": 6,
        "ip_version": 6 if ":" in str(fields.get("src_ip", "")) else 4,
        "src_packets": 2,
        "dst_packets": 1,
        "src_bytes": 150,
        "dst_bytes": 60,
        **fields,
    }
    for name, value in given.items():
        if name in ("src_ip", "dst_ip") and isinstance(value, str):
            value = np.frombuffer(pack_address(value), np.uint8)
        flow[name] = value.encode() if isinstance(value, str) else value
    return flow


def as_record(schema: Schema, flows: FlowBatch) -> FlowBatch:
    """Flows of the record that a schema is measured from; its own fields take many values."""
    if schema.record == flows.dtype:
        return flows
    wider = empty_flows(len(flows), schema.record)
    for name in flows.dtype.names or ():
        wider[name] = flows[name]
    rng = np.random.default_rng(len(flows))
    own = [name for name in schema.record.names or () if name not in flows.dtype.names]
    for name in own:
        if schema.record[name].kind == "S":
            words = [b"", b"SF", b"ssl,http", b"dns", b"^dADaT", b"ShADadFfxXWWW", b"x" * 80]
            wider[name] = rng.choice(np.array(words), len(flows))
        else:
            wider[name] = rng.integers(0, 2, len(flows))
    return wider


# Captures

Frames = Sequence[tuple[int, bytes]]


@dataclasses.dataclass(frozen=True)
class Sample:
    """The sample capture, whole and in pieces.

    Attributes:
        path: the whole capture.
        truth: what there is to find in it.
        excerpt: the 40 s with the port scan, ``excerpt.pcap``.
        halves: the excerpt as a capture program would have rotated it, cut within the scan.
        other: 20 s of the whole that overlap with the excerpt.
    """

    path: Path
    truth: dict[str, Any]
    excerpt: Path
    halves: tuple[Path, Path]
    other: Path


@functools.cache
def sample() -> Sample:
    """The sample capture, made once."""
    made = make_sample(SAMPLE_SEED)
    folder = SCRATCH / "sample"
    folder.mkdir()
    start = made.frames[0][0]

    def write(name: str, frames: Frames) -> Path:
        traffic.write_pcap(folder / name, frames)
        return folder / name

    def between(begin_s: float, end_s: float) -> Frames:
        return [f for f in made.frames if begin_s <= (f[0] - start) / 1e6 < end_s]

    excerpt = between(140, 180)
    return Sample(
        path=write("sample.pcap", made.frames),
        truth=made.truth,
        excerpt=write("excerpt.pcap", excerpt),
        halves=(
            write("excerpt1.pcap", excerpt[: len(excerpt) // 2]),
            write("excerpt2.pcap", excerpt[len(excerpt) // 2 :]),
        ),
        other=write("other.pcap", between(145, 165)),
    )


@functools.cache
def excerpt_triage(model: str) -> tuple[Ran, bytes]:
    """The excerpt triaged with a model: what was said, and ``eve.json``."""
    log_dir = SCRATCH / f"excerpt-{model}"
    ran = run("triage", "-r", sample().excerpt, "-l", log_dir, "--model", model)
    read_events(log_dir)
    return ran, (log_dir / "eve.json").read_bytes()


METERS: dict[str, Callable[[Sequence[Chain], MeterSettings], Meter]] = {
    "compiled": lambda chains, settings: CompiledMeter(chains, settings, 1000),
    "stock": StockMeter,
}
"""Every meter of capture files, on a clock of whole milliseconds."""


@functools.cache
def metered(path: Path, schema: str, meter: str = "compiled") -> tuple[FlowBatch, ...]:
    """The batches that a meter makes of a capture."""
    settings = SCHEMAS[schema].meter
    with CaptureSpool() as spool:
        chains = chain([spool.open(path)], settings.idle_timeout_s * 1_000_000)
        return tuple(METERS[meter](chains, settings).flows())


ANN = traffic.Host("02:00:5e:10:00:01", "10.0.0.1")
BOB = traffic.Host("02:00:5e:10:00:02", "10.0.0.2")
ARP = bytes.fromhex("ffffffffffff02005e10000108060001080006040001") + bytes(38)


def syn(source_port: int, target_port: int = 80) -> bytes:
    """A frame that begins a TCP connection of ANN with BOB."""
    return traffic.tcp_frame(ANN, BOB, source_port, target_port, "S")


def small_pcap(path: Path, *frames: bytes, start_us: int = 1_768_467_600_000_000) -> Path:
    """A capture of frames, a millisecond apart."""
    traffic.write_pcap(path, [(start_us + 1000 * at, frame) for at, frame in enumerate(frames)])
    return path


# Logs of Zeek

ZEEK_COLUMNS = {
    "ts": "time", "uid": "string", "id.orig_h": "addr", "id.orig_p": "port",
    "id.resp_h": "addr", "id.resp_p": "port", "proto": "enum", "service": "string",
    "duration": "interval", "orig_bytes": "count", "resp_bytes": "count", "conn_state": "string",
    "local_orig": "bool", "local_resp": "bool", "missed_bytes": "count", "history": "string",
    "orig_pkts": "count", "orig_ip_bytes": "count", "resp_pkts": "count",
    "resp_ip_bytes": "count", "tunnel_parents": "set[string]",
}  # fmt: skip
"""The columns of conn.log as Zeek has them unless told otherwise, and their types."""
CONNECTION: dict[str, object] = {
    "ts": 1_768_467_600.25, "id.orig_h": "10.0.0.1", "id.orig_p": 40_000,
    "id.resp_h": "10.0.0.2", "id.resp_p": 80, "proto": "tcp", "service": "http",
    "duration": 1.5, "orig_bytes": 100, "resp_bytes": 900, "conn_state": "SF",
    "local_orig": True, "local_resp": False, "history": "ShADadFf",
    "orig_pkts": 6, "orig_ip_bytes": 350, "resp_pkts": 5, "resp_ip_bytes": 1200,
}  # fmt: skip
"""A connection like any other."""


def conn_header(columns: Iterable[str] = tuple(ZEEK_COLUMNS), path: str = "conn") -> str:
    """The header that Zeek writes above records of these columns."""
    names = list(columns)
    return "\n".join([
        r"#separator \x09", "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-",
        f"#path\t{path}", "#open\t2026-01-15-09-00-00", "\t".join(["#fields", *names]),
        "\t".join(["#types", *(ZEEK_COLUMNS.get(name, "string") for name in names)]), "",
    ])  # fmt: skip


def conn_line(
    connection: Mapping[str, object], form: str = "tsv",
    columns: Iterable[str] = tuple(ZEEK_COLUMNS),
) -> str:  # fmt: skip
    """A record of conn.log with its line end, as Zeek writes it: `tsv`, `json` or `iso8601`."""
    given = {"missed_bytes": 0, **connection}
    if form == "tsv":
        return "\t".join(_zeek_text(given.get(name)) for name in columns) + "\n"
    if form == "iso8601":
        time_of = datetime.fromtimestamp(float(str(given["ts"])), UTC)
        given["ts"] = time_of.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return json.dumps(given, separators=(",", ":")) + "\n"


def _zeek_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, list):
        return ",".join(value) or "(empty)"
    if isinstance(value, bool):
        return "T" if value else "F"
    return "-" if value is None else str(value)


def conn_log(path: Path, connections: Iterable[Mapping[str, object]], form: str = "tsv") -> Path:
    """A conn.log with a uid for each connection that has none."""
    lines = [
        conn_line({"uid": f"C{number:017x}", **each}, form)
        for number, each in enumerate(connections)
    ]
    path.write_text((conn_header() if form == "tsv" else "") + "".join(lines))
    return path


# Suricata's schemas

_VERSIONS = ("7.0", "8.0")
eve_schemas = pytest.mark.skipif(
    not all((DATA / "eve" / f"schema-main-{version}.x.json").is_file() for version in _VERSIONS),
    reason=f"Suricata's schemas are not in {DATA / 'eve'}; set FLOWVANE_CORPUS",
)


@functools.cache
def _validators() -> dict[str, events.Validator]:
    return events.validators(DATA / "eve")


def faults(event: dict[str, Any]) -> list[str]:
    """What either schema has against an event."""
    return events.faults(event, _validators())


def read_events(log_dir: Path) -> list[dict[str, Any]]:
    """The events of ``eve.json``, each checked against the schemas where there are any."""
    lines = (log_dir / "eve.json").read_bytes().split(b"\n")
    assert lines.pop() == b""
    read = [json.loads(line) for line in lines]
    if not eve_schemas.args[0]:
        wrong = {fault for event in read for fault in faults(event)}
        assert not wrong
    return read


# Pages


class PageReader(HTMLParser):
    """Checks that what is opened is closed, and keeps what a test asks for."""

    VOID = frozenset({"meta", "img", "br", "!doctype"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [str(given["id"])] if "id" in given else []
        self.links += [str(given[key]) for key in ("href", "src", "action") if key in given]
        if tag == "img":
            self.images.append(given)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read_html(html: str) -> PageReader:
    """The page as read; it must be well formed."""
    reader = PageReader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


# The command


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a call of the command did."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines on standard error."""
        return self.err.splitlines()


def run(*arguments: object) -> Ran:
    """``flowvane ARGUMENTS`` in this process, its streams in UTF-8."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
    handlers = {number: signal.getsignal(number) for number in numbers}
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stopped:  # argparse
            code = int(stopped.code or 0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Ran(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


def about(lines: Iterable[str], path: object) -> str:
    """The one line that names `path`."""
    (line,) = [line for line in lines if str(path) in line]
    return line
