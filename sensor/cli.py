"""The command line: ``flowvane COMMAND``, as ``flowvane --help`` lists them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from features.registry import SCHEMAS
from features.schema import EarlyReports, Medium, Schema
from sensor.config import defaults
from sensor.durations import seconds_of
from sensor.errors import ExitCode, FlowvaneError, ModelError, UsageError
from sensor.medium import check_medium
from sensor.report import Console

CLOCKS = {"us": 1, "ms": 1000}
"""Microseconds of a tick of the clocks that features can be measured on."""

_LEARN_DEFAULTS: dict[str, Any] = {
    "schema": "flow", "clock": "us", "model": "vae", "fpr": defaults.FALSE_POSITIVE_RATE,
}  # fmt: skip
"""Of `learn`, where neither an option, the bundle of --update nor the file of -c says it."""

if TYPE_CHECKING:
    from sensor.config.keys import Config
    from sensor.feed import AlertFeed
    from sensor.triage import Loaded, Triaging

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, as one declaration."""
    parser = argparse.ArgumentParser(
        prog="flowvane",
        description="Learns what normal network flows look like and writes those that do not fit "
        "to an EVE-JSON log.",
        epilog="Exit codes: 0 done, 2 usage, 3 an input was not read in full, 4 model, 5 output, "
        "6 data set or too little traffic, 130 interrupted (docs/exit-codes.md).",
    )
    parser.add_argument("--version", action="version", version=f"flowvane {version('flowvane')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _learn_parser(commands)
    _run_parser(commands)
    _config_parser(commands)
    _triage_parser(commands)
    _features_parser(commands)
    _models_parser(commands)
    _schemas_parser(commands)
    _explore_parser(commands)
    _explain_parser(commands)
    _train_parser(commands)
    _evaluate_parser(commands)
    _sweep_parser(commands)
    return parser


def _whole(least: int) -> Callable[[str], int]:
    """Parses a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)

    return parse


def _even(text: str) -> int:
    """Parses an even number from 4 on."""
    if not text.isdigit() or int(text) < 4 or int(text) % 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not an even number from 4 on")
    return int(text)


def _seconds(text: str) -> float:
    """Parses a number of seconds, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _positive(text: str) -> float:
    """Parses a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _share(text: str) -> float:
    """Parses a number above 0 and below 1."""
    value = _positive(text)
    if value >= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not below 1")
    return value


def _captures_argument(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument(
        "-r", "--read", dest="captures", type=Path, nargs="+", action="extend", metavar="FILE",
        help="pcap or pcapng captures, also .gz or .xz; several are one triage",
    )  # fmt: skip
    sources.add_argument(
        "--zeek-conn", dest="logs", type=Path, nargs="+", action="extend", metavar="FILE",
        help="in their place: Zeek's conn.log, TSV or JSON, also .gz or .xz; several are one log",
    )  # fmt: skip


def _meter_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--meter", choices=("compiled", "stock"), default="compiled",
        help="compiled: NFStream's engine driven by machine code; stock: by NFStreamer, slower, "
        "with times to the millisecond (%(default)s)",
    )  # fmt: skip


def _scored_by_argument(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--model", default=defaults.MODEL, metavar="NAME|DIR",
        help="a model that ships (see `flowvane models`) or a bundle directory (%(default)s)",
    )  # fmt: skip


def _scoring_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fpr", type=float, default=defaults.FALSE_POSITIVE_RATE, metavar="P",
        help="share of benign flows that may be alerted (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "-l", "--log-dir", type=Path, default=Path(defaults.LOG_DIR), metavar="DIR",
        help="where eve.json is appended (current folder)",
    )  # fmt: skip


def _lasting(text: str) -> float:
    """Parses a time like 90s, 30m, 24h or 7d; seconds."""
    seconds = seconds_of(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 90s, 30m, 24h or 7d")
    return seconds


def _learn_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "learn", help="learn what is normal on a network from its own traffic",
        description="Fits a model on the earlier part of a network's own flows, calibrates it on "
        "later ones, and writes a bundle for triage and run. What was seen from few hosts at few "
        "times counts for little; the most suspicious of it is listed, for a person to exclude or "
        "include (docs/learn.md).",
    )  # fmt: skip
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument(
        "-r", "--read", dest="captures", type=Path, nargs="+", action="extend", metavar="FILE",
        help="pcap or pcapng captures, also .gz or .xz",
    )  # fmt: skip
    sources.add_argument(
        "-i", "--interface", dest="interfaces", nargs="+", action="extend", metavar="IFACE",
        help="capture on these, until --for or --flows is reached",
    )  # fmt: skip
    sources.add_argument(
        "-c", "--config", type=Path, metavar="FILE",
        help="capture as this configuration of `run` says, for as long as `learn` in it says; the "
        "bundle is its `model`",
    )  # fmt: skip
    sources.add_argument(
        "--features", dest="feature_files", type=Path, nargs="+", action="extend",
        metavar="FILE.parquet", help="what `flowvane features` or an earlier `learn` wrote",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, metavar="BUNDLE",
        help="directory to write; must not exist yet, or be a bundle (that of --update)",
    )  # fmt: skip
    parser.add_argument(
        "--update", type=Path, metavar="BUNDLE",
        help="learn this model again from recent flows: schema, clock, early reports, kind and "
        "what was excluded or included are its own; without -o it is replaced, and kept as "
        "BUNDLE.before",
    )  # fmt: skip
    parser.add_argument("--for", dest="lasting", type=_lasting, metavar="TIME",
                        help="of -i and -c: capture for so long, e.g. 24h, 30m or 7d")  # fmt: skip
    parser.add_argument("--flows", type=_whole(1), metavar="N",
                        help="of -i and -c: capture until so many flows have ended")  # fmt: skip
    parser.add_argument(
        "--exclude", nargs="+", action="extend", default=[], metavar="ID|ADDRESS|FILE",
        help="learn nothing from this pattern or host; a file has one a line",
    )  # fmt: skip
    parser.add_argument(
        "--include", nargs="+", action="extend", default=[], metavar="ID|ADDRESS|FILE",
        help="this pattern or host is normal here: count all of its flows",
    )  # fmt: skip
    parser.add_argument(
        "--fpr", type=_share, metavar="P",
        help="smallest share of benign flows that may be alerted with this model; decides how "
        f"much traffic is needed ({defaults.FALSE_POSITIVE_RATE})",
    )  # fmt: skip
    parser.add_argument("--schema", choices=sorted(SCHEMAS),
                        help=f"feature set ({_LEARN_DEFAULTS['schema']})")  # fmt: skip
    parser.add_argument(
        "--clock", choices=tuple(CLOCKS),
        help=f"of -r, -i and -c: what times are measured on ({_LEARN_DEFAULTS['clock']})",
    )  # fmt: skip
    _early_arguments(parser)
    _meter_argument(parser)
    _model_argument(parser, None, _LEARN_DEFAULTS["model"])
    parser.add_argument("--seed", type=_whole(0), default=0, help="of all randomness (%(default)s)")
    parser.add_argument("--epochs", type=_whole(1), help="at most this many (as many as help)")
    parser.add_argument(
        "--resume", action="store_true",
        help="go on with what was interrupted: the capture, from BUNDLE.flows, or the training, "
        "from BUNDLE.checkpoint",
    )  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no table")
    parser.set_defaults(run=run_learn)


def _run_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "run", help="score the flows of interfaces, or of Zeek's conn.log as it grows, and write "
        "alerts, until told to stop",
        description="Captures on interfaces, or follows Zeek's conn.log, scores every flow and "
        "appends an EVE alert to DIR/eve.json for each one that does not fit. SIGTERM or Ctrl-C "
        "ends that; all "
        "flows are scored then, and what was lost is told by cause. Options hold over --set, and "
        "that over the file.",
    )  # fmt: skip
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument(
        "-i", "--interface", dest="interfaces", nargs="+", action="extend", metavar="IFACE",
        help="interface to capture on; several are kept apart (those of the file)",
    )  # fmt: skip
    sources.add_argument(
        "--zeek-conn", metavar="FILE",
        help="follow Zeek's conn.log, TSV or JSON, across rotation, in the place of interfaces",
    )  # fmt: skip
    parser.add_argument("--from-start", action="store_true",
                        help="begin with what is in that log, not at its end")  # fmt: skip
    _source_arguments(parser)
    parser.add_argument("-T", "--test", action="store_true",
                        help="test the configuration and the model, and end")  # fmt: skip
    parser.add_argument("--dump-config", action="store_true",
                        help="show the configuration, a line for each value, and end")  # fmt: skip
    parser.add_argument("-v", "--verbose", action="store_true",
                        help="say where the configuration differs from the defaults")  # fmt: skip
    _over_the_file(parser)
    parser.set_defaults(run=run_live)


def _source_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", type=Path, metavar="FILE",
                        help="configuration, in YAML (docs/configuration.md)")  # fmt: skip
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a value of the configuration, e.g. outputs.0.eve-log.filename=alerts.json",
    )


def _over_the_file(parser: argparse.ArgumentParser) -> None:
    """Options for keys of the configuration; one that is not given leaves the key alone."""
    parser.add_argument(
        "--model", metavar="NAME|DIR",
        help="a model that ships (see `flowvane models`) or a bundle directory "
        f"({defaults.MODEL})",
    )  # fmt: skip
    parser.add_argument(
        "--fpr", type=float, metavar="P",
        help=f"share of benign flows that may be alerted ({defaults.FALSE_POSITIVE_RATE})",
    )  # fmt: skip
    parser.add_argument("-l", "--log-dir", type=Path, metavar="DIR",
                        help="where eve.json is appended (current folder)")  # fmt: skip
    parser.add_argument(
        "--threads", type=_whole(1), metavar="N",
        help=f"capture threads for each interface ({defaults.THREADS})",
    )  # fmt: skip
    parser.add_argument(
        "--most-flows", type=_whole(1), metavar="N",
        help="flows under way at once for each thread, about 3 kB each; when there are more, the "
        f"least recently seen one is ended ({defaults.MOST_FLOWS})",
    )  # fmt: skip
    parser.add_argument(
        "--linger", type=_seconds, metavar="S",
        help="end a TCP flow so many seconds after its RST or its second FIN, or after a SYN that "
        "made no connection; 0: by the idle timeout, as the models that ship were trained on "
        f"({defaults.LINGER_S})",
    )  # fmt: skip
    parser.add_argument(
        "--buffer", type=_whole(1), metavar="MIB",
        help=f"of the kernel's for each thread, for packets that wait ({defaults.BUFFER_MIB})",
    )  # fmt: skip
    parser.add_argument(
        "--stop-within", type=_seconds, metavar="S",
        help="after SIGTERM or Ctrl-C: score what is under way for so long, then count the rest "
        f"as lost ({defaults.STOP_WITHIN_S})",
    )  # fmt: skip
    parser.add_argument(
        "--meter", choices=("compiled", "stock"),
        help="compiled: NFStream's engine driven by machine code; stock: by NFStreamer, slower, "
        f"with times to the millisecond ({defaults.METER})",
    )  # fmt: skip
    parser.add_argument(
        "--pidfile",
        metavar="FILE",
        help="keep the process id here; refused while the process in it runs (none)",
    )


def _config_parser(commands: Commands) -> None:
    parser = commands.add_parser("config", help="check, show and describe configurations of run")
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    dump = parts.add_parser("dump", help="write a whole configuration, with defaults and comments")
    _source_arguments(dump)
    check = parts.add_parser("check", help="tell everything that is wrong with a file")
    check.add_argument("config", type=Path, metavar="FILE")
    check.set_defaults(settings=[])
    schema = parts.add_parser("schema", help="write the JSON Schema, for editors")
    docs = parts.add_parser("docs", help="write the page that describes all keys, in Markdown")
    for each in (dump, schema, docs):
        each.add_argument("-o", "--output", type=Path, metavar="FILE",
                          help="file to write (standard output)")  # fmt: skip
    parser.set_defaults(run=run_config)


def _triage_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "triage", help="score the flows of capture files, or of Zeek's conn.log; write alerts",
        description="Scores every flow of the captures, or every connection of Zeek's conn.log, "
        "and appends an EVE alert to DIR/eve.json for each one that does not fit.",
    )  # fmt: skip
    _captures_argument(parser)
    models = parser.add_mutually_exclusive_group()
    _scored_by_argument(models)
    models.add_argument(
        "--self", dest="self_fit", action="store_true",
        help="no model at hand: fit one on the captures themselves, and show what stands out in "
        "them (docs/learn.md)",
    )  # fmt: skip
    _scoring_arguments(parser)
    parser.add_argument(
        "--suppress", type=Path, metavar="FILE",
        help="rules for alerts that nobody wants to see (docs/suppression.md)",
    )  # fmt: skip
    parser.add_argument(
        "--group", action="store_true",
        help="one alert with a count for a burst of the same source, destination and kind "
        "(docs/eve.md), in the place of one for each flow",
    )  # fmt: skip
    _meter_argument(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no table")
    parser.set_defaults(run=run_triage)


def _features_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "features", help="write the features of each flow",
        description="Writes one row a flow, or a connection of Zeek's conn.log: 5-tuple, times, "
        "community_id and a schema's features.",
    )  # fmt: skip
    _captures_argument(parser)
    parser.add_argument(
        "--schema", choices=sorted(SCHEMAS),
        help="feature set (unsw-nb15; with --zeek-conn zeek-conn, and no other)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT.csv|OUT.parquet",
        help="file to write; replaced if it is there",
    )  # fmt: skip
    parser.add_argument(
        "--clock", choices=tuple(CLOCKS), default="us",
        help="what times are measured on: us, or ms as the models that ship do (%(default)s)",
    )  # fmt: skip
    _early_arguments(parser)
    _meter_argument(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run_features)


def _early_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--early-age", type=_positive, nargs="+", action="extend", default=[], metavar="S",
        help="write a row, too, of a flow that goes on when it is so many seconds old; schema "
        "flow only (never)",
    )  # fmt: skip
    parser.add_argument(
        "--early-packets", type=_whole(1), nargs="+", action="extend", default=[], metavar="N",
        help="the same when it has so many packets; a model that is trained on such rows has "
        "triage and run report flows so, too (never)",
    )  # fmt: skip


def _models_parser(commands: Commands) -> None:
    parser = commands.add_parser("models", help="list the models that ship")
    parser.set_defaults(run=run_models)


def _schemas_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "schemas",
        help="describe every feature of every schema",
        description="Writes the declarations of all features as a Markdown page.",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT.md", help="file to write (standard output)"
    )
    parser.set_defaults(run=run_schemas)


def _explore_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "explore", help="describe a data set on a page with pictures",
        description="Writes one HTML page that needs nothing else: classes, cleaning log, "
        "distributions, correlations, profiles of the attacks, importances of the features. "
        "Needs the extra: pip install 'flowvane[research]'.",
    )  # fmt: skip
    parser.add_argument("--dataset", required=True, metavar="NAME",
                        help="unsw-nb15, nsl-kdd, kdd99 or cicids2017")  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, metavar="DIR",
                        help="directory with the official files, or one above it")  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.html",
                        help="file to write; replaced if it is there")  # fmt: skip
    parser.add_argument(
        "--part", metavar="PART", help="part of the data set (the first that is there)"
    )
    parser.add_argument("--seed", type=_whole(0), default=0, help="of all samples (%(default)s)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run_explore)


def _explain_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "explain", help="show which features make a model's alerts, and how sure that is",
        description="Writes one HTML page about alerts on a labelled data set: the parts that the "
        "model gives its features, beside Shapley values (SHAP) and integrated gradients, and how "
        "far they agree. "
        "Needs the extra: pip install 'flowvane[research]'.",
    )  # fmt: skip
    parser.add_argument("--dataset", required=True, metavar="NAME",
                        help="one that has the model's features")  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, metavar="DIR",
                        help="directory with the official files, or one above it")  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.html",
                        help="file to write; replaced if it is there")  # fmt: skip
    parser.add_argument(
        "--model", default=defaults.MODEL, metavar="NAME|DIR",
        help="a model that ships (see `flowvane models`) or a bundle directory (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--part", metavar="PART", help="part of the data set (the first that is there)"
    )
    parser.add_argument(
        "--fpr", type=float, default=0.01, metavar="P",
        help="share of benign flows that may be alerted (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--rows", type=_whole(5), default=100, metavar="N",
        help="explain so many alerts of attacks, and of benign rows, at most (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--walks", type=_even, default=256, metavar="N",
        help="random orders of the features for each row, an even number; and a line from a benign "
        "row for every eight of them (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=_whole(0), default=0, help="of all samples (%(default)s)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run_explain)


def _train_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "train", help="train a model on a data set, or on features of a network's own flows",
        description="Trains on the benign rows of a data set (a classifier on the attacks, too), "
        "or on feature files, and writes a model bundle.",
    )  # fmt: skip
    _model_argument(parser)
    _data_arguments(parser, required=False)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE",
                        help="directory to write; must not exist yet, or be a bundle")  # fmt: skip
    parser.add_argument("--part", metavar="PART", help="part of the data set (its first)")
    parser.add_argument(
        "--rows", type=Path, nargs="+", action="extend", metavar="FILE.parquet",
        help="instead of a data set: what `flowvane features` wrote, all of it taken as benign; "
        "read chunk by chunk, so it need not fit into memory",
    )  # fmt: skip
    parser.add_argument(
        "--schema", choices=sorted(SCHEMAS), default="flow", help="of --rows (%(default)s)"
    )
    parser.add_argument(
        "--clock", choices=tuple(CLOCKS),
        help="of --rows' times (what the files say; us where they do not)",
    )  # fmt: skip
    parser.add_argument("--seed", type=_whole(0), default=0, help="of all randomness (%(default)s)")
    own = "the model's own"
    parser.add_argument("--epochs", type=_whole(1), help=f"at most this many ({own})")
    parser.add_argument(
        "--patience", type=_whole(1), metavar="EPOCHS",
        help=f"stop after so many without a better held-out loss ({own})",
    )  # fmt: skip
    parser.add_argument("--batch", type=_whole(1), metavar="ROWS", help=f"rows a step ({own})")
    parser.add_argument("--learning-rate", type=_positive, metavar="RATE",
                        help=f"of Adam, the highest that the schedule reaches ({own})")  # fmt: skip
    parser.add_argument("--schedule", metavar="NAME",
                        help="constant, cosine, exponential or warmup-cosine")  # fmt: skip
    parser.add_argument("--latent", type=_whole(1), help=f"size of the latent space ({own})")
    parser.add_argument(
        "--resume", action="store_true",
        help="go on with a training that was interrupted, from BUNDLE.checkpoint",
    )  # fmt: skip
    parser.add_argument("--events", type=Path, metavar="DIR",
                        help="write TensorBoard event files there")  # fmt: skip
    parser.set_defaults(run=run_train)


def _evaluate_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate", help="train and test on a data set, over seeds",
        description="Trains on benign rows, tests once on the labelled test rows, and reports "
        "mean and standard deviation over seeds.",
    )  # fmt: skip
    parser.add_argument(
        "--model", default="vae", metavar="KIND",
        help="kind of model as train takes it, or a baseline: knn, knn-distance, svm, "
        "one-class-svm, isolation-forest, pca, mahalanobis, random-forest or gradient-boosting "
        "(%(default)s)",
    )  # fmt: skip
    _data_set_arguments(parser)
    parser.add_argument(
        "--all", action="store_true",
        help="every kind and baseline, set of features and trial, with hidden attacks and "
        "supervised ceilings; the default kind first. Takes hours",
    )  # fmt: skip
    parser.add_argument(
        "--features", choices=("live", "all", "header"), nargs="+", default=["live"],
        help="live: what a sensor can measure and describes traffic; all: every column; header: "
        "KDD's 28 that need no look into sessions (live)",
    )  # fmt: skip
    parser.add_argument(
        "--contaminated", type=_share, nargs="+", default=[], metavar="SHARE",
        help="also with so many of the training rows replaced by hidden attacks, e.g. 0.01",
    )  # fmt: skip
    parser.add_argument("--seeds", type=_whole(1), default=5, help="how many (%(default)s)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR|OUT.json",
        help="write figures as JSON; into a directory also tables and pictures, and a record of "
        "each training, so that an interrupted evaluation goes on",
    )  # fmt: skip
    parser.set_defaults(run=run_evaluate)


def _sweep_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "sweep", help="train at several learning rates, epochs and latent sizes",
        description="Trains and tests at every combination. What is not given stays as the model "
        "has it.",
    )  # fmt: skip
    _model_argument(parser)
    _data_arguments(parser)
    parser.add_argument("--learning-rates", type=_positive, nargs="+", default=[], metavar="RATE")
    parser.add_argument("--epochs", dest="epoch_counts", type=_whole(1), nargs="+", default=[])
    parser.add_argument("--latents", type=_whole(1), nargs="+", default=[], metavar="SIZE")
    parser.add_argument("--seeds", type=_whole(1), default=1, help="how many (%(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.json", help="also write JSON")
    parser.set_defaults(run=run_sweep)


def _model_argument(
    parser: argparse.ArgumentParser, default: str | None = "vae", shown: str = "vae"
) -> None:
    parser.add_argument(
        "--model", default=default, metavar="KIND",
        help="kind of model: vae, conv-vae, host-conv-vae, prototype-vae, guarded-vae, "
        "deep-autoencoder, autoencoder or "
        f"classifier ({shown})",
    )  # fmt: skip


def _data_set_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument("--dataset", required=required, metavar="NAME",
                        help="unsw-nb15, nsl-kdd, kdd99 or cicids2017")  # fmt: skip
    parser.add_argument("--data", type=Path, required=required, metavar="DIR",
                        help="directory with the official files, or one above it")  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def _data_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    _data_set_arguments(parser, required=required)
    parser.add_argument(
        "--features", choices=("live", "all"), default="live",
        help="live: what a sensor can measure and describes traffic; all: every column "
        "(%(default)s)",
    )  # fmt: skip


def run_learn(args: argparse.Namespace, console: Console) -> ExitCode:
    """`flowvane learn`."""
    from sensor.learn import learn_site
    from sensor.learnconfig import capture_by

    capture = None if args.config is None else capture_by(args)
    before = None
    if args.update is not None:
        from sensor.learnupdate import detector_before, settle

        before = detector_before(args.update)
        clock = next((name for name, us in CLOCKS.items() if us == before.clock_us), None)
        if clock is None:
            raise ModelError(f"--update: {args.update} has a clock of {before.clock_us} us")
        settle(args, before, clock, _early(args, before.schema))
    elif args.output is None:
        raise UsageError("-o: say where the bundle is to be written")
    for name, value in _LEARN_DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    early = before.early if before else _early(args, SCHEMAS[args.schema])
    return learn_site(args, early, console, before, capture)


def run_live(args: argparse.Namespace, console: Console) -> ExitCode:
    """`flowvane run`."""
    from sensor.config.command import differences, of_run
    from sensor.config.write import as_lines
    from sensor.pidfile import pidfile

    config, source = of_run(args)
    if args.dump_config:
        console.say("\n".join(as_lines(config)))
        return ExitCode.OK
    if args.verbose:
        for line in differences(config, source):
            console.say(line)
    if args.test:
        return _test(config, console)
    if not config.interfaces and config.zeek_conn.filename is None:
        raise UsageError(
            "no interface to capture on: give -i, or `interfaces` in a file for -c; or --zeek-conn"
        )
    from sensor.aside import aside

    try:
        with pidfile(Path(config.pidfile) if config.pidfile else None):
            return aside(_service)(config, lambda: of_run(args)[0], console)
    except KeyboardInterrupt:
        # While it captures, signals end it in another way (sensor.signals).
        console.warn("stopped by a signal before the capture began")
        raise


def _service() -> Callable[[Config, Callable[[], Config], Console], ExitCode]:
    """What captures; to load it takes seconds."""
    from sensor.service import serve

    return serve


def _test(config: Config, console: Console) -> ExitCode:
    """See that the files that a configuration names can be used as it says."""
    from models.manifest import BundleError, read
    from sensor.config.build import medium_of, outputs_of, suppression_of
    from sensor.errors import ModelError
    from sensor.verdict import check_rate

    if config.learn.enabled and not Path(config.model).exists():
        from sensor.coldstart import check_start

        check_start(config)
        console.say(f"the configuration is good; {config.model} is to be learnt first")
        return ExitCode.OK
    try:
        model = read(config.model)
    except BundleError as error:
        raise ModelError(str(error)) from error
    if config.interfaces or config.zeek_conn.filename is not None:
        check_medium(model.name, model.schema, medium_of(config))
    check_rate(config.rate, model.name, model.calibration)
    suppression_of(config)
    outputs_of(config)
    console.say(f"the configuration is good; model {model.name}")
    return ExitCode.OK


def run_config(args: argparse.Namespace, console: Console) -> ExitCode:
    """`flowvane config`."""
    from sensor.config.command import show

    return show(args, console)


def _triage_model(args: argparse.Namespace, console: Console) -> Triaging:
    """The model that scores: one at hand, or with --self one fitted on the captures."""
    if args.self_fit:
        if args.logs:
            raise UsageError("--self: fits on captures; give a model with --zeek-conn")
        from sensor.selftriage import fit_on

        return fit_on(args.captures, args.fpr, args.meter, console)
    from sensor.model import read_model

    model = read_model(args.model, args.fpr)
    check_medium(model.name, model.schema, Medium.ZEEK_CONN if args.logs else Medium.PACKETS)
    return model


def run_triage(args: argparse.Namespace, console: Console) -> ExitCode:
    """`flowvane triage`."""
    from sensor.allocator import one_heap
    from sensor.outputs.regular import RegularFile
    from sensor.suppress import Suppression
    from sensor.triage import TriageSummary, triage
    from sensor.zeek.triage import triage_logs

    one_heap()
    model = _triage_model(args, console)
    suppression = Suppression(args.suppress) if args.suppress else None

    def ready() -> tuple[Loaded, AlertFeed]:
        """The model and what decides on its alerts, loaded with all that scores."""
        from sensor.feed import AlertFeed
        from sensor.grouping import Groups
        from sensor.verdict import Verdict

        loaded = model.load()
        groups = Groups() if args.group else None
        verdict = Verdict(loaded, args.fpr)
        return loaded, AlertFeed(verdict, suppression=suppression, groups=groups)

    output = RegularFile(args.log_dir / "eve.json")
    summary: TriageSummary
    try:
        if args.logs:
            summary = triage_logs(args.logs, model, ready, output, console)
        else:
            summary = triage(args.captures, model, ready, output, console, args.meter)
    finally:
        output.close()
    if summary.alerts and not args.quiet:
        console.show(summary.groups.table())
    suppressed = ""
    if suppression is not None:
        suppressed = f", {suppression.counts.total()} suppressed"
        for name, count in suppression.counts.most_common():
            console.say(f"{count} suppressed by {suppression.path}, {name}")
    console.say(
        f"{summary.alerts} alerts{suppressed} in {summary.told}; "
        f"model {model.name}, {summary.seconds:.1f} s; alerts in {output.path}"
    )
    return summary.exit_code


def _early(args: argparse.Namespace, schema: Schema) -> EarlyReports:
    """The early reports that are asked for.

    Raises:
        UsageError: the schema knows none, or they make no sense.
    """
    try:
        early = EarlyReports(tuple(sorted(args.early_age)), tuple(sorted(args.early_packets)))
    except ValueError as error:
        raise UsageError(f"--early-age, --early-packets: {error}") from error
    if early and not schema.early_reports:
        able = ", ".join(name for name, each in SCHEMAS.items() if each.early_reports)
        raise UsageError(
            f"--early-age, --early-packets: flows of schema {schema.name} are reported when they "
            f"end, as in its data set; those of {able} may be before"
        )
    return early


def run_features(args: argparse.Namespace, console: Console) -> ExitCode:
    """`flowvane features`."""
    given = Medium.ZEEK_CONN if args.logs else Medium.PACKETS
    name = args.schema or ("zeek-conn" if args.logs else "unsw-nb15")
    schema = SCHEMAS[name]
    if schema.medium is not given:
        raise UsageError(f"--schema {name}: is measured from {schema.medium}, not from {given}")
    early = _early(args, schema)
    if args.logs:
        from sensor.measuring import write_logs

        return write_logs(args.logs, schema, CLOCKS[args.clock], args.output, console)
    from sensor.measuring import Wanted, measure_captures

    wanted = Wanted(schema, CLOCKS[args.clock], early, args.meter)
    written = measure_captures(args.captures, wanted, args.output, console)
    console.say(f"{written.flows} flows of {written.captures} captures in {args.output}")
    return ExitCode.OK if written.whole else ExitCode.INPUT


def run_models(args: argparse.Namespace, console: Console) -> ExitCode:
    """`flowvane models`."""
    from models.bundle import load
    from models.manifest import shipped

    for name in shipped():
        detector = load(name)
        console.say(
            f"{name}: {detector.kind.name}, schema {detector.schema.name}, "
            f"{len(detector.features)} features, "
            f"calibrated on {detector.calibration.count} benign flows"
        )
    return ExitCode.OK


def run_schemas(args: argparse.Namespace, console: Console) -> ExitCode:
    """`flowvane schemas`."""
    from sensor.errors import OutputError
    from sensor.schemadoc import load_agreement, render

    page = render(SCHEMAS.values(), load_agreement())
    if args.output is None:
        console.say(page)
        return ExitCode.OK
    try:
        args.output.write_text(page, "utf-8")
    except OSError as error:
        raise OutputError(f"{args.output}: {(error.strerror or str(error)).lower()}") from error
    return ExitCode.OK


def run_explore(args: argparse.Namespace, console: Console) -> ExitCode:
    """`flowvane explore`."""
    from sensor.explore import explore

    return explore(args, console)


def run_explain(args: argparse.Namespace, console: Console) -> ExitCode:
    """`flowvane explain`."""
    from sensor.explain import explain
    from sensor.model import open_model

    return explain(args, open_model(args.model), console)


def run_train(args: argparse.Namespace, console: Console) -> ExitCode:
    """`flowvane train`."""
    from sensor.train import train

    return train(args, console)


def run_evaluate(args: argparse.Namespace, console: Console) -> ExitCode:
    """`flowvane evaluate`."""
    from sensor.evaluate import evaluate

    return evaluate(args, console)


def run_sweep(args: argparse.Namespace, console: Console) -> ExitCode:
    """`flowvane sweep`."""
    from sensor.train import sweep

    return sweep(args, console)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the value is the process's exit code."""
    args = build_parser().parse_args(argv)
    console = Console(quiet=getattr(args, "quiet", False))
    run: Callable[[argparse.Namespace, Console], ExitCode] = args.run
    # SIGTERM ends a command as Ctrl-C does: in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = int(run(args, console))
        sys.stdout.flush()
    except FlowvaneError as error:
        for line in error.lines:
            console.error(line)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is left to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OUTPUT)
    return code


def program() -> NoReturn:
    """The program: :func:`main`, and then an end that nothing disturbs or holds up."""
    code = main()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # All is written and closed. Taking the interpreter apart would be for nothing, and can take
    # a second on a busy machine where JAX was loaded.
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    program()
