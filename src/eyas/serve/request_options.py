"""From what a client asks of an answer to what a worker needs to know of an image."""

from __future__ import annotations

from dataclasses import replace

from eyas.artifacts.manifest import Manifest
from eyas.errors import UserError, shorten, suggest
from eyas.serve.api import Options
from eyas.serve.errors import ServeError
from eyas.types import Thresholds


def thresholds_of(options: Options, manifest: Manifest) -> Thresholds:
    """Return the model's thresholds with those that were asked for in their place.

    Raises:
        ServeError: one is out of range.
    """
    given = {
        "confidence": options.confidence,
        "iou": options.iou,
        "suppression": options.suppression,
        "max_detections": options.max_detections,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    if not asked:
        return manifest.thresholds
    try:
        return replace(manifest.thresholds, **asked)  # type: ignore[arg-type]  # checked where they came in
    except UserError as error:
        wanted = f" Expected: {error.expected}." if error.expected else ""
        raise ServeError("invalid", error.problem + wanted) from None


def labels_of(options: Options, manifest: Manifest) -> tuple[int, ...] | None:
    """Return the labels of the classes that were asked for, sorted; None for all.

    Raises:
        ServeError: the model has no such class.
    """
    if options.classes is None:
        return None
    for name in options.classes:
        if name not in manifest.classes:
            some = shorten([each[:32] for each in manifest.classes], 10)  # a status of gRPC travels in a header
            near = suggest(name[:100], manifest.classes) or f"; it has {some}"
            raise ServeError("invalid", f"The model has no class '{name[:100]}'{near}.")
    return tuple(label for label, name in enumerate(manifest.classes) if name in options.classes)
