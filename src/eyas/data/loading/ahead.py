"""Takes batches one ahead in a thread, and with them the way to the GPU: page-locked, then copied beside the computing.

While a step runs on the GPU, the next batch goes over on a stream of its own. Anything else that is done with the GPU
meanwhile must bear it: a CUDA graph is captured with `capture_error_mode="thread_local"`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch

from eyas.data.loading.batch import Batch

_Coming = tuple[Batch, "torch.cuda.Event"] | None


class Ahead:
    """Gives the batches on a CUDA device, having begun with the next one before it is asked for.

    A batch may be used on the stream that is current when it is taken, for as long as it is held.

    Args:
        batches: gives batches of the host; iterated in the thread.
        device: where they go.
    """

    def __init__(self, batches: Iterator[Batch], device: torch.device) -> None:
        self._batches = batches
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # A new thread would begin with the first GPU.
        self._thread = ThreadPoolExecutor(1, "eyas-ahead", torch.cuda.set_device, (device,))
        self._coming: Future[_Coming] = self._thread.submit(self._take)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches."""
        try:
            while (coming := self._coming.result()) is not None:
                self._coming = self._thread.submit(self._take)
                batch, copied = coming
                current = torch.cuda.current_stream(self._device)
                current.wait_event(copied)
                # Its memory belongs to the stream of the copies, and must not be had again while this one works on it.
                for tensor in (batch.block.memory,) if batch.block is not None else batch.tensors():
                    tensor.record_stream(current)
                yield batch
        finally:
            self._thread.shutdown()

    def settle(self, seconds: float | None = None) -> None:
        """Return when the thread has done what it was at, or after so long; until a batch is taken it rests."""
        wait((self._coming,), seconds)

    def _take(self) -> _Coming:
        batch = next(self._batches, None)
        if batch is None:
            return None
        with torch.cuda.stream(self._stream):
            moved = batch.pin_memory().to(self._device, non_blocking=True)
            return moved, self._stream.record_event()
