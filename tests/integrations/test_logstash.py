"""A real Logstash takes the pipeline that ships."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers import ROOT


@pytest.mark.skipif(shutil.which("logstash") is None, reason="not installed: logstash")
def test_logstash_takes_the_pipeline(tmp_path: Path) -> None:
    text = (ROOT / "integrations" / "logstash" / "flowvane.conf").read_text()
    # The output plugin for OpenSearch is not part of Logstash.
    config = tmp_path / "flowvane.conf"
    config.write_text(text[: text.index("output {")])
    subprocess.run(
        ["logstash", "--config.test_and_exit", "-f", config, "--path.data", tmp_path / "data"],
        check=True,
    )
