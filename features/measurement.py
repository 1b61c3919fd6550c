"""How rows were measured: what has to be the same where a model is trained and where it scores."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from features.schema import EarlyReports, Schema

MEASUREMENT_KEY = b"flowvane"
"""Under which key a Parquet file's metadata have it."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a file of feature rows says of them.

    Attributes:
        schema: name of the schema.
        digest: of what its columns mean (:attr:`features.schema.Schema.digest`).
        clock_us: resolution of the times.
        early: when flows that went on were reported, too.
    """

    schema: str
    digest: str
    clock_us: int
    early: EarlyReports

    @classmethod
    def of(cls, schema: Schema, clock_us: int, early: EarlyReports) -> Measurement:
        """Rows of `schema` that are measured now."""
        return cls(schema.name, schema.digest, clock_us, early)

    def to_json(self) -> str:
        """As text for a file's metadata."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Measurement:
        """What :meth:`to_json` wrote.

        Raises:
            ValueError: it did not write this.
        """
        try:
            told = json.loads(text)
            early = early_from_json(told["early"])
            return cls(str(told["schema"]), str(told["digest"]), int(told["clock_us"]), early)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a measurement: {error}") from error


def early_from_json(told: dict[str, list[float]]) -> EarlyReports:
    """Early reports as ``dataclasses.asdict`` gives them.

    Raises:
        KeyError, TypeError, ValueError: they are none.
    """
    return EarlyReports(
        tuple(float(age) for age in told["ages_s"]), tuple(int(n) for n in told["packets"])
    )
