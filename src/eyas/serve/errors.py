"""The reasons for rejecting a request. One table maps them to each protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import msgspec

Kind = Literal[
    "invalid",
    "unauthenticated",
    "forbidden",
    "not_found",
    "method",
    "timeout",
    "too_large",
    "unsupported",
    "unprocessable",
    "overloaded",
    "cancelled",
    "internal",
    "unavailable",
    "deadline",
]


@dataclass(frozen=True)
class Wire:
    """How a refusal looks on the wire.

    Attributes:
        http: the status code of REST.
        grpc: the name of the gRPC status.
        retry: whether the same request may succeed later.
    """

    http: int
    grpc: str
    retry: bool = False


WIRES: Mapping[Kind, Wire] = MappingProxyType(
    {
        "invalid": Wire(400, "INVALID_ARGUMENT"),
        "unauthenticated": Wire(401, "UNAUTHENTICATED"),
        "forbidden": Wire(403, "PERMISSION_DENIED"),
        "not_found": Wire(404, "NOT_FOUND"),
        "method": Wire(405, "UNIMPLEMENTED"),
        "timeout": Wire(408, "DEADLINE_EXCEEDED"),  # the client sent its request too slowly
        "too_large": Wire(413, "INVALID_ARGUMENT"),
        "unsupported": Wire(415, "INVALID_ARGUMENT"),
        "unprocessable": Wire(422, "INVALID_ARGUMENT"),  # the bytes arrived well, and are no image
        "overloaded": Wire(429, "RESOURCE_EXHAUSTED", retry=True),
        "cancelled": Wire(499, "CANCELLED"),
        "internal": Wire(500, "INTERNAL"),
        "unavailable": Wire(503, "UNAVAILABLE", retry=True),
        "deadline": Wire(504, "DEADLINE_EXCEEDED"),
    }
)


class Refused(msgspec.Struct, frozen=True, tag="refused", array_like=True):
    """Why one image of a request has no detections, for the client."""

    kind: Kind
    message: str


class ServeError(Exception):
    """A request that is not answered with detections, in words for the client.

    Args:
        kind: a key of `WIRES`.
        message: what was wrong and how to mend it; nothing of the server's insides.
        retry_after: seconds after which another try makes sense.
    """

    def __init__(self, kind: Kind, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message
        self.retry_after = retry_after

    @property
    def wire(self) -> Wire:
        """Return how the protocols tell it."""
        return WIRES[self.kind]


def crashed() -> ServeError:
    """Return what a client is told of a fault of ours: nothing of the inside."""
    return ServeError("internal", "The server failed on this request; see its log.")


def all_refused(refused: Mapping[int, Refused]) -> ServeError:
    """Return the error of a request each of whose images was refused.

    A fault of the server's says that another try may help; else the kind is that of all, or "unprocessable".
    """
    kinds = dict.fromkeys(refused[number].kind for number in sorted(refused))
    ours = [kind for kind in kinds if WIRES[kind].http >= 500]
    kind: Kind = ours[0] if ours else next(iter(kinds)) if len(kinds) == 1 else "unprocessable"
    first = refused[min(refused)].message
    words = f"None of the {len(refused)} images could be answered. The first: {first}" if len(refused) > 1 else first
    return ServeError(kind, words)


def quoted(name: str) -> str:
    """Return the client's word for an error message: short, and without what a terminal or a log would obey."""
    return ascii(name[:64])
