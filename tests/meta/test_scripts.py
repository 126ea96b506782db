"""What lies beside the package (benchmarks, examples, tools) isn't run by the tests; its imports are held here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tests.meta.source import ROOT, modules

FOLDERS = ("benchmarks", "examples", "tools")


def names_in(path: Path) -> set[str]:
    """Return the names that a module defines or imports at its top."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def missing(text: str) -> list[str]:
    """Return what the text imports from Eyas and Eyas has not, as "module.name"."""
    known = modules()
    gone: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "eyas":
            module = node.module or ""
            there = names_in(known[module]) if module in known else set()
            gone += [
                f"{module}.{alias.name}"
                for alias in node.names
                if alias.name not in there and f"{module}.{alias.name}" not in known and module != "eyas"
            ]
    return gone


@pytest.mark.parametrize(
    "path",
    [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_script_imports_what_there_is(path: Path) -> None:
    assert missing(path.read_text(encoding="utf-8")) == []


def test_what_is_gone_is_found() -> None:
    text = "from eyas.boxes import clip, gone\nfrom eyas.nowhere import it\nfrom eyas.runtime import nms"
    assert missing(text) == ["eyas.boxes.gone", "eyas.nowhere.it"]
