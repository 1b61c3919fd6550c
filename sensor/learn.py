"""`flowvane learn`; imported by that command only."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import rich.table
from rich.text import Text

from features.encoder import NotFinite
from features.measurement import Measurement
from features.registry import SCHEMAS
from features.schema import NEVER_EARLY, EarlyReports, Medium
from models.detector import Detector
from models.manifest import MANIFEST
from sensor.caches import keep_compiled
from sensor.errors import ExitCode, OutputError, UsageError
from sensor.learnupdate import choice_after, in_place, kept_at, replace_bundle
from sensor.livefeatures import Capture, FlowFolder, capture_flows, held
from sensor.measuring import Wanted, measure_captures
from sensor.meter.compiled.core import Options
from sensor.meter.compiled.interface import Tap
from sensor.report import Console, printable
from sensor.train import (
    Bar,
    checkpoint_of,
    checkpoint_told,
    digests,
    kind_named,
    versions,
    write_bundle,
)
from training.fit import TooFewRows
from training.rows import RowsError
from training.site import Choice, Learned, NoSuchPattern, learn, look, site_config
from training.sitepatterns import Pattern
from training.siterows import SiteFiles
from training.siteupdate import Doubted, doubt, without

_CLOCKS = {"us": 1, "ms": 1000}
SHOWN = 15
"""Patterns in the printed table; the file has more."""


def learn_site(
    args: argparse.Namespace, early: EarlyReports, console: Console,
    before: Detector | None = None, capture: Capture | None = None,
) -> ExitCode:  # fmt: skip
    """Learn from captures, interfaces or feature files and write a bundle.

    Args:
        args: options.
        early: when flows that go on are reported, too.
        console: is told.
        before: the model that is updated, if one is.
        capture: what a configuration says of the interfaces, if one does.
    """
    _check(args)
    if args.interfaces:
        taps = [Tap(name) for name in args.interfaces]
        capture = Capture(taps, Options(), args.lasting, args.flows)
    code = ExitCode.OK
    wanted = Wanted(SCHEMAS[args.schema], _CLOCKS[args.clock], early, args.meter)
    paths = args.feature_files
    if args.captures:
        paths, code = _from_captures(args, wanted, console)
    elif capture is not None:
        paths = _from_interfaces(args, capture, wanted, console)
    try:
        learned = _learn(args, paths, console, before)
    except (TooFewRows, NotFinite, RowsError) as error:
        place = "" if isinstance(error, RowsError) else f"{_shown(args, paths)}: "
        console.error(f"{place}{error}")
        return ExitCode.DATASET
    except NoSuchPattern as error:
        raise UsageError(f"--exclude, --include: {error}") from error
    _tell(args, learned, paths, console)
    return code


def _check(args: argparse.Namespace) -> None:
    """Refuse options that make no sense together.

    Raises:
        UsageError: they do not.
        OutputError: what is to be written is there, and is no bundle.
    """
    if args.interfaces and args.lasting is None and args.flows is None:
        raise UsageError("-i: say for how long with --for or --flows, e.g. --for 24h")
    files = args.captures or args.feature_files
    if files and (args.lasting is not None or args.flows is not None):
        raise UsageError("--for, --flows: only with -i or -c; files are read to their end")
    if args.feature_files and (args.early_age or args.early_packets):
        raise UsageError("--early-age, --early-packets: not with --features: the files say it")
    medium = SCHEMAS[args.schema].medium
    if not args.feature_files and medium is not Medium.PACKETS:
        raise UsageError(
            f"--schema {args.schema}: is measured from {medium}; give --features, "
            "from `flowvane features --zeek-conn`"
        )
    if args.output.exists() and not (args.output / MANIFEST).is_file():
        raise OutputError(
            f"{args.output}: exists and is not a model bundle; name another directory"
        )
    if kind_named(args.model).supervised:
        raise UsageError(f"--model {args.model}: learns from labelled attacks, a site has none")


# Flows


def _folder(args: argparse.Namespace) -> Path:
    """Where flows are kept that this command measures."""
    return FlowFolder.beside(args.output)


def _from_captures(
    args: argparse.Namespace, wanted: Wanted, console: Console
) -> tuple[list[Path], ExitCode]:
    """Measure captures into a feature file; one that an interrupted call finished is taken."""
    done = _folder(args) / "captures.parquet"
    if args.resume and done.exists():
        return [done], ExitCode.OK
    fresh = done.with_name("unfinished.parquet")
    written = measure_captures(args.captures, wanted, fresh, console)
    fresh.replace(done)
    return [done], ExitCode.OK if written.whole else ExitCode.INPUT


def _from_interfaces(
    args: argparse.Namespace, capture: Capture, wanted: Wanted, console: Console
) -> list[Path]:
    """Capture on interfaces into feature files."""
    with held(_folder(args)):
        folder = FlowFolder(_folder(args), resume=args.resume)
        _capture(folder, capture, wanted, console)
    if folder.progress.lost:
        console.warn(f"{folder.progress.lost:,} packets were lost while capturing")
    return folder.files


def _capture(folder: FlowFolder, capture: Capture, wanted: Wanted, console: Console) -> None:
    try:
        capture_flows(capture, wanted, folder, console)
    except KeyboardInterrupt:
        console.warn(
            f"{folder.path}: has {folder.progress.flows:,} flows of "
            f"{folder.progress.seconds / 3600:.1f} h; the capture goes on from here with --resume"
        )
        raise


def _shown(args: argparse.Namespace, paths: Sequence[Path]) -> str:
    if len(paths) == 1:
        return str(paths[0])
    return f"{len(paths)} files" if args.feature_files else str(_folder(args))


# Learning


def names_in(values: Sequence[str]) -> tuple[str, ...]:
    """Ids and addresses as given, or out of files with one a line; ``#`` begins a comment.

    Raises:
        UsageError: a file cannot be read.
    """
    names: list[str] = []
    for value in values:
        path = Path(value)
        if not path.is_file():
            names.append(value)
            continue
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read: {error}") from error
        names += filter(None, (line.partition("#")[0].strip() for line in lines))
    return tuple(dict.fromkeys(names))


def _learn(
    args: argparse.Namespace, paths: Sequence[Path], console: Console, before: Detector | None
) -> Learned:
    """Fit and calibrate, with a progress bar and a checkpoint, and write the bundle."""
    keep_compiled()
    kind = kind_named(args.model)
    source = SiteFiles(paths, SCHEMAS[args.schema])
    measured = source.measurement
    choice = Choice(names_in(args.exclude), names_in(args.include))
    noted: dict[str, Any] = {}
    name = before.name if before and in_place(args) else args.output.name
    if before is not None:
        _check_measured(measured, before, args.update)
        choice = choice_after(before, choice.exclude, choice.include)
    with console.progress("looking the flows through", 1) as advance:
        seen = look(source)
        if before is not None:
            doubted = doubt(source, seen, before, args.fpr)
            seen = without(seen, doubted.aside)
            noted["update"] = _update_noted(doubted, before)
        advance(1)
    config = site_config(kind, int(len(seen.traffic) / 2))
    if args.epochs is not None:
        config = replace(config, epochs=args.epochs)
    checkpoint = checkpoint_of(args)
    if args.resume and not checkpoint.path.exists():
        checkpoint = replace(checkpoint, resume=False)  # interrupted before it began
    with (
        checkpoint_told(checkpoint, args.output, console),
        console.progress(f"learning from {source.count:,} flows", config.epochs) as advance,
    ):
        learned = learn(
            source, name=name, seed=args.seed, fpr=args.fpr, kind=kind,
            clock_us=measured.clock_us if measured else _CLOCKS[args.clock],
            choice=choice, config=config, network=before.config if before else None,
            observers=[Bar(advance)], checkpoint=checkpoint, seen=seen,
            early=measured.early if measured else before.early if before else NEVER_EARLY,
        )  # fmt: skip
    learned.detector.provenance |= noted | {
        "files": digests(paths), "command": _command(args), "versions": versions()
    }  # fmt: skip
    if in_place(args):
        replace_bundle(learned.detector, args.update)
        checkpoint.remove()
    else:
        write_bundle(learned.detector, args.output, checkpoint)
    return learned


def _check_measured(measured: Measurement | None, before: Detector, bundle: Path) -> None:
    """Refuse flows that the model before was not learnt from the like of.

    Raises:
        RowsError: they were measured in another way.
    """
    if measured and (measured.clock_us, measured.early) != (before.clock_us, before.early):
        raise RowsError(
            f"--features: measured with a clock of {measured.clock_us} us and early reports "
            f"{measured.early or 'none'}, {bundle} with {before.clock_us} us and "
            f"{before.early or 'none'}; measure them alike"
        )


def _update_noted(doubted: Doubted, before: Detector) -> dict[str, Any]:
    """What the bundle says of the model before."""
    return {
        "name": before.name,
        "alerted": round(doubted.alerted, 6),
        "set_aside": int(doubted.aside.sum()),
    }


def _command(args: argparse.Namespace) -> str:
    """The command that makes the bundle again."""
    given = "".join(
        f"--{option} {' '.join(getattr(args, option))} "
        for option in ("exclude", "include")
        if getattr(args, option)
    )
    update = "--update BUNDLE.before " if args.update is not None else ""
    return (
        f"flowvane learn {update}--features FILE... --schema {args.schema} --model {args.model} "
        f"--seed {args.seed} {given}-o BUNDLE"
    )


# Telling


def _tell(
    args: argparse.Namespace, learned: Learned, paths: Sequence[Path], console: Console
) -> None:
    detector, report = learned.detector, args.output.with_name(args.output.name + ".patterns.json")
    contents: dict[str, Any] = {
        "flows": learned.flows,
        "set_aside": round(learned.set_aside, 6),
        "patterns": [pattern.to_json() for pattern in learned.patterns],
    }
    try:
        report.write_text(json.dumps(contents, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise OutputError(f"{report}: {(error.strerror or str(error)).lower()}") from error
    if learned.patterns and not args.quiet:
        console.show(patterns_table(learned.patterns))
    aside = f"{100 * learned.set_aside:.2g} % of the flows set aside"
    excluded = f", {learned.excluded:,} excluded" if learned.excluded else ""
    rows = detector.provenance["rows"]
    console.say(
        f"{args.output}: {detector.kind.name}, learnt from {rows['train']:,} of "
        f"{learned.flows:,} flows, calibrated on {detector.calibration.count:,} later ones; "
        f"{aside}{excluded}; suspicious patterns in {report}"
    )
    if (update := detector.provenance.get("update")) is not None:
        console.say(
            f"the model before alerts on {100 * update['alerted']:.2g} % of the flows outside "
            f"bursts; {update['set_aside']:,} of few hosts were set aside for that"
        )
    if in_place(args):
        console.say(
            f"the model before is kept in {kept_at(args.update)}; a sensor that runs takes the new "
            "one with SIGUSR2 (systemctl reload flowvane@IFACE)"
        )
    if not args.feature_files:
        console.say(
            f"the flows are kept in {_folder(args)}: look at the patterns, learn again with "
            f"--features {_folder(args)}/*.parquet --exclude ID... or --include ID..., and delete "
            "them then"
        )


def patterns_table(patterns: Sequence[Pattern]) -> rich.table.Table:
    """The most suspicious patterns."""
    table = rich.table.Table(
        title=f"Seen from one host at few times ({min(SHOWN, len(patterns))} of {len(patterns)})",
        title_justify="left",
    )
    for name in ("id", "flows", "set aside", "host", "peers", "ports", "what", "from", "to"):
        table.add_column(name, overflow="fold")
    for pattern in patterns[:SHOWN]:
        table.add_row(*(Text(printable(cell)) for cell in _cells(pattern)))
    return table


def _cells(pattern: Pattern) -> list[str]:
    low, high = pattern.low_port, pattern.high_port
    return [
        pattern.id,
        f"{pattern.flows:,}",
        f"{pattern.set_aside:,}",
        f"{pattern.by} {pattern.host}",
        f"{pattern.peers:,}",
        str(low) if low == high else f"{low}-{high}",
        pattern.what,
        pattern.first[:19],
        pattern.last[:19],
    ]
