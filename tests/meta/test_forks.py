"""No process is forked: in a copy of a process with threads, locks stay locked and threads that are waited for are not.

Programs are started by `subprocess`, which on Linux does not fork as long as nothing is to be called in between.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.meta.source import ROOT, tracked_files

# What forks, or does so on some systems unless it is asked not to.
FORKING = frozenset(
    {"fork", "forkpty", "preexec_fn", "create_subprocess_exec", "create_subprocess_shell", "subprocess_exec",
     "subprocess_shell", "ProcessPoolExecutor", "DataLoader", "set_start_method", "popen"}
)  # fmt: skip
WAYS = frozenset({"fork", "forkserver"})  # names of start methods
# Of multiprocessing: what starts no process. Everything else of it must name "spawn" where it starts one.
HARMLESS = frozenset({"Pipe", "connection", "shared_memory", "reduction"})


def forks(code: str) -> list[str]:
    """Return what in a module's code forks or could, as "line: name"."""
    return [f"{line}: {name}" for line, name in _found(ast.parse(code))]


def _found(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in FORKING:
            yield node.lineno, node.attr
        elif isinstance(node, ast.keyword) and node.arg in FORKING:
            yield node.value.lineno, str(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in WAYS:
            yield node.lineno, node.value
        elif isinstance(node, ast.Import):
            yield from (
                (node.lineno, a.name) for a in node.names if a.name in ("multiprocessing", "torch.multiprocessing")
            )
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            yield from ((node.lineno, name) for name in sorted(names & FORKING))
            if node.module in ("multiprocessing", "torch.multiprocessing"):
                yield from ((node.lineno, name) for name in sorted(names - HARMLESS))


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks", "examples", "tools"])
def test_nothing_forks(folder: str) -> None:
    files = [path for path in tracked_files() if path.suffix == ".py" and path.is_relative_to(ROOT / folder)]
    assert files
    found = {str(path.relative_to(ROOT)): forks(path.read_text("utf-8")) for path in files}
    assert {name: lines for name, lines in found.items() if lines and name not in ALLOWED} == {}


# A comparison with what forks, a test that spawns and says so, and one of what happens where a user's program forks.
ALLOWED = frozenset(
    {
        "benchmarks/loader_start.py",
        "tests/training/test_parallel.py",
        "tests/meta/test_forks.py",
        "tests/test_decode_apart.py",
    }
)


def test_a_fork_in_a_test_is_noticed() -> None:
    code = "import os\nfrom tests.conftest import FORKS\nos.fork() or os._exit(0)\nprint(len(FORKS), FORKS[0])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith('1   File "<string>", line 3')


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.fork()",
        "from os import fork",
        "import subprocess\nsubprocess.run(['a'], preexec_fn=print)",
        "import multiprocessing",
        "import multiprocessing as mp\nmp.Process(target=print).start()",
        "from multiprocessing import Process",
        "from multiprocessing import get_context",
        "import torch.multiprocessing as mp",
        "from concurrent.futures import ProcessPoolExecutor",
        "import concurrent.futures as f\nf.ProcessPoolExecutor()",
        "from torch.utils.data import DataLoader",
        "import torch.utils.data as d\nd.DataLoader(x, num_workers=2)",
        "context = 'fork'",
        "import asyncio\nasyncio.create_subprocess_exec('a')",
        "loop.subprocess_shell(p, 'a')",
        "import os\nos.popen('a')",
        "import pty\npty.fork()",
    ],
)
def test_forks_are_found(code: str) -> None:
    assert forks(code)


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess\nsubprocess.Popen(['a'], pass_fds=[3])",
        "from multiprocessing import Pipe",
        "from multiprocessing.connection import Connection, wait",
        "'a fork of a process'",
        "from concurrent.futures import ThreadPoolExecutor",
    ],
)
def test_other_processes_and_threads_are_not(code: str) -> None:
    assert not forks(code)
