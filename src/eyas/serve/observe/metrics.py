"""Prometheus metrics of the server. Labels never grow without bound: what is not known to the engine is "other"."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from eyas.artifacts.model_key import ModelKey
from eyas.serve.api import Answer, Engine
from eyas.serve.observe.histograms import MAX_MODELS, OTHER, Tally

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
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
        names = ("model", "version")
        self.in_flight = 0
        self.ready: Callable[[], bool] = engine.ready
        self.outcomes: Count[tuple[str, str, str]] = Count()
        self._refused = Counter(
            "eyas_images_refused", "Images refused alone, in an answer for others", (*names, "kind"), registry=r
        )
        self._odd = Counter(
            "eyas_nonfinite_detections", "Detections dropped for NaN or infinite values", names, registry=r
        )
        self._shadows = Counter(
            "eyas_shadow_requests", "Copies of requests by version and outcome", (*names, "outcome"), registry=r
        )
        self.events_dropped = Counter("eyas_events_dropped", "Events that could not be written", registry=r)
        self._tally = Tally()
        r.register(self._tally)
        r.register(_Requests(self))
        r.register(_Models(engine, lambda: self.ready()))
        ProcessCollector(registry=r)

    def outcome(self, protocol: str, model: str, outcome: str) -> None:
        """Count a request; `outcome` is "ok", "partial" or the kind of its refusal."""
        known = any(model == each.key.name for each in self._engine.models()) if outcome != "ok" else True
        self.outcomes[protocol, model if known else OTHER, outcome] += 1

    def answered(self, answer: Answer) -> None:
        """Count where an answer's time went, and what was found."""
        self._tally.add(answer)
        if answer.refused:
            bounded = self._tally.bounded(answer.model)
            for each in answer.refused.values():
                self._refused.labels(bounded.name, bounded.version, each.kind).inc()

    def dropped(self, key: ModelKey, count: int) -> None:
        """Count detections that were no numbers."""
        bounded = self._tally.bounded(key)
        self._odd.labels(bounded.name, bounded.version).inc(count)

    def shadowed(self, key: ModelKey, outcome: str) -> None:
        """Count a shadow copy; `outcome` is "ok" or the kind of its refusal."""
        bounded = self._tally.bounded(key)
        self._shadows.labels(bounded.name, bounded.version, outcome).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _Requests(Collector):
    """Tells how requests ended, and how many are under way."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield both."""
        requests = CounterMetricFamily(
            "eyas_requests",
            "Requests by protocol and outcome: ok, partial (some images were refused), or why not",
            labels=("protocol", "model", "outcome"),
        )
        for labels, count in self._metrics.outcomes.items():
            requests.add_metric(labels, count)
        yield requests
        in_flight = GaugeMetricFamily("eyas_requests_in_flight", "Requests that wait for their answer")
        in_flight.add_metric((), self._metrics.in_flight)
        yield in_flight


class _Models(Collector):
    """Tells the state and memory of each version when the metrics are read."""

    def __init__(self, engine: Engine, welcome: Callable[[], bool]) -> None:
        self._engine, self._welcome = engine, welcome

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        names = ("model", "version")
        ready = GaugeMetricFamily("eyas_ready", "Whether new requests are welcome")
        ready.add_metric((), float(self._welcome()))
        yield ready
        state = GaugeMetricFamily("eyas_model_ready", "Whether the version is ready", labels=names)
        memory = GaugeMetricFamily("eyas_model_memory_bytes", "What its workers hold", labels=names)
        for each in self._engine.models()[:MAX_MODELS]:
            state.add_metric((each.key.name, each.key.version), float(each.state == "ready"))
            memory.add_metric((each.key.name, each.key.version), float(each.memory))
        yield state
        yield memory
