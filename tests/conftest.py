"""What holds for all tests, before any of them is imported."""

from __future__ import annotations

import os

# Most of the time of a small fit is XLA's compiler: a third of it is saved by letting it optimise
# less. Figures differ in their last digits only, and alike wherever they are compared.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
