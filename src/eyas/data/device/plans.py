"""Makes batches of plans: what a worker does for samples that a GPU draws. It needs numpy, and no image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from eyas.data.augment.config import AugmentPolicy, Policies
from eyas.data.augment.planner import Planner, placement_rows
from eyas.data.augment.truth import truth_of
from eyas.data.device.catalog import Catalog, Stored
from eyas.data.device.rows import WIDTH, encode
from eyas.data.index import DatasetIndex
from eyas.data.loading.batch_arrays import BatchArrays, MakeExtras, Room, extras_of, own_memory
from eyas.data.loading.sampler import EpochBatches
from eyas.types import InputSpec


class PlanBatches:
    """Makes the batches of an epoch, with plans in place of images: `images` is uint8 [N, 8 * WIDTH], see `rows`.

    Args:
        catalog: the images.
        order: the epochs' order.
        spec: the network's input.
        policies: the run's policies.
        extras: the dataset, and what makes the batches' extra columns from it; they have none if None.
    """

    def __init__(
        self,
        catalog: Catalog,
        order: EpochBatches,
        spec: InputSpec,
        policies: Policies,
        extras: tuple[DatasetIndex, MakeExtras] | None = None,
    ) -> None:
        self._extras = extras
        self.catalog = catalog
        self.order = order
        self.spec = spec
        self.policies = policies
        self._planner: Planner[Stored] = Planner(order, spec, catalog.get, catalog.path)

    def batches(
        self, epoch: int, numbers: Iterable[int], closing: bool = False, room: Room = own_memory
    ) -> Iterator[BatchArrays]:
        """Yield this rank's part of the batches with these numbers in the epoch, their plans in memory of `room`."""
        policy = self.policies.of(closing)
        for number in numbers:
            yield self._batch(epoch, number, policy, room)

    def _batch(self, epoch: int, number: int, policy: AugmentPolicy, room: Room) -> BatchArrays:
        """Make one batch."""
        positions = self.order.positions(number).tolist()
        skipped: set[int] = set()
        shown, sources, plans = zip(
            *(self._planner.plan(epoch, position, policy, skipped) for position in positions), strict=True
        )
        rows = room((len(plans), 8 * WIDTH))
        rows.view(np.float64)[...] = encode(plans, self.catalog, policy)
        known = self.catalog.truth([piece.source for plan in plans for piece in plan.all_pieces()])
        truth = truth_of(plans, known, self.spec, policy)
        sizes = [source.size for source in sources]
        return BatchArrays(
            images=rows,
            boxes=truth.boxes,
            labels=truth.labels,
            counts=truth.counts,
            indices=np.array([seen[0] for seen in shown], np.int64),
            placements=placement_rows(sizes, self.spec, policy),
            sizes=np.array(sizes, np.int64),
            skipped=np.array(sorted(skipped), np.int64),
            extras={} if self._extras is None else extras_of(self._extras[1], self._extras[0], shown),
        )
