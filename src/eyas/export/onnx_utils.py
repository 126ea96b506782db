"""The part of an exported graph that is the network: from the first convolution to the predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx

from eyas.errors import UserError, suggest

CONVOLUTIONS = ("Conv", "ConvTranspose")


def network_nodes(model: onnx.ModelProto) -> tuple[list[onnx.NodeProto], tuple[str, ...]]:
    """Return the nodes from the first convolution to the predictions, in order, and the predicting convolutions' names.

    These are the convolutions that no other convolution follows; what comes behind them is decoding, and what comes
    before the first one only scales the image.
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


def activations_of(model: onnx.ModelProto, chosen: Sequence[onnx.NodeProto]) -> list[str]:
    """Return the names of the float tensors around the chosen nodes, weights excepted.

    What only a Relu takes is left out: it is quantized behind that.
    """
    constants = {one.name for one in model.graph.initializer} | {
        name for node in model.graph.node if node.op_type == "Constant" for name in node.output
    }
    floats = {
        value.name for value in model.graph.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    takers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            takers.setdefault(name, set()).add(node.op_type)
    names = [name for node in chosen for name in (*node.input, *node.output) if takers.get(name) != {"Relu"}]
    return [name for name in dict.fromkeys(names) if name in floats and name not in constants]


def channel_axis(node: onnx.NodeProto) -> int:
    """Return which axis of a convolution's weights are the output channels."""
    return 1 if node.op_type == "ConvTranspose" else 0


def check_known(asked: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise a UserError if a path is of no convolution of the graph."""
    there = set(known)
    for path in asked:
        if path not in there:
            near = suggest(path, sorted(there))
            raise UserError(f"The network has no convolution '{path}'{near}.", where=where)
