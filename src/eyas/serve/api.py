"""What the protocols ask of the engine behind them, whether it lives in this process, in workers or in a test.

REST, gRPC, the streams and the batch tool all make a `Request` and await an `Answer`. Nothing here knows a protocol,
a process or a queue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from eyas.artifacts.manifest import Manifest
from eyas.artifacts.model_key import ModelKey
from eyas.serve.errors import Refused
from eyas.types import Detections, Suppression, UInt8Array

Lane = Literal["interactive", "stream", "batch"]
State = Literal["loading", "ready", "draining", "unloaded", "failed"]


@dataclass(frozen=True)
class Options:
    """The options of a detection request; None takes the model's own.

    Attributes:
        confidence, iou, suppression: thresholds, as in `eyas.types.Thresholds`.
        classes: names of the only classes wanted.
        max_detections: most detections an image.
        annotate: also give the image with its detections drawn, as JPEG.
    """

    confidence: float | None = None
    iou: float | None = None
    suppression: Suppression | None = None
    classes: tuple[str, ...] | None = None
    max_detections: int | None = None
    annotate: bool = False


@dataclass(frozen=True)
class Request:
    """Images to detect on, by one version of one model.

    Attributes:
        id: the request's id, given by the client or made by the protocol; goes through logs and events.
        model: the model's name; "" for the only one, or the default.
        version: a version, an alias as "@champion", or "" for what the router chooses.
        images: each an image file's bytes (JPEG, PNG, WebP) or uint8 [H, W, 3] RGB; at least one.
        options: what the client asks of the answer.
        timeout: seconds from arrival after which nobody waits any more; None for the server's own limit.
        lane: which queue it waits in.
        stream: id of the stream it is a frame of; a newer frame of it drops this one while it waits. "" for none.
        headers: the client's headers or metadata, lower-case names, for routing and tracing.
        partial: whether each image has a result of its own: one that can't be had is told in the answer and costs
            the others nothing. Else one such image ends the request.
        refused: number of an image -> why it is not to be looked at, known already; only in a partial request.
    """

    id: str
    model: str
    version: str
    images: tuple[bytes | UInt8Array, ...]
    options: Options = field(default_factory=Options)
    timeout: float | None = None
    lane: Lane = "interactive"
    stream: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    partial: bool = False
    refused: Mapping[int, Refused] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Where a request's time went, in seconds; the stages add up to no more than the total.

    Attributes:
        queue: from arrival until its (last) batch was given to a worker, less what its other batches took.
        decode, preprocess, inference, postprocess: in the worker, sums over its images; inference is the whole
            batch's. Of what was done at once, each has its share of the time.
        total: from arrival to the answer.
        batch: how many images shared its (last) batch.
    """

    queue: float = 0.0
    decode: float = 0.0
    preprocess: float = 0.0
    inference: float = 0.0
    postprocess: float = 0.0
    total: float = 0.0
    batch: int = 1

    def within_total(self) -> Timing:
        """Return it for batches that may have run at once, on several workers: the stages as parts of the total."""
        work = self.decode + self.preprocess + self.inference + self.postprocess
        share = min(1.0, self.total / work) if work > 0.0 else 1.0
        return Timing(
            queue=min(self.queue, max(0.0, self.total - work)),
            decode=self.decode * share,
            preprocess=self.preprocess * share,
            inference=self.inference * share,
            postprocess=self.postprocess * share,
            total=self.total,
            batch=self.batch,
        )


@dataclass(frozen=True)
class Answer:
    """The detections of a request.

    Attributes:
        id: the request's id.
        model: who answered.
        detections: one for each image that was not refused, in order.
        annotated: JPEG files of the images with their detections, if they were asked for.
        timing: where the time went.
        refused: number of an image -> why it has none; empty unless the request was partial.
    """

    id: str
    model: ModelKey
    detections: tuple[Detections, ...]
    annotated: tuple[bytes, ...] = ()
    timing: Timing = field(default_factory=Timing)
    refused: Mapping[int, Refused] = field(default_factory=dict)

    def images(self) -> Iterator[Detections | Refused]:
        """Yield the result of each image of the request, in order."""
        found = iter(self.detections)
        for number in range(len(self.detections) + len(self.refused)):
            yield self.refused[number] if number in self.refused else next(found)


@dataclass(frozen=True)
class ModelStatus:
    """A version of a model as the server has it.

    Attributes:
        key: name and version.
        state: what it is doing.
        reason: why it is in that state, "" where that is plain.
        manifest: of its bundle; None if it could not be read.
        aliases: the aliases that point to it, "champion" for example.
        default: whether a request without a version goes to it.
        memory: bytes that its workers hold, 0 if unknown.
        on_demand: whether a version that is not ready is loaded when a request wants it; the request waits.
    """

    key: ModelKey
    state: State
    reason: str = ""
    manifest: Manifest | None = None
    aliases: tuple[str, ...] = ()
    default: bool = False
    memory: int = 0
    on_demand: bool = False


class Versions(Protocol):
    """What is served, as the registry's follower changes it: an engine, or what speaks for a cluster of them."""

    async def load(self, name: str, version: str = "", bundle: Path | None = None) -> ModelKey:
        """Load a version, and return it when it is ready; `bundle` None loads one that is known already.

        Raises:
            ServeError: there is no such model, or it can't be loaded; what served before still serves.
        """
        ...

    async def unload(self, name: str, version: str = "") -> None:
        """Answer what the version has accepted, then free it; "" means every version of the model.

        Raises:
            ServeError: there is no such model.
        """
        ...

    def alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias point to a loaded version from now on; requests that were accepted keep theirs.

        Raises:
            ServeError: there is no such version, or it is not ready.
        """
        ...


class Engine(Versions, Protocol):
    """Serves requests; all methods are called from the event loop that it was started in."""

    async def detect(self, request: Request) -> Answer:
        """Return the detections. Cancelling the awaiting task frees the request's place in the queue.

        Raises:
            ServeError: the request was refused, dropped or failed.
        """
        ...

    def models(self) -> tuple[ModelStatus, ...]:
        """Return every version that this server knows of, sorted by name and version."""
        ...

    def ready(self) -> bool:
        """Return whether new requests are welcome: not warming up, not draining, not overloaded."""
        ...

    async def drain(self) -> None:
        """Refuse new requests, and return when everything that was accepted has been answered."""
        ...

    async def close(self) -> None:
        """Stop the workers; unanswered requests fail."""
        ...
