"""Prometheus metrics of the server. Labels never grow without bound: what is not known to the engine is "other"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from eyas.serve.api import Answer, Engine, ModelKey
from eyas.types import FloatArray

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_MODELS = 64  # label values for (model, version)
MAX_CLASSES = 256  # label values for classes, of all models together
OTHER = "other"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_SCORES = tuple(round(0.1 * step, 1) for step in range(1, 11))
_EDGES = np.array(_SCORES, np.float32)  # the scores' own type, so that a score on an edge lies on it
STAGES = ("queue", "decode", "preprocess", "inference", "postprocess")


@dataclass(frozen=True)
class _Children:
    """The metrics of one version of a model; looked up once, since a lookup takes longer than counting."""

    total: Histogram
    stages: tuple[Histogram, ...]
    batch: Histogram
    pictures: Counter
    busy: Counter


class Metrics:
    """The metrics of one server, in a registry of their own.

    Args:
        engine: whose models are told at each scrape.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.registry = r = CollectorRegistry()
        names = ("model", "version")
        self._requests = Counter(
            "eyas_requests",
            "Requests by protocol and outcome: ok, or why not",
            ("protocol", "model", "outcome"),
            registry=r,
        )
        self._total = Histogram(
            "eyas_request_seconds", "From arrival to the answer", names, buckets=_SECONDS, registry=r
        )
        self._stage = Histogram(
            "eyas_stage_seconds",
            "Time in each stage of a request",
            (*names, "stage"),
            buckets=_SECONDS,
            registry=r,
        )
        self._batch = Histogram(
            "eyas_batch_pictures", "Pictures that shared a batch", names, buckets=_BATCHES, registry=r
        )
        self._pictures = Counter("eyas_pictures", "Pictures that were answered", names, registry=r)
        self._busy = Counter("eyas_busy_seconds", "Worker time; its rate is the utilisation", names, registry=r)
        self._confidence = _Scores()
        self._detections = Counter("eyas_detections", "Detections by class", (*names, "class"), registry=r)
        self._odd = Counter(
            "eyas_nonfinite_detections", "Detections dropped for NaN or infinite values", names, registry=r
        )
        self._shadows = Counter(
            "eyas_shadow_requests", "Copies of requests by version and outcome", (*names, "outcome"), registry=r
        )
        self.in_flight = Gauge("eyas_requests_in_flight", "Requests that wait for their answer", registry=r)
        self.events_dropped = Counter("eyas_events_dropped", "Events that could not be written", registry=r)
        self._children: dict[ModelKey, _Children] = {}
        self._classes: dict[tuple[ModelKey, str], Counter] = {}
        r.register(self._confidence)
        r.register(_Models(engine))
        ProcessCollector(registry=r)

    def outcome(self, protocol: str, model: str, outcome: str) -> None:
        """Count a request; `outcome` is "ok" or the kind of its refusal."""
        known = any(model == each.key.name for each in self._engine.models()) if outcome != "ok" else True
        self._requests.labels(protocol, model if known else OTHER, outcome).inc()

    def answered(self, answer: Answer) -> None:
        """Count where an answer's time went, and what was found."""
        key, timing = self._bounded(answer.model), answer.timing
        mine = self._of(key)
        mine.total.observe(timing.total)
        stages = (timing.queue, timing.decode, timing.preprocess, timing.inference, timing.postprocess)
        for child, seconds in zip(mine.stages, stages, strict=True):
            child.observe(seconds)
        mine.batch.observe(timing.batch)
        mine.pictures.inc(len(answer.detections))
        share = timing.inference * len(answer.detections) / max(1, timing.batch)
        mine.busy.inc(timing.decode + timing.preprocess + share + timing.postprocess)
        for found in answer.detections:
            self._confidence.add(key, found.scores)
            numbers = np.bincount(found.labels, minlength=0)
            for label in np.flatnonzero(numbers).tolist():
                self._class(key, found.classes[label]).inc(int(numbers[label]))

    def dropped(self, key: ModelKey, count: int) -> None:
        """Count detections that were no numbers."""
        bounded = self._bounded(key)
        self._odd.labels(bounded.name, bounded.version).inc(count)

    def shadowed(self, key: ModelKey, outcome: str) -> None:
        """Count a shadow copy; `outcome` is "ok" or the kind of its refusal."""
        bounded = self._bounded(key)
        self._shadows.labels(bounded.name, bounded.version, outcome).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _bounded(self, key: ModelKey) -> ModelKey:
        return key if key in self._children or len(self._children) < MAX_MODELS else ModelKey(OTHER, OTHER)

    def _of(self, key: ModelKey) -> _Children:
        found = self._children.get(key)
        if found is None:
            name, version = key.name, key.version
            self._children[key] = found = _Children(
                self._total.labels(name, version),
                tuple(self._stage.labels(name, version, stage) for stage in STAGES),
                self._batch.labels(name, version),
                self._pictures.labels(name, version),
                self._busy.labels(name, version),
            )
        return found

    def _class(self, key: ModelKey, name: str) -> Counter:
        found = self._classes.get((key, name))
        if found is None:
            label = name if len(self._classes) < MAX_CLASSES else OTHER
            found = self._detections.labels(key.name, key.version, label)
            if label is not OTHER:
                self._classes[key, name] = found
        return found


class _Scores(Collector):
    """A histogram of scores a version, counted a picture at a time: hundreds of single counts would cost more than
    all else that a request takes here."""

    def __init__(self) -> None:
        self._counts: dict[ModelKey, tuple[npt.NDArray[np.int64], list[float]]] = {}

    def add(self, key: ModelKey, scores: FloatArray) -> None:
        """Count the scores of one picture."""
        counts, total = self._counts.setdefault(key, (np.zeros(len(_SCORES) + 1, np.int64), [0.0]))
        if len(scores):
            counts += np.bincount(np.searchsorted(_EDGES, scores), minlength=len(counts))
            total[0] += float(scores.sum())

    def collect(self) -> Iterator[Metric]:
        """Yield the histograms."""
        family = HistogramMetricFamily("eyas_confidence", "Scores of detections", labels=("model", "version"))
        for key, (counts, total) in self._counts.items():
            names = (*map(str, _SCORES), "+Inf")
            buckets = [(name, float(number)) for name, number in zip(names, np.cumsum(counts), strict=True)]
            family.add_metric((key.name, key.version), buckets, total[0])
        yield family


class _Models(Collector):
    """Tells the state and memory of each version when the metrics are read."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        names = ("model", "version")
        ready = GaugeMetricFamily("eyas_ready", "Whether new requests are welcome")
        ready.add_metric((), float(self._engine.ready()))
        yield ready
        state = GaugeMetricFamily("eyas_model_ready", "Whether the version is ready", labels=names)
        memory = GaugeMetricFamily("eyas_model_memory_bytes", "What its workers hold", labels=names)
        for each in self._engine.models()[:MAX_MODELS]:
            state.add_metric((each.key.name, each.key.version), float(each.state == "ready"))
            memory.add_metric((each.key.name, each.key.version), float(each.memory))
        yield state
        yield memory
