"""Evaluation's batches: the pixels of deployment, in order, for all ranks; columns that are not tensors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.given import Tasks
from tests.data.makers import words
from tests.data.scenes import all_same, broken_dataset

from eyas import decode, letterbox
from eyas.data.augment.config import AugmentPolicy
from eyas.data.index import DatasetIndex
from eyas.data.loading.eval_loader import eval_loader
from eyas.data.loading.loader import TrainLoader, train_loader
from eyas.types import InputSpec

SPEC = InputSpec(64, 64, margin=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_pixels_are_those_of_deployment(index: DatasetIndex, workers: int) -> None:
    loader = eval_loader(index, SPEC, batch_size=8, workers=workers)
    batches = list(loader)
    loader.close()
    assert len(batches) == len(loader) == 6
    assert [len(batch) for batch in batches] == [8, 8, 8, 8, 8, 3]
    assert [i for batch in batches for i in batch.indices.tolist()] == list(range(43))
    for batch in batches:
        for row, i in enumerate(batch.indices.tolist()):
            image = decode.read_image(index.path(i))
            expected, placed = letterbox.letterbox(image, SPEC)
            assert np.array_equal(batch.images[row].numpy(), expected)
            assert tuple(batch.sizes[row].tolist()) == image.shape[:2]
            numbers = batch.placements[row].numpy()
            assert numbers.tolist() == pytest.approx(dataclasses.astuple(placed))
            again = letterbox.Placement(*numbers[:2].tolist(), *numbers[2:].astype(int).tolist())
            truth, labels, crowd = index.truth(i)
            boxes, found = batch.truth(row)
            assert np.allclose(letterbox.from_frame(boxes.numpy(), again), truth[~crowd], atol=1e-2)
            assert found.tolist() == labels[~crowd].tolist()


def test_ranks_share_the_evaluation_batches(index: DatasetIndex) -> None:
    parts = [list(eval_loader(index, SPEC, batch_size=4, rank=rank, world_size=3)) for rank in range(3)]
    seen = sorted(i for part in parts for batch in part for i in batch.indices.tolist())
    assert seen == list(range(43))
    assert [len(part) for part in parts] == [4, 4, 3]


def test_a_broken_image_in_evaluation_is_grey_and_named(tmp_path: Path) -> None:
    index = broken_dataset(tmp_path, 101, [9])
    loader = eval_loader(index, SPEC, batch_size=10)
    with pytest.warns(UserWarning, match="0009.jpg"):
        batches = list(loader)
    assert batches[0].skipped.tolist() == [9]
    assert (batches[0].images[9] == SPEC.pad_value).all()
    assert batches[0].sizes[9].tolist() == [60, 80]
    assert len(loader.skipped.paths()) == 1


def test_an_evaluation_can_be_prepared_at_any_time(index: DatasetIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = Tasks(monkeypatch)
    expected = list(eval_loader(index, SPEC, batch_size=8))
    loader = eval_loader(index, SPEC, batch_size=8, workers=1)
    for _ in range(2):
        loader.prepare()
        loader.prepare()
    assert len(tasks.given) == 2
    batches = iter(loader)
    first = next(batches)
    loader.prepare()  # while it runs: nothing
    assert all_same([first, *batches], expected)
    assert len(tasks.given) == 6
    loader.prepare()
    loader.close()
    assert all_same(list(loader), expected)
    loader.close()
    nothing = eval_loader(index, SPEC, batch_size=8)
    nothing.prepare()  # without workers there is nobody to make batches beforehand
    assert all_same(list(nothing), expected)


def loader_of(index: DatasetIndex, **options: object) -> TrainLoader:
    """Return a training loader that makes mosaics, and mixes half of them."""
    return train_loader(index, SPEC, AugmentPolicy(mixup=0.5), batch_size=4, seed=5, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1])
def test_they_come_with_their_images_and_after_a_resume(index: DatasetIndex, workers: int) -> None:
    made = list(loader_of(index, make_extras=words))
    for batch, plain in zip(made, loader_of(index), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch.tensors(), plain.tensors(), strict=True))
        assert plain.extras == {} and set(batch.extras) == {"shown", "words"}
        assert [shown[0] for shown in batch.extras["shown"]] == batch.indices.tolist()
        for row, seen in enumerate(batch.extras["words"]):
            assert {index.classes[label] for label in batch.truth(row)[1].tolist()} <= set(seen)
    # Four of a mosaic, and one that shines through in every other.
    assert {len(shown) for batch in made for shown in batch.extras["shown"]} == {4, 5}
    loader = loader_of(index, workers=workers, make_extras=words)
    batches = iter(loader)
    first = [next(batches) for _ in range(3)]
    state = loader.state_dict()
    loader.close()
    resumed = loader_of(index, workers=1 - workers, make_extras=words)
    resumed.load_state_dict(state)
    again = first + list(resumed)
    assert [batch.extras for batch in again] == [batch.extras for batch in made]
    assert [batch.indices.tolist() for batch in again] == [batch.indices.tolist() for batch in made]
    resumed.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_those_of_evaluation(index: DatasetIndex, workers: int) -> None:
    loader = eval_loader(index, SPEC, batch_size=16, workers=workers, make_extras=words)
    batches = list(loader)
    loader.close()
    assert [shown for batch in batches for shown in batch.extras["shown"]] == [(i,) for i in range(len(index))]
    assert [len(batch.extras["words"]) for batch in batches] == [16, 16, 11]


def test_one_of_another_length_is_a_fault(index: DatasetIndex) -> None:
    loader = loader_of(index, make_extras=lambda *_: {"words": ["a", "b"]})
    with pytest.raises(ValueError, match="'words' has 2 values for 4 images"):
        next(iter(loader))
