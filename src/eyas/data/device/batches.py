"""Training batches that a device draws from the images in its memory."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from eyas.data.augment.config import AugmentPolicy, Policies
from eyas.data.device import rows
from eyas.data.device.filling import Filling
from eyas.data.device.layout import MemoryLayout
from eyas.data.device.memory import PIXELS_AT_ONCE, DeviceRoom
from eyas.data.device.plans import PlanBatches
from eyas.data.device.render import render
from eyas.data.device.store import fill
from eyas.data.index import DatasetIndex
from eyas.data.loading.bad_images import SkippedImages
from eyas.data.loading.batch import Batch
from eyas.data.loading.batch_arrays import MakeExtras, Task
from eyas.data.loading.cache import ImageCache
from eyas.data.loading.sampler import EpochBatches
from eyas.data.loading.source import Images
from eyas.data.loading.workers import Pipe
from eyas.types import IntArray

_PARTS = 8  # the number of samples with a partner is rounded up to parts of the batch, so that few shapes occur


class DeviceBatches:
    """Makes augmented batches on a device: processes plan them, the device draws them.

    Args:
        index: the dataset.
        layout: what is kept of each image.
        place: where.
        order: the epochs' order.
        policies: the run's policies.
        skipped: is told of the images that can't be read.
        workers: processes that decode and then plan; 0 does both here.
        patience: seconds that one may need for a batch.
        box_multiple: as `eyas.data.loading.workers.Pipe` takes it.
        make_extras: gives the batches' extra columns; they have none if None.
    """

    def __init__(
        self,
        index: DatasetIndex,
        layout: MemoryLayout,
        place: DeviceRoom,
        order: EpochBatches,
        policies: Policies,
        *,
        skipped: SkippedImages,
        workers: int,
        patience: float,
        box_multiple: int = 1,
        make_extras: MakeExtras | None = None,
    ) -> None:
        self.index = index
        self.order = order
        self.spec = layout.spec
        self.policies = policies
        self.device = place.device
        self._place = place
        self.skipped = skipped
        self._layout = layout
        self._workers = workers
        self._patience = patience
        self._box_multiple = box_multiple
        self._extras = (index, make_extras) if make_extras is not None else None
        self._pixels: Tensor | None = None
        self._pipe: Pipe | None = None

    @property
    def tasks_ahead(self) -> int:
        """How many tasks the workers may have; the dataset is decoded first."""
        return self.prepare()[1].tasks_ahead

    def run(self, tasks: Iterable[Task]) -> Iterator[Batch]:
        """Yield the batches of the tasks; decode the dataset before the first ones.

        Raises:
            UserError: more than 1 % of the images can't be read; a worker ended, or gave nothing for too long.
        """
        pixels, pipe = self.prepare()
        policies: deque[AugmentPolicy] = deque()  # of the batches that are being planned; a thread may add to it

        def noted() -> Iterator[Task]:
            for task in tasks:
                policies.extend([self.policies.of(task[2])] * len(task[1]))
                yield task

        planned = pipe.run(noted())
        if self.device.type == "cuda":
            yield from self._ahead(planned, policies, pixels)
        else:
            for batch in planned:
                yield self.drawn(batch, pixels, policies.popleft())

    def close(self) -> None:
        """End the worker processes; the images stay."""
        if self._pipe is not None:
            self._pipe.close()

    def prepare(self) -> tuple[Tensor, Pipe]:
        """Return the store, which is filled the first time, and the pipe of plans.

        Raises:
            UserError: more than 1 % of the images can't be read; the device has not enough memory.
        """
        if self._pixels is None or self._pipe is None:
            cache = ImageCache(self.index)
            images = Images(self.index, self.spec, self._layout.max_scale, cache)
            filling = Filling(images, self._layout)
            self._pixels, catalog = fill(filling, self._place, self._workers, self._patience)
            self.skipped.note(np.flatnonzero(catalog.shapes[:, 0] == 0).tolist())
            plans = PlanBatches(catalog, self.order, self.spec, self.policies, self._extras)
            nbytes = self.order.span * self.order.batch_size * 8 * rows.WIDTH
            self._pipe = Pipe(plans.batches, self._workers, self.device, nbytes, self._patience, self._box_multiple)
        return self._pixels, self._pipe

    def _ahead(self, planned: Iterator[Batch], policies: deque[AugmentPolicy], pixels: Tensor) -> Iterator[Batch]:
        """Yield the batches drawn on a stream of their own, a batch ahead: the GPU does it beside the training step."""
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.device))  # which may still be filling the store

        def draw() -> tuple[Batch, torch.cuda.Event] | None:
            with torch.cuda.stream(stream):  # so it is this stream that waits for the plans
                batch = next(planned, None)
                return None if batch is None else (self.drawn(batch, pixels, policies.popleft()), stream.record_event())

        coming = draw()
        while coming is not None:
            (batch, done), coming = coming, draw()
            trainer = torch.cuda.current_stream(self.device)
            trainer.wait_event(done)
            for tensor in batch.tensors():
                tensor.record_stream(trainer)  # its memory is not taken for another batch while a step reads it
            yield batch

    def drawn(self, planned: Batch, pixels: Tensor, policy: AugmentPolicy) -> Batch:
        """Return a batch that is on the device, with images in place of plans; `host` keeps the plans."""
        weights = planned.on_host().images.numpy().view(np.float64)[:, rows.WEIGHT]
        numbers = planned.images.view(torch.float64)
        step = max(1, PIXELS_AT_ONCE // (self.spec.height * self.spec.width))
        drawn = []
        for start in range(0, len(weights), step):
            mixed = _mixed(weights[start : start + step])
            places = None if mixed is None else torch.from_numpy(mixed).to(pixels.device, non_blocking=True)
            drawn.append(render(pixels, numbers[start : start + step], places, self.spec, policy))
        # The block is given up: it holds plans where those who copy or read it look for the images.
        return dataclasses.replace(planned, images=drawn[0] if len(drawn) == 1 else torch.cat(drawn), block=None)


def _mixed(weights: npt.NDArray[np.float64]) -> IntArray | None:
    """Return the samples that have a partner, and as many others as make their number round; None if none has.

    Args:
        weights: float64 [n], each sample's own part; 1 where it has no partner.
    """
    count = int((weights < 1).sum())
    part = max(1, len(weights) // _PARTS)
    rounded = min(len(weights), -(-count // part) * part)
    return np.argsort(weights >= 1, kind="stable")[:rounded] if count else None
