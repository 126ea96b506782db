"""Bundles that open in milliseconds: what they find depends on the image, and how is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import simplejpeg
from onnx import TensorProto, helper, numpy_helper

from eyas.artifacts.card import hash_file
from eyas.artifacts.manifest import Manifest
from eyas.types import InputSpec, Thresholds, UInt8Array

CLASSES = ("red", "blue")
SIZE = 64


def write_bundle(folder: Path, *, scale: float = 1.0, batch: tuple[int, int] = (1, 8), size: int = SIZE) -> Path:
    """Write a bundle with one candidate an image: half the frame, with its means of red and blue as scores.

    Args:
        folder: where to write it.
        scale: the scores are multiplied by it, so that versions can be told apart.
        batch: least and greatest number of images at once.
        size: side of its input in pixels.
    """
    folder.mkdir(parents=True)
    onnx.save(_graph(scale, size), str(folder / "model.onnx"))
    manifest = Manifest(
        name=folder.name,
        classes=CLASSES,
        input=InputSpec(size, size, margin=0),
        batch=batch,
        candidates=1,
        thresholds=Thresholds(confidence=0.05),
        target="onnxruntime",
        precision="fp32",
        files={"model.onnx": hash_file(folder / "model.onnx")},
        entry="model.onnx",
        created="2026-01-01T00:00:00+00:00",
        eyas="0",
    )
    manifest.write(folder)
    return folder


def _graph(scale: float, size: int) -> onnx.ModelProto:
    """Return uint8 [N, H, W, 3] -> boxes [N, 1, 4], scores [N, 1, 2]."""
    constants = {
        "axes": np.array([1, 2], np.int64),
        "one": np.array([1], np.int64),
        "colours": np.array([0, 2], np.int64),
        "four": np.array([0, 0, 0, 0], np.int64),
        "zero": np.zeros(1, np.float32),
        "scale": np.array([scale / 255], np.float32),
        "box": np.array([[0, 0, size / 2, size / 2]], np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Gather", ["mean", "colours"], ["two"], axis=1),
        helper.make_node("Mul", ["two", "scale"], ["flat"]),
        helper.make_node("Unsqueeze", ["flat", "one"], ["scores"]),
        helper.make_node("Gather", ["mean", "four"], ["any"], axis=1),
        helper.make_node("Mul", ["any", "zero"], ["none"]),
        helper.make_node("Add", ["none", "box"], ["frame"]),
        helper.make_node("Unsqueeze", ["frame", "one"], ["boxes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "h", "w", 3])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", 1, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 1, 2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def make_image(red: int = 200, blue: int = 0, height: int = SIZE, width: int = SIZE) -> UInt8Array:
    """Return an image of one colour: the bundle's scores are red / 255 and blue / 255."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 2] = red, blue
    return image


def jpeg(red: int = 200, blue: int = 0, height: int = SIZE, width: int = SIZE) -> bytes:
    """Return such an image as a JPEG."""
    return bytes(simplejpeg.encode_jpeg(make_image(red, blue, height, width), quality=95))
