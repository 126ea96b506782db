"""Evaluation's batches: the pixels of deployment, in order, shared by ranks, made before they are asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tests.data.given import Tasks
from tests.data.scenes import all_same, broken_dataset, dataset

from eyas import decode, letterbox
from eyas.data.index import DatasetIndex
from eyas.data.loading.eval_loader import eval_loader
from eyas.types import InputSpec

SPEC = InputSpec(64, 64, margin=0)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    """Return 43 images of three shapes, one larger than four times the frame."""
    return dataset(tmp_path_factory.mktemp("images"), 43, sizes=((60, 80), (90, 50), (300, 400)))


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
