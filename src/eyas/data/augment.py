"""Makes training batches: which pictures, how they are put together, and what stands in for a broken one.

A sample is a function of the data set, the seed, the epoch, its place in the epoch's order, the global batch size and
the policy, and of nothing else: not of workers, ranks, caches, or where training was resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from eyas import letterbox
from eyas.data import colour
from eyas.data.batch_arrays import BatchArrays, MakeExtras, Room, extras_of, own_memory, picture_shape
from eyas.data.flip import flip
from eyas.data.mixup import Truth, mixup
from eyas.data.mosaic import alone, frame, kept, mosaic
from eyas.data.pictures import Pictures, Source
from eyas.data.policy import AugmentPolicy
from eyas.data.sampler import EpochBatches
from eyas.data.within import within_picture
from eyas.errors import UserError
from eyas.types import FloatArray, InputSpec, UInt8Array

_NEIGHBOURS = 64  # so many broken pictures in a row end the search for a stand-in


class Augmenter:
    """Makes the batches of an epoch.

    Args:
        pictures: reads pictures.
        order: the epochs' order.
        spec: the network's input.
        policy_of: the policy of an epoch.
        make_extras: gives the batches' extra columns; they have none if None.
    """

    def __init__(
        self,
        pictures: Pictures,
        order: EpochBatches,
        spec: InputSpec,
        policy_of: Callable[[int], AugmentPolicy],
        make_extras: MakeExtras | None = None,
    ) -> None:
        self.pictures = pictures
        self.order = order
        self.spec = spec
        self.policy_of = policy_of
        self.make_extras = make_extras
        self._broken: set[int] = set()
        self._pools = (-1, -1)
        self._scratch = np.empty((spec.height, spec.width, 3), np.uint8)

    def batches(self, epoch: int, numbers: Iterable[int], room: Room = own_memory) -> Iterator[BatchArrays]:
        """Yield this rank's part of the batches with these numbers in the epoch, their pictures in memory of `room`."""
        policy = self.policy_of(epoch)
        for number in numbers:
            # Other pools follow: the pictures of these will not be wanted again.
            if (pools := (epoch, number // self.order.span)) != self._pools:
                self.pictures.forget()
                self._pools = pools
            yield self._batch(epoch, number, policy, room)

    def batch_bytes(self) -> int:
        """Return how much memory the pictures of a batch take."""
        return self.order.batch_size * self.spec.height * self.spec.width * 3

    def _batch(self, epoch: int, number: int, policy: AugmentPolicy, room: Room) -> BatchArrays:
        """Make one batch."""
        positions = self.order.positions(number)
        images = room(picture_shape(len(positions), self.spec))
        placements = np.zeros((len(positions), 6), np.float32)
        skipped: set[int] = set()
        truths, indices, sizes = [], [], []
        shown: list[list[int]] = []  # the pictures in each image
        for row, position in enumerate(positions.tolist()):
            index, source = self._source(epoch, position, skipped)
            shown.append([index])
            rng = self._rng(epoch, position)
            truths.append(self._sample(source, images[row], epoch, position, policy, rng, skipped, shown[-1]))
            indices.append(index)
            sizes.append(source.size)
            if not (policy.moves or policy.flip):
                placements[row] = placement_row(letterbox.place(*source.size, self.spec))
        return BatchArrays(
            images=images,
            boxes=np.concatenate([boxes for boxes, _ in truths]),
            labels=np.concatenate([labels for _, labels in truths]),
            counts=np.array([len(boxes) for boxes, _ in truths], np.int64),
            indices=np.array(indices, np.int64),
            placements=placements,
            sizes=np.array(sizes, np.int64),
            skipped=np.array(sorted(skipped), np.int64),
            extras=extras_of(self.make_extras, self.pictures.index, [tuple(one) for one in shown]),
        )

    def _rng(self, epoch: int, position: int) -> np.random.Generator:
        """Return the sample's own random numbers: f(seed, epoch, picture, how often it has come in this epoch)."""
        index = self.order.index_at(epoch, position)
        return np.random.default_rng([self.order.seed, epoch, index, position // self.order.num_samples])

    def _sample(
        self,
        source: Source,
        canvas: UInt8Array,
        epoch: int,
        position: int,
        policy: AugmentPolicy,
        rng: np.random.Generator,
        skipped: set[int],
        shown: list[int],
    ) -> Truth:
        """Draw one sample into `canvas` and return its boxes and labels; note in `shown` what else is in it."""
        pad = self.spec.pad_value

        def partner() -> Source:
            index, other = self._source(epoch, self.order.partner(position, rng.random()), skipped)
            shown.append(index)
            return other

        if policy.within == "picture":
            return within_picture(source, partner, canvas, policy, pad, rng)
        if rng.random() < policy.mosaic:
            truth = mosaic([source, partner(), partner(), partner()], canvas, policy, pad, rng)
        elif policy.moves:
            truth = alone(source, canvas, policy, pad, rng)
        else:
            placed = letterbox.letterbox(source.image, self.spec, out=canvas)[1]
            truth = kept(letterbox.to_frame(source.boxes, placed), source.labels, frame(canvas), policy)
        if rng.random() < policy.mixup:
            other = alone(partner(), self._scratch, policy, pad, rng)
            truth = mixup(canvas, truth, self._scratch, other, rng)
        if policy.colours:
            colour.jitter(canvas, policy, rng)
        if rng.random() < policy.flip:
            truth = flip(canvas, truth[0]), truth[1]
        return truth

    def _source(self, epoch: int, position: int, skipped: set[int]) -> tuple[int, Source]:
        """Return the picture at a place in the order, or the next one after it that can be read; note the broken ones.

        Raises:
            UserError: no picture of many in a row can be read.
        """
        last: UserError | None = None
        for step in range(min(_NEIGHBOURS, self.order.num_samples)):
            index = self.order.index_at(epoch, position + step)
            if index not in self._broken:
                try:
                    return index, self.pictures.get(index)
                except UserError as error:
                    self._broken.add(index)
                    last = error
            skipped.add(index)
        raise UserError(
            f"{len(skipped)} pictures one after another can't be read"
            + (f"; of the last one: {last.problem}" if last is not None else "."),
            where=str(self.pictures.path(index)),
            fix="check the data set: eyas data check",
        )


def placement_row(placed: letterbox.Placement) -> FloatArray:
    """Return a placement as the six numbers of `Batch.placements`."""
    return np.array(
        [placed.scale_x, placed.scale_y, placed.left, placed.top, placed.width, placed.height], dtype=np.float32
    )
