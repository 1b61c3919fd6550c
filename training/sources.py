"""What a result rests on: a digest of the code that it came from."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("features", "models", "training")
REGISTRIES = ("models.kinds", "training.datasets", "training.recipes", "features.registry")
"""Modules that list all of a sort: a result rests on the one it used, which is named beside."""


@functools.cache
def _place(module: str) -> Path | None:
    """The file of a module of ours; None if there is no such module."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(found.origin) if found and found.origin else None


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names of modules, and of what may be modules, that are imported anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _without_words(tree: ast.Module) -> str:
    """The code alone: no comments, no docstrings, no line numbers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_words(line)]
    return ast.dump(tree)


def _is_words(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


@functools.cache
def _read(module: str) -> tuple[str, frozenset[str]]:
    """The code of a module, and the modules of ours that it imports."""
    place = _place(module)
    if place is None:
        raise ValueError(f"there is no module {module}")
    tree = ast.parse(place.read_text("utf-8"))
    wanted = frozenset(
        name
        for name in _imports(tree)
        if name.partition(".")[0] in PACKAGES and name not in REGISTRIES and _place(name)
    )
    return _without_words(tree), wanted


@functools.cache
def digest(modules: tuple[str, ...], alone: tuple[str, ...] = ()) -> str:
    """SHA-256 over the code of `modules` and of all of ours that they import, however indirectly.

    Comments and docstrings do not count. Of the modules `alone` only their own code does.
    """
    known = {module: _read(module)[0] for module in alone}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in known:
            known[module], imported = _read(module)
            waiting += imported
    text = "\n".join(f"{name} {known[name]}" for name in sorted(known))
    return hashlib.sha256(text.encode()).hexdigest()
