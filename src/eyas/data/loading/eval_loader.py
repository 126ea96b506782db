"""The loader of evaluation images: letterboxed, in the order of the dataset, whatever the number of workers."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from eyas.data.index import DatasetIndex
from eyas.data.loading.bad_images import SkippedImages
from eyas.data.loading.batch import Batch
from eyas.data.loading.batch_arrays import MakeExtras
from eyas.data.loading.eval_batches import EvaluationBatches
from eyas.data.loading.workers import WORKER_SECONDS, Pipe
from eyas.types import InputSpec


class EvalLoader:
    """Letterboxed images in the order of the dataset; made by `eval_loader`.

    Attributes:
        skipped: the images that could not be read so far.
    """

    def __init__(self, batches: EvaluationBatches, skipped: SkippedImages, pipe: Pipe) -> None:
        self.skipped = skipped
        self._batches = batches
        self._pipe = pipe
        self._begun: Iterator[Batch] | None = None
        self._iterated = False

    @property
    def batch_size(self) -> int:
        """Images in a batch, but for the last one."""
        return self._batches.batch_size

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        return len(self._batches)

    def prepare(self) -> None:
        """Have the workers begin with the first batches, so that they are there when they are asked for."""
        if self._begun is None and not self._iterated:
            self._begun = self._run()

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches.

        Raises:
            UserError: more than 1 % of the images can't be read.
        """
        begun, self._begun = self._begun, None
        self._iterated = True
        try:
            for batch in begun or self._run():
                self.skipped.note(batch.on_host().skipped.tolist())
                yield batch
        finally:
            self._iterated = False

    def _run(self) -> Iterator[Batch]:
        return self._pipe.run((0, (number,), False) for number in range(len(self._batches)))

    def close(self) -> None:
        """End the worker processes; iterating starts them again."""
        self._begun = None
        self._pipe.close()


def eval_loader(
    index: DatasetIndex,
    input_spec: InputSpec,
    *,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | None = None,
    worker_seconds: float = WORKER_SECONDS,
    make_extras: MakeExtras | None = None,
) -> EvalLoader:
    """Return the loader of evaluation images: exactly `letterbox(read_image(path), input_spec)`, in order.

    The last batch may be smaller. An image that can't be read becomes a plain grey one (nothing is found in it) and
    is named in `skipped`. Of several ranks, rank r has the batches r, r + world_size, ...

    Args:
        index: the images.
        input_spec: the network's input.
        batch_size: images in a batch.
        workers: worker processes; 0 makes the batches in this one.
        rank, world_size: this process among those that evaluate together.
        device: a CUDA device to give the batches on, each copied while the one before is worked on.
        worker_seconds: a worker that gives nothing for so long ends the iteration with an error.
        make_extras: gives the batches' extra columns, captions for example; they have none if None.
    """
    batches = EvaluationBatches(
        index, input_spec, batch_size, rank=rank, world_size=world_size, make_extras=make_extras
    )
    pipe = Pipe(batches.batches, workers, device, batches.batch_bytes(), worker_seconds)
    return EvalLoader(batches, SkippedImages(index), pipe)
