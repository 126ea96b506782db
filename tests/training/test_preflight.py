"""The check before training finds what it is there to find, and leaves the network as it was."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from eyas.data.shapes import make_shapes
from eyas.errors import UserError
from eyas.losses.detection import DetectionCriterion
from eyas.models.zoo import build
from eyas.training import preflight as checks
from eyas.training.data import DetectionData
from eyas.training.preflight import check_labels, check_learning, check_memory, preflight
from eyas.training.recipe import Recipe, evolve


@pytest.fixture(scope="module")
def data(tiny: Recipe) -> DetectionData:
    return DetectionData(tiny.data, tiny.augment, seed=tiny.trainer.seed)


def test_a_sound_run_passes_and_nothing_is_changed(tiny: Recipe, data: DetectionData) -> None:
    torch.manual_seed(0)
    net = build("p", len(data.classes))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    findings = preflight(tiny, data, net, DetectionCriterion())
    assert {f.check for f in findings} == {"labels", "augmentation", "memory", "loss balance", "learning"}
    assert all(f.fine and f.text for f in findings)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_broken_image_among_the_first_does_not_stop_a_run_that_may_have_it(tiny: Recipe, tmp_path: Path) -> None:
    """1 % of the split may be broken, and the trial is of four images."""
    root = make_shapes(tmp_path / "data", train=110, val=2, size=64, seed=1)
    first, second, *_ = sorted((root / "train").glob("*.jpg"))
    first.write_bytes(b"broken")
    recipe = evolve(tiny, data={"root": str(root), "size": 64})
    data = DetectionData(recipe.data, recipe.augment)
    with pytest.warns(UserWarning, match=first.name):
        findings = preflight(recipe, data, build("p", len(data.classes)), DetectionCriterion())
    told = {f.check: f.text for f in findings}
    assert told["images"] == "1 of 110 images could not be read and were skipped."
    assert "on 4 images" in told["learning"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was told of
        assert data.train_dataloader().skipped.known == {0}
    second.unlink()
    with pytest.warns(UserWarning), pytest.raises(UserError, match="2 of 110 images can't be read, more than 1%"):
        preflight(
            recipe, DetectionData(recipe.data, recipe.augment), build("p", len(data.classes)), DetectionCriterion()
        )


def test_labels_out_of_range_flat_boxes_and_nan_are_found(data: DetectionData) -> None:
    index = data.train_index
    assert check_labels(index).fine
    labels = index.labels.copy()
    labels[0] = len(index.classes)
    assert not check_labels(dataclasses.replace(index, labels=labels)).fine
    boxes = index.boxes.copy()
    boxes[: len(boxes) // 2, 2] = boxes[: len(boxes) // 2, 0]
    assert "no area" in check_labels(dataclasses.replace(index, boxes=boxes)).text
    boxes = index.boxes.copy()
    boxes[0, 0] = np.nan
    assert "not finite" in check_labels(dataclasses.replace(index, boxes=boxes)).text


def test_a_collapsed_random_stream_is_found(data: DetectionData, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check_augmentation(data).fine
    collapsed = data.trial_batch(1, epoch=0)
    monkeypatch.setattr(DetectionData, "trial_batch", lambda self, count, epoch: collapsed)
    finding = checks.check_augmentation(data)
    assert not finding.fine and "does not advance" in finding.text


def test_too_little_memory_names_a_batch_that_fits(
    tiny: Recipe, data: DetectionData, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, batch = build("p", len(data.classes)), data.trial_batch(4, epoch=0)
    recipe = evolve(tiny, data={"batch_size": 64})
    enough = check_memory(recipe, net, batch)
    needed = float(enough.text.split()[1])
    assert enough.fine and 0.02 < needed < 4
    monkeypatch.setattr(checks, "free_memory", lambda accelerator: needed * 2**30 / 2)
    short = check_memory(recipe, net, batch)
    assert not short.fine
    told = re.search(r"at most (\d+) images fit: use --batch (\d+) --optim.accumulate (\d+)", short.text)
    assert told is not None
    fits, size, accumulate = map(int, told.groups())
    assert 20 < fits < 64 and size * accumulate == 64
    passes = {num: check_memory(evolve(tiny, data={"batch_size": num}), net, batch).fine
              for num in (size, fits, fits + 1)}  # fmt: skip
    assert passes == {size: True, fits: True, fits + 1: False}


def test_too_little_memory_for_even_one_image(
    tiny: Recipe, data: DetectionData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "free_memory", lambda accelerator: 2.0**20)
    short = check_memory(tiny, build("p", len(data.classes)), data.trial_batch(4, epoch=0))
    assert not short.fine and "not even one image fits: use a smaller --size" in short.text


def test_the_memory_estimate_holds_against_what_a_step_takes(tiny: Recipe, data: DetectionData) -> None:
    """Saved activations grow with the batch: the estimate for twice the images is about twice as large."""
    net, batch = build("p", len(data.classes)), data.trial_batch(4, epoch=0)
    small, large = (
        float(check_memory(evolve(tiny, data={"batch_size": size}), net, batch).text.split()[1]) for size in (64, 128)
    )
    assert 1.6 < large / small < 2.2


def test_a_frozen_network_does_not_learn(tiny: Recipe, data: DetectionData) -> None:
    net, batch = build("p", len(data.classes)), data.trial_batch(4, epoch=0)
    frozen = evolve(tiny, optim={"lr": 1e-30})
    learning = {f.check: f for f in check_learning(frozen, net, DetectionCriterion(), batch)}
    assert not learning["learning"].fine
    weights = dataclasses.replace(tiny.loss, iou_weight=5000.0)
    balance = {f.check: f for f in check_learning(tiny, net, DetectionCriterion(weights), batch, steps=3)}
    assert not balance["loss balance"].fine


def test_failures_stand_in_the_error(tiny: Recipe, data: DetectionData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "free_memory", lambda accelerator: 1.0)
    with pytest.raises(UserError, match="memory") as caught:
        preflight(tiny, data, build("p", len(data.classes)), DetectionCriterion())
    assert "--trainer.preflight false" in str(caught.value)


def test_augmentation_that_is_off_is_not_taken_for_a_collapsed_stream(tiny: Recipe) -> None:
    still = evolve(
        tiny,
        augment={
            "mosaic": 0.0, "mixup": 0.0, "flip": 0.0, "scale": (1.0, 1.0), "translate": 0.0, "gain": 0.0,
            "offset": 0.0, "saturation": 0.0, "hue": 0.0, "tint": 0.0,
        },
    )  # fmt: skip
    finding = checks.check_augmentation(DetectionData(still.data, still.augment))
    assert finding.fine and finding.text == "off"
