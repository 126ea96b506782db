"""The order of the images in every epoch, cut into batches and shared by ranks: a pure function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from eyas.errors import UserError
from eyas.types import IntArray

POOL = 32  # partners for mosaic and mixup come from a pool of at least this many images


class EpochBatches:
    """The batches of each epoch: order = f(seed, epoch), shared by ranks, resumable at any batch.

    The epoch's order is a permutation of the images; its positions are cut into *global batches* of
    `batch_size * world_size`, and rank r takes the r-th part of each. So the set of images in a global batch does
    not depend on how many ranks share it. A last batch that would be incomplete is dropped; without `drop_last`, and
    where there are fewer images than one batch needs, it is filled from the start of the order again.

    Iterating gives the image indices (int64 [batch_size]) of the batches of the current epoch that are still to come.

    Args:
        num_samples: images in the dataset.
        batch_size: images in a batch of one rank.
        seed: any number from 0 on; equal seeds give equal orders.
        drop_last: drop an incomplete last batch (never the only one).
        rank, world_size: this process among those that train together.
        shuffle: False keeps the dataset's order in every epoch.

    Attributes:
        epoch: the current epoch, from 0.
        consumed: batches of it that the trainer has had.
        global_batch: images in a batch of all ranks together.
        span: how many batches in a row share their pools, so that one worker should make them together.

    Raises:
        UserError: no images, or a batch size, seed or rank that makes no sense.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        *,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
    ) -> None:
        if num_samples < 1:
            raise UserError("There are no images to make batches of.", expected="at least one image")
        if batch_size < 1:
            raise UserError(f"The batch size is {batch_size}.", expected="at least 1", where="batch_size")
        if seed < 0:
            raise UserError(f"The seed is {seed}.", expected="a whole number, at least 0", where="seed")
        if not 0 <= rank < world_size:
            raise UserError(f"The rank is {rank} of {world_size}.", expected="a rank from 0 to world_size - 1")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.global_batch = batch_size * world_size
        self.span = -(-POOL // self.global_batch)
        self.shuffle = shuffle
        self.epoch = 0
        self.consumed = 0
        self._orders: dict[int, IntArray] = {}  # the last epoch's order, made once

    def __len__(self) -> int:
        """Return the number of batches in an epoch (the same on every rank)."""
        whole, rest = divmod(self.num_samples, self.global_batch)
        return max(1, whole) if self.drop_last else whole + (rest > 0)

    def order(self, epoch: int) -> IntArray:
        """Return the epoch's permutation of the images, int64 [num_samples]."""
        if not self.shuffle:
            return np.arange(self.num_samples)
        if epoch not in self._orders:
            self._orders = {epoch: np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)}
        return self._orders[epoch]

    def positions(self, batch: int) -> IntArray:
        """Return the places in the epoch's order that this rank's part of a global batch has, int64 [batch_size]."""
        start = batch * self.global_batch + self.rank * self.batch_size
        return np.arange(start, start + self.batch_size)

    def index_at(self, epoch: int, position: int) -> int:
        """Return the image at a place in the epoch's order; past its end the order begins again."""
        return int(self.order(epoch)[position % self.num_samples])

    def pool(self, position: int) -> tuple[int, int, int, int]:
        """Return the pool that a place in the order takes its partners from: (first batch, batches, slot, slots).

        It holds the slots slot..slot + slots of each of those global batches: 32 to 63 images (fewer at the end of
        an epoch), the same whatever the number of ranks and workers. Images of one pool are decoded once for all
        their mosaics where one worker makes them, so a rank's batch should be a multiple of 32, or the only one.
        """
        batch, slot = divmod(position, self.global_batch)
        first = batch - batch % self.span
        batches = min(self.span, len(self) - first)
        parts = max(1, self.global_batch // POOL)
        # Part k holds the slots from k * global_batch // parts on.
        part = ((slot + 1) * parts - 1) // self.global_batch
        start = part * self.global_batch // parts
        return first, batches, start, (part + 1) * self.global_batch // parts - start

    def partner(self, position: int, draw: float) -> int:
        """Return the place of a partner in the pool of `position`: never itself unless it is alone; draw in [0, 1)."""
        first, batches, start, slots = self.pool(position)
        batch, slot = divmod(position, self.global_batch)
        own = (batch - first) * slots + slot - start
        others = batches * slots - 1
        if others < 1:
            return position
        chosen = int(draw * others)
        chosen += chosen >= own
        return (first + chosen // slots) * self.global_batch + start + chosen % slots

    def __iter__(self) -> Iterator[IntArray]:
        """Yield the image indices of each batch of the epoch that has not been consumed."""
        order = self.order(self.epoch)
        for batch in range(self.consumed, len(self)):
            yield order[self.positions(batch) % self.num_samples]

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.epoch, self.consumed = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on at the next batch, as plain numbers."""
        return {
            "epoch": self.epoch,
            "consumed": self.consumed,
            "seed": self.seed,
            "num_samples": self.num_samples,
            "global_batch": self.global_batch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the batch after the last one consumed when the state was saved.

        Raises:
            UserError: the dataset, the global batch size or the seed is another one, so the order can't be continued.
        """
        mine = self.state_dict()
        for name, what in (("num_samples", "images"), ("global_batch", "images per step"), ("seed", "as the seed")):
            if state[name] != mine[name] and state["consumed"]:
                raise UserError(
                    f"The run was stopped in the middle of an epoch with {state[name]} {what}; now it is {mine[name]}.",
                    expected="the same data, seed and global batch size as before",
                    where=name,
                    fix="resume with the original settings, or start a new run from its weights",
                )
        self.epoch, self.consumed = int(state["epoch"]), int(state["consumed"])
        if self.consumed >= len(self):
            self.epoch, self.consumed = self.epoch + 1, 0
