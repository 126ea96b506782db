"""From a run to one ONNX file: exported, simplified, shape-inferred, checked, with its contract in the metadata."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import onnxslim
import torch
from torch import nn

from eyas.artifacts.manifest import SuppressionPlace
from eyas.artifacts.run import Run, RunConfig
from eyas.errors import UserError
from eyas.export.graph import CANDIDATES, deployed, load_net, suppression_place
from eyas.export.node_names import name_nodes, scopes_of
from eyas.export.target import Range, Sides
from eyas.files import write_bytes
from eyas.runtime.sessions.base import INPUT, OUTPUTS
from eyas.types import InputSpec

OPSET = 20
OPSET_BF16 = 22  # the first one whose convolution takes bfloat16


def export(
    run_folder: Path,
    out_file: Path,
    *,
    size: int | Sides | Range | None = None,
    batch: Range = (1, 1),
    precision: str = "fp32",
    nms: SuppressionPlace | None = None,
    candidates: int = CANDIDATES,
) -> Path:
    """Write the run's network to `out_file` as ONNX and return its path.

    The graph takes "images", uint8 [batch, height, width, 3], RGB, and gives "boxes", float32 [batch, K, 4], xyxy in
    network pixels, and "scores", float32 [batch, K, C], best first.

    Args:
        run_folder: the run.
        out_file: where to write; the file is replaced only by a whole one.
        size: side of the square input in pixels; `Sides` for one that is not square; (least, greatest) for a graph
            that takes any size between; None for the run's own.
        batch: (least, greatest) number of images at once; equal for a fixed number.
        precision: "fp32", "fp16" or "bf16": the type of the network; "int8" gives the float32 graph to be quantized.
        nms: "host", "graph" for suppression inside, "none" for a network that needs none; None for what it needs.
        candidates: K, or the number of anchors if that is smaller.

    Raises:
        UserError: the run can't be read, no network of the family takes such a size, or this one's boxes need another
            `nms`.
    """
    run = Run.read(run_folder)
    nms = suppression_place(nms, run.config.thresholds.suppression)
    spec, sizes = input_of(run.config.input, size)
    graph = deployed(load_net(run), run.config, precision=precision, nms=nms, candidates=candidates)
    model = to_onnx(graph, spec, sizes, batch, OPSET_BF16 if precision == "bf16" else OPSET)
    onnx.helper.set_model_props(model, metadata(run.config, spec, precision, nms))
    return save(model, out_file)


def input_of(spec: InputSpec, size: int | Sides | Range | None) -> tuple[InputSpec, Range | None]:
    """Return the input contract for a size, and the range of sizes, None for a fixed one.

    Of a range, the run's own size is the contract's where it lies inside, else the greatest.
    """
    if size is None:
        return spec, None
    if isinstance(size, int):
        return _sized(spec, Sides(size, size)), None
    if isinstance(size, Sides):
        return _sized(spec, size), None
    least, greatest = (_sized(spec, Sides(side, side)) for side in size)
    if least.height > greatest.height:
        raise UserError(f"The sizes {least.height} to {greatest.height} are not a range.", where="size")
    inside = least.height <= min(spec.height, spec.width) and max(spec.height, spec.width) <= greatest.height
    chosen = spec if inside else greatest
    return chosen, None if least.height == greatest.height else (least.height, greatest.height)


def _sized(spec: InputSpec, sides: Sides) -> InputSpec:
    """Return the contract for an input of that size; one that no network takes is refused by InputSpec."""
    return replace(spec, height=sides.height, width=sides.width)


def to_onnx(graph: nn.Module, spec: InputSpec, sizes: Range | None, batch: Range, opset: int) -> onnx.ModelProto:
    """Return the module as an ONNX model that was simplified and checked.

    Args:
        graph: takes uint8 [B, H, W, 3] and returns (boxes, scores).
        spec: the input size to trace with.
        sizes: least and greatest side, None for the fixed size of `spec`.
        batch: least and greatest number of images.
        opset: of the ONNX standard.
    """
    dynamic: dict[int, object] = {}
    if batch[0] < batch[1]:
        dynamic[0] = torch.export.Dim("batch", min=batch[0], max=batch[1])
    height, width = spec.height, spec.width
    if sizes is not None:
        rows, columns = (torch.export.Dim(n, min=sizes[0] // 32, max=sizes[1] // 32) for n in ("rows", "columns"))
        dynamic |= {1: 32 * rows, 2: 32 * columns}
        # Traced with unequal sides: equal ones would tie the two dimensions together.
        height, width = (sizes[1], sizes[1] - 32) if height == width else (height, width)
    example = torch.zeros((batch[1] if batch[0] == batch[1] else 2, height, width, 3), dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            opset_version=opset,
            dynamic_shapes={INPUT: dynamic} if dynamic else None,
            verbose=False,
        )
        assert program is not None
        exported = program.model_proto
        scopes = scopes_of(exported)
        model: onnx.ModelProto = onnxslim.slim(exported)
    name_nodes(model, scopes)
    _name_dimensions(model, batch, sizes)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter tells of itself from the user, who can do nothing about it."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _name_dimensions(model: onnx.ModelProto, batch: Range, sizes: Range | None) -> None:
    """Give the dimensions that vary names that a person understands, and drop what was said of those in between."""
    del model.graph.value_info[:]
    names = ["batch" if batch[0] < batch[1] else "", *(("height", "width") if sizes else ("", ""))]
    for value, labels in [(model.graph.input[0], names), *((one, names[:1]) for one in model.graph.output)]:
        for dimension, label in zip(value.type.tensor_type.shape.dim, labels, strict=False):
            if label:
                dimension.dim_param = label
    for value in model.graph.output:
        kept = value.type.tensor_type.shape.dim[1]
        if kept.HasField("dim_param"):
            kept.dim_param = "candidates"


def metadata(config: RunConfig, spec: InputSpec, precision: str, nms: str) -> dict[str, str]:
    """Return what the ONNX file says of itself, for those who have nothing but the file."""
    return {
        "classes": json.dumps(config.classes, ensure_ascii=False),
        "input": json.dumps(spec.to_dict()),
        "layout": "uint8 RGB, batch x height x width x 3; scaling is in the graph",
        "boxes": "xyxy in network pixels",
        "precision": precision,
        "nms": nms,
    }


def save(model: onnx.ModelProto, out_file: Path) -> Path:
    """Write the model as one file and return its path."""
    model.producer_name = "eyas"
    write_bytes(out_file, model.SerializeToString())
    return out_file


def opset_of(path: Path) -> int:
    """Return the version of the ONNX standard's operators that the file uses."""
    opsets = onnx.load(path, load_external_data=False).opset_import
    return next(int(one.version) for one in opsets if one.domain in ("", "ai.onnx"))
