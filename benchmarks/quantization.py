"""What INT8 loses, by engine, bits of the weights and clipping of the activations: SQNR of the predictions, and mAP."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from eyas.artifacts.manifest import Manifest
from eyas.export.build import TrainedRun
from eyas.export.builders.onnx import export_graph
from eyas.export.gates import accuracy, letterboxed, sample_images
from eyas.export.images import find_images, spread
from eyas.export.node_names import with_names
from eyas.export.onnx_utils import network_nodes
from eyas.export.quantize.ptq import quantization_of
from eyas.export.quantize.qdq import quantize
from eyas.export.settings import BuildSettings
from eyas.types import FloatArray, UInt8Array

Answers = list[list[FloatArray]]


class Engine:
    """ONNX Runtime on a graph, with what the convolutions predict; "float" computes it as the Q/DQ say, in float."""

    name = "onnxruntime"
    description = "one thread"

    def __init__(self, model: onnx.ModelProto, predictions: list[str], exact: bool) -> None:
        watched = onnx.ModelProto()
        watched.CopyFrom(model)
        watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in predictions)
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        if exact:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.predictions = predictions
        self.session = onnxruntime.InferenceSession(watched.SerializeToString(), options, ["CPUExecutionProvider"])

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return (boxes, scores)."""
        boxes, scores = self.session.run(["boxes", "scores"], {"images": images})
        return boxes, scores

    def predicted(self, images: UInt8Array) -> list[FloatArray]:
        """Return what the predicting convolutions give."""
        return [np.asarray(one, np.float64) for one in self.session.run(self.predictions, {"images": images})]

    def close(self) -> None:
        """Do nothing."""


def sqnr(expected: Answers, got: Answers) -> float:
    """Return the mean over the predictions of signal to noise, in dB; a channel's mean is no signal."""
    found = []
    for one in range(len(expected[0])):
        first, second = (np.stack([image[one] for image in answers]) for answers in (expected, got))
        signal = ((first - first.mean((0, 1, 3, 4), keepdims=True)) ** 2).sum()
        found.append(10 * np.log10(signal / max(((first - second) ** 2).sum(), 1e-12)))
    return float(np.mean(found))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=200, help="mAP is measured on so many")
    parser.add_argument("--calibrate", type=int, nargs="+", default=[64])
    parser.add_argument("--clipping", nargs="+", default=["mse", "99.9", "99.99", "99.999", "100"])
    args = parser.parse_args()
    trained = TrainedRun.read(args.run)
    config = trained.run.config
    found = find_images(args.run)
    index = spread(found.judge, args.images)
    model = with_names(export_graph(trained, trained.plan(BuildSettings())))
    names = set(network_nodes(model)[1])
    predictions = [node.output[0] for node in model.graph.node if node.name in names]
    looked_at = [letterboxed([one], config.input, 1) for one in sample_images(found.judge, 12)]
    manifest = Manifest(
        name="", classes=config.classes, input=config.input, batch=(1, 1), candidates=300, created="", eyas="",
        thresholds=config.thresholds, target="onnxruntime", precision="int8", files={"a": ""}, entry="a",
    )  # fmt: skip
    plain = Engine(model, predictions, False)
    expected = [plain.predicted(images) for images in looked_at]
    print(f"float32: mAP {accuracy(plain, manifest, index, 1):.4f}", flush=True)
    for count in args.calibrate:
        batches = [letterboxed([one], config.input, 1) for one in sample_images(found.calibrate, count)]
        for clipping in args.clipping:
            quantization = quantization_of(model, batches, clipping=clipping if clipping == "mse" else float(clipping))
            for bits in (8, 7):
                written = quantize(model, quantization.narrowed(bits), "onnxruntime").model
                for exact in (False, True):
                    engine = Engine(written, predictions, exact)
                    noise = sqnr(expected, [engine.predicted(images) for images in looked_at])
                    how = "in float" if exact else "executed"
                    told = f"{count} images, {clipping}, {bits} bits, {how}: {noise:.1f} dB"
                    print(f"{told}, mAP {accuracy(engine, manifest, index, 1):.4f}", flush=True)


if __name__ == "__main__":
    main()
