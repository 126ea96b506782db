"""No module without a test: each one of some length is imported by a test file, or works for one that is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from tests.meta.source import ROOT, imports, modules
from tests.meta.test_layers import BASE, import_graph, unit

from eyas import PUBLIC
from eyas.cli.main import VERBS

SMALL = 30  # lines; a shorter module (a package's __init__, a table of names) is tested through its users


def imported_by_tests(files: Iterable[Path]) -> set[str]:
    """Return the modules of Eyas that the test files import, or reach as `eyas.NAME`."""
    known = modules()
    texts = [path.read_text(encoding="utf-8") for path in files]
    named = {each.module for text in texts for each in imports(text, "tests.x", known)}
    return named | {PUBLIC[name] for text in texts for name in re.findall(r"\beyas\.(\w+)\(", text) if name in PUBLIC}


def long_modules() -> list[str]:
    """Return the modules that must have a test. The verbs have theirs: every example of every verb is run."""
    verbs = {module for module, _ in VERBS.values()}
    files = modules().items()
    return [n for n, path in files if n not in verbs and len(path.read_text("utf-8").splitlines()) > SMALL]


def details(tested: Iterable[str], graph: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the modules of the same unit that a tested module is made of: they are tested through it, as its seam."""
    found: set[str] = set()
    waiting = list(tested)
    while waiting:
        outer = waiting.pop()
        new = {inner for inner in graph.get(outer, ()) if layer(inner) == layer(outer)} - found
        found |= new
        waiting += new
    return found


def layer(module: str) -> str:
    """Return the module's unit, "base" for a base module."""
    return "base" if unit(module) in BASE else unit(module)


@pytest.fixture(scope="module")
def tested() -> set[str]:
    """What the tests of this repository import, the meta tests excepted, and its details."""
    files = (path for path in (ROOT / "tests").rglob("*.py") if "meta" not in path.parts)
    direct = imported_by_tests(files)
    return direct | details(direct, import_graph())


@pytest.mark.parametrize("name", long_modules())
def test_module_has_a_test(name: str, tested: set[str]) -> None:
    assert name in tested, f"no test file imports {name}, nor a module of `{layer(name)}` that is made of it"


def test_an_untested_module_is_found(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(
        "from eyas import boxes\nfrom eyas.types import Detections\neyas.train(3)\n", "utf-8"
    )
    assert imported_by_tests(tmp_path.glob("*.py")) == {"eyas.boxes", "eyas.types", "eyas.training"}


def test_only_details_of_the_same_unit_count() -> None:
    graph = {"eyas.data.a": ["eyas.data.b", "eyas.boxes"], "eyas.data.b": ["eyas.data.c"]}
    assert details({"eyas.data.a"}, graph) == {"eyas.data.b", "eyas.data.c"}
