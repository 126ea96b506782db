"""Training batches that the processor augments, in worker processes or here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from eyas.data.augment.augmenter import Augmenter
from eyas.data.loading.bad_images import SkippedImages
from eyas.data.loading.batch import Batch
from eyas.data.loading.batch_arrays import Task
from eyas.data.loading.workers import Pipe


class HostBatches:
    """Makes augmented batches on the processor.

    Args:
        augmenter: makes them.
        pipe: has workers do it.
        skipped: is told of the images that can't be read.
    """

    def __init__(self, augmenter: Augmenter, pipe: Pipe, skipped: SkippedImages) -> None:
        self.pipe = pipe
        self._images = augmenter.images
        self._skipped = skipped

    @property
    def tasks_ahead(self) -> int:
        """How many tasks the workers may have."""
        return self.pipe.tasks_ahead

    def prepare(self) -> None:
        """Read what is kept in memory; there must be room for it."""
        self._images.cache.fill(self._images.decode)

    def run(self, tasks: Iterable[Task]) -> Iterator[Batch]:
        """Yield the batches of the tasks; read what is kept in memory before the first ones.

        Raises:
            UserError: more than 1 % of the images can't be read; a worker ended, or gave nothing for too long.
        """
        self.prepare()
        for batch in self.pipe.run(tasks):
            self._skipped.note(batch.on_host().skipped.tolist())
            yield batch

    def close(self) -> None:
        """End the worker processes."""
        self.pipe.close()
