"""A model is only scored on what it was trained on: packets, or Zeek's conn.log."""

from __future__ import annotations

from features.schema import Medium, Schema
from sensor.errors import ModelError

_INSTEAD = {
    Medium.PACKETS: "give Zeek's log, with --zeek-conn",
    Medium.ZEEK_CONN: "train one of schema zeek-conn on the rows of flowvane features --zeek-conn",
}
"""What can be done where a model does not fit what is given."""


def check_medium(model: str, schema: Schema, given: Medium) -> None:
    """Refuse a model whose schema is not measured from what is given.

    Raises:
        ModelError: it is not.
    """
    if schema.medium is not given:
        raise ModelError(
            f"model {model} scores flows measured from {schema.medium} (schema {schema.name}), "
            f"not from {given}: {_INSTEAD[given]}"
        )
