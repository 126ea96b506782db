"""Runs that are stopped at any point, and how they are held against one that never was."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file

from eyas.artifacts import layout
from eyas.artifacts.card import Card
from eyas.training import fit as fitting
from eyas.training.recipe import Recipe


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def untimed_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table, without the times, which differ from run to run."""
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if "seconds" not in name} for row in csv.DictReader(file)]


def same_weights(first: Path, second: Path) -> bool:
    """Whether two weight files hold the same tensors, bit for bit."""
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_same(folder: Path, whole: Path) -> None:
    """Assert that a run came to what one came to that was never stopped."""
    for name in (layout.METRICS, layout.STEPS):
        assert untimed_rows(folder / name) == untimed_rows(whole / name)
    for name in (layout.WEIGHTS, layout.LAST_WEIGHTS):
        assert same_weights(folder / name, whole / name)
    for path in (whole / "images").iterdir():
        assert (folder / "images" / path.name).read_bytes() == path.read_bytes()
    assert Card.verify(folder).parents == Card.verify(whole).parents


class At(L.Callback):
    """Does something at the n-th call of a hook."""

    def __init__(self, hook: str, number: int, act: Callable[[L.Trainer], object]) -> None:
        self.hook = hook
        self.number = number
        self.act = act
        self.calls = 0
        for name in ("on_fit_start", "on_train_start", "on_train_batch_start", "on_train_batch_end",
                     "on_validation_start", "on_validation_batch_start", "on_validation_end",
                     "on_train_epoch_end", "on_train_end"):  # fmt: skip
            setattr(self, name, lambda trainer, *_, name=name: self.count(name, trainer))

    def count(self, name: str, trainer: L.Trainer) -> None:
        """Count the calls of the hook."""
        self.calls += name == self.hook
        if name == self.hook and self.calls == self.number:
            self.act(trainer)


def along(patch: pytest.MonkeyPatch, callback: L.Callback, *, last: bool = False) -> None:
    """Have a callback come along, first or last."""
    make = fitting.make_trainer

    def made(recipe: Recipe, folder: Path, callbacks: list[L.Callback], *loggers: Any) -> L.Trainer:
        return make(recipe, folder, [*callbacks, callback] if last else [callback, *callbacks], *loggers)

    patch.setattr(fitting, "make_trainer", made)


def send(number: int) -> Callable[[object], None]:
    """Return what sends this process a signal."""
    return lambda _: os.kill(os.getpid(), number)


class Killed(BaseException):
    """The process is gone."""


def kill(_: object) -> None:
    raise Killed


def interrupt_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Press Ctrl-C, really, after a step."""
    along(patch, At("on_train_batch_end", step, send(signal.SIGINT)))
