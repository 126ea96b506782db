"""Small graphs for the builders' tests, made by the quick old exporter: what matters here is what is built of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxslim
import torch
from tests.runtime.fakes import CLASSES, random_net

from eyas.artifacts.run import Run, RunConfig
from eyas.export.build import BuildPlan
from eyas.export.graph import CANDIDATES as HOST_CANDIDATES
from eyas.export.graph import deployed, load_net
from eyas.export.quantize.ptq import quantization_of
from eyas.export.quantize.qdq import quantize
from eyas.export.settings import BuildSettings
from eyas.models.fuse import fused
from eyas.types import InputSpec

SPEC = InputSpec(96, 96)
SIZES, BATCHES = (64, 128), (1, 4)
CANDIDATES = 50


def plan_of(precision: str, target: str = "openvino", **options: Any) -> BuildPlan:
    """Return what to build of such a graph."""
    settings = BuildSettings(target=target, precision=precision, batch=BATCHES, nms="host", options=options)
    return BuildPlan(settings, SPEC, SIZES)


def write_graph(path: Path, precision: str = "fp32", *, dynamic: bool = True, run: Path | None = None) -> Path:
    """Write the smallest network, or a run's, as ONNX, typed as asked, for any batch and size if `dynamic`."""
    config = RunConfig({}, CLASSES, SPEC) if run is None else Run.read(run).config
    net = fused(random_net(len(CLASSES))) if run is None else load_net(Run(run, config))
    graph = deployed(net, config, precision=precision, candidates=CANDIDATES if run is None else HOST_CANDIDATES)
    axes = {"images": {0: "batch", 1: "height", 2: "width"}, "boxes": {0: "batch"}, "scores": {0: "batch"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (torch.zeros((2, 96, 64 if dynamic else 96, 3), dtype=torch.uint8),),
            str(path),
            dynamo=False,
            input_names=["images"],
            output_names=["boxes", "scores"],
            opset_version=20,
            dynamic_axes=axes if dynamic else {},
        )
    if precision == "bf16":  # the old exporter does not know the opset whose convolution takes it
        path.write_bytes(onnx.version_converter.convert_version(onnx.load(path), 22).SerializeToString())
    return path


def write_int8(path: Path, source: Path) -> Path:
    """Write the float32 graph quantized for TensorRT and OpenVINO (signed, symmetric, float bias); return the path."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (1, SPEC.height, SPEC.width, 3), dtype=np.uint8) for _ in range(2)]
    model = onnx.shape_inference.infer_shapes(onnxslim.slim(onnx.load(source)))
    path.write_bytes(quantize(model, quantization_of(model, images).narrowed(7), "openvino").model.SerializeToString())
    return path
