"""Eyas can be used commercially: no dependency, direct or not, brings a copyleft that would reach its users."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.meta.source import ROOT

PERMISSIVE = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "HPND", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Unlicense", "Zlib",
}  # fmt: skip
# Copyleft of single files: tools and what our dependencies bring may have it, what users of Eyas import directly not.
WEAK = {"MPL-2.0"}

# What packages without an SPDX expression write instead, in their classifiers or in the field License.
SPELLINGS = {
    "apache": "Apache-2.0", "apache 2.0": "Apache-2.0", "apache software license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0", "bsd": "BSD-3-Clause", "bsd license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause", "freebsd": "BSD-2-Clause", "isc license (iscl)": "ISC",
    "mit license": "MIT", "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}  # fmt: skip

# CUDA's libraries, which a GPU build of torch brings, and TensorRT: NVIDIA's own terms, installed by the user, not
# passed on by us.
NVIDIA = re.compile(r"(nvidia|cuda|tensorrt)-")


# Extras that `dev` does not bring, since few need hundreds of megabytes; their tests run where they are installed.
LARGE = {"cluster"}


def declared() -> dict[str, list[str]]:
    """Return the requirements that pyproject.toml declares: extra ("" for the core) -> requirement lines."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def direct(*extras: str) -> set[str]:
    """Return the names of the packages that the extras (all of them if none is named) require directly."""
    rows = {extra: lines for extra, lines in declared().items() if not extras or extra in extras}
    names = {canonicalize_name(Requirement(line).name) for lines in rows.values() for line in lines}
    return names - {"eyas"}


@cache
def installed() -> dict[str, Distribution]:
    """Return every package that Eyas with all of its extras brings and that is installed here, by name."""
    found: dict[str, Distribution] = {}
    queue = [(name, "") for name in direct()]
    seen: set[tuple[str, str]] = set()
    while queue:
        name, extra = queue.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # a requirement of another platform; the direct ones are tested on their own
        queue += list(required(found[name], extra))
    return found


def required(package: Distribution, extra: str) -> Iterator[tuple[str, str]]:
    """Yield (name, extra) of what the package needs on this platform when the extra is asked for."""
    for line in package.requires or []:
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": extra}):
            yield from ((canonicalize_name(need.name), each) for each in ("", *need.extras))


def licence(package: Distribution) -> str:
    """Return the licence as an SPDX expression, as far as the package's metadata tell; "" when they do not."""
    fields = package.metadata
    if expression := fields.get("License-Expression"):
        return str(expression)
    kinds = [row.split("::")[-1].strip() for row in fields.get_all("Classifier") or [] if row.startswith("License ::")]
    lines = (fields.get("License") or "").strip().splitlines() or [""]
    names = [kind for kind in kinds if kind not in ("OSI Approved", "DFSG approved")] or lines[:1]
    return " AND ".join(SPELLINGS.get(name.lower(), name) for name in names)


def is_allowed(expression: str, allowed: set[str]) -> bool:
    """Return whether a licence expression (AND, OR, no nesting) leaves a choice within the allowed licences."""
    parts = [part.strip(" ()") for part in re.split(r"\bAND\b", expression)]
    return all(any(choice.strip(" ()") in allowed for choice in re.split(r"\bOR\b", part)) for part in parts)


@pytest.mark.parametrize("name", sorted(direct() - direct(*LARGE)))
def test_direct_dependency_is_installed(name: str) -> None:
    assert name in installed(), f"{name} is in pyproject.toml but is not installed: make .venv/.installed-dev"


def of_users() -> set[str]:
    """Return what the core and every extra but `dev` require."""
    return direct(*(set(declared()) - {"dev", *LARGE}))


@pytest.mark.parametrize("name", sorted(name for name in of_users() if not name.startswith("tensorrt-")))
def test_what_users_import_is_permissive(name: str) -> None:
    found = licence(distribution(name))
    assert is_allowed(found, PERMISSIVE), f"{name}: {found or 'no licence in its metadata'}"


@pytest.mark.parametrize("name", sorted(installed()))
def test_whatever_is_brought_along_has_no_strong_copyleft(name: str) -> None:
    if NVIDIA.match(name):
        return
    found = licence(installed()[name])
    assert is_allowed(found, PERMISSIVE | WEAK), f"{name}: {found or 'no licence in its metadata'}"


def documented(page: str) -> dict[str, str]:
    """Return the packages of the table of docs/dependencies.md: name -> the rest of its row."""
    return {canonicalize_name(name): rest for name, rest in re.findall(r"^\| `([\w.-]+)` \|(.+)\|$", page, flags=re.M)}


def test_dependencies_page_has_a_line_for_each_and_for_nothing_else() -> None:
    page = documented((ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8"))
    assert set(page) == direct()
    assert [name for name, rest in page.items() if not all(cell.strip() for cell in rest.split("|"))] == []


def pins(text: str) -> dict[str, str]:
    """Return name -> version of a constraints file; what is no exact pin has the version ""."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    matches = [(line, re.fullmatch(r"([\w.-]+)==(\d[\w.]*)", line)) for line in lines if line]
    return {canonicalize_name(match[1] if match else line): match[2] if match else "" for line, match in matches}


def test_constraints_are_exact_pins_without_gpu_packages() -> None:
    found = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    ours = direct() | {"cuda-pathfinder", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs"}  # and what these need
    assert [name for name, version in found.items() if not version or (NVIDIA.match(name) and name not in ours)] == []


@pytest.mark.parametrize("name", sorted(direct() - direct(*LARGE)))
def test_constraints_pin_the_dependency_within_its_range(name: str) -> None:
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    lines = [line for lines in declared().values() for line in lines]
    ranges = [need.specifier for line in lines if canonicalize_name((need := Requirement(line)).name) == name]
    assert all(pinned.get(name, "") in allowed for allowed in ranges), f"{name}: {pinned.get(name)} {ranges}"


@pytest.mark.parametrize("text", ["torch>=2.6", "torch==2.13.0+cpu", "eyas @ file:///x", "-e ."])
def test_an_inexact_pin_is_found(text: str) -> None:
    assert "" in pins(f"numpy==2.4.6\n{text}").values()


@pytest.mark.parametrize("text", ["GPL-3.0-only", "AGPL-3.0-or-later", "MIT AND GPL-2.0-only", "LGPL-2.1", "", "free"])
def test_a_copyleft_licence_is_refused(text: str) -> None:
    assert not is_allowed(text, PERMISSIVE | WEAK)


@pytest.mark.parametrize("text", ["MIT", "GPL-2.0-only OR MIT", "Apache-2.0 AND (MIT OR GPL-2.0-only)"])
def test_a_permissive_licence_is_allowed(text: str) -> None:
    assert is_allowed(text, PERMISSIVE)
