"""The source tree as the meta tests see it: modules, imports and definitions, read without importing anything."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """One imported module.

    Attributes:
        module: full name of what is imported; for `from a import b` it is `a.b` where that is a module, else `a`.
        line: where it stands.
        deferred: True inside a function, that is, not executed when the importing module is imported.
        typing_only: True under `if TYPE_CHECKING:`.
    """

    module: str
    line: int
    deferred: bool = False
    typing_only: bool = False


def module_name(path: Path, source: Path = SOURCE) -> str:
    """Return the dotted name of the module in the file `path` below the folder `source`."""
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package, dotted name -> file; generated code is left out."""
    files = sorted((SOURCE / "eyas").rglob("*.py"))
    return {module_name(path): path for path in files if not path.stem.endswith("_pb2")}


def imports(code: str, module: str, known: Iterable[str], *, package: bool = False) -> list[Import]:
    """Return what the module's code imports.

    Args:
        code: the module's text.
        module: its dotted name.
        known: names of all modules of the package, to tell `from a import module` from `from a import name`.
        package: whether the code is an `__init__.py`, from whose own name relative imports start.
    """
    names = frozenset(known)
    base = module.split(".") if package else module.split(".")[:-1]
    return list(_imports(ast.parse(code), names, base, deferred=False, typing_only=False))


def _imports(
    node: ast.AST, known: frozenset[str], base: list[str], *, deferred: bool, typing_only: bool
) -> Iterator[Import]:
    """Yield the imports below `node`; `base` is the package that relative imports start from."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, deferred, typing_only) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            start = base[: len(base) - child.level + 1] if child.level else []
            origin = ".".join([*start, *([child.module] if child.module else [])])
            found = {f"{origin}.{alias.name}" for alias in child.names} & known
            rest = any(f"{origin}.{alias.name}" not in known for alias in child.names)
            for target in sorted(found) + ([origin] if rest else []):
                yield Import(target, child.lineno, deferred, typing_only)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _imports(child, known, base, deferred=deferred, typing_only=True)
        else:
            inside = deferred or isinstance(child, Function)
            yield from _imports(child, known, base, deferred=inside, typing_only=typing_only)


def functions(tree: ast.AST) -> Iterator[Function]:
    """Yield every function and method below `tree`, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def tracked_files() -> list[Path]:
    """Return the files of the repository: tracked by git, or new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = (ROOT / name for name in listing.split("\0") if name)
    return sorted(path for path in paths if path.is_file())
