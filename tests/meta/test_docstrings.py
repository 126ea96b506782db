"""Every public name says what it does, and every module postpones its annotations."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.meta.source import Function, modules

Node = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def is_overload(node: Function) -> bool:
    """Return whether the function is one signature of an overloaded one (its documentation stands at the last)."""
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def public_definitions(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Node]]:
    """Yield (name, node) of the public classes, functions and methods; what is nested in functions is private."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | Function) and not child.name.startswith("_"):
            if isinstance(child, ast.ClassDef):
                yield prefix + child.name, child
                yield from public_definitions(child, f"{prefix}{child.name}.")
            elif not is_overload(child):
                yield prefix + child.name, child


def undocumented(code: str) -> list[str]:
    """Return the public names of the code that have no docstring of at least two words, "module" for its own."""
    tree = ast.parse(code)
    nodes = [("module", tree), *public_definitions(tree)]
    return [name for name, node in nodes if len((ast.get_docstring(node) or "").split()) < 2]


@pytest.mark.parametrize("path", modules().values(), ids=modules())
def test_every_public_name_has_a_docstring(path: Path) -> None:
    assert undocumented(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", modules().values(), ids=modules())
def test_annotations_are_postponed(path: Path) -> None:
    code = path.read_text(encoding="utf-8")
    statements = [ast.unparse(node) for node in ast.parse(code).body]
    assert len(statements) == 1 or "from __future__ import annotations" in statements


def test_missing_docstrings_are_found() -> None:
    code = "class A:\n  def b(self): pass\n  def _c(self): pass\n  def __len__(self): pass\ndef d():\n  def e(): pass"
    assert undocumented(code) == ["module", "A", "A.b", "d"]


def test_a_word_is_no_documentation() -> None:
    assert undocumented('"""The module."""\ndef f():\n  """F."""') == ["f"]
