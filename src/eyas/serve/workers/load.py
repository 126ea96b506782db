"""From a worker's specification to a warm pipeline; nothing here needs an event loop, so a worker starts quickly."""

from __future__ import annotations

from eyas.artifacts.manifest import Manifest
from eyas.errors import UserError
from eyas.runtime.loading import load
from eyas.serve.workers.base import WorkerFailed, WorkerSpec
from eyas.serve.workers.pipeline import BatchFailed, Pipeline


def open_pipeline(spec: WorkerSpec) -> tuple[Pipeline, str, list[tuple[int, float]]]:
    """Return the warm pipeline of a bundle, its engine's description, and the warm-up's (batch size, seconds).

    Raises:
        WorkerFailed: the bundle can't be opened or run.
    """
    try:
        Manifest.read(spec.bundle, verify=False)  # a folder without a manifest is a run, which needs torch
        detector = load(
            spec.bundle, device=spec.device, threads=spec.threads, max_pixels=spec.limits.max_pixels, spin=False
        )
        pipeline = Pipeline(detector, spec.limits, spec.decoders, spec.memory)
        return pipeline, detector.engine, pipeline.warm_up(spec.max_batch)
    except UserError as error:
        raise WorkerFailed(str(error)) from error
    except BatchFailed as error:
        raise WorkerFailed(f"The network does not run: {error}") from error
