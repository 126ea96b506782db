"""What is imported is declared: a clean installation of the extras has every package that the code asks for."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from tests.meta.source import ROOT, imports, modules
from tests.meta.test_licences import declared, direct, of_users

from eyas.cli.main import EXTRAS

# Not among the extras that are installed here; imported inside a function or skipped over in a test without it.
OPTIONAL = {"ray", "supervision", "tritonclient"}
OURS = {"eyas", "tests", "benchmarks"}


@cache
def distributions() -> dict[str, list[str]]:
    """Return import name -> the installed distributions that bring it."""
    return dict(packages_distributions())


def undeclared(code: str, allowed: Iterable[str]) -> set[str]:
    """Return the packages that the code imports and that no distribution among the allowed ones brings."""
    roots = {each.module.partition(".")[0] for each in imports(code, "tests.x", modules())}
    names = distributions()
    brings = {root: {canonicalize_name(name) for name in names.get(root, [])} for root in roots}
    known = set(sys.stdlib_module_names) | OPTIONAL | OURS
    return {root for root in roots - known if not brings[root] & set(allowed)}


@pytest.mark.parametrize("path", modules().values(), ids=modules())
def test_package_imports_what_users_install(path: Path) -> None:
    assert undeclared(path.read_text(encoding="utf-8"), of_users()) == set()


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_import_what_is_declared(path: Path) -> None:
    assert undeclared(path.read_text(encoding="utf-8"), direct()) == set()


@pytest.mark.parametrize("package", EXTRAS)
def test_the_extra_that_an_error_names_brings_the_package(package: str) -> None:
    assert EXTRAS[package] in declared()
    assert undeclared(f"import {package}", direct(EXTRAS[package])) == set()


def test_an_undeclared_import_is_found() -> None:
    code = "import os, torch, pluggy, gone\nfrom PIL import Image\nfrom eyas import boxes"
    assert undeclared(code, direct()) == {"pluggy", "gone"}
    assert undeclared(code, direct("", "train")) == {"pluggy", "gone", "PIL"}
