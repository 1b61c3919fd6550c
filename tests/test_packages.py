"""What is installed."""

from __future__ import annotations

import tomllib

from tests.helpers import ROOT


def test_every_folder_with_modules_is_installed_and_no_other():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    modules = [
        path
        for top in project["importlinter"]["root_packages"]
        for path in (ROOT / top).rglob("*.py")
    ]
    folders = {".".join(path.relative_to(ROOT).parts[:-1]) for path in modules}
    assert sorted(folders) == project["setuptools"]["packages"]
