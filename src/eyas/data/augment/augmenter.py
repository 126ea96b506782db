"""Makes training batches on the processor: every sample is planned, and drawn by OpenCV into its place in the batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from eyas import letterbox
from eyas.data.augment.affine import FITTED, paste
from eyas.data.augment.colour import recolour
from eyas.data.augment.config import AugmentPolicy, Policies
from eyas.data.augment.mixup import mixup
from eyas.data.augment.plan import Mix, Piece, Plan
from eyas.data.augment.planner import Planner, placement_rows
from eyas.data.augment.truth import BatchTruth, truth_of
from eyas.data.loading.batch_arrays import BatchArrays, MakeExtras, Room, extras_of, image_shape, own_memory
from eyas.data.loading.sampler import EpochBatches
from eyas.data.loading.source import Images, Source
from eyas.types import InputSpec, UInt8Array


class Augmenter:
    """Makes the batches of an epoch.

    Args:
        images: reads images.
        order: the epochs' order.
        spec: the network's input.
        policies: the run's policies.
        make_extras: gives the batches' extra columns; they have none if None.
    """

    def __init__(
        self,
        images: Images,
        order: EpochBatches,
        spec: InputSpec,
        policies: Policies,
        make_extras: MakeExtras | None = None,
    ) -> None:
        self.images = images
        self.order = order
        self.spec = spec
        self.policies = policies
        self.make_extras = make_extras
        self._planner = Planner(order, spec, images.get, images.path)
        self._pools = (-1, -1)
        self._scratch = np.empty((spec.height, spec.width, 3), np.uint8)

    def batches(
        self, epoch: int, numbers: Iterable[int], closing: bool = False, room: Room = own_memory
    ) -> Iterator[BatchArrays]:
        """Yield this rank's part of the batches with these numbers in the epoch.

        Args:
            epoch: from 0.
            numbers: of the batches.
            closing: made by the policy of the run's end.
            room: gives memory for their images.
        """
        policy = self.policies.of(closing)
        for number in numbers:
            # Other pools follow: the images of these will not be wanted again.
            if (pools := (epoch, number // self.order.span)) != self._pools:
                self.images.forget()
                self._pools = pools
            yield self._batch(epoch, number, policy, room)

    def batch_bytes(self) -> int:
        """Return how much memory the images of a batch take."""
        return self.order.batch_size * self.spec.height * self.spec.width * 3

    def _batch(self, epoch: int, number: int, policy: AugmentPolicy, room: Room) -> BatchArrays:
        """Make one batch."""
        positions = self.order.positions(number)
        images = room(image_shape(len(positions), self.spec))
        skipped: set[int] = set()
        truths, shown, sizes = [], [], []
        for row, position in enumerate(positions.tolist()):
            seen, source, plan = self._planner.plan(epoch, position, policy, skipped)
            draw(plan, images[row], self._scratch, self.spec, policy)
            truths.append(truth_of([plan], boxes_of(plan), self.spec, policy))
            shown.append(seen)
            sizes.append(source.size)
        return BatchArrays(
            images=images,
            boxes=np.concatenate([truth.boxes for truth in truths]),
            labels=np.concatenate([truth.labels for truth in truths]),
            counts=np.concatenate([truth.counts for truth in truths]),
            indices=np.array([seen[0] for seen in shown], np.int64),
            placements=placement_rows(sizes, self.spec, policy),
            sizes=np.array(sizes, np.int64),
            skipped=np.array(sorted(skipped), np.int64),
            extras=extras_of(self.make_extras, self.images.index, shown),
        )


def boxes_of(plan: Plan[Source]) -> BatchTruth:
    """Return the boxes of the images of a plan, piece after piece, in their pixels."""
    sources = [piece.source for piece in plan.all_pieces()]
    counts = np.array([len(one.boxes) for one in sources], np.int64)
    return BatchTruth(
        np.concatenate([one.boxes for one in sources]), np.concatenate([one.labels for one in sources]), counts
    )


def draw(plan: Plan[Source], canvas: UInt8Array, scratch: UInt8Array, spec: InputSpec, policy: AugmentPolicy) -> None:
    """Draw a sample.

    Args:
        plan: what is to be drawn.
        canvas: uint8 [H, W, 3], written to.
        scratch: another one, for a partner.
        spec: the network's input.
        policy: by which it was planned.
    """
    canvas[...] = spec.pad_value
    for piece in plan.pieces:
        _draw_piece(piece, canvas, spec)
    area = canvas[: plan.area[0], : plan.area[1]]
    if plan.mix is not None and policy.within == "frame":
        _blend(plan.mix, area, scratch, spec)
    if plan.colours is not None:
        recolour(area, plan.colours, policy)
    if plan.flip:
        cv2.flip(area, 1, dst=area)
    if plan.mix is not None and policy.within == "image":
        _blend(plan.mix, area, scratch, spec)


def _draw_piece(piece: Piece[Source], canvas: UInt8Array, spec: InputSpec) -> None:
    """Draw one image into its rectangle of a canvas that is padding there."""
    if piece.cut.level == FITTED:
        letterbox.letterbox(piece.source.image, spec, out=canvas)
        return
    left, top, right, bottom = piece.rectangle
    source = piece.source.mirrored() if piece.mirrored else piece.source
    paste(source, piece.cut, canvas[top:bottom, left:right], spec.pad_value)


def _blend(mix: Mix[Source], area: UInt8Array, scratch: UInt8Array, spec: InputSpec) -> None:
    """Let a partner shine through the part of a sample that is its area."""
    other = scratch[: area.shape[0], : area.shape[1]]
    if mix.ground is None:
        other[...] = spec.pad_value
    else:
        other[...] = 0
        other[: mix.ground[0], : mix.ground[1]] = spec.pad_value
    _draw_piece(mix.piece, other, spec)
    mixup(area, other, mix.weight)
