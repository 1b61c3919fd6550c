"""Measures how many flows models score in a second of a processor's time, encoder included.

``taskset -c 0 python -m benchmarks.scoring [MODEL ...] [--rounds 9] [--batches 200]``, of models
that ship or bundles (all that ship). Rows are random ones within what the schema's features can
be; a batch has 1,024. Models take turns within a round; reported are the median of the rates, the
best, and the median of the ratios within a round to the first model. One processor, as by
taskset, is a core's rate.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np

from features.schema import FloatArray, Kind, Schema
from models.bundle import load
from models.detector import BATCH, Detector
from models.manifest import shipped


def rows_of(schema: Schema, count: int) -> FloatArray:
    """Random rows ``[count, F]``: amounts over six decades, any term of a category."""
    rng = np.random.default_rng(0)
    columns: list[FloatArray] = []
    for feature in schema.features:
        match feature.kind:
            case Kind.CATEGORICAL:
                columns.append(rng.integers(0, len(feature.vocabulary), count).astype(np.float64))
            case Kind.BINARY:
                columns.append(rng.integers(0, 2, count).astype(np.float64))
            case Kind.RATE:
                columns.append(rng.random(count))
            case _:
                columns.append(np.floor(10.0 ** rng.uniform(0, 6, count)))
    return np.column_stack(columns)


def rate(detector: Detector, rows: FloatArray, batches: int) -> float:
    """Flows in a second of the process's time, over so many batches of the same rows."""
    ((windows, present),) = detector._batches(rows)
    begun = time.process_time()
    for _ in range(batches):
        score, *_ = detector._score(detector.state, detector._arrays, windows, present)
        score.block_until_ready()
    return batches * len(rows) / (time.process_time() - begun)


def main() -> None:
    """Measure in turns and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=200)
    options = parser.parse_args()
    detectors = {name: load(name) for name in options.models or shipped()}
    rows = {name: rows_of(made.schema, BATCH) for name, made in detectors.items()}
    found: dict[str, list[float]] = {name: [] for name in detectors}
    for name, made in detectors.items():
        rate(made, rows[name], 1)  # the first batch compiles
    for _ in range(options.rounds):
        for name, made in detectors.items():
            found[name].append(rate(made, rows[name], options.batches))
    base = next(iter(found.values()))
    print("| model | kind | flows/s | best | ratio |\n|---|---|---:|---:|---:|")
    for name, rates in found.items():
        ratio = median(own / other for own, other in zip(rates, base, strict=True))
        print(
            f"| {name} | {detectors[name].kind.name} | {median(rates):,.0f} | {max(rates):,.0f} "
            f"| {ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
