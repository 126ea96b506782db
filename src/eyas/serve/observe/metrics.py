"""Prometheus metrics of the server. Labels never grow without bound: what is not known to the engine is "other"."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from eyas.artifacts.model_key import ModelKey
from eyas.renamed import METRICS
from eyas.serve.api import Answer, Engine
from eyas.serve.observe.histograms import MAX_MODELS, NAMES, OTHER, Tally

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(Collector):
    """The metrics of one server, in a registry of their own.

    Args:
        engine: whose models are told at each scrape.

    Attributes:
        registry: Prometheus' own.
        in_flight: requests that wait for their answer.
        ready: whether new requests are welcome; the engine's word, until the server around it knows more.
        events_dropped: events that could not be written.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.registry = r = CollectorRegistry()
        self.in_flight = 0
        self.ready: Callable[[], bool] = engine.ready
        self._outcomes: Count[tuple[str, str, str]] = Count()
        self._refused = Counter(
            "eyas_images_refused",
            "Images rejected individually in otherwise answered requests",
            (*NAMES, "kind"),
            registry=r,
        )
        self._odd = Counter(
            "eyas_nonfinite_detections", "Detections dropped for NaN or infinite values", NAMES, registry=r
        )
        self._shadows = Counter(
            "eyas_shadow_requests", "Shadow copies of requests by version and outcome", (*NAMES, "outcome"), registry=r
        )
        self.events_dropped = Counter("eyas_events_dropped", "Events that could not be written", registry=r)
        self._tally = Tally()
        r.register(self._tally)
        r.register(self)
        ProcessCollector(registry=r)

    def outcome(self, protocol: str, model: str, outcome: str) -> None:
        """Count a request; `outcome` is "ok", "partial" or the kind of its refusal."""
        known = any(model == each.key.name for each in self._engine.models()) if outcome != "ok" else True
        self._outcomes[protocol, model if known else OTHER, outcome] += 1

    def answered(self, answer: Answer) -> None:
        """Count where an answer's time went, and what was found."""
        self._tally.add(answer)
        for each in answer.refused.values():
            self._refused.labels(*self._bounded(answer.model), each.kind).inc()

    def dropped(self, key: ModelKey, count: int) -> None:
        """Count detections that were no numbers."""
        self._odd.labels(*self._bounded(key)).inc(count)

    def shadowed(self, key: ModelKey, outcome: str) -> None:
        """Count a shadow copy; `outcome` is "ok" or the kind of its refusal."""
        self._shadows.labels(*self._bounded(key), outcome).inc()

    def _bounded(self, key: ModelKey) -> tuple[str, str]:
        bounded = self._tally.bounded(key)
        return bounded.name, bounded.version

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(_WithOldNames(self.registry))

    def collect(self) -> Iterator[Metric]:
        """Yield how requests ended and how many are under way, and the state and memory of each version."""
        requests = CounterMetricFamily(
            "eyas_requests",
            "Requests by protocol and outcome: ok, partial (some images were rejected), or the reason",
            labels=("protocol", "model", "outcome"),
        )
        for labels, count in self._outcomes.items():
            requests.add_metric(labels, count)
        yield requests
        yield GaugeMetricFamily("eyas_requests_in_flight", "Requests waiting for an answer", self.in_flight)
        yield GaugeMetricFamily("eyas_ready", "Whether new requests are accepted", float(self.ready()))
        state = GaugeMetricFamily("eyas_model_ready", "Whether the version is ready", labels=NAMES)
        memory = GaugeMetricFamily("eyas_model_memory_bytes", "Memory held by its workers", labels=NAMES)
        for each in self._engine.models()[:MAX_MODELS]:
            state.add_metric((each.key.name, each.key.version), float(each.state == "ready"))
            memory.add_metric((each.key.name, each.key.version), float(each.memory))
        yield state
        yield memory


@dataclass(frozen=True)
class _WithOldNames:
    """What a registry collects, renamed metrics under their old names, too."""

    registry: CollectorRegistry

    def collect(self) -> Iterator[Metric]:
        for metric in self.registry.collect():
            yield metric
            if metric.name in METRICS:
                old = METRICS[metric.name]
                again = Metric(old, f"Now {metric.name}; this name goes with the next release", metric.type)
                again.samples = [each._replace(name=each.name.replace(metric.name, old, 1)) for each in metric.samples]
                yield again
