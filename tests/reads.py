"""Counting how often files are read."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch

_opened: Counter[str] | None = None  # an audit hook can't be removed


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str):
        _opened[arguments[0]] += 1


sys.addaudithook(_note)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count how often each file is opened by Python, and by safetensors, which Python is not told of."""
    global _opened
    load = safetensors.torch.load_file
    found = Counter[str]()

    def noted(path: Path, *arguments: object) -> object:
        found[f"weights of {path}"] += 1
        return load(path, *arguments)

    monkeypatch.setattr(safetensors.torch, "load_file", noted)
    _opened = found
    try:
        yield found
    finally:
        _opened = None
