"""Other shapes, suppression and precisions of a bundle for ONNX Runtime, each compiled and run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.export.made import spare_export
from tests.runtime.fakes import make_image

from eyas.artifacts.bundle import Bundle
from eyas.artifacts.card import Card
from eyas.cli.compile import parse_size
from eyas.errors import UserError
from eyas.export.build import TrainedRun
from eyas.export.builders.onnx import export_graph
from eyas.export.bundle import compile_run
from eyas.export.settings import BuildSettings
from eyas.export.target import Sides
from eyas.runtime.loading import load
from eyas.types import InputSpec, Thresholds


def test_a_range_of_sizes_and_batches_with_suppression_inside(place: Path) -> None:
    out = place / "dynamic"
    bundle = compile_run(
        place / "tiny", out, BuildSettings(size=(64, 128), batch=(1, 3), nms="graph", candidates=200, timed=False)
    )
    manifest = bundle.manifest
    assert manifest.sizes == (64, 128) and manifest.nms == "graph" and manifest.nms_iou == 0.7
    assert manifest.parity is not None and manifest.parity.boxes_px < 0.5
    dims = onnx.load(out / "model.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param for dim in dims] == ["batch", "height", "width", ""]
    images = [make_image(80, 120, (i, 10, i + 40, 60)) for i in (0, 20, 40, 60)]
    limits = Thresholds(confidence=0.05, candidates=200)
    for size in (64, 96, 128):
        with load(out, size=size) as compiled, load(place / "tiny", size=size, thresholds=limits) as run:
            assert compiled.input == InputSpec(size, size)
            for one, other in zip(compiled(images, batch=4), run(images, batch=4), strict=True):
                best = min(len(one), len(other), 10)
                assert best == 10
                np.testing.assert_allclose(one.scores[:best], other.scores[:best], atol=1e-3)


def test_an_input_that_is_no_square(place: Path) -> None:
    out = place / "wide"
    size = parse_size("128x96")
    assert size == Sides(width=128, height=96)
    bundle = compile_run(place / "tiny", out, BuildSettings(size=size, measured=0))
    assert (bundle.manifest.input.height, bundle.manifest.input.width, bundle.manifest.sizes) == (96, 128, None)
    dims = onnx.load(out / "model.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 96, 128, 3]
    assert Card.read(out).recipe["size"] == "128x96"
    image = make_image(96, 128, (30, 20, 100, 70))
    limits = Thresholds(confidence=0.05)
    with load(out, thresholds=limits) as wide, load(place / "tiny", size=128, thresholds=limits) as square:
        assert wide.input == InputSpec(96, 128)
        found = wide(image)
        assert len(found) > 0 and (found.boxes[:, [0, 2]].max(), found.boxes[:, [1, 3]].max()) <= (128, 96)
        # The margin is on the limiting side, so an image of the input's shape has the same scale in the square.
        best, other = found[:3], square(image)
        assert np.abs(best.scores - other.scores[:3]).max() < 0.1


@pytest.mark.parametrize(
    ("text", "size"), [(None, None), ("640", 640), ("320-960", (320, 960)), ("640-640", 640), ("960-320", (960, 320))]
)
def test_what_a_size_on_the_command_line_means(text: str | None, size: object) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["640x", "640X480", "a", "640x480x3", "320-960x480"])
def test_a_size_that_means_nothing(text: str) -> None:
    with pytest.raises(UserError, match="--size is"):
        parse_size(text)


def test_int8_is_compiled_calibrated_and_runs(
    bundle: Bundle, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = bundle.folder / "model.onnx"  # exported once already
    spare_export(monkeypatch, graph)
    settings = BuildSettings(precision="int8", batch=(1, 4), calibrated=4)
    bundle = compile_run(place / "tiny", tmp_path / "int8", settings)
    manifest = bundle.manifest
    assert manifest.precision == "int8" and manifest.details["quantization"]["images"] == 4
    assert manifest.details["convolutions"]["int8"] > 20 and len(manifest.details["kept_in_float"]) == 6
    assert manifest.parity is not None and 0 < manifest.parity.scores < 0.25
    assert manifest.accuracy is not None
    with load(bundle.folder) as detector:
        assert "int8" in detector.describe() and len(detector([make_image()] * 3, batch=3)) == 3


@pytest.mark.parametrize(("precision", "kind", "opset"), [("bf16", onnx.TensorProto.BFLOAT16, 22)])
def test_half_precision_is_in_the_graph(place: Path, precision: str, kind: int, opset: int) -> None:
    trained = TrainedRun.read(place / "tiny")
    model = export_graph(trained, trained.plan(BuildSettings(target="tensorrt", precision=precision)))
    weights = {one.name: one.data_type for one in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 20 and {weights[node.input[1]] for node in convolutions} == {kind}
    assert model.opset_import[0].version == opset
    assert [one.type.tensor_type.elem_type for one in model.graph.output] == [onnx.TensorProto.FLOAT] * 2
