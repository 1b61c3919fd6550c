"""What holds for all tests, before any of them is imported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Most of the time of a small fit is XLA's compiler: a third of it is saved by letting it optimise
# less. Figures differ in their last digits only, and alike wherever they are compared.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)


@pytest.fixture(scope="session")
def office_flows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample capture's flows: 880 of an office, and a scan and a flood of 4,000."""
    from tests.helpers import run, sample  # imports jax: after the flags

    path = tmp_path_factory.mktemp("flows") / "flows.parquet"
    assert run("features", "-r", sample().path, "--schema", "flow", "-o", path).code == 0
    return path
