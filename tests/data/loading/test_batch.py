"""The batch: packing, moving, and the arrays that it is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device

from eyas.data.loading.batch import Batch, TensorBlock
from eyas.data.loading.batch_arrays import BatchArrays, image_shape, own_memory
from eyas.data.loading.block import OwnRoom
from eyas.types import InputSpec


def make_batch() -> Batch:
    """Return three images with 2, 0 and 1 boxes."""
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
    assert batch.image_of_box().tolist() == [0, 0, 2]
    assert [batch.truth(row)[1].tolist() for row in range(3)] == [[5, 6], [], [7]]
    assert batch.truth(2)[0].tolist() == [[8.0, 9.0, 10.0, 11.0]]


def test_the_trainer_moves_it_to_a_device() -> None:
    moved = move_data_to_device(make_batch(), torch.device("meta"))
    assert isinstance(moved, Batch)
    assert {tensor.device.type for tensor in moved.tensors()} == {"meta"}
    assert moved.extras == {"captions": ("a cat", "", "two dogs")}


def test_it_shares_the_memory_of_the_arrays_that_it_is_made_of() -> None:
    images = own_memory(image_shape(2, InputSpec(64, 96)))
    none = np.zeros(0, np.int64)
    extras = {"captions": ("a", "b")}
    arrays = BatchArrays(images, np.zeros((0, 4), np.float32), none, none, none, none, none, none, extras)
    batch = Batch.of(map(torch.from_numpy, arrays.arrays()), extras=arrays.extras)
    assert batch.extras == extras
    assert batch.images.shape == (2, 64, 96, 3) and batch.images.dtype == torch.uint8
    images[1, 2, 3] = (7, 8, 9)
    assert batch.images[1, 2, 3].tolist() == [7, 8, 9]


def in_one_block() -> Batch:
    """Return a batch of two images with three boxes, all views of one block."""
    room = OwnRoom(8)
    images = room(image_shape(2, InputSpec(64, 96)))
    images[:] = 5
    rest = (np.ones((3, 4), np.float32), np.arange(3), np.array([2, 1]), np.array([7, 8]))
    arrays = BatchArrays(
        images, *rest, np.ones((2, 6), np.float32), np.full((2, 2), 9), np.array([4]), {"words": ("a", "b")}
    )
    return Batch.of_block(TensorBlock.of(room.block(arrays)))


def test_a_block_is_moved_in_one_piece_and_the_host_stays_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = in_one_block()
    assert batch.to("cpu") is batch and batch.on_host() is batch
    moves: list[torch.Tensor] = []
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *args, **kw: moves.append(tensor) or to(tensor, *args, **kw))
    moved = move_data_to_device(batch, torch.device("meta"))
    assert batch.block is not None and moves == [batch.block.memory]
    assert {tensor.device.type for tensor in moved.tensors()} == {"meta"}
    assert [tensor.shape for tensor in moved.tensors()] == [tensor.shape for tensor in batch.tensors()]
    assert moved.on_host() is batch and moved.on_host().skipped.tolist() == [4]
    assert moved.extras == batch.extras == {"words": ("a", "b")}
    assert moved.to("meta") is moved  # what Lightning does with a batch that is there


def test_a_block_is_page_locked_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = in_one_block()
    locked: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: locked.append(tensor) or tensor.clone())
    pinned = batch.pin_memory()
    assert batch.block is not None and locked == [batch.block.memory]
    assert all(map(torch.equal, pinned.tensors(), batch.tensors()))
    assert pinned.extras == batch.extras
    assert pinned.images.data_ptr() != batch.images.data_ptr() and pinned.host is None


def test_a_batch_of_tensors_that_lie_apart_knows_its_host_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)  # there may be no GPU to lock pages for
    batch = make_batch()
    moved = batch.to("meta")
    assert moved.on_host() is batch and moved.block is None
    assert batch.pin_memory().extras == moved.extras == batch.extras
    assert batch.to("cpu").host is None
