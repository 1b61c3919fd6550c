"""What a study says of five classes of NSL-KDD, held against every row of KDDTrain+.

python -m benchmarks.nsl_claims DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from features.schema import FloatArray
from training.datasets import DATASETS
from training.datasets.base import Table
from training.explore import spearman

SYN_ERRORS = (
    "serror_rate", "srv_serror_rate", "dst_host_serror_rate", "dst_host_srv_serror_rate",
)  # fmt: skip


def _of(table: Table, category: str, *names: str) -> FloatArray:
    """Features `names` of the rows of a category, ``[N, len(names)]``."""
    rows: FloatArray = table.rows[table.category == category]
    return rows[:, table.schema.index(names)]


def _zero(table: Table, category: str, *names: str) -> str:
    """Share of the category's rows in which all features `names` are 0."""
    return f"{100 * (_of(table, category, *names) == 0).all(axis=1).mean():.1f} %"


def main() -> None:
    """Print a line for each claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    table = DATASETS["nsl-kdd"].load(parser.parse_args().data, "train")
    for name in ("normal", "back", "warezclient"):
        share = (_of(table, name, "dst_bytes") > 0).mean()
        print(f"{name}: dst_bytes above 0 in {100 * share:.1f} %")
    for name in ("ipsweep", "normal"):
        print(f"{name}: the four SYN-error rates are 0 in {_zero(table, name, *SYN_ERRORS)}")
    for names in (("src_bytes", "dst_bytes"), ("dst_bytes",)):
        print(f"portsweep: {' and '.join(names)} 0 in {_zero(table, 'portsweep', *names)}")
    guesses = _of(table, "guess_passwd", "hot", "num_failed_logins")
    values, counts = np.unique(guesses, axis=0, return_counts=True)
    print(
        f"guess_passwd: hot and num_failed_logins above 0 in "
        f"{100 * (guesses > 0).all(axis=1).mean():.1f} %, rank correlation "
        f"{spearman(guesses)[0, 1]:.2f}; rows of each pair: "
        + ", ".join(f"{a:g}/{b:g} {n}" for (a, b), n in zip(values, counts, strict=True))
    )
    for name in ("smurf", "normal"):
        print(f"{name}: serror_rate and srv_serror_rate 0 in {_zero(table, name, *SYN_ERRORS[:2])}")


if __name__ == "__main__":
    main()
