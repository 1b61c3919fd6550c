"""Man pages and shell completion: current, without a fault, and saying what is declared."""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from sensor.cli import build_parser
from sensor.completion import scripts
from sensor.config.keys import declared
from sensor.manpage import escape, pages
from tests.helpers import ROOT, need_tools

MAN = ROOT / "docs" / "man"
COMPLETION = ROOT / "docs" / "completion"


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield below
                yield from commands(below)


@pytest.mark.parametrize(("folder", "made"), [(MAN, pages), (COMPLETION, scripts)])
def test_what_is_generated_is_current(folder, made):
    there = {path.name: path.read_text("utf-8") for path in folder.iterdir()}
    assert there == made(), "run: make docs"


def shown(name: str) -> str:
    """A page as it is read, in lines that are not broken."""
    command = ["groff", "-man", "-Tutf8", "-ww", "-P-cbou", "-rLL=900n", str(MAN / name)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ran.stderr == ""
    return ran.stdout


def test_the_page_of_the_command_shows_every_command_and_option():
    need_tools("groff")
    parts: dict[str, list[str]] = {}
    for part in re.split(r"^   (?=flowvane)", shown("flowvane.1"), flags=re.MULTILINE)[1:]:
        name = " ".join(takewhile(lambda word: word.isalpha() and word.islower(), part.split()))
        parts[name] = part.replace(",", "").split()
    parsers = {parser.prog: parser for parser in commands(build_parser())}
    assert list(parts) == list(parsers)
    for name, parser in parsers.items():
        options = {each for action in parser._actions for each in action.option_strings}
        assert options - {"-h", "--help"} <= set(parts[name])


def test_the_page_of_the_configuration_shows_every_key():
    need_tools("groff")
    words = shown("flowvane.yaml.5").split()
    for pattern in declared():
        assert pattern[-1] == "[]" or pattern[-1] in words


def test_text_that_roff_would_take_for_something_else_is_escaped():
    text = ".a -b\\c 'd ~e ^f …"
    need_tools("groff")
    page = f".TH X 1\n.SH NAME\nx \\- y\n.SH T\n{escape(text)}\n"
    ran = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-cbou", "-Kutf8"], input=page, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert text in ran.stdout
    assert ran.stderr == ""


def complete(*words: str, cwd: Path = ROOT) -> list[str]:
    """What bash offers when Tab is pressed at the end of the last word."""
    script = (
        'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_flowvane; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    ran = subprocess.run(
        ["bash", "-c", script, str(COMPLETION / "flowvane.bash"), "flowvane", *words],
        cwd=cwd, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return ran.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ex",), ["explore", "explain"]),
        (("config", ""), ["dump", "check", "schema", "docs"]),
        (("run", "--meter", ""), ["compiled", "stock"]),
        (("run", "-i", "lo", "--thr"), ["--threads"]),
        (("triage", "-r", "one.pcap", "--mod"), ["--model"]),
        (("triage", "--model", "nsl"), ["nsl-kdd"]),
        (("train", "--model", "host"), ["host-conv-vae"]),
        (("evaluate", "--dataset", "cic"), ["cicids2017"]),
        (("triage", "-r", "one.pcap", "README"), ["README.md"]),
        (("run", "-l", "systemd"), ["systemd"]),
        (("run", "-l", "README"), []),
    ],
)
def test_bash_completes(words, offered):
    need_tools("bash")
    assert complete(*words) == offered


def test_bash_completes_the_interfaces_that_are_there():
    need_tools("bash")
    assert complete("run", "-i", "l") == sorted(
        each.name for each in Path("/sys/class/net").iterdir() if each.name.startswith("l")
    )
