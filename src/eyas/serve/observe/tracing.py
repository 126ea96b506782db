"""W3C trace context: taken from the client or begun, passed on, logged; and OpenTelemetry spans where it is set up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from random import Random
from typing import Any

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")

_RANDOM = Random()  # seeded by the system; ids of traces need to be unique, not secret
_NOTHING = nullcontext()

Span = Callable[["Trace", str, Mapping[str, Any]], AbstractContextManager[None]]


@dataclass(frozen=True)
class Trace:
    """A request's place in a trace.

    Attributes:
        trace: 32 hexadecimal digits.
        parent: the client's span, 16 digits, "" where the trace begins here.
        span: ours, 16 digits.
        sampled: whether the client records the trace.
    """

    trace: str
    parent: str
    span: str
    sampled: bool

    @property
    def header(self) -> str:
        """What is passed on as `traceparent`."""
        return f"00-{self.trace}-{self.span}-{'01' if self.sampled else '00'}"


def trace_of(header: str | None) -> Trace:
    """Return the trace that a `traceparent` header continues; a new one where there is none, or a malformed one."""
    span = f"{_RANDOM.getrandbits(64) or 1:016x}"
    match = _TRACEPARENT.fullmatch(header) if header else None
    valid = match is not None and match[1] != "ff" and set(match[2]) != {"0"} and set(match[3]) != {"0"}
    if match is None or not valid or (match[1] == "00" and len(header or "") != 55):
        return Trace(f"{_RANDOM.getrandbits(128) or 1:032x}", "", span, False)
    return Trace(match[2], match[3], span, bool(int(match[4], 16) & 1))


def no_span(_trace: Trace, _name: str, _attributes: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Record nothing."""
    return _NOTHING


def open_telemetry() -> Span:
    """Return what records spans with OpenTelemetry's global tracer; the deployment chooses where they go.

    Raises:
        ModuleNotFoundError: the extra `telemetry` is not installed.
    """
    from opentelemetry import trace as otel

    tracer = otel.get_tracer("eyas.serve")

    @contextmanager
    def record(trace: Trace, name: str, attributes: Mapping[str, Any]) -> Iterator[None]:
        context = None
        if trace.parent:
            flags = otel.TraceFlags(int(trace.sampled))
            parent = otel.SpanContext(int(trace.trace, 16), int(trace.parent, 16), is_remote=True, trace_flags=flags)
            context = otel.set_span_in_context(otel.NonRecordingSpan(parent))
        kind = otel.SpanKind.SERVER
        with tracer.start_as_current_span(name, context=context, kind=kind, attributes=dict(attributes)):
            yield

    return record
