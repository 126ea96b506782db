"""The batch: packing, moving, and how it travels between processes."""

from __future__ import annotations

import io
from multiprocessing.reduction import ForkingPickler

import torch
from lightning.fabric.utilities import move_data_to_device

from eyas.data.batch import Batch, new_images
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
    )


def test_boxes_are_packed_end_to_end() -> None:
    batch = make_batch()
    assert len(batch) == 3
    assert batch.picture_of_box().tolist() == [0, 0, 2]
    assert [batch.truth(row)[1].tolist() for row in range(3)] == [[5, 6], [], [7]]
    assert batch.truth(2)[0].tolist() == [[8.0, 9.0, 10.0, 11.0]]


def test_it_travels_whole_and_with_one_shared_tensor() -> None:
    batch = make_batch()
    stream = io.BytesIO()
    ForkingPickler(stream).dump(batch)
    assert stream.getvalue().count(b"rebuild_storage") == 1  # a file descriptor each, so only the pictures
    arrived = ForkingPickler.loads(stream.getvalue())
    assert all(torch.equal(one, other) for one, other in zip(batch.tensors(), arrived.tensors(), strict=True))
    assert [t.dtype for t in batch.tensors()] == [t.dtype for t in arrived.tensors()]


def test_the_trainer_moves_it_to_a_device() -> None:
    moved = move_data_to_device(make_batch(), torch.device("meta"))
    assert isinstance(moved, Batch)
    assert {tensor.device.type for tensor in moved.tensors()} == {"meta"}


def test_room_for_pictures() -> None:
    images = new_images(2, InputSpec(64, 96))
    assert images.shape == (2, 64, 96, 3)
    assert images.dtype == torch.uint8
