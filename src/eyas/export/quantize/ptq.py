"""Quantization after training: the ranges of a run's activations and the steps of its weights, from images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from eyas.artifacts.quantization import LARGEST, Limits, Quantization, QuantizedConvolution
from eyas.errors import UserError
from eyas.export.build import TrainedRun
from eyas.export.builders.onnx import export_graph
from eyas.export.gates import letterboxed, sample_images
from eyas.export.images import find_images
from eyas.export.node_names import module_of, place_of, with_names
from eyas.export.onnx_utils import CONVOLUTIONS, activations_of, channel_axis, check_known, network_nodes
from eyas.export.quantize.calibrate import Histogram, histograms
from eyas.export.quantize.qdq import DIALECTS
from eyas.export.settings import BuildSettings
from eyas.types import UInt8Array

CLIPPING = "mse"  # benchmarks/quantization.md compares it with percentages
IMAGES = 128
# Sums, products and joins that some dialect quantizes beside the convolutions.
OPERATORS = tuple(dict.fromkeys(name for dialect in DIALECTS.values() for name in dialect.operators))


def calibrate(
    run: str | Path,
    *,
    data: str | Path | None = None,
    images: int = IMAGES,
    clipping: str | float = CLIPPING,
    keep: Sequence[str] = (),
) -> Quantization:
    """Return the quantization of a trained run, from images that it was trained on.

    Args:
        run: the run's folder.
        data: the dataset, whose training split is used; None for the run's own.
        images: how many.
        clipping: see `quantization_of`.
        keep: modules whose convolutions stay in float, besides the predictions.

    Raises:
        UserError: the run can't be used, its dataset is not here, or `keep` names no convolution of it.
    """
    trained = TrainedRun.read(Path(run))
    index = find_images(Path(run), data).calibrate
    plan = trained.plan(BuildSettings())
    batches = [letterboxed([one], plan.input, 1) for one in sample_images(index, images)]
    return quantization_of(export_graph(trained, plan), batches, clipping=clipping, keep=keep)


def quantization_of(
    model: onnx.ModelProto,
    batches: Iterable[UInt8Array],
    *,
    clipping: str | float = CLIPPING,
    keep: Sequence[str] = (),
) -> Quantization:
    """Return the quantization of an exported graph, for any target.

    Args:
        model: an exported float32 graph.
        batches: calibration images as the graph takes them, uint8 [N, H, W, 3].
        clipping: "mse" for the ranges with the least mean squared error, or the percentage of the values on either
            side of zero that a range must hold.
        keep: modules whose convolutions stay in float, besides those that predict.

    Raises:
        UserError: there is nothing to quantize in the graph, or `keep` names what is no convolution of it.
    """
    named = with_names(model)
    body, predictions = network_nodes(named)
    paths = {node.name: module_of(node.name) for node in body if node.op_type in CONVOLUTIONS}
    check_known(keep, paths.values(), "keep")
    kept = [path for name, path in paths.items() if name in predictions or path in keep]
    chosen = [node for node in body if node.op_type in OPERATORS and paths.get(node.name) not in kept]
    weights = {one.name: one for one in named.graph.initializer}
    tensors = activations_of(named, chosen)
    counted, seen = histograms(named, tensors, batches)
    ranges = {name: _limits(one, clipping) for name, one in counted.items()}
    convolutions = {
        paths[node.name]: QuantizedConvolution(ranges[node.input[0]], _steps(node, weights[node.input[1]]))
        for node in chosen
        if node.op_type in CONVOLUTIONS
    }
    if not convolutions:
        raise UserError("The graph has no convolution to quantize.")
    taken = {node.input[0] for node in chosen if node.op_type in CONVOLUTIONS}
    producer = {name: node for node in body for name in node.output}
    return Quantization(
        convolutions,
        {place_of(producer[name].name): ranges[name] for name in tensors if name not in taken and name in producer},
        tuple(kept),
        {"method": "post-training calibration", "clipping": clipping, "images": seen},
    )


def _limits(histogram: Histogram, clipping: str | float) -> Limits:
    if isinstance(clipping, str) and clipping != "mse":
        raise UserError(f"Unknown clipping '{clipping}'.", expected="mse, or a percentage", where="clipping")
    return histogram.best() if isinstance(clipping, str) else histogram.range(clipping)


def _steps(node: onnx.NodeProto, weight: onnx.TensorProto) -> tuple[float, ...]:
    """Return the step of each output channel's weights in 8 bits: the largest one is held."""
    values = np.abs(numpy_helper.to_array(weight))
    peaks = values.max(axis=tuple(i for i in range(values.ndim) if i != channel_axis(node)))
    return tuple(float(peak) / LARGEST[8] if peak > 0 else 1.0 for peak in peaks)
