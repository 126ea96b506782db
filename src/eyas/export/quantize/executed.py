"""What really runs in INT8: counted in the graph that an engine executes, not in the one that it was given."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime

from eyas.errors import UserError
from eyas.export.onnx_utils import CONVOLUTIONS
from eyas.export.quantize.qdq import Quantized


def quantized_convolutions(model: onnx.ModelProto) -> list[str]:
    """Return the names of the convolutions whose image and weights both come from a DequantizeLinear."""
    producer = {name: node.op_type for node in model.graph.node for name in node.output}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in CONVOLUTIONS and all(producer.get(n) == "DequantizeLinear" for n in node.input[:2])
    ]


def fused_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Return operator -> how often it stands in the graph that ONNX Runtime really executes on this machine."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "executed.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        executed = onnx.load(path)
    counts: dict[str, int] = {}
    for node in executed.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def check_int8(quantized: Quantized, target: str) -> dict[str, int]:
    """Return how many convolutions run in INT8 and how many don't.

    For ONNX Runtime, what it really executes is counted; other targets count what they build themselves.

    Raises:
        UserError: a convolution that should be INT8 is not.
    """
    wanted = len(quantized.convolutions)
    if target == "onnxruntime":
        counts = fused_operators(quantized.model)
        integer = counts.get("QLinearConv", 0)
        rest = counts.get("Conv", 0) + counts.get("FusedConv", 0) + counts.get("ConvTranspose", 0)
    else:
        integer = len(quantized_convolutions(quantized.model))
        rest = sum(node.op_type in CONVOLUTIONS for node in quantized.model.graph.node) - integer
    if integer < wanted:
        raise UserError(
            f"{wanted - integer} of {wanted} convolutions do not run in INT8.",
            expected="all but the predictions",
            fix="choose another precision; no bundle was written",
        )
    return {"int8": integer, "float": rest}
