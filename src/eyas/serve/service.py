"""The one way from a protocol to the engine, for all of them: checks, metrics, trace, events."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from eyas.artifacts.model_key import ModelKey
from eyas.errors import UserError
from eyas.serve.api import Answer, Engine, Request
from eyas.serve.blocking import Desk
from eyas.serve.budget import Budget
from eyas.serve.errors import ServeError, all_refused, crashed
from eyas.serve.limits import Limits, check_request
from eyas.serve.observe.events import EventLog
from eyas.serve.observe.metrics import Metrics
from eyas.serve.observe.tracing import Span, Trace, no_span, trace_of
from eyas.types import Detections

T = TypeVar("T")
_LOG = logging.getLogger("eyas.serve")
# Never passed on: what lets a client in, and what belongs to one connection.
_PRIVATE = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})


def new_id() -> str:
    """Return a request id, which nobody can guess: who knows it may give feedback on the request."""
    return os.urandom(16).hex()


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that the engine may see: no credentials."""
    return {name: value for name, value in headers.items() if name not in _PRIVATE}


@dataclass(frozen=True)
class Phase:
    """Whether the server takes requests.

    Attributes:
        warming: set while something is still loaded that is to be served from the start.
        end: set when the server is told to end.
    """

    warming: asyncio.Event = field(default_factory=asyncio.Event)
    end: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def draining(self) -> bool:
        """Whether the server has been told to end."""
        return self.end.is_set()

    async def unless_draining(self, work: Awaitable[T]) -> T | None:
        """Return what the work returns, or None (and cancel it) when the server is told to end first."""
        task, end = asyncio.ensure_future(work), asyncio.ensure_future(self.end.wait())
        try:
            await asyncio.wait((task, end), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            end.cancel()


@dataclass(frozen=True)
class Service:
    """The engine with everything around it that all protocols share.

    Attributes:
        engine: who detects.
        metrics: what is counted.
        limits: what a client may send.
        events: the event log, if there is one.
        span: what records spans.
        desk: where large requests are read.
        budget: what their bytes are held in.
        phase: whether the server drains.
        details: what /readyz tells besides, by name; it never makes the server less ready.
    """

    engine: Engine
    metrics: Metrics
    limits: Limits = field(default_factory=Limits)
    events: EventLog | None = None
    span: Span = no_span
    desk: Desk = field(default_factory=Desk)
    budget: Budget = field(default_factory=lambda: Budget(Limits.bodies))
    phase: Phase = field(default_factory=Phase)
    details: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def ready(self) -> bool:
        """Return whether new requests are welcome."""
        return not self.phase.warming.is_set() and not self.phase.draining and self.engine.ready()

    async def detect(self, request: Request, *, protocol: str, trace: Trace | None = None) -> Answer:
        """Return what was found.

        Args:
            request: what is asked.
            protocol: "rest", "oip", "grpc", "websocket": for the metrics.
            trace: the request's, if its headers carry it on already; else they are read, and do afterwards.

        Raises:
            ServeError: the request was refused, dropped or failed.
        """
        if trace is None:
            trace = trace_of(request.headers.get("traceparent"))
            request = dataclasses.replace(request, headers={**request.headers, "traceparent": trace.header})
        attributes = {"eyas.model": request.model, "eyas.request_id": request.id, "eyas.protocol": protocol}
        outcome = "cancelled"  # what remains when the client goes away
        self.metrics.in_flight += 1
        try:
            with self.span(trace, "detect", attributes):
                answer = await self._answer(request)
            outcome = "partial" if answer.refused else "ok"
        except ServeError as error:
            outcome = error.kind
            raise
        except Exception:
            outcome = "internal"
            raise
        finally:
            self.metrics.in_flight -= 1
            if outcome not in ("ok", "partial"):
                self._refused(request, protocol, trace, outcome)
        self.metrics.outcome(protocol, answer.model.name, outcome)
        self.metrics.answered(answer)
        if self.events is not None:
            self.events.detected(request, answer, protocol=protocol, trace=trace.trace)
        return answer

    def shadowed(self, request: Request, key: ModelKey, result: Answer | ServeError) -> None:
        """Count and log what a version made of a copy of a request, which nobody waited for."""
        self.metrics.shadowed(key, "ok" if isinstance(result, Answer) else result.kind)
        if self.events is not None:
            trace = trace_of(request.headers.get("traceparent")).trace
            answer = self._finite(result) if isinstance(result, Answer) else result
            self.events.shadowed(request, key, answer, trace=trace)

    async def _answer(self, request: Request) -> Answer:
        """Check, and ask the engine; whatever else than a ServeError it raises becomes one."""
        refused = check_request(request, self.limits)
        if len(refused) == len(request.images):
            raise all_refused(refused)
        if refused:
            request = dataclasses.replace(request, refused=refused)
        start = time.perf_counter()
        try:
            answer = await self.engine.detect(request)
        except UserError as error:
            raise ServeError("invalid", error.problem) from error
        except (TimeoutError, ServeError) as error:
            if isinstance(error, ServeError):
                raise
            raise ServeError("deadline", "The request was not answered in time.") from error
        except Exception as error:
            _LOG.exception("request %s failed", request.id)
            raise crashed() from error
        if answer.refused and not answer.detections:
            raise all_refused(answer.refused)
        if answer.timing.total <= 0.0:
            total = time.perf_counter() - start
            answer = dataclasses.replace(answer, timing=dataclasses.replace(answer.timing, total=total))
        return self._finite(answer)

    def _finite(self, answer: Answer) -> Answer:
        """Return the answer without detections that are no numbers, which no protocol could write down."""
        if all(map(_is_finite, answer.detections)):
            return answer
        kept = tuple(map(_finite, answer.detections))
        lost = sum(map(len, answer.detections)) - sum(map(len, kept))
        self.metrics.dropped(answer.model, lost)
        _LOG.warning("%s %s returned %d detections that are not finite", answer.model.name, answer.model.version, lost)
        return dataclasses.replace(answer, detections=kept)

    def _refused(self, request: Request, protocol: str, trace: Trace, outcome: str) -> None:
        self.metrics.outcome(protocol, request.model, outcome)
        if self.events is not None:
            self.events.refused(request.id, request.model, protocol=protocol, trace=trace.trace, outcome=outcome)


def _is_finite(found: Detections) -> bool:
    """Return whether all are numbers: one that is none makes the sum none, and a sum is quick to take."""
    if math.isfinite(float(found.boxes.sum()) + float(found.scores.sum())):
        return True
    return bool(np.isfinite(found.boxes).all() and np.isfinite(found.scores).all())


def _finite(found: Detections) -> Detections:
    return found[np.isfinite(found.boxes).all(axis=1) & np.isfinite(found.scores)]
