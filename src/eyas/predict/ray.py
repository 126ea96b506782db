"""The same parts and the same function, on the nodes of a Ray cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from eyas.artifacts.manifest import Manifest
from eyas.artifacts.packing import pack, unpack
from eyas.errors import missing_extra
from eyas.predict.parts import Part, from_line, to_line
from eyas.predict.work import Done, Predictor, PredictSettings


class _Actor:
    """Does parts on one node; the bundle travels as bytes, so no node needs to have it.

    Args:
        files: the bundle's files, relative path -> bytes.
        settings: what decides the results.
        threads: of the engine.
    """

    def __init__(self, files: Mapping[str, bytes], settings: PredictSettings, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="eyas-bundle-")
        unpack(files, Path(self._folder.name))
        self._predictor = Predictor(replace(settings, bundle=self._folder.name), threads)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the part's results."""
        done = self._predictor.run(from_line(row["part"]))
        counts = {"images": done.images, "unreadable": done.unreadable}
        return {"part": row["part"], "lines": done.lines, **counts}


def run_on_ray(
    parts: Iterator[Part], settings: PredictSettings, manifest: Manifest, workers: int | None
) -> Iterator[tuple[Part, Done]]:
    """Yield each part with its results, in any order, as they come.

    Joins the cluster that the environment names (`RAY_ADDRESS`), or starts Ray on this machine.

    Args:
        parts: what is to be done.
        settings: what decides the results.
        manifest: of the bundle.
        workers: actors; None takes one a core of the cluster, or one a GPU for an engine of the GPU.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise missing_extra("ray", "cluster") from None

    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    files = pack(Path(settings.bundle), manifest)
    gpu = manifest.target not in ("onnxruntime", "openvino")
    total = ray.cluster_resources().get("GPU" if gpu else "CPU", 1)
    rows = [{"part": to_line(part)} for part in parts]
    if not rows:
        return
    num = min(workers or max(1, int(total)), len(rows))
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Actor,
        fn_constructor_args=(files, settings, 1),
        num_cpus=1,
        num_gpus=1 if gpu else 0,
        compute=ray.data.ActorPoolStrategy(size=num),
    )
    for row in done.iter_rows():
        yield from_line(row["part"]), Done(row["lines"], row["images"], row["unreadable"])
