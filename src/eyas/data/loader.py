"""The loaders of training and evaluation pictures: worker processes, exact resume, broken pictures.

`train_loader` gives augmented batches in the order of `EpochBatches`; `eval_loader` gives letterboxed pictures in the
order of the data set. The batches are the same for every number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from eyas.data.augment import Augmenter
from eyas.data.batch import Batch
from eyas.data.batch_arrays import Task
from eyas.data.cache import CacheKind, PictureCache
from eyas.data.device.batches import DeviceBatches
from eyas.data.device.choice import Choice, choose
from eyas.data.device.layout import Layout
from eyas.data.evaluation import EvaluationBatches
from eyas.data.index import DatasetIndex
from eyas.data.pictures import Pictures
from eyas.data.pipe import WORKER_SECONDS, Pipe
from eyas.data.policy import AugmentPolicy, PolicySwitch
from eyas.data.sampler import EpochBatches
from eyas.data.skipped import SkippedPictures
from eyas.types import InputSpec


class TrainLoader:
    """Augmented training batches: a stream that goes on where it was left, in this process or after a restart.

    Made by `train_loader`. `len(loader)` is the number of batches of an epoch on this rank. Each iteration gives what
    is left of the current epoch, or the next epoch when nothing is left. An iteration that is broken off has consumed
    what it gave; `set_epoch` rewinds. Lightning saves and loads the state by itself; it is kept from setting epochs,
    because it counts an epoch that a time or step limit cut short as done, and then resumes into the wrong one.

    Attributes:
        order: the order of the pictures, and the place in it (`order.epoch`, `order.consumed`).
        skipped: the pictures that could not be read so far.
        chosen: where the pictures are kept, and why.
        batches: makes the batches.
    """

    def __init__(
        self, order: EpochBatches, skipped: SkippedPictures, batches: HostBatches | DeviceBatches, chosen: Choice
    ) -> None:
        self.order = order
        self.skipped = skipped
        self.chosen = chosen
        self.batches = batches

    @property
    def batch_size(self) -> int:
        """Pictures in a batch of this rank."""
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
            UserError: more than 1 % of the pictures can't be read.
        """
        if self.order.consumed >= len(self.order):
            self.order.set_epoch(self.order.epoch + 1)
        for batch in self.batches.run(self._tasks()):
            # Counted before the trainer has it: a state saved while it is worked on goes on with the next one.
            self.order.consumed += 1
            yield batch

    def _tasks(self) -> list[Task]:
        """Return the tasks of the rest of the epoch: batches that share their pictures are made together."""
        order = self.order
        starts = range(order.consumed - order.consumed % order.span, len(order), order.span)
        spans = (range(max(start, order.consumed), min(start + order.span, len(order))) for start in starts)
        return [(order.epoch, tuple(numbers)) for numbers in spans]

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last batch that was given out, and the broken pictures met, as plain numbers."""
        return {**self.order.state_dict(), "skipped": sorted(self.skipped.known)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch at which `state_dict` was called.

        Raises:
            UserError: the data set, the seed or the global batch size is another one.
        """
        self.order.load_state_dict(state)
        self.skipped.known.update(state["skipped"])

    def close(self) -> None:
        """End the worker processes; iterating starts them again."""
        self.batches.close()


class HostBatches:
    """Makes augmented batches on the processor.

    Args:
        augmenter: makes them.
        pipe: has workers do it.
        skipped: is told of the pictures that can't be read.
    """

    def __init__(self, augmenter: Augmenter, pipe: Pipe, skipped: SkippedPictures) -> None:
        self.pipe = pipe
        self._pictures = augmenter.pictures
        self._skipped = skipped

    def prepare(self) -> None:
        """Read what is kept in memory; there must be room for it."""
        self._pictures.cache.fill(self._pictures.decode)

    def run(self, tasks: list[Task]) -> Iterator[Batch]:
        """Yield the batches of the tasks; read what is kept in memory before the first ones.

        Raises:
            UserError: more than 1 % of the pictures can't be read; a worker ended, or gave nothing for too long.
        """
        self.prepare()
        for batch in self.pipe.run(tasks):
            self._skipped.note(batch.skipped.tolist())
            yield batch

    def close(self) -> None:
        """End the worker processes."""
        self.pipe.close()


class EvalLoader:
    """Letterboxed pictures in the order of the data set; made by `eval_loader`.

    Attributes:
        skipped: the pictures that could not be read so far.
    """

    def __init__(self, batches: EvaluationBatches, skipped: SkippedPictures, pipe: Pipe) -> None:
        self.skipped = skipped
        self._batches = batches
        self._pipe = pipe

    @property
    def batch_size(self) -> int:
        """Pictures in a batch, but for the last one."""
        return self._batches.batch_size

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches.

        Raises:
            UserError: more than 1 % of the pictures can't be read.
        """
        for batch in self._pipe.run([(0, (number,)) for number in range(len(self._batches))]):
            self.skipped.note(batch.skipped.tolist())
            yield batch

    def close(self) -> None:
        """End the worker processes; iterating starts them again."""
        self._pipe.close()


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
    pin_memory: bool = False,
    worker_seconds: float = WORKER_SECONDS,
    device: torch.device | str | None = None,
) -> TrainLoader:
    """Return the loader of augmented training batches.

    Args:
        index: the training pictures.
        input_spec: the network's input.
        policy: the augmentations.
        batch_size: pictures in a batch of this rank.
        seed: every seed gives another order and other augmentations.
        workers: worker processes; 0 makes the batches in this one.
        close_at_epoch: from this epoch on (counted from 0) `closing_policy` is used.
        closing_policy: policy of the last epochs; `policy.closing()` (no mosaic, no mixup) if None.
        cache: what is kept in memory: "jpeg" and "decoded" see `eyas.data.cache.PictureCache`; "gpu" keeps the decoded
            pictures on `device`, which then augments whole batches and gives them there (`eyas.data.device`); "auto"
            takes the first of gpu, decoded, jpeg and none for which there is ample room, see `TrainLoader.chosen`.
        rank, world_size: this process among those that train together; a global batch holds the same pictures
            whatever their number.
        drop_last: drop the incomplete last batch of an epoch; else it is filled from the start of the order.
        pin_memory: give batches in page-locked memory, where there is a GPU.
        worker_seconds: a worker that gives nothing for so long ends the iteration with an error.
        device: the GPU that trains, for the caches "gpu" and "auto"; None where there is none.

    Raises:
        UserError: no pictures, or an argument that makes no sense; "gpu" without a GPU, or one that is too small.
    """
    closing = policy.closing() if closing_policy is None else closing_policy
    policies = (policy, closing) if close_at_epoch is not None else (policy,)
    switch = PolicySwitch(policy, closing, close_at_epoch)
    order = EpochBatches(len(index), batch_size, seed, drop_last=drop_last, rank=rank, world_size=world_size)
    skipped = SkippedPictures(index)
    layout = Layout(input_spec, policies)
    place = torch.device(device) if device is not None else None
    chosen = choose(cache, index, layout, batch_size=batch_size, device=place, processes=world_size)
    batches: HostBatches | DeviceBatches
    if chosen.store is not None:
        batches = DeviceBatches(
            index, layout, chosen.store, order, switch, skipped=skipped, workers=workers, patience=worker_seconds
        )
    else:
        pictures = Pictures(index, input_spec, layout.max_scale, PictureCache(index, chosen.kind))
        augmenter = Augmenter(pictures, order, input_spec, switch)
        task_bytes = order.span * augmenter.batch_bytes()
        pipe = Pipe(augmenter.batches, workers, pin_memory, task_bytes, worker_seconds)
        batches = HostBatches(augmenter, pipe, skipped)
    return TrainLoader(order, skipped, batches, chosen)


def eval_loader(
    index: DatasetIndex,
    input_spec: InputSpec,
    *,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    worker_seconds: float = WORKER_SECONDS,
) -> EvalLoader:
    """Return the loader of evaluation pictures: exactly `letterbox(read_image(path), input_spec)`, in order.

    The last batch may be smaller. A picture that can't be read becomes a plain grey one (nothing is found in it) and
    is named in `skipped`. Of several ranks, rank r has the batches r, r + world_size, ...

    Args:
        index: the pictures.
        input_spec: the network's input.
        batch_size: pictures in a batch.
        workers: worker processes; 0 makes the batches in this one.
        rank, world_size: this process among those that evaluate together.
        pin_memory: give batches in page-locked memory, where there is a GPU.
        worker_seconds: a worker that gives nothing for so long ends the iteration with an error.
    """
    batches = EvaluationBatches(index, input_spec, batch_size, rank=rank, world_size=world_size)
    pipe = Pipe(batches.batches, workers, pin_memory, batches.batch_bytes(), worker_seconds)
    return EvalLoader(batches, SkippedPictures(index), pipe)
