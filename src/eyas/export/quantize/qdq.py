"""Writing a `Quantization` into an exported graph, as explicit Q/DQ, in the dialect of the target.

One and the same has to be written differently for each engine: what one fuses makes another slower than float32, or is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantType

from eyas.artifacts.quantization import LARGEST, Limits, Quantization
from eyas.errors import UserError
from eyas.export.node_names import module_of, place_of, with_names
from eyas.export.onnx_utils import CONVOLUTIONS, activations_of, channel_axis, check_known, network_nodes
from eyas.machine.processor import Processor, bytes_saturate


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
        convolutions: names of the nodes that are quantized.
        kept: names of those that stay in float.
    """

    model: onnx.ModelProto
    convolutions: tuple[str, ...]
    kept: tuple[str, ...]


def weight_bits(target: str, machine: Processor) -> int:
    """Return how many bits of a weight an engine can take on a machine without saturating."""
    return 7 if target in ("onnxruntime", "openvino") and bytes_saturate(machine) else 8


def quantize(model: onnx.ModelProto, quantization: Quantization, target: str) -> Quantized:
    """Return the graph in INT8, written for a target.

    Args:
        model: an exported float32 graph of the network that the quantization is of.
        quantization: all numbers.
        target: a key of `DIALECTS`.

    Raises:
        UserError: the quantization is of another network: a module is missing or unknown, or has other channels.
    """
    dialect = DIALECTS[target]
    named = with_names(model)
    body, _ = network_nodes(named)
    paths = {node.name: module_of(node.name) for node in body if node.op_type in CONVOLUTIONS}
    check_known((*quantization.convolutions, *quantization.kept), paths.values(), "quantization")
    missing = [
        path for path in paths.values() if path not in quantization.convolutions and path not in quantization.kept
    ]
    if missing:
        raise UserError(
            f"The quantization lacks {len(missing)} of {len(paths)} convolutions, such as {missing[0]}.",
            expected="each one in `convolutions` or `kept`",
        )
    kept = [name for name, path in paths.items() if path in quantization.kept]
    chosen = [node for node in body if node.op_type in dialect.operators and node.name not in kept]
    convolutions = [node for node in chosen if node.op_type in CONVOLUTIONS]
    quantizer = QDQQuantizer(
        named,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if dialect.symmetric else QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, _ranges(named, chosen, quantization)),
        nodes_to_quantize=[node.name for node in chosen],
        nodes_to_exclude=sorted(kept),
        op_types_to_quantize=list(dialect.operators),
        extra_options=_options(dialect) | {"TensorQuantOverrides": _set_weights(named, convolutions, quantization)},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    written: onnx.ModelProto = quantizer.model.model
    onnx.checker.check_model(written, full_check=True)
    return Quantized(written, tuple(node.name for node in convolutions), tuple(sorted(kept)))


def _ranges(
    model: onnx.ModelProto, chosen: Sequence[onnx.NodeProto], quantization: Quantization
) -> dict[str, tuple[np.float32, np.float32]]:
    """Return tensor -> its range, for all tensors around the chosen nodes."""
    producer = {name: node for node in model.graph.node for name in node.output}
    ranges: dict[str, Limits] = {}
    first: dict[str, str] = {}
    for node in model.graph.node:
        path = module_of(node.name)
        if node.op_type not in CONVOLUTIONS or path not in quantization.convolutions:
            continue
        found = quantization.convolutions[path].input
        if ranges.setdefault(node.input[0], found) != found:
            raise UserError(
                f"{first[node.input[0]]} and {path} read the same tensor but have different ranges.",
                fix="give both the same range: one Q/DQ pair serves all consumers of a tensor",
                where="quantization",
            )
        first.setdefault(node.input[0], path)
    for name in activations_of(model, chosen):
        if name not in ranges and name in producer:
            place = place_of(producer[name].name)
            if place not in quantization.activations:
                raise UserError(
                    f"The quantization lacks the output range of {place}.",
                    expected="a range for each Add, Mul and Concat between the convolutions",
                    fix="start from what `eyas.export.quantize.ptq.calibrate` returns",
                )
            ranges[name] = quantization.activations[place]
    for node in chosen:
        if node.op_type == "Relu":  # it vanishes in what is before it, which has its range then
            ranges.setdefault(node.input[0], ranges[node.output[0]])
    return {name: (np.float32(low), np.float32(max(high, low + 1e-6))) for name, (low, high) in ranges.items()}


def _set_weights(
    model: onnx.ModelProto, convolutions: Sequence[onnx.NodeProto], quantization: Quantization
) -> dict[str, list[dict[str, Any]]]:
    """Clip the weights to what their integers can hold; return weight -> the step of each channel.

    Raises:
        UserError: a convolution has another number of channels.
    """
    weights = {one.name: one for one in model.graph.initializer}
    overrides: dict[str, list[dict[str, Any]]] = {}
    for node in convolutions:
        numbers = quantization.convolutions[module_of(node.name)]
        values, axis = numpy_helper.to_array(weights[node.input[1]]), channel_axis(node)
        steps = np.asarray(numbers.weights, np.float32)
        if len(steps) != values.shape[axis]:
            raise UserError(
                f"{module_of(node.name)} has {values.shape[axis]} channels, the quantization {len(steps)}.",
                where="quantization",
            )
        most = LARGEST[numbers.bits] * steps.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        clipped = np.clip(values, -most, most).astype(np.float32)
        weights[node.input[1]].CopyFrom(numpy_helper.from_array(clipped, node.input[1]))
        overrides[node.input[1]] = [
            {"axis": axis, "scale": step, "zero_point": np.int8(0), "quant_type": QuantType.QInt8} for step in steps
        ]
    return overrides


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
