"""OpenVINO: what is built, in which precision it runs here, and that the session answers as ONNX Runtime does."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tests.export.graphs import BATCHES, SIZES, SPEC, plan_of, write_graph, write_int8
from tests.export.made import computes_in_bf16
from tests.runtime.fakes import CLASSES

from eyas.artifacts.card import hash_file
from eyas.artifacts.manifest import Manifest
from eyas.errors import UserError
from eyas.export.build import BuiltFiles
from eyas.export.builders import openvino
from eyas.runtime.sessions.cache import cache_folder
from eyas.runtime.sessions.openvino import OpenVinoSession
from eyas.types import FloatArray, Thresholds, UInt8Array

pytest.importorskip("openvino")

# Precision -> mean difference of a score and of a box's side (pixels) that is fine. The weights are random, so that
# rounding shows far more than in a trained network; INT8 is compared with the same INT8 graph in ONNX Runtime.
BOUNDS = {"fp32": (1e-4, 0.05), "fp16": (2e-2, 4.0), "bf16": (2e-2, 4.0), "int8": (2e-2, 8.0)}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The network as ONNX for any batch and size, in float32 and quantized."""
    folder = tmp_path_factory.mktemp("graphs")
    fp32 = write_graph(folder / "fp32.onnx")
    return {"fp32": fp32, "int8": write_int8(folder / "int8.onnx", fp32)}


@pytest.fixture(scope="module")
def built(graphs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, BuiltFiles]]:
    """The IR in every precision, for batches of 1 to 4 and sizes of 64 to 128."""
    found = {}
    for precision in BOUNDS:
        folder = tmp_path_factory.mktemp(precision)
        path = graphs.get(precision, graphs["fp32"])
        found[precision] = (
            folder,
            openvino.build(onnx.load(path), plan_of(precision), folder),
        )
    return found


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))


def manifest(folder: Path, files: BuiltFiles, precision: str) -> Manifest:
    return Manifest(
        name="test",
        classes=CLASSES,
        input=SPEC,
        batch=BATCHES,
        sizes=SIZES,
        candidates=50,
        thresholds=Thresholds(),
        target="openvino",
        precision=precision,
        files={name: hash_file(folder / name) for name in files.files},
        entry=files.entry,
        created="2026-01-01T00:00:00+00:00",
        eyas="0",
    )


def make_images(num: int, height: int, width: int) -> UInt8Array:
    return np.random.default_rng(num).integers(0, 255, (num, height, width, 3), dtype=np.uint8)


def reference(path: Path, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
    boxes, scores = onnxruntime.InferenceSession(path).run(["boxes", "scores"], {"images": images})
    return boxes, scores


@pytest.mark.parametrize("precision", BOUNDS)
def test_session_answers_like_the_graph_at_every_shape(
    precision: str, built: dict[str, tuple[Path, BuiltFiles]], graphs: dict[str, Path]
) -> None:
    folder, files = built[precision]
    session = OpenVinoSession(folder, manifest(folder, files, precision), threads=1)
    for shape in ((1, 96, 96), (3, 64, 128), (4, 128, 64)):
        images = make_images(*shape)
        boxes, scores = session.run(images)
        expected_boxes, expected_scores = reference(graphs.get(precision, graphs["fp32"]), images)
        assert boxes.shape == expected_boxes.shape and scores.shape == expected_scores.shape
        assert boxes.dtype == scores.dtype == np.float32 and scores.flags.c_contiguous
        limit, pixels = BOUNDS[precision]
        best, expected = np.sort(scores.max(-1)), np.sort(expected_scores.max(-1))  # near ties may trade places
        assert np.abs(best - expected).mean() < limit
        assert np.abs(np.sort(boxes, axis=1) - np.sort(expected_boxes, axis=1)).mean() < pixels
    session.close()


@pytest.mark.parametrize("precision", BOUNDS)
def test_build_says_what_the_device_really_computes_in(
    precision: str, built: dict[str, tuple[Path, BuiltFiles]]
) -> None:
    details = built[precision][1].details
    executed = details["executed"]
    assert sum(executed.values()) > 70 and json.dumps(details)
    if precision == "int8":
        assert executed["int8"] > 60
    elif details["hint_is_native"]:
        assert set(executed) == {precision}
    else:
        assert set(executed) == {"bf16" if computes_in_bf16() else "fp32"}


def test_half_precision_halves_the_file(built: dict[str, tuple[Path, BuiltFiles]]) -> None:
    sizes = {name: (folder / "model.bin").stat().st_size for name, (folder, _) in built.items()}
    assert sizes["fp16"] == sizes["bf16"] < 0.55 * sizes["fp32"] and sizes["int8"] < 0.45 * sizes["fp32"]


def test_int8_without_quantization_in_the_graph_is_refused(graphs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no convolution in it"):
        openvino.build(onnx.load(graphs["fp32"]), plan_of("int8"), tmp_path)
    assert list(tmp_path.glob("model.*")) == []


def test_what_openvino_does_not_know_is_told(tmp_path: Path, graphs: dict[str, Path]) -> None:
    info, tensor = onnx.helper.make_tensor_value_info, onnx.TensorProto
    node = onnx.helper.make_node("Nonsense", ["images"], ["boxes"])
    graph = onnx.helper.make_graph(
        [node], "g", [info("images", tensor.UINT8, [1, 96, 96, 3])], [info("boxes", tensor.FLOAT, [1])]
    )
    path = tmp_path / "bad.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(UserError, match="Nonsense"):
        openvino.build(onnx.load(path), plan_of("fp32"), tmp_path)
    with pytest.raises(UserError, match="did you mean 'device'"):
        plan_of("fp32", devise="CPU")


def test_submitted_batches_run_side_by_side_and_threads_do_not_mix(built: dict[str, tuple[Path, BuiltFiles]]) -> None:
    folder, files = built["fp32"]
    session = OpenVinoSession(folder, manifest(folder, files, "fp32"), streams=2)
    batches = [make_images(1 + i % 4, 96, 96) for i in range(6)]
    expected = [session.run(batch) for batch in batches]
    pending = [session.submit(batch) for batch in batches]
    for (boxes, scores), one in zip(expected, pending, strict=True):
        again, again_scores = one.result()
        assert np.allclose(boxes, again, atol=1e-3) and np.allclose(scores, again_scores, atol=1e-5)
    wrong: list[int] = []

    def work(index: int) -> None:
        answers = [session.run(batches[index])[1] for _ in range(3)]
        wrong.extend(index for scores in answers if not np.allclose(scores, expected[index][1], atol=1e-5))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_compiled_form_is_kept_where_the_user_says(built: dict[str, tuple[Path, BuiltFiles]], tmp_path: Path) -> None:
    folder, files = built["fp32"]
    OpenVinoSession(folder, manifest(folder, files, "fp32"))
    kept = tmp_path / "cache" / "openvino"
    assert cache_folder("openvino") == kept and any(kept.iterdir())


def test_a_device_that_is_not_here_is_told(built: dict[str, tuple[Path, BuiltFiles]]) -> None:
    folder, files = built["fp32"]
    with pytest.raises(UserError, match="no device 'warp9'"):
        OpenVinoSession(folder, manifest(folder, files, "fp32"), device="warp9")


def test_a_broken_file_is_told(built: dict[str, tuple[Path, BuiltFiles]], tmp_path: Path) -> None:
    folder, files = built["fp32"]
    (tmp_path / "model.xml").write_text("<net", encoding="utf-8")
    with pytest.raises(UserError, match=r"can't open model\.xml"):
        OpenVinoSession(tmp_path, manifest(folder, files, "fp32"))
