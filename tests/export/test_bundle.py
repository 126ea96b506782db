"""A compiled bundle: the answers of its network, without torch; and nothing left of a failed one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.export.made import spare_export
from tests.runtime.fakes import make_image

import eyas
from eyas.artifacts.bundle import Bundle
from eyas.artifacts.card import Card, lineage
from eyas.artifacts.manifest import Manifest
from eyas.artifacts.measured import Accuracy
from eyas.cli.main import main
from eyas.errors import UserError
from eyas.evaluation.run import evaluate_run
from eyas.export import gates as verify
from eyas.export.bundle import compile_run
from eyas.export.gates import Bound
from eyas.export.settings import BuildSettings
from eyas.runtime.loading import load

BLOCK = "import sys\nfor name in ('torch', 'lightning', 'onnx', 'hotcoco', 'matplotlib', 'safetensors'):\n"
BLOCK += "    sys.modules[name] = None\n"


def test_the_manifest_says_what_was_built_and_measured(bundle: Bundle) -> None:
    manifest = Manifest.read(bundle.folder)
    assert manifest == bundle.manifest
    assert (manifest.target, manifest.precision, manifest.opset, manifest.batch) == ("onnxruntime", "fp32", 20, (1, 4))
    assert manifest.parity is not None and manifest.parity.boxes_px < 0.5 and manifest.parity.scores < 1e-3
    assert manifest.parity.quantile == 1 and manifest.parity.images >= 4
    assert manifest.accuracy is not None and (manifest.accuracy.data, manifest.accuracy.images) == ("shapes", 4)
    assert {path.name for path in bundle.folder.iterdir()} == {"manifest.json", "model.onnx", "card.json"}


def test_it_answers_as_the_run_does(bundle: Bundle, place: Path) -> None:
    images = [make_image(80, 120, (i, 10, i + 40, 60)) for i in range(0, 60, 10)]
    with load(place / "tiny") as run, load(bundle.folder, threads=1) as compiled:
        assert compiled.classes == run.classes and compiled.input == run.input
        assert compiled.thresholds == run.thresholds
        assert "ONNX Runtime" in compiled.describe()
        # Six images through a graph that takes four at most.
        for one, other in zip(run(images, batch=6), compiled(images, batch=6), strict=True):
            assert len(one) > 5
            best = min(len(one), len(other), 20)
            np.testing.assert_allclose(one.scores[:best], other.scores[:best], atol=1e-3)
            np.testing.assert_allclose(one.boxes[:best], other.boxes[:best], atol=0.5)


def test_its_accuracy_is_what_evaluate_says_of_the_file(bundle: Bundle, place: Path, tmp_path: Path) -> None:
    evaluation = evaluate_run(bundle.folder, place / "shapes", out=tmp_path / "report")
    assert bundle.manifest.accuracy is not None
    assert evaluation.result.ap == pytest.approx(bundle.manifest.accuracy.map, abs=1e-9)


def test_it_detects_where_torch_is_not_installed(bundle: Bundle, place: Path, tmp_path: Path) -> None:
    street = sorted((place / "shapes" / "val").glob("*.jpg"))[0]
    code = f"import eyas\nwith eyas.load({str(bundle.folder)!r}) as d:\n    print(len(d({str(street)!r})))\n"
    code += "from eyas.cli.main import main\n"
    code += f"sys.exit(main(['detect', {str(bundle.folder)!r}, {str(street)!r}, '--out', {str(tmp_path / 'out')!r}]))"
    done = subprocess.run([sys.executable, "-c", BLOCK + code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 0
    assert (tmp_path / "out" / street.name).is_file()


def test_the_card_leads_back_to_the_run(bundle: Bundle, place: Path) -> None:
    assert set(Card.verify(bundle.folder).files) == {"manifest.json", "model.onnx"}
    assert [folder.name for _, folder, _ in lineage(bundle.folder)] == ["plain", "tiny"]


def test_the_onnx_file_stands_alone(bundle: Bundle) -> None:
    model = onnx.load(bundle.folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    told = {one.key: one.value for one in model.metadata_props}
    assert json.loads(told["classes"]) == list(bundle.manifest.classes)
    first = model.graph.input[0].type.tensor_type
    assert first.elem_type == onnx.TensorProto.UINT8 and first.shape.dim[0].dim_param == "batch"
    assert [one.name for one in model.graph.output] == ["boxes", "scores"]
    shaped = {value.name for value in model.graph.value_info}
    inner = {name for node in model.graph.node for name in node.output} - {"boxes", "scores"}
    assert inner <= shaped


def test_a_size_it_was_not_compiled_for(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="not compiled for 64-pixel inputs"):
        load(bundle.folder, size=64)
    with pytest.raises(UserError, match="not for 'openvino'"):
        load(bundle.folder, session="openvino")
    with pytest.raises(UserError, match="can't use the device 'tpu'"):
        load(bundle.folder, device="tpu")


@pytest.mark.usefixtures("bundle")
def test_a_failed_gate_leaves_nothing(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare_export(monkeypatch, exported(place))
    monkeypatch.setattr("eyas.export.validate.BOUNDS", {**verify.BOUNDS, "fp32": Bound(0.5, 1e-12)})
    out = tmp_path / "bundles" / "out"
    with pytest.raises(UserError, match=r"does not reproduce the network's outputs.*scores by up to"):
        compile_run(place / "tiny", out, BuildSettings(batch=(1, 4), measured=0))
    assert list((tmp_path / "bundles").iterdir()) == []


@pytest.mark.usefixtures("bundle")
def test_lost_accuracy_fails_the_gate_whatever_the_outputs(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare_export(monkeypatch, exported(place))
    worse = Accuracy(map=0.40, map_fp32=0.402, data="shapes", split="val", images=4)
    monkeypatch.setattr("eyas.export.validate.measure_accuracy", lambda *_: worse)
    out = tmp_path / "bundles" / "out"
    with pytest.raises(UserError, match=r"(?s)mAP 40.00, 0.20 below the trained network's 40.20.*at most 0.1 below"):
        compile_run(place / "tiny", out, BuildSettings(batch=(1, 4), timed=False))
    assert list((tmp_path / "bundles").iterdir()) == []
    told: list[str] = []
    unmeasured = compile_run(
        place / "tiny", out, BuildSettings(batch=(1, 4), measured=0, budget=0.0, timed=False), tell=told.append
    )
    assert unmeasured.manifest.accuracy is None and any("mAP is not measured" in line for line in told)
    allowed = compile_run(place / "tiny", tmp_path / "b", BuildSettings(batch=(1, 4), budget=0.002, timed=False))
    assert allowed.manifest.accuracy == worse and allowed.manifest.latency == ()


def exported(place: Path) -> Path:
    """Return the graph that was exported for the shared bundle."""
    return place / "plain" / "model.onnx"


@pytest.mark.usefixtures("bundle")
def test_another_network_fails_the_gate(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*_: object) -> onnx.ModelProto:
        model = onnx.load(exported(place))
        weight = next(one for one in model.graph.initializer if len(one.dims) == 4)
        values = onnx.numpy_helper.to_array(weight) * 1.2
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
        return model

    monkeypatch.setattr("eyas.export.bundle.export_graph", other)
    with pytest.raises(UserError, match="does not reproduce the network's outputs"):
        compile_run(place / "tiny", tmp_path / "out", BuildSettings(batch=(1, 4), measured=0))
    assert not (tmp_path / "out").exists()


def test_a_taken_folder_and_nonsense_are_refused_before_any_work(place: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(UserError, match="exists already"):
        compile_run(place / "tiny", tmp_path / "taken")
    for settings, message in (
        ({"target": "onx"}, "did you mean 'onnx'"),
        ({"precision": "bf16"}, "can't be built in 'bf16'"),
        ({"batch": (4, 1)}, "batch is 4 to 1"),
        ({"nms": "gpu"}, "nms is 'gpu'"),
        ({"candidates": 0}, "candidates is 0"),
        ({"weight_bits": 6}, "weight_bits is 6"),
    ):
        with pytest.raises(UserError, match=message):
            BuildSettings(**settings)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="multiple of 32"):
        compile_run(place / "tiny", tmp_path / "out", BuildSettings(size=100))
    with pytest.raises(UserError, match="is not a run"):
        eyas.compile(tmp_path)
    assert main(["compile", str(place / "tiny"), "--batch", "many"]) == 2


def test_a_run_whose_data_set_is_gone(place: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(place / "tiny", tmp_path / "tiny"))
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["data"]["root"] = str(tmp_path / "gone")
    (run / "recipe.json").write_text(json.dumps(recipe))
    (run / "card.json").unlink()
    with pytest.raises(UserError, match="dataset is not available"):
        compile_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
