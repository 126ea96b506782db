"""What goes to a worker and what comes back, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import msgspec

from eyas.serve.errors import Refused
from eyas.types import Detections, Thresholds, UInt8Array

MAX_WORDS = 2000  # of what a worker says to the operator or a client


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker serves, and what it may use for it.

    Attributes:
        bundle: the bundle's folder.
        device: the engine's device; see `eyas.load`.
        threads: CPU threads of the engine; None lets the engine choose.
        max_batch: the largest batch that it will get.
        memory: bytes that it may take beyond what it holds once it is warm; 0 for no limit.
        start_seconds: how long it may take until it is warm.
        batch_seconds: how long a batch may take before the worker counts as hung.
    """

    bundle: Path
    device: str = "auto"
    threads: int | None = None
    max_batch: int = 8
    memory: int = 2 << 30
    start_seconds: float = 120.0
    batch_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Task:
    """One image of a batch.

    Attributes:
        image: an image file's bytes, or uint8 [H, W, 3] RGB.
        thresholds: what a prediction must pass.
        only: the labels wanted, sorted; None means all.
        annotate: whether to give the image with its detections as JPEG too.
    """

    image: bytes | UInt8Array
    thresholds: Thresholds
    only: tuple[int, ...] | None = None
    annotate: bool = False


Words = Annotated[str, msgspec.Meta(max_length=MAX_WORDS)]


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What was found in one image; the times are in seconds."""

    detections: Detections
    annotated: bytes = b""
    decode: float = 0.0
    preprocess: float = 0.0
    postprocess: float = 0.0


@dataclass(frozen=True, slots=True)
class Ran:
    """A batch that was run: one result an image, in order, and the seconds that the network took."""

    results: tuple[ImageResult | Refused, ...]
    inference: float


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """A batch that failed as a whole, in a worker that goes on.

    Attributes:
        reason: for the operator.
        told: for the client whose image was alone in it; None where the image is not to blame.
    """

    reason: Words
    told: Refused | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """Why a worker is gone; the attributes are those of `Broken`."""

    reason: str
    told: Refused | None = None


Outcome = Ran | Broken
Done = Callable[[Outcome], None]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """What a worker tells when it is warm.

    Attributes:
        description: the engine, in one line.
        latencies: (batch size, seconds) of the warm-up, the network and its letterboxing.
        memory: bytes that it holds.
    """

    description: Words
    latencies: tuple[tuple[int, float], ...]
    memory: int


def too_slow(seconds: float) -> Lost:
    """Return why a worker is given up that takes too long."""
    told = Refused("unprocessable", f"The image took longer than {seconds:g} s, twice.")
    return Lost(f"A batch took more than {seconds:g} s.", told)


def too_much_memory(limit: int) -> Refused:
    """Return the refusal of an image for which a worker's memory is too little; 0 for no limit but the machine's."""
    most = f"the {limit / 1e6:.0f} MB allowed for one image" if limit else "the server has"
    return Refused("too_large", f"The image needs more memory than {most}.")


class WorkerFailed(Exception):
    """A worker did not start; the words say why, for the operator."""


class Worker(Protocol):
    """Runs one batch at a time for one version of one model. Its methods are called from the event loop."""

    name: str  # unique in the server

    async def start(self, lost: Callable[[Lost], None]) -> Ready:
        """Get warm and return what is known then.

        Args:
            lost: called once, with the reason, when a warm worker dies or is given up, unless it was stopped. What it
                was running has no outcome then.

        Raises:
            WorkerFailed: it can't be started.
        """
        ...

    def submit(self, tasks: Sequence[Task], done: Done) -> None:
        """Run a batch; `done` is called later from the event loop. Only for a warm worker that runs nothing."""
        ...

    def memory(self) -> int:
        """Return the bytes that it holds now, 0 if unknown."""
        ...

    async def stop(self, grace: float) -> None:
        """Let it end: what it runs may take `grace` seconds more. Stopping twice is fine."""
        ...
