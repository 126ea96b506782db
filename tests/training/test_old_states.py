"""A run that an older Eyas began is gone on with, on the very same trajectory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.training.stopping import (
    interrupt_at,
    same_weights,
)

from eyas.artifacts import layout
from eyas.models.layers import PLACEHOLDER
from eyas.models.public_form import to_public_state
from eyas.training.fit import fit, resume
from eyas.training.recipe import Recipe

from .conftest import quiet


def as_the_first_version_saved(path: Path) -> None:
    """Rewrite a state: with blocks' placeholders, and the weight average as a part of the module."""
    state = torch.load(path, weights_only=True)
    average = state["callbacks"].pop("WeightAverage")
    weights = {**state["state_dict"], **{f"ema_net.{name}": value for name, value in average["net"].items()}}
    public = to_public_state(weights)
    assert sum(PLACEHOLDER in name for name in public) > 20
    state["state_dict"] = {name: value + 3 if PLACEHOLDER in name else value for name, value in public.items()}
    torch.save({**state, "averaged_steps": average["steps"]}, path)


def test_a_state_with_placeholders_is_resumed_bit_identically(
    tiny: Recipe, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6)
        folder = fit(tiny, tmp_path / "run", console=quiet())
    as_the_first_version_saved(folder / layout.CHECKPOINT)
    (folder / layout.CHECKPOINT_HASHES).unlink()
    (folder / layout.PREVIOUS_CHECKPOINT).unlink()
    resume(folder, console=quiet())
    assert same_weights(folder / layout.LAST_WEIGHTS, finished / layout.LAST_WEIGHTS)
    assert same_weights(folder / layout.WEIGHTS, finished / layout.WEIGHTS)
    state = torch.load(folder / layout.CHECKPOINT, weights_only=True)
    assert not any(PLACEHOLDER in name for name in state["state_dict"])
