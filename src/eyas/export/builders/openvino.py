"""From an ONNX file to OpenVINO's own format (IR): weights and graph with preprocessing and decoding inside.

FP32, FP16 and BF16 are hints to the engine, not types of the graph: a device that lacks a type computes in another
one, and the build says in which. INT8 is in the graph, as Q/DQ around the convolutions.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.errors import UserError
from eyas.export.build import BuildPlan, BuiltFiles
from eyas.export.options import OpenVinoOptions, builder_options
from eyas.export.target import Range
from eyas.runtime.openvino_core import openvino_core
from eyas.runtime.sessions.openvino import HINTS
from eyas.types import InputSpec

if TYPE_CHECKING:
    import onnx
    import openvino

ENTRY = "model.xml"
WEIGHTS = "model.bin"


def build(graph: onnx.ModelProto, plan: BuildPlan, out_dir: Path) -> BuiltFiles:
    """Write model.xml and model.bin into `out_dir`.

    Args:
        graph: "images", uint8 [N, H, W, 3], to "boxes" and "scores"; for "int8" with S8S8 Q/DQ.
        plan: its options are fields of `OpenVinoOptions`.
        out_dir: where the files go.

    Raises:
        UserError: OpenVINO can't convert or compile the graph, or INT8 was asked for and not one convolution is.
        ModuleNotFoundError: OpenVINO is not installed.
    """
    import openvino
    from openvino import frontend

    precision = plan.settings.precision
    chosen = builder_options("openvino", plan.settings.options)
    assert isinstance(chosen, OpenVinoOptions)
    device = chosen.device
    core = openvino_core()
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(graph.SerializeToString())
            model = openvino.convert_model(path)
        shape(model, plan.input, plan.sizes, plan.settings.batch)
        compiled = core.compile_model(model, device, {"INFERENCE_PRECISION_HINT": HINTS[precision]})
    except (RuntimeError, frontend.OpConversionFailure, frontend.OpValidationFailure, frontend.GeneralFailure) as error:
        raise UserError(f"OpenVINO {openvino.__version__} can't build the graph: {_reason(error)}") from None
    executed = layer_precisions(compiled)
    if precision == "int8" and not executed.get("int8"):
        raise UserError(
            f"INT8 was requested, but OpenVINO runs no convolution in it: {executed}.",
            expected="symmetric Q/DQ around convolutions",
        )
    # Half precision at run time gains nothing from more than half precision on disk.
    openvino.save_model(model, out_dir / ENTRY, compress_to_fp16=precision in ("fp16", "bf16"))
    capabilities = [str(each).lower() for each in core.get_property(device, "OPTIMIZATION_CAPABILITIES")]
    details = {
        "openvino": openvino.__version__,
        "precision_hint": HINTS[precision],
        "device": device,
        "executed": executed,
        "hint_is_native": precision in ("fp32", "int8") or precision in capabilities,
    }
    return BuiltFiles(ENTRY, (ENTRY, WEIGHTS), details)


def shape(model: openvino.Model, spec: InputSpec, sizes: Range | None, batches: Range) -> None:
    """Give the model's input its ranges, and say what its dimensions mean."""
    import openvino

    side = [spec.height, spec.width] if sizes is None or sizes[0] == sizes[1] else [openvino.Dimension(*sizes)] * 2
    batch = batches[0] if batches[0] == batches[1] else openvino.Dimension(*batches)
    images = model.input(0)
    model.reshape({images: openvino.PartialShape([batch, *side, 3])})
    images.get_node().layout = openvino.Layout("NHWC")


def layer_precisions(compiled: openvino.CompiledModel) -> dict[str, int]:
    """Return how many convolutions the compiled model runs in each precision, as "fp32", "fp16", "bf16", "int8"."""
    names = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
    found: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if "layerType" in info and info["layerType"].astype(str) in ("Convolution", "Deconvolution"):
            kind = info["runtimePrecision"].astype(str)
            found[names.get(kind, kind)] += 1
    return dict(found)


def _reason(error: Exception) -> str:
    """Return the lines of an OpenVINO error that tell what went wrong; the others name its own source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return " ".join((telling or lines)[:6])
