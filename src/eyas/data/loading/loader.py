"""The loader of training images: augmented batches in the order of `EpochBatches`, resumed exactly where it was left.

The batches are the same for every number of workers. That of evaluation images is `eyas.data.loading.eval_loader`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from typing import Any

import torch

from eyas.data.augment.augmenter import Augmenter
from eyas.data.augment.config import AugmentPolicy, Policies
from eyas.data.device.batches import DeviceBatches
from eyas.data.device.choice import CacheChoice, choose
from eyas.data.device.layout import MemoryLayout
from eyas.data.index import DatasetIndex
from eyas.data.loading.bad_images import SkippedImages
from eyas.data.loading.batch import Batch
from eyas.data.loading.batch_arrays import MakeExtras, Task
from eyas.data.loading.cache import CacheKind, ImageCache
from eyas.data.loading.host_batches import HostBatches
from eyas.data.loading.sampler import EpochBatches
from eyas.data.loading.source import Images
from eyas.data.loading.workers import WORKER_SECONDS, Pipe
from eyas.types import InputSpec

Closing = Callable[[int, int], bool]  # of an epoch and a batch in it: whether it is made by the policy of the run's end


class TrainLoader:
    """Augmented training batches: a stream that goes on where it was left, in this process or after a restart.

    Made by `train_loader`. `len(loader)` is the number of batches of an epoch on this rank. Each iteration gives what
    is left of the current epoch, or the next epoch when nothing is left. An iteration that is broken off has consumed
    what it gave; `set_epoch` rewinds. Lightning saves and loads the state by itself; it is kept from setting epochs,
    because it counts an epoch that a time or step limit cut short as done, and then resumes into the wrong one.

    The workers know no epochs' ends: they begin with the next epoch while the last batches of this one are worked on.

    Attributes:
        order: the order of the images, and the place in it (`order.epoch`, `order.consumed`).
        skipped: the images that could not be read so far.
        chosen: where the images are kept, and why.
        batches: makes the batches.
    """

    def __init__(
        self,
        order: EpochBatches,
        skipped: SkippedImages,
        batches: HostBatches | DeviceBatches,
        chosen: CacheChoice,
        closing: Closing,
        epochs: int | None = None,
        before_end: Callable[[], None] | None = None,
    ) -> None:
        self.order = order
        self.skipped = skipped
        self.chosen = chosen
        self.batches = batches
        self._closing = closing
        self._epochs = epochs
        self._before_end = before_end
        self._stream: Iterator[Batch] | None = None
        self._place = (0, 0)  # epoch and number of the stream's next batch
        self._iteration: object = None  # stands for the last one

    @property
    def batch_size(self) -> int:
        """Images in a batch of this rank."""
        return self.order.batch_size

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.order)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.order.set_epoch(epoch)

    def prepare(self) -> None:
        """Fill the cache now; else the first iteration does.

        Raises:
            UserError: it does not fit; what goes to a GPU can't be read.
        """
        self.batches.prepare()

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches that are left of the current epoch, or those of the next one.

        Raises:
            UserError: more than 1 % of the images can't be read.
        """
        order = self.order
        if order.consumed >= len(order):
            order.set_epoch(order.epoch + 1)
        self._iteration = this = object()
        for left in range(len(order) - order.consumed, 0, -1):
            if self._iteration is not this:
                raise RuntimeError("The loader was closed, or iterated again before this iteration ended.")
            if left == self._lead() and self._before_end is not None:
                self._before_end()
            batch = self._next()
            # Counted before the trainer has it: a state saved while it is worked on goes on with the next one.
            order.consumed += 1
            yield batch

    def _next(self) -> Batch:
        """Return the batch at the current place in the order; the stream that comes to it is kept for those after."""
        order = self.order
        if self._stream is None or self._place != (order.epoch, order.consumed):
            self._stream = self.batches.run(self._tasks(order.epoch, order.consumed))
        stream, self._stream = self._stream, None
        batch = next(stream)
        number = order.consumed + 1
        self._place = (order.epoch, number) if number < len(order) else (order.epoch + 1, 0)
        if self._place[0] != self._epochs:
            self._stream = stream
        return batch

    def _tasks(self, epoch: int, consumed: int) -> Iterator[Task]:
        """Yield the tasks from a place on, up to the run's end: batches that share images and policy together."""
        order = self.order
        while True:
            for start in range(consumed - consumed % order.span, len(order), order.span):
                numbers = range(max(start, consumed), min(start + order.span, len(order)))
                for closing, some in groupby(numbers, partial(self._closing, epoch)):
                    yield epoch, tuple(some), closing
            epoch, consumed = epoch + 1, 0
            if epoch == self._epochs:
                return

    def _lead(self) -> int:
        return min(len(self.order), 1 + self.batches.tasks_ahead * self.order.span)

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last batch that was given out, and the broken images met, as plain numbers."""
        return {**self.order.state_dict(), "skipped": sorted(self.skipped.known)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch at which `state_dict` was called.

        Raises:
            UserError: the dataset, the seed or the global batch size is another one.
        """
        self.order.load_state_dict(state)
        self.skipped.known.update(state["skipped"])

    def close(self) -> None:
        """End the worker processes, whatever they have made ahead; iterating starts them again."""
        self._stream = self._iteration = None
        self.batches.close()


def train_loader(
    index: DatasetIndex,
    input_spec: InputSpec,
    policy: AugmentPolicy,
    *,
    batch_size: int,
    seed: int = 0,
    workers: int = 0,
    close_at_epoch: int | None = None,
    closing_policy: AugmentPolicy | None = None,
    cache: CacheKind = "none",
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = True,
    device: torch.device | None = None,
    worker_seconds: float = WORKER_SECONDS,
    make_extras: MakeExtras | None = None,
    box_multiple: int = 1,
    closing: Closing | None = None,
    epochs: int | None = None,
    before_end: Callable[[], None] | None = None,
) -> TrainLoader:
    """Return the loader of augmented training batches.

    Args:
        index: the training images.
        input_spec: the network's input.
        policy: the augmentations.
        batch_size: images in a batch of this rank.
        seed: every seed gives another order and other augmentations.
        workers: worker processes; 0 makes the batches in this one.
        close_at_epoch: from this epoch on (counted from 0) `closing_policy` is used.
        closing_policy: policy of the last epochs; `policy.closing()` (no mosaic, no mixup) if None.
        cache: what is kept in memory: "jpeg" and "decoded" see `eyas.data.loading.cache.ImageCache`; "gpu" keeps the
            decoded images on `device`, which then augments whole batches and gives them there (`eyas.data.device`);
            "auto" takes the first of gpu, decoded, jpeg and none for which there is ample room, see
            `TrainLoader.chosen`.
        rank, world_size: this process among those that train together; a global batch holds the same images
            whatever their number.
        drop_last: drop the incomplete last batch of an epoch; else it is filled from the start of the order.
        device: a CUDA device to give the batches on, each copied while the one before is worked on.
        worker_seconds: a worker that gives nothing for so long ends the iteration with an error.
        make_extras: gives the batches' extra columns, captions for example; they have none if None.
        box_multiple: the batches' blocks have room for a multiple of so many boxes, so that there are few layouts.
        closing: tells by an epoch and a batch's number in it whether the batch is made by `closing_policy`; asked when
            the workers get it to make, perhaps in another thread; `close_at_epoch` tells if None.
        epochs: epochs of the run, if they are known: no batch is made ahead for what comes after them.
        before_end: called in each epoch when its last batches are being made, as many as the workers may be ahead.

    Raises:
        UserError: no images, or an argument that makes no sense; "gpu" without a GPU, or one that is too small.
    """
    policies = Policies(policy, policy.closing() if closing_policy is None else closing_policy)
    ends = closing is not None or close_at_epoch is not None

    def by_epoch(epoch: int, _: int) -> bool:
        return close_at_epoch is not None and epoch >= close_at_epoch

    order = EpochBatches(len(index), batch_size, seed, drop_last=drop_last, rank=rank, world_size=world_size)
    skipped = SkippedImages(index)
    layout = MemoryLayout(input_spec, policies if ends else policies[:1])
    chosen = choose(cache, index, layout, batch_size=batch_size, device=device, processes=world_size)
    batches: HostBatches | DeviceBatches
    if chosen.store is not None:
        batches = DeviceBatches(
            index, layout, chosen.store, order, policies,
            skipped=skipped, workers=workers, patience=worker_seconds, box_multiple=box_multiple,
            make_extras=make_extras,
        )  # fmt: skip
    else:
        images = Images(index, input_spec, layout.max_scale, ImageCache(index, chosen.kind))
        augmenter = Augmenter(images, order, input_spec, policies, make_extras)
        task_bytes = order.span * augmenter.batch_bytes()
        pipe = Pipe(augmenter.batches, workers, device, task_bytes, worker_seconds, box_multiple)
        batches = HostBatches(augmenter, pipe, skipped)
    return TrainLoader(order, skipped, batches, chosen, closing or by_epoch, epochs, before_end)
