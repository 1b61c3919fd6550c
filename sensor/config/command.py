"""What `flowvane config` and the options of `flowvane run` do with a configuration."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sensor.config.check import check
from sensor.config.keys import SECRETS, Config, path_text, plain
from sensor.config.source import (
    Source,
    leaves,
    read_file,
    scalar_text,
)
from sensor.errors import ExitCode, OutputError
from sensor.meter.compiled.interface import CaptureSettings, Tap
from sensor.report import Console

_OPTIONS = (
    ("model", "--model", "model"),
    ("log_dir", "-l", "default-log-dir"),
    ("most_flows", "--most-flows", "most-flows"),
    ("linger", "--linger", "linger"),
    ("stop_within", "--stop-within", "stop-within"),
    ("meter", "--meter", "meter"),
    ("pidfile", "--pidfile", "pidfile"),
)
"""Options of `run`: their attribute, their name and the key that they set."""
_LOG = ("zeek-conn", "filename")


def of_run(args: argparse.Namespace) -> tuple[Config, Source]:
    """The configuration that the options of `flowvane run` give, and where it is from.

    Raises:
        ConfigError: something is wrong with it.
    """
    source = _given(args)
    for attribute, option, key in _OPTIONS:
        value = getattr(args, attribute)
        if value is not None:
            source.set((key,), str(value) if isinstance(value, Path) else value, option)
    if args.fpr is not None:
        source.set(("false-positive-rate",), args.fpr, "--fpr")
        if source.has(("alert-budget",)):
            source.set(("alert-budget",), None, "--fpr")
    if args.interfaces:
        _choose(source, args.interfaces)
        if source.has(_LOG):
            source.set(_LOG, None, "-i")
    if args.zeek_conn is not None:
        source.set(_LOG, args.zeek_conn, "--zeek-conn")
        if source.has(("interfaces",)):
            source.set(("interfaces",), [], "--zeek-conn")
    if args.from_start:
        source.set(("zeek-conn", "from-start"), True, "--from-start")
    listed = source.data.get("interfaces")
    for at in range(len(listed) if isinstance(listed, list) else 0):
        for key, value in (("threads", args.threads), ("buffer", args.buffer)):
            if value is not None:
                source.set(("interfaces", at, key), value, f"--{key}")
    return check(source), source


def _given(args: argparse.Namespace) -> Source:
    """The file, and what `--set` changes."""
    source = read_file(args.config) if args.config else Source()
    for setting in args.settings:
        source.assign(setting)
    return source


def _choose(source: Source, names: list[str]) -> None:
    """Let the interfaces be those of `names`, each as the source has it, if it has it."""
    listed = source.data.get("interfaces")
    known: dict[Any, int] = {}
    for at, each in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(each, dict):
            known.setdefault(str(each.get("interface")), at)
    before = dict(source.places)
    chosen = [listed[known[name]] if name in known else {"interface": name} for name in names]
    source.set(("interfaces",), chosen, "-i")
    for now, name in enumerate(names):
        was = ("interfaces", known.get(name))
        for path, place in before.items():
            if path[:2] == was and len(path) > 2:
                source.places["interfaces", now, *path[2:]] = place


def differences(config: Config, source: Source) -> Iterator[str]:
    """A line for each value that was given and is not the default: what it is, and where."""
    usual = dict(leaves(plain(Config())))
    for path, value in leaves(plain(config)):
        if source.has(path) and (path not in usual or usual[path] != value):
            shown = "***" if path[-1] in SECRETS else scalar_text(value)
            yield f"{path_text(path)} = {shown} ({source.place(path)})"


def taps(config: Config) -> list[Tap]:
    """How each interface is captured."""
    return [
        Tap(
            each.interface,
            CaptureSettings(each.buffer << 20, promiscuous=not each.disable_promisc),
            each.threads,
        )
        for each in config.interfaces
    ]


def show(args: argparse.Namespace, console: Console) -> ExitCode:
    """`flowvane config`.

    Raises:
        ConfigError: something is wrong with the configuration.
        OutputError: the file cannot be written.
    """
    if args.part == "check":
        check(_given(args))
        console.say(f"{args.config}: the configuration is good")
        return ExitCode.OK
    text = _text(args)
    if args.output is None:
        console.say(text.rstrip("\n"))
        return ExitCode.OK
    try:
        args.output.write_text(text, "utf-8")
    except OSError as error:
        raise OutputError(f"{args.output}: {(error.strerror or str(error)).lower()}") from error
    return ExitCode.OK


def _text(args: argparse.Namespace) -> str:
    from sensor.config import describe, write

    if args.part == "schema":
        return describe.schema_text()
    if args.part == "docs":
        return describe.as_page()
    return write.as_yaml(check(_given(args)))
