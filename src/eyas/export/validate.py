"""Judging what was built: the bundle's own files are run beside the trained network, on real images."""

from __future__ import annotations

from typing import Any

from eyas.artifacts.bundle import Bundle
from eyas.artifacts.manifest import Manifest
from eyas.artifacts.measured import Parity
from eyas.export.build import Build, Emulation
from eyas.export.emulation import EmulatedSession
from eyas.export.gates import (
    BOUNDS,
    check_accuracy,
    check_parity,
    letterboxed,
    measure_accuracy,
    parity,
    sample_images,
    shapes_to_try,
)
from eyas.export.graph import deployed
from eyas.export.images import made_up_images, spread
from eyas.export.timing import time_bundle
from eyas.runtime.loading import open_bundle
from eyas.runtime.sessions.base import Session
from eyas.runtime.sessions.torch import TorchSession, pick_device
from eyas.types import UInt8Array


def judge(build: Build, bundle: Bundle, emulation: Emulation | None = None, known_map: float | None = None) -> Manifest:
    """Return the manifest with what was measured of the bundle's own files, or of what stands in for them.

    Without a dataset, which only a build that measures no mAP may lack, answers are compared on made-up images.
    `known_map` is the trained network's mAP on these images, where it was measured already.

    Raises:
        UserError: a gate was not passed.
    """
    manifest, settings, images, tell = bundle.manifest, build.plan.settings, build.images, build.tell
    config = build.trained.run.config
    net = deployed(build.trained.net, config, nms=manifest.nms, candidates=settings.candidates)
    reference = TorchSession(net, pick_device("cpu"))
    session: Session
    if emulation is None:
        session = open_bundle(bundle.folder, manifest)
    else:
        tell(f"{emulation.reason}: the engine can't run here, so its graph is validated instead")
        session = EmulatedSession(emulation.graph, manifest.batch)
    try:
        if images is None:
            tell(f"no dataset here: comparing with the trained network on {settings.compared} synthetic images")
            samples = made_up_images(settings.compared, manifest.input.width)
        else:
            tell(f"comparing with the trained network on {settings.compared} images")
            samples = sample_images(images.judge, settings.compared)
        measured = compare(session, reference, manifest, samples)
        tell(f"largest difference: boxes {measured.boxes_px:.3g} pixels, scores {measured.scores:.3g}")
        update: dict[str, Any] = {"parity": measured}
        if settings.measured != 0 and images is not None:
            index = spread(images.judge, settings.measured)
            tell(f"measuring mAP on {len(index)} images of the split '{index.split}'")
            update["accuracy"] = measure_accuracy(
                session,
                plain(reference, build) if known_map is None else known_map,
                manifest,
                index,
                max(manifest.batch[1], 1),
            )
            check_accuracy(update["accuracy"], settings.allowed, f"{manifest.target} in {manifest.precision}")
        else:
            tell("mAP is not measured: the accuracy of this build is unknown")
    finally:
        session.close()
    if settings.timed and emulation is None:  # what stands in is no measure of the engine's time
        tell("timing the compiled file")
        update["latency"] = (time_bundle(bundle.folder, manifest, settings.threads),)
    return manifest.model_copy(update=update)


def plain(reference: TorchSession, build: Build) -> Session:
    """Return the trained network as `eyas evaluate` runs it: all candidates, suppression on the host if any."""
    config, settings = build.trained.run.config, build.plan.settings
    candidates = config.thresholds.candidates
    if settings.nms != "graph" and settings.candidates == candidates:
        return reference
    return TorchSession(deployed(build.trained.net, config, candidates=candidates), pick_device("cpu"))


def compare(session: Session, reference: Session, manifest: Manifest, samples: list[UInt8Array]) -> Parity:
    """Return the parity at every shape that the bundle promises; the worst one counts.

    Raises:
        UserError: it is out of bounds at one of them.
    """
    bound = BOUNDS[manifest.precision]
    found: list[Parity] = []
    for spec, num in shapes_to_try(manifest.input, manifest.sizes, manifest.batch):
        own = spec == manifest.input and num == max(manifest.batch[0], min(manifest.batch[1], 3))
        chosen = samples if own else samples[: max(num, 1)]
        batches = [letterboxed(chosen[i : i + num], spec, num) for i in range(0, len(chosen), num)]
        found.append(parity(session, reference, batches, bound))
        check_parity(found[-1], bound, f"{manifest.target} in {manifest.precision}, {num} x {spec.height}x{spec.width}")
    return Parity(
        boxes_px=max(one.boxes_px for one in found),
        scores=max(one.scores for one in found),
        quantile=bound.quantile,
        images=found[0].images,
    )
