"""Nobody needs a scroll bar to hold an idea: files and functions stay short."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tests.meta.source import ROOT, Function, functions, modules, tracked_files

FILE_LIMIT = 400  # lines; about 250 is what we aim at, and `make check` lists what is longer
FUNCTION_LIMIT = 60  # lines, the docstring not counted: an explanation is never too long for a rule's sake


def function_lines(node: Function) -> int:
    """Return the number of lines from `def` to the end, without the docstring."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def long_functions(code: str) -> list[str]:
    """Return the functions of the code that are too long, each with its length."""
    found = ((node.name, function_lines(node)) for node in functions(ast.parse(code)))
    return [f"{name}: {lines} lines" for name, lines in found if lines > FUNCTION_LIMIT]


def python_files() -> list[str]:
    """Return the Python files of the repository, relative to its root."""
    return [str(path.relative_to(ROOT)) for path in tracked_files() if path.suffix == ".py"]


@pytest.mark.parametrize("name", python_files())
def test_file_is_short(name: str) -> None:
    lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
    assert lines <= FILE_LIMIT, f"{name} has {lines} lines, more than {FILE_LIMIT}: split it by idea"


@pytest.mark.parametrize("path", modules().values(), ids=modules())
def test_functions_are_short(path: Path) -> None:
    found = long_functions(path.read_text(encoding="utf-8"))
    assert not found, f"more than {FUNCTION_LIMIT} lines: {found}"


def test_a_long_function_is_found() -> None:
    body = "\n".join(["    pass"] * FUNCTION_LIMIT)
    assert long_functions(f"def f():\n{body}") == [f"f: {FUNCTION_LIMIT + 1} lines"]
    assert long_functions(f"class A:\n  async def f(self):\n{body}") == [f"f: {FUNCTION_LIMIT + 1} lines"]


def test_a_docstring_does_not_count() -> None:
    text = "\n".join(["    text"] * FUNCTION_LIMIT)
    assert long_functions(f'def f():\n    """\n{text}\n    """\n    pass') == []
