"""The batch and its block: packing, moving, and alike in both kinds of memory."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities import move_data_to_device

from eyas.data.loading.batch import Batch, TensorBlock
from eyas.data.loading.batch_arrays import BatchArrays, Room, image_shape, own_memory
from eyas.data.loading.block import Block, BlockLayout, OwnRoom
from eyas.data.loading.shared import mapped
from eyas.data.loading.worker import _SharedRoom
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


def arrays_of(
    seed: int, counts: list[int], size: tuple[int, int], skipped: int, room: Room = own_memory
) -> BatchArrays:
    """Return a batch of random numbers; `counts` says how many boxes each image has."""
    rng = np.random.default_rng(seed)
    images, boxes = len(counts), sum(counts)
    memory = room((images, *size, 3))
    memory[:] = rng.integers(0, 256, memory.shape)
    return BatchArrays(
        images=memory,
        boxes=rng.random((boxes, 4), np.float32),
        labels=rng.integers(-(1 << 62), 1 << 62, boxes),
        counts=np.array(counts, np.int64),
        indices=rng.integers(0, 1 << 40, images),
        placements=rng.random((images, 6), np.float32),
        sizes=rng.integers(1, 1 << 20, (images, 2)),
        skipped=rng.integers(0, 1 << 40, skipped),
    )


BATCHES = {
    "seed": st.integers(0, 1 << 30),
    "counts": st.lists(st.integers(0, 9), max_size=6),
    "size": st.tuples(st.integers(1, 9), st.integers(1, 9)),
    "skipped": st.integers(0, 3),
}


def sealed(seed: int, counts: list[int], size: tuple[int, int], skipped: int, multiple: int = 1) -> Block:
    """Return such a batch as a block in memory of this process."""
    room = OwnRoom(multiple)
    return room.block(arrays_of(seed, counts, size, skipped, room))


@settings(deadline=None, max_examples=60)
@given(**BATCHES, multiple=st.sampled_from([1, 2, 8, 256]))
def test_what_goes_in_comes_out(
    seed: int, counts: list[int], size: tuple[int, int], skipped: int, multiple: int
) -> None:
    expected = arrays_of(seed, counts, size, skipped).arrays()
    block = sealed(seed, counts, size, skipped, multiple)
    found = block.arrays().arrays()
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))
    batch = Batch.of_block(TensorBlock.of(block))
    for tensor, array in zip(batch.tensors(), expected, strict=True):
        assert np.array_equal(tensor.numpy(), array) and tensor.numpy().dtype == array.dtype
        assert tensor.numel() == 0 or np.shares_memory(tensor.numpy(), block.memory)
    # In the block there is room for a multiple of so many boxes, and no column begins in the middle of a cache line.
    padded = TensorBlock.of(block).columns()
    assert len(padded[1]) == len(padded[2]) == -(-sum(counts) // multiple) * multiple
    assert not padded[1][sum(counts) :].any() and not padded[2][sum(counts) :].any()
    ends = [0]
    for start, end in block.layout.places:
        assert start % 64 == 0 and start >= ends[-1]
        ends.append(end)
    assert ends[-1] == block.layout.nbytes == len(block.memory)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no workers")
@settings(deadline=None, max_examples=30)
@given(**{**BATCHES, "counts": st.lists(st.integers(0, 9), min_size=1, max_size=6)}, multiple=st.sampled_from([1, 8]))
def test_a_worker_writes_the_same_bytes_into_shared_memory(
    seed: int, counts: list[int], size: tuple[int, int], skipped: int, multiple: int
) -> None:
    room = _SharedRoom()
    arrays = arrays_of(seed, counts, size, skipped, room)
    layout = BlockLayout.of(arrays, multiple)
    room.add_rest(arrays, layout)
    taken = mapped(room.descriptor, (layout.nbytes,))
    expected = sealed(seed, counts, size, skipped, multiple)
    assert pickle.loads(pickle.dumps(layout)) == expected.layout == layout
    assert taken.tobytes() == expected.memory.tobytes()


def test_more_boxes_than_there_is_room_for_behind_the_images() -> None:
    counts = [2000, 0, 1]
    block = sealed(1, counts, (2, 2), 1)
    assert all(map(np.array_equal, block.arrays(), arrays_of(1, counts, (2, 2), 1)))


def test_memory_is_not_handed_out_twice() -> None:
    room = OwnRoom()
    one = room.block(arrays_of(1, [2], (4, 4), 0, room))
    other = room.block(arrays_of(2, [1], (4, 4), 0, room))
    assert not np.shares_memory(one.memory, other.memory)
    assert np.array_equal(one.arrays().images, arrays_of(1, [2], (4, 4), 0).images)


def test_blocks_of_as_many_padded_boxes_have_one_layout_and_one_copy_replaces_a_batch() -> None:
    first, second = (sealed(seed, counts, (8, 8), 0, 16) for seed, counts in ((1, [9, 1]), (2, [0, 16])))
    assert first.layout == second.layout != sealed(3, [17, 0], (8, 8), 0, 16).layout
    static = TensorBlock(torch.zeros(first.layout.nbytes, dtype=torch.uint8), first.layout, 16)
    views = Batch.of_block(static)
    for block in (first, second):
        static.memory.copy_(torch.from_numpy(block.memory))
        boxes = block.boxes
        assert torch.equal(views.boxes[:boxes], torch.from_numpy(block.arrays().boxes))
        assert not views.boxes[boxes:].any()
        assert torch.equal(views.counts, torch.from_numpy(block.arrays().counts))
    # Images that were skipped come last: with one, all that lies before them stays where it was.
    with_one = sealed(2, [0, 16], (8, 8), 1, 16)
    assert with_one.layout.places[:7] == first.layout.places[:7]
