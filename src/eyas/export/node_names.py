"""Where an operator of an exported graph comes from: the path of the torch module, carried in the node's name.

The exporter notes every node's modules in its metadata, which simplifying drops; the names of tensors stay. So nodes
are named after their modules as soon as the graph is simple: "net.backbone.stem.conv.conv/Conv". Engines show these
names in their reports, and ranges that were found for a module find their place in any export of it.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping

import onnx

SCOPES = "pkg.torch.onnx.name_scopes"  # the modules from the outermost to the innermost, then the node's own name
WRAPPERS = re.compile(r"^(?:deployed\.)?(?:net\.)+")  # what is around the run's network in what is exported


def scopes_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return tensor -> path of the module in which it is made, "" for the outermost; {} for other exporters' graphs."""
    found: dict[str, str] = {}
    for node in model.graph.node:
        told = {one.key: one.value for one in node.metadata_props}.get(SCOPES)
        if told:
            found |= dict.fromkeys(node.output, str(ast.literal_eval(told)[-2]))
    return found


def name_nodes(model: onnx.ModelProto, scopes: Mapping[str, str]) -> None:
    """Name every node "MODULE/OPERATOR", with a number from its second in the module on."""
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        name = f"{scopes.get(node.output[0], '')}/{node.op_type}"
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1


def module_of(name: str) -> str:
    """Return the path of the run's module that a node of this name comes from; "" if it is of none."""
    path = name.strip("/").rpartition("/")[0].replace("/", ".")  # the older exporter has slashes between modules
    return WRAPPERS.sub("", path)


def place_of(name: str) -> str:
    """Return "MODULE/OPERATOR" of a node's name, as keys of a `Quantization` have it."""
    return f"{module_of(name)}/{name.rpartition('/')[2]}"


def with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which every node has a name of its own; those that have one keep it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    taken: set[str] = set()
    for number, node in enumerate(copy.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)
    return copy
