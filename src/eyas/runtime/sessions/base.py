"""What the detector asks of an engine: uint8 images in, candidate boxes and scores out."""

from __future__ import annotations

from typing import Protocol

from eyas.types import FloatArray, UInt8Array

# What every compiled graph calls its tensors.
INPUT = "images"
OUTPUTS = ("boxes", "scores")


class Session(Protocol):
    """A network that is ready to run. Colour order, scaling and decoding are inside; suppression is not.

    Attributes:
        name: the engine's short name, for example "torch".
        description: one line for the user: engine, device, precision.
    """

    @property
    def name(self) -> str:
        """Return the engine's short name."""
        ...

    @property
    def description(self) -> str:
        """Return one line for the user: engine, device, precision."""
        ...

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return the candidates of each image; may be called from several threads at once.

        Args:
            images: uint8 [N, H, W, 3], RGB, C-ordered, of the size the network expects. The caller may overwrite
                them as soon as this returns.

        Returns:
            boxes float32 [N, K, 4], xyxy in network pixels, and scores float32 [N, K, C], in 0..1, C-ordered.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds; it is not run again."""
        ...


def describe(runtime: str, place: str, threads: int | None, precision: str) -> str:
    """Return the `Session.description` of a compiled file, for example "OpenVINO 2026.4 on CPU, 2 threads, int8".

    Args:
        runtime: the engine and its version.
        place: the device.
        threads: as the user gave them, None for the engine's own choice.
        precision: the manifest's.
    """
    count = f", {threads} thread{'s' * (threads != 1)}" if threads else ""
    return f"{runtime} on {place}{count}, {precision}"
