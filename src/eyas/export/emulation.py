"""Running the graph that an engine was built from, where the engine itself can't run: ONNX Runtime on a CPU.

What is computed is what the graph says: in half precision every weight and every result is rounded to the type (sums
are kept in float32, as tensor cores keep them), and INT8 is worked out from its scales in float32. What it can't show
is what the engine's own kernels and fusions do.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import onnx
import onnxruntime

from eyas.export.builders.tensorrt_graph import replace_nodes
from eyas.runtime.sessions.batching import run_in_chunks
from eyas.runtime.sessions.onnxruntime import run_graph
from eyas.types import FloatArray, UInt8Array

FLOAT = onnx.TensorProto.FLOAT
HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
# Operators that give only values that they were given: rounding them again changes nothing.
MOVES = frozenset({
    "Concat", "Constant", "Expand", "Flatten", "Gather", "GatherElements", "Identity", "MaxPool", "Relu", "Reshape",
    "Slice", "Split", "Squeeze", "TopK", "Transpose", "Unsqueeze",
})  # fmt: skip
NAMES: Mapping[int, str] = MappingProxyType({HALVES[0]: "float16", HALVES[1]: "bfloat16"})


class EmulatedSession:
    """The ONNX graph of an engine in ONNX Runtime, with the results that its types allow.

    Args:
        graph: to run; it is left as it is.
        batch: least and greatest number of images that it takes.
    """

    name = "onnxruntime"

    def __init__(self, graph: onnx.ModelProto, batch: tuple[int, int]) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Else INT8 runs in kernels that are slow for signed types, and saturate on CPUs without VNNI.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._session = onnxruntime.InferenceSession(
            in_float32(graph).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._batch = batch
        self.description = f"the engine's graph in ONNX Runtime {onnxruntime.__version__} on CPU"

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return (boxes, scores) of a batch; see `Session.run`."""
        return run_in_chunks(self._run, images, self._batch)

    def _run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        return run_graph(self._session, images)

    def close(self) -> None:
        """Free the graph."""
        del self._session


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with half precision computed in float32 and every result rounded to the type it had.

    ONNX Runtime has no bfloat16 convolution on a CPU, and drops the rounding of float16 between operators there.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = {one.name: one.type.tensor_type.elem_type for one in inferred.graph.value_info}
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    del graph.value_info[:]
    for tensor in graph.initializer:
        _widen(tensor)
    written: list[onnx.NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
        casts = node.op_type == "Cast" and node.attribute[0].i in HALVES
        if not casts and (node.op_type in MOVES or kinds.get(node.output[0]) not in HALVES):
            written.append(node)
            continue
        kind = node.attribute[0].i if casts else kinds[node.output[0]]
        result, exact = node.output[0], f"{node.output[0]}_{NAMES[kind]}"
        if casts:
            node.output[0] = exact
            written.append(node)
        else:
            node.output[0] = f"{result}_wide"
            written += [node, onnx.helper.make_node("Cast", [node.output[0]], [exact], to=kind)]
        written.append(onnx.helper.make_node("Cast", [exact], [result], to=FLOAT))
    replace_nodes(graph, written)
    return changed


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in HALVES:
        wide = onnx.numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))
