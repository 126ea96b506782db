"""Networks that give one box an object: bundles without suppression, what may be asked of them, and what may not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.export.made import spare_export
from tests.runtime.fakes import make_image

from eyas.artifacts.bundle import Bundle
from eyas.artifacts.card import Card
from eyas.artifacts.manifest import Manifest, SuppressionPlace
from eyas.artifacts.run import Run
from eyas.cli.main import main
from eyas.errors import UserError
from eyas.evaluation.run import evaluate_run
from eyas.export.auto import compile_auto
from eyas.export.build import TrainedRun
from eyas.export.builders.onnx import export_graph
from eyas.export.bundle import compile_run
from eyas.export.graph import suppression_place
from eyas.export.settings import BuildSettings
from eyas.models.decode import Deployed
from eyas.runtime.loading import load
from eyas.runtime.preprocess import Preprocessor
from eyas.types import Detections, Suppression

IMAGES = [make_image(80, 120, (i, 10, i + 40, 60)) for i in range(0, 60, 20)]


@pytest.fixture(scope="module")
def one_box(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run as one of a network that gives one box an object."""
    folder = shutil.copytree(place / "tiny", tmp_path_factory.mktemp("one-box") / "one-box")
    config = Run.read(folder).config
    run = Run(folder, replace(config, thresholds=replace(config.thresholds, suppression="none")))
    run.write()
    run.seal(parents=[], recipe={})
    return folder


@pytest.fixture
def exported(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait for the graph, which was exported once: suppression on the host or none leaves it as it is."""
    spare_export(monkeypatch, bundle.folder / "model.onnx")


def check_best_pairs(folder: Path) -> list[Detections]:
    """Hold what a run or bundle finds against the plain best pairs of what its engine gives; return what it finds."""
    with load(folder) as detector:
        found = detector(IMAGES, batch=3)
        _, scores = detector.infer(Preprocessor(detector.input)(IMAGES)[0])
        limits = detector.thresholds
        for row, one in enumerate(found):
            passing = np.sort(scores[row][scores[row] >= limits.confidence])[::-1][: limits.max_detections]
            np.testing.assert_array_equal(one.scores, passing[: len(one)])
            assert len(one) > 0.9 * len(passing)  # but for those that lie in the padding alone
        dropped = detector(IMAGES, batch=3, suppression="class_wise", iou=0.3)
    # There were boxes to drop, whose places weaker ones take.
    assert sum(one.scores.sum() for one in dropped) < sum(one.scores.sum() for one in found)
    return found


def test_a_run_finds_the_best_pairs(one_box: Path) -> None:
    check_best_pairs(one_box)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.usefixtures("exported")
def test_it_compiles_to_a_bundle_that_suppresses_nothing(
    target: str, one_box: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(target)
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))
    bundle = compile_run(one_box, tmp_path / "bundle", BuildSettings(target=target, batch=(1, 4), timed=False))
    manifest = Manifest.read(bundle.folder)
    assert (manifest.nms, manifest.nms_iou, manifest.version) == ("none", None, 2)
    assert manifest.thresholds == Run.read(one_box).config.thresholds
    assert Card.read(bundle.folder).recipe["nms"] == "none"
    for one, other in zip(check_best_pairs(bundle.folder), check_best_pairs(one_box), strict=True):
        few = min(len(one), len(other), 10)
        np.testing.assert_allclose(one.scores[:few], other.scores[:few], atol=1e-3)
    measured = evaluate_run(bundle.folder, place / "shapes", out=tmp_path / "report").result.ap
    assert manifest.accuracy is not None and measured == pytest.approx(manifest.accuracy.map, abs=1e-9)
    assert "no suppression" in (tmp_path / "report" / "index.html").read_text()


@pytest.mark.usefixtures("exported")
def test_overlapping_boxes_are_dropped_all_the_same_where_that_is_asked_for(one_box: Path, tmp_path: Path) -> None:
    bundle = compile_run(one_box, tmp_path / "bundle", BuildSettings(nms="host", batch=(1, 4), measured=0, timed=False))
    manifest = Manifest.read(bundle.folder)
    assert (manifest.nms, manifest.version, manifest.thresholds.suppression) == ("host", 1, "class_wise")
    assert replace(manifest.thresholds, suppression="none") == Run.read(one_box).config.thresholds


@pytest.mark.usefixtures("exported")
def test_a_choice_by_measurement_knows_it_too(one_box: Path, tmp_path: Path) -> None:
    settings = BuildSettings(batch=(1, 4), threads=1, budget=1.0)
    bundle, _ = compile_auto(one_box, tmp_path / "auto", settings, pairs=[("onnx", "fp32")])
    assert Manifest.read(bundle.folder).nms == "none" == Card.read(bundle.folder).recipe["nms"]


@pytest.mark.parametrize(
    ("needed", "asked", "place"),
    [
        ("none", None, "none"),
        ("none", "none", "none"),
        ("none", "host", "host"),
        ("class_wise", None, "host"),
        ("class_wise", "graph", "graph"),
        ("soft", None, "host"),
        ("class_agnostic", "host", "host"),
    ],
)
def test_where_boxes_are_dropped(needed: Suppression, asked: SuppressionPlace | None, place: str) -> None:
    assert suppression_place(asked, needed) == place


REFUSED = [
    ("one_box", "graph", "predicts one box per object: suppression in the graph has nothing to drop"),
    (
        "several",
        "none",
        "predicts several boxes per object: without suppression each object would be reported many times",
    ),
]


@pytest.mark.parametrize(("kind", "asked", "message"), REFUSED)
def test_what_the_network_does_not_give_is_refused_before_anything_is_exported(
    kind: str, asked: SuppressionPlace, message: str, one_box: Path, place: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = one_box if kind == "one_box" else place / "tiny"
    monkeypatch.setattr("eyas.export.builders.onnx.to_onnx", lambda *_: pytest.fail("exported"))
    settings = BuildSettings(nms=asked)
    with pytest.raises(UserError, match=message):
        compile_run(run, tmp_path / "bundle", settings)
    with pytest.raises(UserError, match=message):
        compile_auto(run, tmp_path / "bundle", settings, pairs=[("onnx", "fp32")])
    with pytest.raises(UserError, match=message):
        TrainedRun.read(run).plan(BuildSettings(nms=asked))  # type: ignore[arg-type]
    assert main(["compile", str(run), "--nms", asked, "--out", str(tmp_path / "bundle")]) != 0
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_the_graph_is_the_same_and_says_that_nothing_is_to_be_dropped(
    one_box: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[object] = []
    monkeypatch.setattr(
        "eyas.export.builders.onnx.to_onnx", lambda graph, *_: graphs.append(graph) or onnx.ModelProto()
    )
    runs = [TrainedRun.read(run) for run in (one_box, place / "tiny")]
    written = [export_graph(run, run.plan(BuildSettings())) for run in runs]
    told = [{one.key: one.value for one in model.metadata_props} for model in written]
    assert [one.pop("nms") for one in told] == ["none", "host"] and told[0] == told[1]
    assert [type(one) for one in graphs] == [Deployed, Deployed] and str(graphs[0]) == str(graphs[1])
