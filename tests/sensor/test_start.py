"""What starts fast: no command that runs in production loads what only training needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from models.bundle import save
from tests.helpers import ROOT, small_pcap, syn, untrained

HEAVY = ("sklearn", "tensorboardX", "matplotlib", "training", "pydantic", "sensor.config.keys")


def test_a_triage_loads_nothing_of_the_training(tmp_path: Path) -> None:
    save(untrained("kdd", "classifier"), tmp_path / "model")
    small_pcap(tmp_path / "x.pcap", syn(1025))
    code = (
        "import sys\n"
        "from sensor.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    arguments = ["triage", "-q", "-r", tmp_path / "x.pcap", "-l", tmp_path, "--model",
                 tmp_path / "model"]  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    assert ran.stdout.splitlines()[-1] == "[]"
