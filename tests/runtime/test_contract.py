"""A bundle whose manifest and graph do not agree is refused when it is opened, before an image is looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.artifacts.test_manifest import change, manifest_of, small_model
from tests.nasty import variants
from tests.runtime.test_bad_bundles import make, own_cache, rehash  # noqa: F401

from eyas.artifacts.card import Card
from eyas.artifacts.layout import MANIFEST
from eyas.errors import UserError
from eyas.runtime.loading import load
from eyas.types import UInt8Array

IMAGE: UInt8Array = np.full((64, 96, 3), 200, np.uint8)


def rename(old: str, new: str) -> Callable[[onnx.ModelProto], None]:
    """Return what gives a tensor of the graph another name."""

    def apply(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        for one in (*model.graph.input, *model.graph.output):
            one.name = new if one.name == old else one.name

    return apply


def shape(name: str, *sides: int | str) -> Callable[[onnx.ModelProto], None]:

    def apply(model: onnx.ModelProto) -> None:
        for each in (model.graph.input, model.graph.output):
            for one in each:
                if one.name == name:
                    kind = one.type.tensor_type.elem_type
                    one.CopyFrom(helper.make_tensor_value_info(name, kind, sides))

    return apply


def one_more_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, None))


def no_scores(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


def no_input(model: onnx.ModelProto) -> None:
    del model.graph.input[0]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1, 64, 96, 3), np.uint8), "images"))


def float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def half_the_boxes(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    model.graph.node[4].output[0] = "single"
    model.graph.node.append(helper.make_node("Cast", ["single"], ["boxes"], to=TensorProto.DOUBLE))


GRAPHS = {
    "input renamed": rename("images", "pixels"),
    "output renamed": rename("scores", "confidences"),
    "one more output": one_more_output,
    "no scores": no_scores,
    "no input": no_input,
    "floats": float_input,
    "doubles": half_the_boxes,
    "another size": shape("images", "batch", 32, 96, 3),
    "one channel": shape("images", "batch", 64, 96, 1),
    "channels first": shape("images", "batch", 3, 64, 96),
    "fixed batch": shape("images", 1, 64, 96, 3),
}


@pytest.fixture(scope="module")
def openvino() -> Any:
    return pytest.importorskip("openvino")


def bundle_of(folder: Path, model: onnx.ModelProto, target: str, openvino: Any) -> Path:
    """Write a bundle of the graph for an engine, its manifest that of the graph as it was."""
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    names: tuple[str, ...] = ("model.onnx",)
    if target == "openvino":
        openvino.save_model(openvino.convert_model(folder / "model.onnx"), folder / "model.xml", compress_to_fp16=False)
        names = ("model.xml", "model.bin")
    return make(folder.parent / "bundle", folder, target, names)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_is_not_the_manifests(tmp_path: Path, target: str, name: str, openvino: Any) -> None:
    model = small_model()
    GRAPHS[name](model)
    try:
        folder = bundle_of(tmp_path / "made", model, target, openvino)
    except RuntimeError:
        pytest.skip("OpenVINO makes no such graph")
    with pytest.raises(UserError) as error:
        load(folder)
    assert error.value.fix


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"classes": ["red"]}, "scores"),
        ({"classes": ["red", "blue", "green"]}, "scores"),
        ({"candidates": 1}, "candidates"),
        ({"input": {"height": 96, "width": 64, "margin": 0}}, "images"),
        ({"input": {"height": 128, "width": 128}}, "images"),
        ({"sizes": [64, 128]}, "only images of"),
    ],
    ids=str,
)
def test_a_manifest_that_is_not_the_graphs(
    tmp_path: Path, target: str, fields: dict[str, Any], match: str, openvino: Any
) -> None:
    folder = bundle_of(tmp_path / "made", small_model(), target, openvino)
    load(folder).close()
    change(folder, **fields)
    with pytest.raises(UserError, match=match):
        load(folder)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_a_graph_that_says_nothing_of_its_shapes_is_held_to_what_it_gives(
    tmp_path: Path, target: str, openvino: Any
) -> None:
    """A class too many would be named, or one too few would name others'."""
    model = small_model()
    shape("scores", "batch", "rows", "classes")(model)
    model.graph.node[5].input[1] = "wide"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full((1, 2, 3), 0.004, np.float32), "wide"))
    model.graph.node.insert(0, helper.make_node("Identity", ["wider"], ["wide"]))
    model.graph.initializer[-1].name = "wider"
    folder = bundle_of(tmp_path / "made", model, target, openvino)
    with pytest.raises(UserError, match="scores"), load(folder) as detector:
        detector(IMAGE)


def test_other_weights_beside_the_same_graph_are_the_ones_that_answer(tmp_path: Path, openvino: Any) -> None:
    """OpenVINO finds its compiled form by the graph's path, and would go on with the weights that were there before."""
    folder = bundle_of(tmp_path / "made", small_model(), "openvino", openvino)
    with load(folder) as detector:
        before = detector(IMAGE).scores
    old, new = (np.float32(1 / value).tobytes() for value in (255, 510))
    weights = (folder / "model.bin").read_bytes()
    assert weights.count(old) == 1
    (folder / "model.bin").write_bytes(weights.replace(old, new))
    rehash(folder)
    with load(folder) as detector:
        after = detector(IMAGE).scores
    assert np.allclose(sorted(after)[0], before.max() / 2, atol=1e-3)


def test_any_value_in_any_field_of_a_manifest_is_opened_or_refused_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    onnx.save(small_model(), folder / "model.onnx")
    fields = manifest_of(folder, sizes=(32, 96), details={"a": [1]}).model_dump(mode="json")
    refused = 0
    for what, text in variants({name: value for name, value in fields.items() if value is not None}):
        (folder / MANIFEST).write_text(text)
        try:
            load(folder).close()
        except UserError as error:
            assert len(str(error)) < 2000, what
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize("kept", [[], [MANIFEST], ["model.onnx"]])
def test_files_that_a_bundles_card_does_not_speak_of(tmp_path: Path, kept: list[str], openvino: Any) -> None:
    folder = bundle_of(tmp_path / "made", small_model(), "onnxruntime", openvino)
    Card.write(folder, "bundle", [MANIFEST, "model.onnx"], version="0", created="x")
    load(folder).close()
    Card.write(folder, "bundle", kept, version="0", created="x")
    with pytest.raises(UserError, match="The card does not list"):
        load(folder)
