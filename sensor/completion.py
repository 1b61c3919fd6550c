"""Shell completion from the command line's own declarations, by shtab.

``python -m sensor.completion DIR`` writes DIR/flowvane.bash and DIR/_flowvane (zsh). shtab is a
tool for development: what it writes needs nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from models.kinds import KINDS
from models.manifest import shipped
from sensor.cli import build_parser
from training.datasets import DATASETS

_KNOWN = {
    "interfaces": "interfaces", "dataset": "dataset", "KIND": "kind", "NAME|DIR": "model_dir",
}  # fmt: skip
"""Arguments whose values are known, by what they are called: the function that has them."""
_FOLDERS = ("DIR", "BUNDLE")
"""What an option that takes a folder calls it."""


def scripts() -> dict[str, str]:
    """The text of each script, by the name under which its shell finds it."""
    import shtab

    parser = build_parser()
    for action in _actions(parser):
        if given := _completion(action):
            action.complete = given  # type: ignore[attr-defined]  # where shtab looks
        if isinstance(action, argparse._SubParsersAction):
            for each in action._choices_actions:  # zsh shows a line of each command
                action.choices[each.dest].description = each.help
    return {
        "flowvane.bash": shtab.complete(parser, "bash", preamble=_bash()),
        "_flowvane": shtab.complete(parser, "zsh", preamble=_zsh()),
    }


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of all commands below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


def _completion(action: argparse.Action) -> dict[str, str] | None:
    """The functions that know the values of an argument; none where nothing is known of them."""
    if action.choices or action.nargs == 0:
        return None
    name = action.dest if action.dest in ("interfaces", "dataset") else str(action.metavar)
    if name in _KNOWN:
        word = _KNOWN[name]
    elif action.type is Path or name == "FILE":
        word = "dir" if name in _FOLDERS else "file"
    else:
        return None
    return {"bash": f"_flowvane_{word}", "zsh": f"_flowvane_{word}"}


def _bash() -> str:
    # shtab offers nothing but values after an option that takes several; options are wanted, too.
    head = """\
_flowvane_values() {
  case $completing_word in
    -*) compgen -W "${current_option_strings[*]}" -- "$completing_word" ;;
    *) compgen "$@" -- "$completing_word" ;;
  esac
}"""
    values = {
        "interfaces": '-W "$(ls /sys/class/net)"',
        "dataset": f'-W "{" ".join(DATASETS)}"',
        "kind": f'-W "{" ".join(KINDS)}"',
        "model_dir": f'-W "{" ".join(shipped())}" -d',
        "dir": "-d",
        "file": "-f",
    }
    lines = (f"_flowvane_{name}() {{ _flowvane_values {each}; }}" for name, each in values.items())
    return "\n".join((head, *lines))


def _zsh() -> str:
    values = {
        "interfaces": "_net_interfaces",
        "dataset": f"compadd {' '.join(DATASETS)}",
        "kind": f"compadd {' '.join(KINDS)}",
        "model_dir": f"compadd {' '.join(shipped())}; _files -/",
        "dir": "_files -/",
        "file": "_files",
    }
    return "\n".join(f"_flowvane_{name}() {{ {each}; }}" for name, each in values.items())


def main(folder: Path) -> None:
    """Write the scripts into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in scripts().items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
