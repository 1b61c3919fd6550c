"""The declared keys for people and for editors: a Markdown page, and a JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sensor.config.check import accepts
from sensor.config.keys import ITEM, Config, Key, declared
from sensor.config.write import default_of, has_keys_below

_HEAD = """\
# Configuration

The keys are generated from the declarations in `sensor/config/keys.py` by `flowvane config docs`;
a test checks that this page is current.

    flowvane run -c FILE [--set KEY=VALUE]… [-i IFACE…] [-l DIR] [--pidfile FILE] [-v]
    flowvane run -c FILE -T                # tests the configuration and the model, and ends
    flowvane run -c FILE --dump-config     # what would hold, a line for each value
    flowvane config check FILE             # tells everything that is wrong with it
    flowvane config dump [-c FILE]         # all of it, with defaults and comments
    flowvane config schema                 # JSON Schema, for editors

The file is YAML in the shape of `suricata.yaml`.
[systemd/flowvane.yaml](../systemd/flowvane.yaml) has every key with its default, and
[systemd/flowvane.schema.json](../systemd/flowvane.schema.json) is its JSON Schema. What is left
out has its default. `yes`, `no`, `true`, `false`, `on` and `off` are booleans wherever they stand
without quotes. Numbers are decimal. Anchors, aliases, `include` and tags are not supported, and a
key that is given twice is an error.

What is wrong is told in one go, a line each, with exit code 2; what does not fit together is looked
at when each value on its own is right:

    flowvane: error: my.yaml:12: outputs[0].eve-log.filetyp: unknown key; did you mean filetype?
    flowvane: error: my.yaml:31: linger: must be a number from 0 on, not soon

`--set KEY=VALUE` sets one value over the file's. KEY is a path like `outputs.0.eve-log.filename`:
items of lists are counted from 0, and the number after the last one adds one. VALUE is YAML. The
lines of `--dump-config` are what `--set` takes.

The options of `run` hold over the file and over `--set`:

| option | key |
|---|---|
| `-i` | `interfaces`; what the file says of an interface of that name stays |
| `--zeek-conn` | `zeek-conn.filename`, in place of `interfaces` |
| `--from-start` | `zeek-conn.from-start` |
| `-l` | `default-log-dir` |
| `--fpr` | `false-positive-rate`, in place of an `alert-budget` |
| `--threads`, `--buffer` | of all interfaces |
| `--model`, `--most-flows`, `--linger`, `--stop-within`, `--meter`, `--pidfile` | of that name |

The process id in a `pidfile` keeps a second start out as long as that process runs. A file that a
killed process left is taken over; one that has anything else in it is left as it is.

When flows that go on are reported and scored before their end is no key: it belongs to the model,
which was trained on such reports or was not.

`SIGUSR2` has some keys looked at again while the sensor runs ([daemon.md](daemon.md)).
"""


def as_page() -> str:
    """The page: a table for each section."""
    return _HEAD + "".join(_table(name, keys) for name, keys in sections().items())


def sections() -> dict[str, list[Key]]:
    """The keys of each section, by its path; that of the top level is empty."""
    found: dict[str, list[Key]] = {"": []}
    for key in declared().values():
        above = key.pattern[:-1]
        if key.pattern[-1] == ITEM:
            continue
        found.setdefault(Key(above, key.field, None).text, []).append(key)
    return {name: keys for name, keys in found.items() if keys}


def _table(name: str, keys: list[Key]) -> str:
    lines = [
        f"\n## {f'`{name}`' if name else 'Top level'}\n",
        "| key | takes | unit | default | meaning |",
        "|---|---|---|---|---|",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(key)) + " |"
          for key in keys),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _cells(key: Key) -> Iterator[str]:
    default = "" if has_keys_below(key) else default_of(key).removeprefix("Default: ")
    yield f"`{key.pattern[-1]}`"
    yield accepts(key)
    yield key.unit
    yield f"`{default}`" if default and not key.field.is_required() else default.lower()
    yield key.field.description or ""


def as_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration file."""
    schema: dict[str, Any] = Config.model_json_schema(by_alias=True)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "flowvane configuration",
    }
    return {**head, **{name: value for name, value in schema.items() if name != "title"}}


def schema_text() -> str:
    """The JSON Schema as the text of its file."""
    return json.dumps(as_schema(), indent=2) + "\n"
