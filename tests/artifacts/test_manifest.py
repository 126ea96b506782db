"""A bundle's manifest: written and read back, its schema in the manual, and everything odd refused in plain words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.meta.source import ROOT

from eyas.artifacts.card import hash_file
from eyas.artifacts.layout import MANIFEST
from eyas.artifacts.manifest import Manifest, SuppressionPlace, manifest_schema, oldest_version
from eyas.artifacts.measured import Accuracy
from eyas.errors import UserError
from eyas.runtime.loading import load
from eyas.runtime.sessions.batching import run_in_chunks
from eyas.runtime.sessions.onnxruntime import OnnxRuntimeSession, pick_providers
from eyas.types import InputSpec, Thresholds, UInt8Array


def small_model() -> onnx.ModelProto:
    """Return a graph with the contract of a bundle: two boxes and two classes, from the mean of an image."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=1),
        helper.make_node("Squeeze", ["mean", "last"], ["flat"]),
        helper.make_node("Mul", ["flat", "zeros"], ["nothing"]),
        helper.make_node("Add", ["nothing", "one_box"], ["boxes"]),
        helper.make_node("Mul", ["flat", "factors"], ["scores"]),
    ]
    constants = {
        "axes": np.array([1, 2, 3]),
        "last": np.array([3]),
        "zeros": np.zeros((1, 2, 4), np.float32),
        "one_box": np.array([[[8, 8, 24, 24], [40, 8, 60, 24]]], np.float32),
        "factors": np.array([[[1 / 255, 0], [0, 1 / 300]]], np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 64, 96, 3])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", 2, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2, 2]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    onnx.save(small_model(), folder / "model.onnx")
    manifest_of(folder).write(folder)
    return folder


def manifest_of(folder: Path, **changes: Any) -> Manifest:
    fields = {
        "name": "small",
        "classes": ("red", "blue"),
        "input": InputSpec(64, 96, margin=0),
        "batch": (1, 2),
        "candidates": 2,
        "thresholds": Thresholds(confidence=0.1),
        "target": "onnxruntime",
        "precision": "fp32",
        "files": {"model.onnx": hash_file(folder / "model.onnx")},
        "entry": "model.onnx",
        "created": "2026-01-01T00:00:00+00:00",
        "eyas": "0",
    }
    return Manifest(**{**fields, **changes})


def change(folder: Path, **fields: Any) -> None:
    held = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**held, **fields}))


def refresh(folder: Path) -> None:
    change(folder, files={"model.onnx": hash_file(folder / "model.onnx")})


def test_what_is_written_is_read(bundle: Path) -> None:
    assert Manifest.read(bundle) == manifest_of(bundle)
    with load(bundle) as detector:
        found = detector.predict([np.full((64, 96, 3), 200, np.uint8)] * 5, detector.thresholds)
    assert len(found) == 5 and [len(one) for one in found] == [2] * 5
    np.testing.assert_allclose(found[4].boxes[0], [8, 8, 24, 24])
    assert [found[0].classes[label] for label in found[0].labels] == ["red", "blue"]


def test_an_accuracy_that_is_not_defined_is_not_written() -> None:
    """JSON has no NaN: the manifest could not be read again."""
    with pytest.raises(UserError, match="mAP is undefined"):
        Accuracy(map=float("nan"), map_fp32=0.5, data="shapes", split="val", images=3)


def test_the_schema_in_the_manual_is_this_one() -> None:
    text = (ROOT / "docs" / "manifest.schema.json").read_text(encoding="utf-8")
    assert json.loads(text) == json.loads(json.dumps(manifest_schema()))


def test_a_newer_eyas(bundle: Path) -> None:
    change(bundle, version=3, something_new=1)
    with pytest.raises(UserError, match="newer Eyas"):
        load(bundle)


NO_SUPPRESSION = {"nms": "none", "version": 2, "thresholds": Thresholds(confidence=0.1, suppression="none")}


def test_nothing_to_suppress(bundle: Path) -> None:
    manifest_of(bundle, **NO_SUPPRESSION).write(bundle)
    assert Manifest.read(bundle) == manifest_of(bundle, **NO_SUPPRESSION)
    with load(bundle) as detector:
        assert detector.thresholds.suppression == "none"


def test_a_reader_of_format_1_asks_to_be_upgraded_in_place_of_dropping_boxes(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest_of(bundle, **NO_SUPPRESSION).write(bundle)
    monkeypatch.setattr("eyas.artifacts.manifest.FORMAT_VERSION", 1)
    with pytest.raises(UserError, match=r"newer Eyas \(format 2; this one reads 1\)"):
        load(bundle)


@pytest.mark.parametrize("nms", ["host", "graph"])
def test_what_is_suppressed_stays_in_format_1(bundle: Path, nms: SuppressionPlace) -> None:
    assert oldest_version(nms) == 1 == manifest_of(bundle, nms=nms).version


@pytest.mark.parametrize(
    "fields",
    [
        {**NO_SUPPRESSION, "nms": "host"},
        {**NO_SUPPRESSION, "nms": "graph"},
        {**NO_SUPPRESSION, "thresholds": Thresholds()},
        {**NO_SUPPRESSION, "version": 1},
    ],
)
def test_a_manifest_that_contradicts_itself_about_suppression(bundle: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="nms is"):
        manifest_of(bundle, **fields)


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "a/../../b", "C:\\x", "c:x", "a\\..\\b", "", ".", "a//b", "./a", "a\0b"]
)
def test_a_path_that_leads_outside(bundle: Path, name: str) -> None:
    (bundle.parent / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes())
    change(bundle, files={name: hash_file(bundle / "model.onnx")}, entry=name)
    with pytest.raises(UserError, match="may point outside"):
        load(bundle)


def test_a_link_that_leads_outside(bundle: Path) -> None:
    outside = bundle.parent / "secret.onnx"
    (bundle / "model.onnx").rename(outside)
    (bundle / "model.onnx").symlink_to(outside)
    with pytest.raises(UserError, match="lists a file outside its folder"):
        load(bundle)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "other"}, "not a bundle manifest"),
        ({"precision": "int7"}, "precision"),
        ({"classes": []}, "classes"),
        ({"batch": [4, 1]}, "4 to 1 is not a range"),
        ({"entry": "model.xml"}, "is not among the files"),
        ({"extra": 1}, "extra"),
        ({"input": {"heigth": 64}}, "did you mean 'height'"),
        ({"input": {"height": 65, "width": 96}}, "multiple of 32"),
        ({"thresholds": {"confidence": 7}}, "confidence threshold is 7"),
        ({"nms": "none"}, "nms is none, and thresholds.suppression class_wise"),
        ({"thresholds": {"suppression": "non"}}, "should be .*'none'"),
        ({"candidates": "many"}, "candidates"),
    ],
)
def test_a_wrong_field_is_named(bundle: Path, fields: dict[str, Any], message: str) -> None:
    change(bundle, **fields)
    with pytest.raises(UserError, match=message):
        load(bundle)


@pytest.mark.parametrize("data", [b"rubbish, not a graph", b"", None])
def test_a_broken_graph(bundle: Path, data: bytes | None) -> None:
    whole = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(whole[: len(whole) // 2] if data is None else data)
    refresh(bundle)
    with pytest.raises(UserError, match="ONNX"):
        load(bundle)


def test_sizes_of_a_bundle(bundle: Path) -> None:
    manifest = manifest_of(bundle, sizes=(64, 128))
    assert manifest.for_size(128).input == InputSpec(128, 128, margin=0)
    with pytest.raises(UserError, match="not compiled for 160-pixel inputs"):
        manifest.for_size(160)
    with pytest.raises(UserError, match="multiple of 32"):
        manifest.for_size(100)


@pytest.mark.parametrize(("num", "batch", "calls"), [(5, (1, 2), [2, 2, 1]), (3, (2, 4), [3]), (5, (4, 4), [4, 4])])
def test_batches_of_any_size(num: int, batch: tuple[int, int], calls: list[int]) -> None:
    seen: list[int] = []

    def run(images: UInt8Array) -> Any:
        seen.append(len(images))
        return images[:, 0, :, :1].astype(np.float32), images[:, 0, :, :2].astype(np.float32)

    images = np.arange(num, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    boxes, scores = run_in_chunks(run, images, batch)
    assert seen == calls and len(boxes) == len(scores) == num
    assert boxes[:, 0, 0].tolist() == list(range(num))


def test_the_engine_itself(bundle: Path) -> None:
    session = OnnxRuntimeSession(bundle, Manifest.read(bundle), threads=1, device="cpu")
    boxes, scores = session.run(np.full((3, 64, 96, 3), 255, np.uint8))
    assert boxes.shape == (3, 2, 4) and scores.shape == (3, 2, 2) and scores[2, 0, 0] == pytest.approx(1.0)
    assert "1 thread, fp32" in session.description
    assert pick_providers("cpu") == ["CPUExecutionProvider"]
    with pytest.raises(UserError, match="can't use the device 'tpu'"):
        pick_providers("tpu")


def test_a_folder_that_is_no_bundle_is_told_how_one_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a bundle.*manifest\.json") as error:
        Manifest.read(tmp_path)
    assert "eyas compile" in str(error.value)
