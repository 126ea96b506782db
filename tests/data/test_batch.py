"""The batch: packing, moving, and the arrays that it is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device

from eyas.data.batch import Batch
from eyas.data.batch_arrays import BatchArrays, own_memory, picture_shape
from eyas.types import InputSpec


def make_batch() -> Batch:
    """Return three pictures with 2, 0 and 1 boxes."""
    return Batch(
        images=torch.arange(3 * 4 * 4 * 3, dtype=torch.uint8).view(3, 4, 4, 3),
        boxes=torch.arange(12.0).view(3, 4),
        labels=torch.tensor([5, 6, 7]),
        counts=torch.tensor([2, 0, 1]),
        indices=torch.tensor([10, 11, 12]),
        placements=torch.zeros(3, 6),
        sizes=torch.full((3, 2), 4),
        skipped=torch.tensor([9]),
        extras={"captions": ("a cat", "", "two dogs")},
    )


def test_boxes_are_packed_end_to_end() -> None:
    batch = make_batch()
    assert len(batch) == 3
    assert batch.picture_of_box().tolist() == [0, 0, 2]
    assert [batch.truth(row)[1].tolist() for row in range(3)] == [[5, 6], [], [7]]
    assert batch.truth(2)[0].tolist() == [[8.0, 9.0, 10.0, 11.0]]


def test_the_trainer_moves_it_to_a_device() -> None:
    moved = move_data_to_device(make_batch(), torch.device("meta"))
    assert isinstance(moved, Batch)
    assert {tensor.device.type for tensor in moved.tensors()} == {"meta"}
    assert moved.extras == {"captions": ("a cat", "", "two dogs")}


def test_what_is_no_tensor_stays_with_the_page_locked_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)  # there may be no GPU to lock pages for
    batch = make_batch()
    pinned = batch.pin_memory()
    assert pinned.extras == batch.extras and len(pinned.tensors()) == 8
    assert all(torch.equal(a, b) for a, b in zip(pinned.tensors(), batch.tensors(), strict=True))


def test_it_shares_the_memory_of_the_arrays_that_it_is_made_of() -> None:
    images = own_memory(picture_shape(2, InputSpec(64, 96)))
    none = np.zeros(0, np.int64)
    extras = {"captions": ("a", "b")}
    batch = Batch.of(BatchArrays(images, np.zeros((0, 4), np.float32), none, none, none, none, none, none, extras))
    assert batch.extras == extras
    assert batch.images.shape == (2, 64, 96, 3) and batch.images.dtype == torch.uint8
    images[1, 2, 3] = (7, 8, 9)
    assert batch.images[1, 2, 3].tolist() == [7, 8, 9]
