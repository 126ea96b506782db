"""From a run to one ONNX graph: exported, simplified, shape-inferred, checked, with its contract in the metadata."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxslim
import torch
from torch import nn

from eyas.artifacts.run import RunConfig
from eyas.export.build import BuildPlan, BuiltFiles, TrainedRun
from eyas.export.graph import deployed
from eyas.export.node_names import name_nodes, scopes_of
from eyas.export.target import Range
from eyas.files import write_bytes
from eyas.runtime.sessions.base import INPUT, OUTPUTS
from eyas.types import InputSpec

ENTRY = "model.onnx"
OPSET = 20
OPSET_BF16 = 22  # the first one whose convolution takes bfloat16


def export_graph(trained: TrainedRun, plan: BuildPlan) -> onnx.ModelProto:
    """Return the run's network as ONNX, in the type that the target reads from the graph; for INT8 it is float32.

    The graph takes "images", uint8 [batch, height, width, 3], RGB, and gives "boxes", float32 [batch, K, 4], xyxy in
    network pixels, and "scores", float32 [batch, K, C], best first; K is the number of candidates, or of anchors if
    that is smaller.

    Raises:
        UserError: the run has no weights, or they don't fit.
    """
    config, settings, precision = trained.run.config, plan.settings, plan.graph_precision
    assert settings.nms is not None, "Settings.for_run has set it"
    graph = deployed(trained.net, config, precision=precision, nms=settings.nms, candidates=settings.candidates)
    opset = OPSET_BF16 if precision == "bf16" else OPSET
    model = to_onnx(graph, plan.input, plan.sizes, settings.batch, opset)
    onnx.helper.set_model_props(model, metadata(config, plan.input, precision, settings.nms))
    model.producer_name = "eyas"
    return model


def build(graph: onnx.ModelProto, plan: BuildPlan, out_dir: Path) -> BuiltFiles:  # noqa: ARG001  # it is in the graph
    """Put the graph itself into the bundle: ONNX Runtime compiles it when it is opened."""
    write_bytes(out_dir / ENTRY, graph.SerializeToString())
    return BuiltFiles(ENTRY, (ENTRY,), {})


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


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the ONNX standard's operators that the graph uses."""
    return next(int(one.version) for one in model.opset_import if one.domain in ("", "ai.onnx"))
