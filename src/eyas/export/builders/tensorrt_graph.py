"""Changes to an ONNX graph without which TensorRT refuses it; none of them changes what it computes."""

from __future__ import annotations

import onnx


def fit_for_tensorrt(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of the graph that TensorRT and TensorRT-RTX take."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    cast_first(changed)
    widen_deconvolutions(changed)
    products_as_sums(changed)
    del changed.graph.value_info[:]  # what was said of the tensors in between
    return changed


def cast_first(model: onnx.ModelProto) -> None:
    """Cast the input before it is transposed: TensorRT takes UINT8 into a cast and nowhere else."""
    nodes = model.graph.node
    for transpose in (node for node in nodes if node.op_type == "Transpose"):
        takers = [node for node in nodes if transpose.output[0] in node.input]
        if transpose.input[0] == model.graph.input[0].name and [node.op_type for node in takers] == ["Cast"]:
            cast = takers[0]
            # The two nodes trade places, in the list (which must stay sorted) and in what they take and give.
            images, between, floats = transpose.input[0], transpose.output[0], cast.output[0]
            first, second = onnx.NodeProto(), onnx.NodeProto()
            first.CopyFrom(cast)
            second.CopyFrom(transpose)
            first.input[0], first.output[0] = images, between
            second.input[0], second.output[0] = between, floats
            transpose.CopyFrom(first)
            cast.CopyFrom(second)
            break


def widen_deconvolutions(model: onnx.ModelProto) -> None:
    """Let bfloat16 deconvolutions work in float32, between casts: TensorRT-RTX 1.7 has none in bfloat16."""
    graph, tensor = model.graph, onnx.TensorProto
    narrow = {each.name for each in graph.initializer if each.data_type == tensor.BFLOAT16}
    narrow |= {
        node.output[0]
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value" and attribute.t.data_type == tensor.BFLOAT16
    }
    written: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "ConvTranspose" or node.input[1] not in narrow:
            written.append(node)
            continue
        result = node.output[0]
        for index, name in enumerate(node.input):
            wide = f"{name}_wide_{len(written)}"
            written.append(onnx.helper.make_node("Cast", [name], [wide], to=tensor.FLOAT))
            node.input[index] = wide
        node.output[0] = f"{result}_wide"
        written += [node, onnx.helper.make_node("Cast", [node.output[0]], [result], to=tensor.BFLOAT16)]
    replace_nodes(graph, written)


def products_as_sums(model: onnx.ModelProto) -> None:
    """Write products with a constant vector as Mul and ReduceSum: on Turing, TensorRT-RTX has no float32 product.

    The one in question takes the mean of a side's distribution, which stays in float32 in every precision.
    """
    graph = model.graph
    vectors = {each.name for each in graph.initializer if len(each.dims) == 1}
    vectors |= {
        node.output[0]
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value" and len(attribute.t.dims) == 1
    }
    axis = onnx.helper.make_tensor("last_axis", onnx.TensorProto.INT64, [1], [-1])
    written: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in vectors:
            written.append(node)
            continue
        scaled = f"{node.output[0]}_scaled"
        written.append(onnx.helper.make_node("Mul", list(node.input), [scaled]))
        written.append(onnx.helper.make_node("ReduceSum", [scaled, axis.name], list(node.output), keepdims=0))
    if len(written) > len(graph.node):
        graph.initializer.append(axis)
        replace_nodes(graph, written)


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Make these the graph's nodes; some of them may be its own."""
    copies = [onnx.NodeProto() for _ in nodes]
    for copy, node in zip(copies, nodes, strict=True):
        copy.CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)
