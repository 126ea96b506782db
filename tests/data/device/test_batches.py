"""Batches that a device draws: the same samples as the processor's, to the bit in their truth and nearly in pixels."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.makers import words
from tests.data.scenes import all_same, dataset
from torch.utils._python_dispatch import TorchDispatchMode

from eyas.data.augment.config import AugmentPolicy
from eyas.data.device import batches as batches_module
from eyas.data.device.render import render
from eyas.data.index import DatasetIndex
from eyas.data.loading.batch import Batch
from eyas.data.loading.loader import TrainLoader, train_loader
from eyas.errors import UserError
from eyas.training.recipes import yolo_nas_coco
from eyas.types import InputSpec

NONE = AugmentPolicy.none()
PUBLISHED = yolo_nas_coco().augment
SPEC = InputSpec(64, 96, margin=4)

POLICIES = {
    "letterbox": NONE,
    "flip": dataclasses.replace(NONE, flip=0.5),
    "colours of letterboxed images": dataclasses.replace(
        NONE, gain=0.3, offset=0.1, saturation=0.4, hue=20.0, tint=0.1
    ),
    "mosaic": dataclasses.replace(NONE, mosaic=1.0, scale=(0.5, 1.5)),
    "mosaic on a half": dataclasses.replace(NONE, mosaic=0.5, scale=(0.2, 3.0), translate=0.2),
    "moved": dataclasses.replace(NONE, scale=(0.1, 2.0), translate=0.4),
    "turned": dataclasses.replace(NONE, degrees=30.0, scale=(0.5, 1.5)),
    "slanted": dataclasses.replace(NONE, shear=15.0),
    "turned mosaic": dataclasses.replace(NONE, mosaic=1.0, degrees=10.0, shear=5.0, scale=(0.3, 1.5)),
    "mixup": dataclasses.replace(NONE, mixup=1.0),
    "mixup on a half, turned": dataclasses.replace(NONE, mixup=0.5, degrees=10.0),
    "gamma": dataclasses.replace(NONE, gamma=0.5, scale=(0.9, 1.0)),
    "swap": dataclasses.replace(NONE, swap=0.5),
    "hsv": dataclasses.replace(NONE, hsv=(18.0, 30.0, 30.0), hsv_chance=0.7),
    "scratch": AugmentPolicy(),
    "all": AugmentPolicy(
        mixup=0.5, degrees=5.0, shear=3.0, gamma=0.3, swap=0.2, hsv=(18.0, 30.0, 30.0), hsv_chance=0.5
    ),
    "within the image": dataclasses.replace(
        PUBLISHED, mixup=0.0, flip=0.0, hsv_chance=0.0, swap=0.0, scale=(0.5, 1.5), translate=0.25
    ),
    "published": PUBLISHED,
    "published, always mixed and turned": dataclasses.replace(PUBLISHED, mixup=1.0, degrees=10.0, gain=0.2),
}  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    """Return images of odd, huge, thin and tiny shapes, with crowds and boxes that come out small."""
    sizes = ((60, 80), (91, 51), (301, 403), (33, 7), (700, 1101), (1, 1), (3, 200))
    return dataset(tmp_path_factory.mktemp("images"), 43, sizes=sizes)


def loader_of(index: DatasetIndex, policy: AugmentPolicy, *, spec: InputSpec = SPEC, **options: Any) -> TrainLoader:
    """Return a loader of batches of 8 (unless the options say otherwise)."""
    return train_loader(index, spec, policy, **{"batch_size": 8, "seed": 5, **options})


def drawn_by_device(index: DatasetIndex, policy: AugmentPolicy, **options: Any) -> TrainLoader:
    """Return a loader whose images lie on a device; the processor is one."""
    return loader_of(index, policy, cache="gpu", device=torch.device("cpu"), **options)


def check_same(ones: list[Batch], others: list[Batch]) -> None:
    """Check that two epochs have the same samples: the truth to the bit, the pixels within the stated tolerance."""
    differences = []
    for one, other in zip(ones, others, strict=True):
        for ours, theirs in zip(one.tensors()[1:], other.tensors()[1:], strict=True):
            assert torch.equal(ours, theirs)
        assert one.images.shape == other.images.shape and other.images.dtype == torch.uint8
        differences.append((one.images.int() - other.images.int()).abs().flatten())
    levels = torch.cat(differences)
    assert levels.float().mean() <= 0.2
    assert (levels <= 2).float().mean() >= 0.999


@pytest.mark.parametrize("name", POLICIES)
def test_a_device_draws_the_samples_of_the_processor(index: DatasetIndex, name: str) -> None:
    ours, theirs = loader_of(index, POLICIES[name]), drawn_by_device(index, POLICIES[name])
    first = list(ours)
    check_same(first, list(theirs))
    assert sum(len(batch.boxes) for batch in first) > 20
    second, again = list(ours), list(theirs)
    assert not torch.equal(first[0].indices, second[0].indices)
    check_same(second, again)


@pytest.mark.parametrize(
    "spec",
    [InputSpec(32, 32, margin=0), InputSpec(128, 64, pad_mode="bottom_right"), InputSpec(64, 64, pad_value=7)],
    ids=["small", "upright", "other padding"],
)
@pytest.mark.parametrize("name", ["scratch", "all", "published", "letterbox"])
def test_it_does_so_for_every_input(index: DatasetIndex, name: str, spec: InputSpec) -> None:
    some = index.subset(np.arange(16))
    options = {"spec": spec, "batch_size": 5}
    check_same(list(loader_of(some, POLICIES[name], **options)), list(drawn_by_device(some, POLICIES[name], **options)))


@pytest.mark.parametrize("closing", [None, NONE, dataclasses.replace(NONE, scale=(0.1, 0.2))])
def test_the_last_epochs_have_their_policy(index: DatasetIndex, closing: AugmentPolicy | None) -> None:
    options = {"close_at_epoch": 1, "closing_policy": closing}
    ours, theirs = loader_of(index, AugmentPolicy(), **options), drawn_by_device(index, AugmentPolicy(), **options)
    for _ in range(2):
        check_same(list(ours), list(theirs))


@pytest.mark.parametrize("name", ["scratch", "published", "letterbox"])
@pytest.mark.parametrize("workers", [0, 1])
def test_extra_columns_are_the_processors(index: DatasetIndex, name: str, workers: int) -> None:
    some = index.subset(np.arange(16))
    theirs = drawn_by_device(some, POLICIES[name], make_extras=words, workers=workers)
    expected = [batch.extras for batch in loader_of(some, POLICIES[name], make_extras=words)]
    assert [batch.extras for batch in theirs] == expected
    assert all(len(batch["shown"]) == len(batch["words"]) == 8 for batch in expected)
    theirs.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_resumed_in_mid_epoch_it_gives_the_remaining_batches(index: DatasetIndex, workers: int) -> None:
    whole = drawn_by_device(index, AugmentPolicy())
    epochs = [list(whole), list(whole)]
    stopped = drawn_by_device(index, AugmentPolicy(), workers=workers)
    for _ in zip(range(3), stopped, strict=False):
        pass
    stopped.close()
    resumed = drawn_by_device(index, AugmentPolicy(), workers=workers)
    resumed.load_state_dict(stopped.state_dict())
    assert all_same(list(resumed), epochs[0][3:])
    assert all_same(list(resumed), epochs[1])
    resumed.set_epoch(0)
    assert all_same(list(resumed), epochs[0])
    resumed.close()


def test_a_run_goes_on_with_another_cache(index: DatasetIndex) -> None:
    epoch = list(loader_of(index, AugmentPolicy()))
    stopped = loader_of(index, AugmentPolicy())
    next(iter(stopped))
    resumed = drawn_by_device(index, AugmentPolicy())
    resumed.load_state_dict(stopped.state_dict())
    check_same(epoch[1:], list(resumed))


def test_ranks_together_make_the_same_samples(index: DatasetIndex) -> None:
    alone = list(drawn_by_device(index, AugmentPolicy()))
    ranks = [list(drawn_by_device(index, AugmentPolicy(), batch_size=4, rank=rank, world_size=2)) for rank in (0, 1)]
    for number, batch in enumerate(alone):
        assert torch.equal(torch.cat([rank[number].images for rank in ranks]), batch.images)
        assert torch.equal(torch.cat([rank[number].boxes for rank in ranks]), batch.boxes)


@pytest.mark.parametrize("name", ["all", "published, always mixed and turned"])
def test_drawing_part_by_part_changes_nothing(index: DatasetIndex, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(drawn_by_device(index, POLICIES[name]))
    monkeypatch.setattr(batches_module, "PIXELS_AT_ONCE", 3 * 64 * 96)
    assert all_same(list(drawn_by_device(index, POLICIES[name])), whole)


def test_what_workers_do_needs_no_torch() -> None:
    modules = "eyas.data.device.plans, eyas.data.device.filling, eyas.data.augment.augmenter"
    code = f"import sys; sys.modules['torch'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


class Operations(TorchDispatchMode):
    """Notes which operations run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", POLICIES)
def test_all_samples_are_drawn_at_once_and_nothing_is_waited_for(
    index: DatasetIndex, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def watched(*arguments: Any) -> torch.Tensor:
        with Operations() as operations:
            images = render(*arguments)
        calls.append(operations.names)
        return images

    monkeypatch.setattr(batches_module, "render", watched)
    policy = dataclasses.replace(POLICIES[name], mixup=float(POLICIES[name].mixup > 0))
    for batch_size in (4, 16):
        next(iter(drawn_by_device(index, policy, batch_size=batch_size)))
    assert calls[0] == calls[1]  # as many operations for four samples as for sixteen
    assert len(calls[0]) > 5
    # What makes the processor wait for the device: values and shapes that only the device knows.
    waiting = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_to_copy.cpu", "is_nonzero")
    assert not [call for call in calls[0] if any(word in call for word in waiting)]


# ------------------------------------------------------------------------------------------------- broken images


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[DatasetIndex]:
    """Return a dataset of which one file is missing."""
    made = dataset(tmp_path, 120)
    made.path(17).unlink()
    yield made


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stand_in_of_a_broken_image_is_the_processors(broken: DatasetIndex, workers: int) -> None:
    with pytest.warns(UserWarning, match="can't be read"):
        expected = list(loader_of(broken, AugmentPolicy()))
    loader = drawn_by_device(broken, AugmentPolicy(), workers=workers)
    with pytest.warns(UserWarning, match="can't be read") as caught:
        check_same(expected, list(loader))
    assert len(caught) == 1 and str(broken.path(17)) in str(caught[0].message)
    assert loader.skipped.paths() == (broken.path(17),) and loader.state_dict()["skipped"] == [17]
    resumed = drawn_by_device(broken, AugmentPolicy(), workers=workers)
    resumed.load_state_dict(loader.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told of before, so not again
        next(iter(resumed))
    loader.close()
    resumed.close()


def test_too_many_broken_images_are_told_before_the_first_batch(broken: DatasetIndex) -> None:
    broken.path(3).write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(UserError, match="2 of 120 images can't be read") as error:
        drawn_by_device(broken, AugmentPolicy()).prepare()
    assert str(broken.path(3)) in str(error.value) and "eyas data check" in error.value.fix


def test_a_file_that_changed_its_size_meanwhile_is_refused(tmp_path: Path) -> None:
    made = dataset(tmp_path, 8)
    loader = drawn_by_device(made, AugmentPolicy())
    dataset(tmp_path, 1, sizes=((200, 300),))
    with pytest.raises(UserError, match="300 x 200 pixels, but had 80 x 60 when the dataset was read"):
        loader.prepare()


def test_sizes_that_the_index_lacks_are_read(index: DatasetIndex) -> None:
    unknown = dataclasses.replace(index, sizes=np.zeros_like(index.sizes))
    assert all_same(list(drawn_by_device(unknown, AugmentPolicy())), list(drawn_by_device(index, AugmentPolicy())))
