"""The epochs' order: a function of seed and epoch, the same for any number of ranks, exactly resumable."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.data.loading.sampler import POOL, EpochBatches
from eyas.errors import UserError


def epoch_of(batches: EpochBatches, epoch: int) -> list[list[int]]:
    """Return the image indices of all batches of an epoch."""
    batches.set_epoch(epoch)
    return [batch.tolist() for batch in batches]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first, again = EpochBatches(50, 5, 7), EpochBatches(50, 5, 7)
    assert epoch_of(first, 3) == epoch_of(again, 3)
    assert epoch_of(first, 3) != epoch_of(first, 4)
    assert epoch_of(first, 3) != epoch_of(EpochBatches(50, 5, 8), 3)
    assert sorted(itertools.chain(*epoch_of(first, 3))) == list(range(50))


@given(num=st.integers(1, 90), local=st.integers(1, 7), world=st.sampled_from([1, 2, 3]), drop=st.booleans())
def test_ranks_share_the_same_global_batches(num: int, local: int, world: int, drop: bool) -> None:
    alone = epoch_of(EpochBatches(num, local * world, 1, drop_last=drop), 2)
    ranks = [
        epoch_of(EpochBatches(num, local, 1, drop_last=drop, rank=rank, world_size=world), 2) for rank in range(world)
    ]
    assert [list(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)] == alone
    seen = set(itertools.chain(*alone))
    if not drop or num < local * world:
        assert seen == set(range(num))
    else:
        assert len(alone) == num // (local * world)
        assert len(seen) == len(alone) * local * world


@given(num=st.integers(1, 40), batch=st.integers(1, 7), stop=st.integers(0, 40), epoch=st.integers(0, 3))
def test_resume_gives_the_remaining_batches(num: int, batch: int, stop: int, epoch: int) -> None:
    whole = epoch_of(EpochBatches(num, batch, 3), epoch)
    stopped = EpochBatches(num, batch, 3)
    stopped.set_epoch(epoch)
    stopped.consumed = min(stop, len(whole))
    resumed = EpochBatches(num, batch, 3)
    resumed.load_state_dict(stopped.state_dict())
    if stopped.consumed == len(whole):
        assert (resumed.epoch, resumed.consumed) == (epoch + 1, 0)
    else:
        assert [b.tolist() for b in resumed] == whole[stopped.consumed :]


@pytest.mark.parametrize("other", [EpochBatches(41, 4, 3), EpochBatches(40, 5, 3), EpochBatches(40, 4, 9)])
def test_resume_with_other_data_batch_or_seed_is_refused(other: EpochBatches) -> None:
    batches = EpochBatches(40, 4, 3)
    batches.consumed = 2
    with pytest.raises(UserError, match="in the middle of an epoch"):
        other.load_state_dict(batches.state_dict())
    batches.consumed = 0  # between two epochs nothing is lost
    other.load_state_dict(batches.state_dict())


def test_resume_with_other_number_of_ranks_is_fine() -> None:
    batches = EpochBatches(40, 8, 3)
    batches.consumed = 2
    resumed = EpochBatches(40, 4, 3, rank=1, world_size=2)
    resumed.load_state_dict(batches.state_dict())
    assert [b.tolist() for b in resumed] == [b.tolist()[4:] for b in batches]


@given(num=st.integers(1, 300), batch=st.integers(1, 150), draw=st.floats(0, 1, exclude_max=True))
def test_partners_come_from_one_pool_and_are_never_the_image_itself(num: int, batch: int, draw: float) -> None:
    batches = EpochBatches(num, batch, 0)
    positions = range(len(batches) * batch)
    pools = {position: batches.pool(position) for position in positions}
    for position in positions:
        partner = batches.partner(position, draw)
        first, count, slot, slots = pools[position]
        assert pools[partner] == pools[position]
        assert partner != position or count * slots == 1
        assert first <= position // batch < first + count
        assert slot <= position % batch < slot + slots
        assert count * slots < 2 * POOL
        assert count * slots >= POOL or count < batches.span  # smaller only at the end of an epoch


def test_all_partners_of_a_pool_can_be_drawn() -> None:
    batches = EpochBatches(64, 8, 0)
    drawn = {batches.partner(9, draw) for draw in np.linspace(0, 1, 1000, endpoint=False)}
    assert drawn == set(range(32)) - {9}


def test_without_shuffle_the_order_is_the_data_sets() -> None:
    assert epoch_of(EpochBatches(6, 2, 0, shuffle=False), 5) == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("arguments", "said"), [((0, 4, 0), "no images"), ((4, 0, 0), "batch size is 0"), ((4, 4, -1), "seed is -1")]
)
def test_nonsense_is_refused(arguments: tuple[int, int, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        EpochBatches(*arguments)
    with pytest.raises(UserError, match="rank is 2 of 2"):
        EpochBatches(4, 2, 0, rank=2, world_size=2)
