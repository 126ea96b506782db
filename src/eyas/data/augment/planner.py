"""Plans the samples of an epoch: which image, what stands in for a broken one, and what is done to it.

A plan is a function of the dataset, the seed, the epoch, its place in the epoch's order, the global batch size and
the policy, and of nothing else: not of workers, ranks, caches, devices, or where training was resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic

import numpy as np

from eyas import letterbox
from eyas.data.augment.affine import fitted
from eyas.data.augment.colour import draw_colours
from eyas.data.augment.config import AugmentPolicy
from eyas.data.augment.mixup import WEIGHTS
from eyas.data.augment.mosaic import alone, mosaic
from eyas.data.augment.plan import Image, Mix, Piece, Plan
from eyas.data.augment.within import within_image
from eyas.data.loading.batch_arrays import placement_row
from eyas.data.loading.sampler import EpochBatches
from eyas.errors import UserError
from eyas.types import FloatArray, InputSpec

_NEIGHBOURS = 64  # so many broken images in a row end the search for a stand-in


class Planner(Generic[Image]):
    """Plans samples of images.

    Args:
        order: the epochs' order.
        spec: the network's input.
        get: returns the image of an index, or raises a UserError if it can't be read.
        path: returns its path, for messages.
    """

    def __init__(
        self, order: EpochBatches, spec: InputSpec, get: Callable[[int], Image], path: Callable[[int], Path]
    ) -> None:
        self.order = order
        self.spec = spec
        self._get = get
        self._path = path
        self._broken: set[int] = set()

    def plan(
        self, epoch: int, position: int, policy: AugmentPolicy, skipped: set[int]
    ) -> tuple[tuple[int, ...], Image, Plan[Image]]:
        """Return the sample at a place in the epoch's order.

        Args:
            epoch: from 0.
            position: the place.
            policy: chances and ranges.
            skipped: gets the broken images that were met.

        Returns:
            The indices of the images that are seen in it, its own before its partners'; its own; what is done to it.

        Raises:
            UserError: no image of many in a row can be read.
        """
        index, source = self._source(epoch, position, skipped)
        rng = self._rng(epoch, position)

        seen = [index]

        def partner() -> Image:
            other, image = self._source(epoch, self.order.partner(position, rng.random()), skipped)
            seen.append(other)
            return image

        plan = draw_plan(source, partner, self.spec, policy, rng)
        return tuple(seen), source, plan

    def _rng(self, epoch: int, position: int) -> np.random.Generator:
        """Return the sample's own random numbers: f(seed, epoch, image, how often it has come in this epoch)."""
        index = self.order.index_at(epoch, position)
        words = [self.order.seed, epoch, index, position // self.order.num_samples]
        # As an array, the same words make the same numbers in less time; they must fit into 32 bits for that.
        return np.random.default_rng(np.array(words, np.uint32) if max(words) < 1 << 32 else words)

    def _source(self, epoch: int, position: int, skipped: set[int]) -> tuple[int, Image]:
        """Return the image at a place in the order, or the next one after it that can be read; note the broken ones.

        Raises:
            UserError: no image of many in a row can be read.
        """
        last: UserError | None = None
        for step in range(min(_NEIGHBOURS, self.order.num_samples)):
            index = self.order.index_at(epoch, position + step)
            if index not in self._broken:
                try:
                    return index, self._get(index)
                except UserError as error:
                    self._broken.add(index)
                    last = error
            skipped.add(index)
        raise UserError(
            f"{len(skipped)} consecutive images can't be read"
            + (f"; the last one: {last.problem}" if last is not None else "."),
            where=str(self._path(index)),
            fix="check the dataset: eyas data check",
        )


def draw_plan(
    source: Image,
    partner: Callable[[], Image],
    spec: InputSpec,
    policy: AugmentPolicy,
    rng: np.random.Generator,
) -> Plan[Image]:
    """Draw what is done to a sample.

    Args:
        source: its image.
        partner: draws another one from `rng`.
        spec: the network's input.
        policy: chances and ranges.
        rng: the sample's own random numbers. The order in which they are drawn defines the sample.
    """
    size = spec.height, spec.width
    if policy.within == "image":
        return within_image(source, partner, size, policy, rng)
    if rng.random() < policy.mosaic:
        pieces = mosaic([source, partner(), partner(), partner()], size, policy, rng)
    elif policy.moves:
        pieces = (alone(source, size, policy, rng),)
    else:
        pieces = (Piece(source, (0, 0, size[1], size[0]), fitted(letterbox.place(source.height, source.width, spec))),)
    mix = None
    if rng.random() < policy.mixup:
        other = alone(partner(), size, policy, rng)
        mix = Mix(other, rng.uniform(*WEIGHTS))
    colours = draw_colours(policy, rng) if policy.colours else None
    return Plan(pieces, size, mix, colours, bool(rng.random() < policy.flip))


def placement_rows(sizes: list[tuple[int, int]], spec: InputSpec, policy: AugmentPolicy) -> FloatArray:
    """Return `Batch.placements` of images with the given (height, width): zeros where they are augmented."""
    if policy.moves or policy.flip:
        return np.zeros((len(sizes), 6), np.float32)
    return np.stack([placement_row(letterbox.place(*size, spec)) for size in sizes])
