"""OpenVINO as an engine: a bundle's model.xml on a CPU, an Intel GPU or an NPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from eyas.artifacts.manifest import Manifest
from eyas.errors import UserError, missing_extra
from eyas.runtime.openvino_core import openvino_core
from eyas.runtime.sessions.base import INPUT, OUTPUTS, describe
from eyas.runtime.sessions.batching import run_in_chunks
from eyas.runtime.sessions.cache import bundle_key, cache_folder
from eyas.runtime.sessions.contract import Tensors, check_graph, does_not_run
from eyas.types import FloatArray, UInt8Array

if TYPE_CHECKING:
    import openvino

# The manifest's precision -> what OpenVINO computes floats in. Without a hint it would choose bfloat16 on CPUs that
# have it, also for a bundle whose numbers were measured in float32.
HINTS: Mapping[str, str] = MappingProxyType({"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"})


class Pending:
    """An inference under way, from `OpenVinoSession.submit`; `result` waits for it and may be called once."""

    def __init__(self, request: openvino.InferRequest, images: UInt8Array) -> None:
        self._request = request
        self._images = images  # read until the end

    def result(self) -> tuple[FloatArray, FloatArray]:
        """Return (boxes, scores), see `Session.run`."""
        self._request.wait()
        # Copies: the request's own memory is written again by its next run.
        boxes, scores = (np.array(self._request.get_tensor(name).data, np.float32) for name in OUTPUTS)
        return boxes, scores


class OpenVinoSession:
    """A bundle's IR, compiled for a device; the compiled form is kept on disk, so that the next start is quick.

    Args:
        bundle_dir: the bundle.
        manifest: its manifest, already verified.
        threads: CPU threads for all streams together; None lets OpenVINO choose (one a core).
        device: "auto" (the CPU), "cpu", or a name of OpenVINO's, for example "GPU" or "NPU".
        streams: how many images are worked on side by side; more is more throughput and a longer wait for each.
        cache: whether to keep and use the compiled form in `cache_folder`.

    Raises:
        UserError: OpenVINO is not installed, has no such device, or can't open the file.
    """

    name = "openvino"

    def __init__(
        self,
        bundle_dir: Path,
        manifest: Manifest,
        threads: int | None = None,
        device: str = "auto",
        *,
        streams: int = 1,
        cache: bool = True,
    ) -> None:
        try:
            import openvino
        except ModuleNotFoundError:
            raise missing_extra("openvino", "openvino") from None
        core = openvino_core()
        place = "CPU" if device == "auto" else device.upper()
        if place.partition(".")[0] not in core.available_devices:
            raise UserError(
                f"OpenVINO has no device '{device}' here.",
                where="device",
                expected="auto or one of " + ", ".join(core.available_devices),
            )
        options: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": streams}
        if place.startswith(("CPU", "GPU")):
            options["INFERENCE_PRECISION_HINT"] = HINTS[manifest.precision]
        if place == "CPU" and threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        path = _checked_entry(bundle_dir, manifest)
        # A folder for each bundle's bytes: OpenVINO itself tells compiled forms apart by the graph's path, so other
        # weights beside the same graph would be answered for by the old ones.
        if cache and (folder := cache_folder("openvino", bundle_key(manifest.files))) is not None:
            options["CACHE_DIR"] = str(folder)
        try:
            self._model = core.compile_model(path, place, options)
        except RuntimeError as error:
            raise UserError(
                f"OpenVINO {openvino.__version__} can't open {path.name}: {str(error).strip().splitlines()[-1]}",
                where=str(path),
                fix="pip install --upgrade openvino, or compile the run again",
            ) from None
        check_graph(_tensors(self._model.inputs), _tensors(self._model.outputs), manifest, path)
        self._batch = manifest.batch
        self._local = threading.local()
        where = place
        if place == "CPU":  # what really works, also where OpenVINO chose
            threads, streams = (
                int(self._model.get_property(name)) for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS")
            )
            where = f"CPU in {streams} stream{'s' * (streams != 1)}"
        release = openvino.__version__.partition("-")[0]
        self.description = describe(f"OpenVINO {release}", where, threads, manifest.precision)

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return (boxes, scores) of a batch; see `Session.run`."""
        return run_in_chunks(self._run, images, self._batch)

    def _run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Run images that are as many as the graph takes, on this thread's own request."""
        request: openvino.InferRequest | None = vars(self._local).get("request")
        if request is None:
            request = self._local.request = self._model.create_infer_request()
        try:
            return self._start(request, images).result()
        except RuntimeError as error:
            raise does_not_run("OpenVINO", error) from error

    def submit(self, images: UInt8Array) -> Pending:
        """Start an inference and return at once; the array must not change until its `result` was taken.

        Args:
            images: uint8 [N, H, W, 3], C-ordered, N within the bundle's batch range.
        """
        return self._start(self._model.create_infer_request(), images)

    def _start(self, request: openvino.InferRequest, images: UInt8Array) -> Pending:
        import openvino

        request.set_input_tensor(openvino.Tensor(images, shared_memory=True))
        request.start_async()
        return Pending(request, images)

    def close(self) -> None:
        """Free the graph."""
        del self._model
        self._local = threading.local()


def _tensors(found: Sequence[openvino.Output]) -> Tensors:
    """Return what a compiled graph says of its inputs or outputs."""
    words = {"u8": "uint8", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}
    tensors: dict[str, tuple[str, list[int | None]]] = {}
    for number, one in enumerate(found):
        names = one.get_names()
        name = next((known for known in (INPUT, *OUTPUTS) if known in names), min(names, default=f"number {number}"))
        kind, shape = one.get_element_type().get_type_name(), one.get_partial_shape()
        sides = [] if shape.rank.is_dynamic else [side.get_length() if side.is_static else None for side in shape]
        tensors[name] = words.get(kind, kind), sides
    return tensors


def _checked_entry(bundle_dir: Path, manifest: Manifest) -> Path:
    """Return the path of the IR's graph, whose weights, the file beside it, are named and so hashed by the manifest.

    OpenVINO opens other formats too, some of which read whatever file they name.

    Raises:
        UserError: the entry is no IR, or its weights are not the bundle's.
    """
    path = bundle_dir / manifest.entry
    weights = str(Path(manifest.entry).with_suffix(".bin"))
    if path.suffix != ".xml" or weights not in manifest.files:
        raise UserError(
            f"The bundle's entry is {manifest.entry}, with the files {', '.join(sorted(manifest.files))}.",
            where=str(bundle_dir),
            expected="OpenVINO's own format: an .xml and the .bin of the same name",
            fix="compile the run again",
        )
    return path
