"""From a batch's candidates to detections, beside the network: the device does not wait for the host."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

import torch
from torch import Tensor

from eyas.data.loading.batch import Batch
from eyas.evaluation.predictions import Predictions, PredictionsBuilder
from eyas.runtime.postprocess import placed_back, select
from eyas.training.batches import placement_of
from eyas.training.suppression import suppressed
from eyas.types import Detections, Thresholds

_WAITING = 2  # batches that may wait for their detections; each holds its candidates on the device


class Collector:
    """Selects, suppresses and collects detections in a thread, while the network runs on the next batches.

    The detections are those of `eyas.runtime.postprocess.select` to the last bit, in the order of the batches. On CUDA
    the suppression runs on the GPU, on a stream of its own. Used as a context, it leaves no thread behind.

    Args:
        classes: class names, in label order.
        thresholds: what passes.
        keep: the detections of the first so many images of the dataset are kept in `detections`.

    Attributes:
        detections: image index -> detections of those images, as far as they are known.
    """

    def __init__(self, classes: tuple[str, ...], thresholds: Thresholds, keep: int = 0) -> None:
        self.classes = classes
        self.thresholds = thresholds
        self.keep = keep
        self.detections: dict[int, Detections] = {}
        self._builder = PredictionsBuilder()
        self._thread = ThreadPoolExecutor(1, "eyas-detections")
        self._waiting: deque[tuple[list[int], Future[list[Detections]]]] = deque()
        self._stream: torch.cuda.Stream | None = None

    def add(self, boxes: Tensor, scores: Tensor, batch: Batch) -> None:
        """Have the detections in a batch of letterboxed images collected; the device may still be at the candidates.

        Args:
            boxes: float [B, K, 4], xyxy network pixels.
            scores: float [B, K, C], in 0..1.
            batch: what they were found in.

        Raises:
            Exception: what the collecting of a batch before has met.
        """
        boxes, scores, host = boxes.float(), scores.float(), batch.on_host()
        future = self._thread.submit(self._detected, boxes, scores, host, self._after(boxes, scores))
        self._waiting.append((host.indices.tolist(), future))
        if len(self._waiting) > _WAITING:
            self._take()

    def finish(self) -> Predictions:
        """Return the detections of all batches."""
        while self._waiting:
            self._take()
        return self._builder.build()

    def close(self) -> None:
        """Drop what waits and end the thread."""
        self._thread.shutdown(cancel_futures=True)
        self._waiting.clear()

    def __enter__(self) -> Collector:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread."""
        self.close()

    def _take(self) -> None:
        indices, future = self._waiting.popleft()
        for index, found in zip(indices, future.result(), strict=True):
            self._builder.add(index, found)
            if index < self.keep:
                self.detections[index] = found

    def _after(self, *outputs: Tensor) -> AbstractContextManager[object]:
        """Return the context in which the thread may use what the network has yet to compute."""
        device = outputs[0].device
        if device.type != "cuda":
            return nullcontext()
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # The memory belongs to the network's stream, which must not have it again while the other one works on it.
        self._stream.wait_stream(torch.cuda.current_stream(device))
        for output in outputs:
            output.record_stream(self._stream)
        return torch.cuda.stream(self._stream)

    def _detected(
        self, boxes: Tensor, scores: Tensor, host: Batch, stream: AbstractContextManager[object]
    ) -> list[Detections]:
        with torch.inference_mode(), stream:
            if boxes.device.type == "cuda" and self.thresholds.suppression in ("class_wise", "class_agnostic"):
                return self._suppressed(boxes, scores, host)
            return self._selected(boxes, scores, host)

    def _selected(self, boxes: Tensor, scores: Tensor, host: Batch) -> list[Detections]:
        """Return the detections, selected and suppressed on the host."""
        places = host.placements.tolist()
        return [
            select(one, values, placement_of(places[row]), height, width, self.classes, self.thresholds)
            for row, (one, values, (height, width)) in enumerate(
                zip(boxes.cpu().numpy(), scores.cpu().numpy(), host.sizes.tolist(), strict=True)
            )
        ]

    def _suppressed(self, boxes: Tensor, scores: Tensor, host: Batch) -> list[Detections]:
        """Return the detections, selected and suppressed where the candidates lie."""
        columns: Sequence[Tensor] = suppressed(boxes, scores, self.thresholds)
        found, values, labels, kept = (column.cpu().numpy() for column in columns)
        places, sizes = host.placements.tolist(), host.sizes.tolist()
        detections = []
        for row, (height, width) in enumerate(sizes):
            rows = kept[row].nonzero()[0][: self.thresholds.max_detections]
            placement = placement_of(places[row])
            detections.append(
                placed_back(
                    found[row][rows], values[row][rows], labels[row][rows], placement, height, width, self.classes
                )
            )
        return detections
