"""Non-maximum suppression side by side: ours against the plain loop, an IoU matrix, OpenCV and ONNX Runtime's node.

    python -m benchmarks.nms [--rounds 20]

Prints milliseconds of processor time (median, every contestant in every round, one thread) and how often an answer
equals the plain reference's, and keeps the numbers in `nms.json` beside this file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
from tests.greedy import nms as plain_nms

from eyas.boxes import pairwise_iou
from eyas.runtime.nms import nms
from eyas.types import FloatArray, IntArray

Scene = tuple[FloatArray, FloatArray, IntArray]
Contestant = Callable[[FloatArray, FloatArray, IntArray, float, int], np.ndarray]

TIES = "300, on a grid, IoU 0.5"  # many pairs lie at an IoU of exactly 0.5, which does not suppress

# Name -> (boxes, objects, classes): what a thresholded image has, and what validation at a low threshold has.
SCENES = {
    "20 boxes": (20, 3, 80),
    "50 boxes": (50, 8, 80),
    "300 boxes": (300, 20, 80),
    "300, one class": (300, 20, 1),
    "1000 boxes": (1000, 60, 80),
    "1000, crowd, one class": (1000, 80, 1),
    "1000, low scores": (1000, 400, 80),
    TIES: (300, 20, 4),
}
IOU, LIMIT = 0.7, 300


def scene(rng: np.random.Generator, num: int, objects: int, classes: int) -> Scene:
    """Return boxes that gather around objects as a detector's do, one in ten with a wrong class."""
    centers, sizes = rng.uniform(0, 640, (objects, 2)), rng.uniform(20, 220, (objects, 2))
    owner = rng.integers(0, objects, num)
    center = centers[owner] + rng.normal(0, 0.06, (num, 2)) * sizes[owner]
    size = sizes[owner] * np.exp(rng.normal(0, 0.12, (num, 2)))
    boxes = np.concatenate([center - size / 2, center + size / 2], axis=1).astype(np.float32)
    truth = rng.integers(0, classes, objects)[owner]
    labels = np.where(rng.random(num) < 0.9, truth, rng.integers(0, classes, num)).astype(np.int64)
    return boxes, rng.beta(2, 3, num).astype(np.float32), labels


def on_a_grid(rng: np.random.Generator, num: int) -> Scene:
    """Return boxes whose sides are a few steps of 3.1 pixels: their overlaps are ratios of small whole numbers."""
    left_top, size = rng.integers(0, 10, (num, 2)) * 10, rng.integers(1, 11, (num, 2)) * 2
    boxes = np.concatenate([left_top, left_top + size], axis=1).astype(np.float32) * np.float32(3.1)
    return boxes, rng.beta(2, 3, num).astype(np.float32), rng.integers(0, 3, num)


def matrix_nms(boxes: FloatArray, scores: FloatArray, labels: IntArray, iou: float, limit: int) -> np.ndarray:
    """Compare all pairs at once, then walk down the rows."""
    order = np.argsort(-scores, kind="stable")
    hit = (pairwise_iou(boxes[order], boxes[order]) > iou) & (labels[order][:, None] == labels[order])
    dropped = np.zeros(len(order), bool)
    kept: list[int] = []
    for i in range(len(order)):
        if not dropped[i]:
            kept.append(i)
            dropped |= hit[i]
    return order[kept[:limit]]


def opencv_nms(boxes: FloatArray, scores: FloatArray, labels: IntArray, iou: float, limit: int) -> np.ndarray:
    """Call OpenCV's class-wise function, which takes xywh."""
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return np.asarray(cv2.dnn.NMSBoxesBatched(xywh, scores, labels.astype(np.int32), 0.0, iou))[:limit]


def onnxruntime_nms() -> Contestant:
    """Return a caller of ONNX Runtime's NonMaxSuppression; classes are moved apart, which is its fastest use."""
    tensor, info = onnx.TensorProto, onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("NonMaxSuppression", ["boxes", "scores", "limit", "iou"], ["kept"])],
        "nms",
        [
            info("boxes", tensor.FLOAT, [1, None, 4]),
            info("scores", tensor.FLOAT, [1, 1, None]),
            info("limit", tensor.INT64, [1]),
            info("iou", tensor.FLOAT, [1]),
        ],
        [info("kept", tensor.INT64, [None, 3])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(boxes: FloatArray, scores: FloatArray, labels: IntArray, iou: float, limit: int) -> np.ndarray:
        moved = boxes + (labels.astype(np.float32) * np.float32(np.abs(boxes).max() * 2 + 2))[:, None]
        feeds = {
            "boxes": moved[None],
            "scores": scores[None, None],
            "limit": np.array([limit]),
            "iou": np.array([iou], np.float32),
        }
        return np.asarray(session.run(None, feeds)[0])[:, 2]

    return run


def measure(rounds: int) -> list[dict[str, object]]:
    """Return a row for each scene: milliseconds and share of answers equal to the plain reference's."""
    contestants: dict[str, Contestant] = {
        "plain loop": plain_nms,
        "eyas": nms,
        "IoU matrix": matrix_nms,
        "OpenCV": opencv_nms,
        "ONNX Runtime": onnxruntime_nms(),
    }
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for name, shape in SCENES.items():
        times: dict[str, list[float]] = {key: [] for key in contestants}
        equal = dict.fromkeys(contestants, 0)
        for _ in range(rounds):
            iou = 0.5 if name == TIES else IOU
            drawn = on_a_grid(rng, shape[0]) if name == TIES else scene(rng, *shape)
            reference = plain_nms(*drawn, iou, LIMIT)
            for key, contestant in contestants.items():
                start = time.process_time()
                kept = contestant(*drawn, iou, LIMIT)
                times[key].append(time.process_time() - start)
                equal[key] += np.array_equal(kept, reference)
        rows.append(
            {
                "scene": name,
                "ms": {key: round(1e3 * float(np.median(values)), 4) for key, values in times.items()},
                "equal": {key: count / rounds for key, count in equal.items()},
            }
        )
    return rows


def main() -> None:
    """Measure, print the table, keep the numbers."""
    cv2.setNumThreads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rows = measure(parser.parse_args().rounds)
    names = list(rows[0]["ms"])  # type: ignore[call-overload]
    print(f"{'ms, median (equal to the reference)':36}" + "".join(f"{name:>20}" for name in names))
    for row in rows:
        cells = [f"{row['ms'][name]:.3f} ({row['equal'][name]:4.0%})" for name in names]  # type: ignore[index]
        print(f"{row['scene']:36}" + "".join(f"{cell:>20}" for cell in cells))
    Path(__file__).with_suffix(".json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
