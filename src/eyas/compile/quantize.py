"""Post-training quantization of an exported graph to INT8, with explicit Q/DQ, in the dialect of the target.

Weights get a scale a channel, activations one a tensor, from histograms over calibration pictures. One quantized
model has to be written differently for each engine: what one fuses makes another slower than float32, or is refused.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantType

from eyas.compile.calibrate import PERCENTILE, activation_ranges
from eyas.errors import UserError
from eyas.types import UInt8Array

CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Dialect:
    """How an engine wants Q/DQ to be written.

    Attributes:
        operators: which operators' inputs are quantized.
        symmetric: activations as signed INT8 with zero-point 0; else as UINT8 with a zero-point.
        integer_bias: biases as INT32 behind a DequantizeLinear; else left in float.
        outputs: whether what these operators give is quantized too; else only what convolutions take.
    """

    operators: tuple[str, ...]
    symmetric: bool
    integer_bias: bool
    outputs: bool


# ONNX Runtime on x86 has fast kernels for UINT8 activations with INT8 weights only, and fuses an operator only if both
# its sides are quantized. TensorRT refuses zero-points and integer biases, and fuses best from convolutions' inputs.
DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        "onnxruntime": Dialect(
            ("Conv", "Relu", "Add", "Mul", "Concat", "MaxPool", "Sigmoid", "Resize"),  # no INT8 ConvTranspose there
            symmetric=False,
            integer_bias=True,
            outputs=True,
        ),
        "openvino": Dialect(CONVOLUTIONS, symmetric=True, integer_bias=False, outputs=False),
        "tensorrt": Dialect(CONVOLUTIONS, symmetric=True, integer_bias=False, outputs=False),
        "tensorrt-rtx": Dialect(CONVOLUTIONS, symmetric=True, integer_bias=False, outputs=False),
    }
)


@dataclass(frozen=True)
class Quantized:
    """A quantized graph.

    Attributes:
        model: with Q/DQ.
        convolutions: names of those that are quantized.
        kept: names of those that stay in float: the predictions, whose errors would be the boxes'.
    """

    model: onnx.ModelProto
    convolutions: tuple[str, ...]
    kept: tuple[str, ...]


def quantize(
    model: onnx.ModelProto,
    batches: Iterable[UInt8Array],
    target: str,
    *,
    percentile: float = PERCENTILE,
    keep: Sequence[str] = (),
) -> Quantized:
    """Return the graph in INT8, written for a target.

    Args:
        model: an exported float32 graph.
        batches: calibration pictures as the graph takes them, uint8 [N, H, W, 3].
        target: a key of `DIALECTS`.
        percentile: of the activations that the ranges hold.
        keep: names of further convolutions to leave in float.

    Raises:
        UserError: there is nothing to quantize in the graph.
    """
    dialect = DIALECTS[target]
    named = _named(model)
    body, predictions = network_nodes(named)
    kept = {*predictions, *keep}
    chosen = [node for node in body if node.op_type in dialect.operators and node.name not in kept]
    convolutions = [node.name for node in chosen if node.op_type in CONVOLUTIONS]
    if not convolutions:
        raise UserError("There is no convolution to quantize in the graph.")
    ranges = activation_ranges(named, _activations(named, chosen), batches, percentile)
    quantizer = QDQQuantizer(
        named,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if dialect.symmetric else QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, {n: _as_float32(r) for n, r in ranges.items()}),
        nodes_to_quantize=[node.name for node in chosen],
        nodes_to_exclude=sorted(kept),
        op_types_to_quantize=list(dialect.operators),
        extra_options=_options(dialect),
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    written: onnx.ModelProto = quantizer.model.model
    onnx.checker.check_model(written, full_check=True)
    return Quantized(written, tuple(convolutions), tuple(sorted(kept)))


def _options(dialect: Dialect) -> dict[str, Any]:
    """Return the dialect in the words of ONNX Runtime's quantizer."""
    return {
        "ActivationSymmetric": dialect.symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": dialect.integer_bias,
        "AddQDQPairToWeight": False,  # weights are stored as INT8
        "DedicatedQDQPair": False,  # one pair for all who take a tensor: copies would block fusion
        "OpTypesToExcludeOutputQuantization": [] if dialect.outputs else list(dialect.operators),
        "QDQOpTypePerChannelSupportToAxis": {"Conv": 0, "ConvTranspose": 1},
    }


def _as_float32(limits: tuple[float, float]) -> tuple[np.float32, np.float32]:
    """Return the range as the quantizer wants it, never empty."""
    low, high = limits
    return np.float32(low), np.float32(high if high > low else low + 1e-6)


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which every node has a name of its own."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for number, node in enumerate(copy.graph.node):
        node.name = f"{node.op_type}_{number}"
    return copy


def network_nodes(model: onnx.ModelProto) -> tuple[list[onnx.NodeProto], tuple[str, ...]]:
    """Return the nodes from the first convolution to the predictions, in order, and the predicting convolutions' names.

    These are the convolutions that no other convolution follows; what comes behind them is decoding, and what comes
    before the first one only scales the picture.
    """
    nodes = list(model.graph.node)
    producer = {name: node.name for node in nodes for name in node.output}
    parents = {node.name: {producer[name] for name in node.input if name in producer} for node in nodes}
    followed: set[str] = set()  # nodes that some convolution follows
    begun: set[str] = set()  # convolutions, and what comes after one
    for node in nodes:
        if node.op_type in CONVOLUTIONS or parents[node.name] & begun:
            begun.add(node.name)
        if node.op_type in CONVOLUTIONS:
            followed |= ancestors(parents, node.name)
    last = tuple(n.name for n in nodes if n.op_type in CONVOLUTIONS and n.name not in followed)
    return [node for node in nodes if node.name in begun and (node.name in followed or node.name in last)], last


def ancestors(parents: Mapping[str, set[str]], name: str) -> set[str]:
    """Return the names of all nodes that lie before the named one."""
    found: set[str] = set()
    queue = list(parents[name])
    while queue:
        one = queue.pop()
        if one not in found:
            found.add(one)
            queue += parents[one]
    return found


def _activations(model: onnx.ModelProto, chosen: Sequence[onnx.NodeProto]) -> list[str]:
    """Return the names of the float tensors around the chosen nodes, weights excepted."""
    constants = {one.name for one in model.graph.initializer} | {
        name for node in model.graph.node if node.op_type == "Constant" for name in node.output
    }
    floats = {
        value.name for value in model.graph.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    names = [name for node in chosen for name in (*node.input, *node.output)]
    return [name for name in dict.fromkeys(names) if name in floats and name not in constants]


def quantized_convolutions(model: onnx.ModelProto) -> list[str]:
    """Return the names of the convolutions whose picture and weights both come from a DequantizeLinear."""
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
            f"{wanted - integer} of {wanted} convolutions did not come out as INT8.",
            expected="all but the predictions",
            fix="choose another precision; no bundle was written",
        )
    return {"int8": integer, "float": rest}
