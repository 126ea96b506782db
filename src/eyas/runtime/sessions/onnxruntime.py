"""ONNX Runtime as an engine: part of the light core, so that a bundle runs wherever Eyas is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from eyas.artifacts.manifest import Manifest
from eyas.errors import UserError
from eyas.runtime.onnx_file import read_onnx
from eyas.runtime.sessions.base import INPUT, OUTPUTS, describe
from eyas.runtime.sessions.batching import run_in_chunks
from eyas.runtime.sessions.contract import Tensors, check_graph, does_not_run
from eyas.types import FloatArray, UInt8Array

# What opening or running a file may raise; ONNX Runtime's own errors share no base class but Exception.
_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf,
    onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
    onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
)


class OnnxRuntimeSession:
    """A bundle's model.onnx in ONNX Runtime, on a GPU if this build of ONNX Runtime has one, else on the CPU.

    Args:
        bundle_dir: the bundle.
        manifest: its manifest, already verified.
        threads: how many threads the CPU gives to one image; None lets ONNX Runtime choose (one a core).
        device: "auto", "cpu" or "cuda".
        spin: whether threads that wait for work keep their core busy: a little quicker where the cores have nothing
            else to do, and twice the processor time where they do.

    Raises:
        UserError: the file needs other files or is broken, or the device is not here.
    """

    name = "onnxruntime"

    def __init__(
        self,
        bundle_dir: Path,
        manifest: Manifest,
        threads: int | None = None,
        device: str = "auto",
        *,
        spin: bool = True,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        if not spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        path = bundle_dir / manifest.entry
        providers = pick_providers(device)
        try:
            # From its bytes, which were looked through: nothing else on this machine is opened.
            self._session = onnxruntime.InferenceSession(read_onnx(path), options, providers=providers)
        except _ERRORS as error:
            raise UserError(
                f"ONNX Runtime {onnxruntime.__version__} can't open {path.name}: {str(error).splitlines()[0]}",
                where=str(path),
                fix="pip install --upgrade onnxruntime, or compile the run for another target",
            ) from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        check_graph(_tensors(inputs), _tensors(outputs), manifest, path)
        self._batch = manifest.batch
        place = "GPU" if "CUDAExecutionProvider" in self._session.get_providers() else "CPU"
        self.description = describe(f"ONNX Runtime {onnxruntime.__version__}", place, threads, manifest.precision)

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return (boxes, scores) of a batch; see `Session.run`."""
        return run_in_chunks(self._run, images, self._batch)

    def _run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        try:
            return run_graph(self._session, images)
        except _ERRORS as error:
            raise does_not_run("ONNX Runtime", error) from error

    def close(self) -> None:
        """Free the graph."""
        del self._session


def _tensors(found: Sequence[onnxruntime.NodeArg]) -> Tensors:
    """Return what a graph says of its inputs or outputs; "tensor(float)" is ONNX Runtime's word for float32."""
    words = {"float": "float32"}
    kinds = [one.type.removeprefix("tensor(").removesuffix(")") for one in found]
    return {
        one.name: (words.get(kind, kind), [side if isinstance(side, int) else None for side in one.shape or ()])
        for one, kind in zip(found, kinds, strict=True)
    }


def run_graph(session: onnxruntime.InferenceSession, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
    """Return what a graph of ours gives for images that are as many as it takes; see `Session.run`."""
    boxes, scores = session.run(OUTPUTS, {INPUT: images})
    return np.ascontiguousarray(boxes, np.float32), np.ascontiguousarray(scores, np.float32)


def pick_providers(device: str) -> list[str]:
    """Return ONNX Runtime's execution providers for a device's name, the preferred one first.

    Raises:
        UserError: there is no such device, or this build of ONNX Runtime can't use it.
    """
    available = onnxruntime.get_available_providers()
    gpu = [name for name in ("CUDAExecutionProvider",) if name in available]
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if device == "auto" or (device.startswith("cuda") and gpu):
        return [*gpu, "CPUExecutionProvider"]
    raise UserError(
        f"ONNX Runtime can't use the device '{device}' here.",
        where="device",
        expected="auto, cpu" + (", cuda" if gpu else ""),
        fix="" if gpu or not device.startswith("cuda") else "pip install onnxruntime-gpu in place of onnxruntime",
    )
