"""The walks of docs/architecture.md: every function that they name exists, and they pass few files."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import pytest
from tests.meta.source import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
WALKS = re.findall(r"^\*\*(An? [^*]+)\*\*\n\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
MOST = {"An image to the loss": 20, "A request to its answer": 25, "A run to a bundle": 20}
NAMES = sorted(set(re.findall(r"`(eyas\.[\w.]+)`", "".join(rows for _, rows in WALKS))))


def resolved(name: str) -> Any:
    """Return what a dotted name means: a module's attribute, or an attribute of a class in it."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


def test_there_are_three_walks() -> None:
    assert [title for title, _ in WALKS] == list(MOST)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_walk_names_exists(name: str) -> None:
    assert callable(resolved(name))


@pytest.mark.parametrize(("title", "rows"), WALKS)
def test_a_walk_passes_few_files(title: str, rows: str) -> None:
    files = {resolved(name).__module__ for name in re.findall(r"`(eyas\.[\w.]+)`", rows)}
    assert len(rows.splitlines()) - 2 <= len(files) + 4 and len(files) <= MOST[title]


def test_a_name_that_is_gone_is_noticed() -> None:
    with pytest.raises(AttributeError):
        resolved("eyas.training.module.DetectionModule.gone")
