"""What answers tell, counted many at a time: to count each one when it comes costs a request more than its routing.

Answers are kept as they are until there are enough of them or somebody reads the metrics; then arrays are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from eyas.artifacts.model_key import ModelKey
from eyas.serve.api import Answer, Timing
from eyas.types import Detections

MAX_MODELS = 64  # label values for (model, version)
MAX_CLASSES = 256  # label values for classes, of all models together
OTHER = "other"
STAGES = ("queue", "decode", "preprocess", "inference", "postprocess")
ENOUGH = 256  # images that wait to be counted, at most: about half a millisecond of counting
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_SCORES = tuple(round(0.1 * step, 1) for step in range(1, 11))
NAMES = ("model", "version")
_Told = tuple[Timing, tuple[Detections, ...]]  # of an answer; its annotated images are not kept


class Buckets:
    """One histogram of Prometheus' kind: a bucket counts the values up to its edge.

    Args:
        edges: upper edges, ascending; one for everything above is added.
        dtype: the values' own type, so that a value on an edge lies on it.
    """

    __slots__ = ("_counts", "_edges", "_labels", "_sum")

    def __init__(self, edges: Sequence[float], dtype: type[np.floating] = np.float64) -> None:
        self._edges = np.array(edges, dtype)
        self._labels = [*(str(float(edge)) for edge in edges), "+Inf"]
        self._counts = np.zeros(len(edges) + 1, np.int64)
        self._sum = 0.0

    def add(self, values: npt.NDArray[np.floating]) -> None:
        """Count values [N]."""
        self._counts += np.bincount(np.searchsorted(self._edges, values), minlength=len(self._counts))
        self._sum += float(values.sum(dtype=np.float64))

    def tell(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Add what was counted to a family."""
        totals = np.cumsum(self._counts).tolist()
        family.add_metric(labels, [*zip(self._labels, map(float, totals), strict=True)], self._sum)


class _Version:
    """What is counted of one version of a model."""

    def __init__(self) -> None:
        self.total = Buckets(_SECONDS)
        self.stages = tuple(Buckets(_SECONDS) for _ in STAGES)
        self.batch = Buckets(_BATCHES)
        self.scores = Buckets(_SCORES, np.float32)
        self.images = 0
        self.busy = 0.0
        self.classes: dict[str, int] = {}

    def count_times(self, answers: Sequence[_Told]) -> None:
        """Count the stages' times."""
        times = np.array(
            [
                (t.queue, t.decode, t.preprocess, t.inference, t.postprocess, t.total, t.batch, len(detections))
                for t, detections in answers
            ]
        )
        for column, buckets in enumerate((*self.stages, self.total, self.batch)):
            buckets.add(times[:, column])
        _, decode, preprocess, inference, postprocess, _, batch, images = times.T
        share = inference * images / np.maximum(batch, 1.0)  # the rest of a batch was for others
        self.busy += float((decode + preprocess + share + postprocess).sum())


class Tally(Collector):
    """Latencies by stage, batches, images, busy time, scores and classes of the answers of each version."""

    def __init__(self) -> None:
        self._waiting: list[tuple[ModelKey, _Told]] = []
        self._images = 0
        self._versions: dict[ModelKey, _Version] = {}
        self._classes = 0

    def add(self, answer: Answer) -> None:
        """Take an answer, to be counted soon."""
        self._waiting.append((answer.model, (answer.timing, answer.detections)))
        self._images += len(answer.detections)
        if self._images >= ENOUGH:
            self._count()

    def collect(self) -> Iterator[Metric]:
        """Count what waits and yield all."""
        self._count()
        total = HistogramMetricFamily("eyas_request_seconds", "Time from arrival to answer", labels=NAMES)
        stage = HistogramMetricFamily("eyas_stage_seconds", "Time in each stage of a request", labels=(*NAMES, "stage"))
        batch = HistogramMetricFamily("eyas_batch_images", "Images per batch", labels=NAMES)
        scores = HistogramMetricFamily("eyas_confidence", "Scores of detections", labels=NAMES)
        images = CounterMetricFamily("eyas_images", "Images answered", labels=NAMES)
        busy = CounterMetricFamily("eyas_busy_seconds", "Worker time; its rate is the utilisation", labels=NAMES)
        found = CounterMetricFamily("eyas_detections", "Detections by class", labels=(*NAMES, "class"))
        for key, version in self._versions.items():
            names = (key.name, key.version)
            version.total.tell(total, names)
            for name, buckets in zip(STAGES, version.stages, strict=True):
                buckets.tell(stage, (*names, name))
            version.batch.tell(batch, names)
            version.scores.tell(scores, names)
            images.add_metric(names, version.images)
            busy.add_metric(names, version.busy)
            for name, count in version.classes.items():
                found.add_metric((*names, name), count)
        yield from (total, stage, batch, scores, images, busy, found)

    def bounded(self, key: ModelKey) -> ModelKey:
        """Return the labels that a version is counted under: there are only so many."""
        return key if key in self._versions or len(self._versions) < MAX_MODELS else ModelKey(OTHER, OTHER)

    def _count(self) -> None:
        """Count what waits, version by version."""
        waiting, self._waiting, self._images = self._waiting, [], 0
        by_key: dict[ModelKey, list[_Told]] = {}
        for key, told in waiting:
            by_key.setdefault(key, []).append(told)
        for key, answers in by_key.items():
            version = self._versions.setdefault(self.bounded(key), _Version())
            version.count_times(answers)
            found = [each for _, detections in answers for each in detections]
            version.images += len(found)
            if found:
                version.scores.add(np.concatenate([each.scores for each in found]))
                self._count_classes(version, found)

    def _count_classes(self, version: _Version, images: list[Detections]) -> None:
        by_classes: dict[tuple[str, ...], list[npt.NDArray[np.int64]]] = {}
        for found in images:
            by_classes.setdefault(found.classes, []).append(found.labels)
        for classes, labels in by_classes.items():
            numbers = np.bincount(np.concatenate(labels), minlength=0)
            for label in np.flatnonzero(numbers).tolist():
                name = classes[label]
                if name not in version.classes:
                    if self._classes < MAX_CLASSES:
                        self._classes += 1
                    else:
                        name = OTHER
                version.classes[name] = version.classes.get(name, 0) + int(numbers[label])
