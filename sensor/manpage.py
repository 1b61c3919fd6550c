"""Man pages from the declarations of the command line and of the configuration.

``python -m sensor.manpage DIR`` writes flowvane.1 and flowvane.yaml.5 there, as man(7) has them.
Their own words are few: what a command, an option or a key means is said where it is declared.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from sensor.cli import build_parser
from sensor.config.check import accepts
from sensor.config.describe import sections
from sensor.config.keys import Key
from sensor.config.write import default_of, has_keys_below

_SPECIAL = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
"""What the formatter would take for something else, or show as something else."""

_FILES = (
    ("/etc/flowvane/flowvane.yaml", "the configuration that the systemd unit reads"),
    ("eve.json", "events, in the log directory"),
)
_ENVIRONMENT = (
    ("NUMBA_CACHE_DIR", "where the meter's machine code is kept; else beside the program"),
    ("CACHE_DIRECTORY, XDG_CACHE_HOME", "where the scorer's is kept, the first that is set; else "
     "in ~/.cache"),
)  # fmt: skip


def pages() -> dict[str, str]:
    """The text of each page, by the name of its file."""
    return {"flowvane.1": _command_page(), "flowvane.yaml.5": _configuration_page()}


def escape(text: str) -> str:
    """Plain text as roff shows it again; what stands in backquotes is bold."""
    bold = re.split(r"`([^`]*)`", text)
    parts = [f"\\fB{_plain(part)}\\fR" if at % 2 else _plain(part) for at, part in enumerate(bold)]
    line = " ".join("".join(parts).split())
    return f"\\&{line}" if line.startswith(".") else line


def _plain(text: str) -> str:
    return "".join(
        _SPECIAL.get(char, char if char.isascii() else f"\\[u{ord(char):04X}]") for char in text
    )


def _head(name: str, section: int, about: str) -> Iterator[str]:
    yield '.\\" Written by python -m sensor.manpage from declarations; not to be edited.'
    yield f'.TH {name.upper()} {section} "" "flowvane {version("flowvane")}"'
    yield ".SH NAME"
    yield f"{escape(name)} \\- {escape(about)}"


def _entry(term: str, text: str) -> Iterator[str]:
    """A term, in roff, and what it means."""
    yield from (".TP", term, escape(text) or r"\&")


def _table(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, text in entries:
        yield from _entry(f"\\fI{escape(name)}\\fR", text)


def _command_page() -> str:
    parser = build_parser()
    lines = [
        *_head("flowvane", 1, "network anomaly sensor that writes EVE-JSON"),
        ".SH SYNOPSIS", r"\fBflowvane\fR \fICOMMAND\fR [\fIOPTION\fR]...", ".br",
        r"\fBflowvane\fR [\fICOMMAND\fR] \fB\-\-help\fR", ".br",
        r"\fBflowvane \-\-version\fR",
        ".SH DESCRIPTION", escape(parser.description or ""),
        ".SH COMMANDS", *_commands("flowvane", parser),
        ".SH EXIT STATUS", escape((parser.epilog or "").removeprefix("Exit codes: ")),
        ".SH FILES", *_table(_FILES),
        ".SH ENVIRONMENT", *_table(_ENVIRONMENT),
        ".SH SEE ALSO", r"\fBflowvane.yaml\fR(5), \fBsystemd.service\fR(5), \fBlogrotate\fR(8)",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _commands(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """The commands below a parser: each with its meaning and its options."""
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        meanings = {each.dest: each.help or "" for each in action._choices_actions}
        for word, below in action.choices.items():
            full = f"{name} {word}"
            yield f".SS {_usage(full, below)}"
            yield escape(below.description or f"{meanings[word][:1].upper()}{meanings[word][1:]}.")
            yield from _options(below)
            yield from _commands(full, below)


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What is told of a parser's arguments: neither commands nor `--help`."""
    apart = (argparse._SubParsersAction, argparse._HelpAction)
    return [action for action in parser._actions if not isinstance(action, apart)]


def _usage(name: str, parser: argparse.ArgumentParser) -> str:
    """A command with what must be given; its other options are listed below it."""
    shown = _shown(parser)
    needed = [_values(each, list(each.option_strings[:1])) for each in shown if each.required]
    more = [r"[\fIOPTION\fR]..."] if any(not each.required for each in shown) else []
    commands = [each.metavar for each in parser._actions
                if isinstance(each, argparse._SubParsersAction)]  # fmt: skip
    return " ".join(
        [f"\\fB{escape(name)}\\fR", *needed, *(f"\\fI{each}\\fR" for each in commands), *more]
    )


def _values(action: argparse.Action, names: list[str]) -> str:
    """Names of an option, each with the values that it takes."""
    value = ""
    if action.nargs != 0:
        words = action.metavar or "|".join(map(str, action.choices or [action.dest.upper()]))
        value = f"\\fI{escape(str(words))}\\fR{'...' if action.nargs == '+' else ''}"
    return ", ".join(f"\\fB{escape(name)}\\fR {value}".rstrip() for name in names) or value


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in _shown(parser):
        if action.help or action.option_strings:
            meaning = (action.help or "") % {**vars(action), "prog": parser.prog}
            yield from _entry(_values(action, list(action.option_strings)), meaning)


def _configuration_page() -> str:
    lines = [
        *_head("flowvane.yaml", 5, "configuration of flowvane run"),
        ".SH DESCRIPTION",
        escape("YAML in the shape of suricata.yaml. What is left out has its default; an unknown "
               "key or a bad value is refused. `flowvane config check` tells what is wrong with "
               "a file, `flowvane config dump` writes one with every key."),
        ".SH KEYS",
    ]  # fmt: skip
    for name, keys in sections().items():
        lines.append(f".SS {escape(name or 'Top level')}")
        for key in keys:
            lines += _entry(f"\\fB{escape(str(key.pattern[-1]))}\\fR", _meaning(key))
    lines += [".SH SEE ALSO", r"\fBflowvane\fR(1)"]
    return "\n".join(lines) + "\n"


def _meaning(key: Key) -> str:
    text = key.field.description or ""
    if not has_keys_below(key):
        unit = f" ({key.unit})" if key.unit else ""
        text += f" Takes {accepts(key)}{unit}. {default_of(key)}"
    return text


def main(folder: Path) -> None:
    """Write the pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
