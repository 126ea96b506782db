"""What earlier versions made is read, measured, compiled, resumed and listed still; see tests/fixtures."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import eyas
from eyas.artifacts import layout
from eyas.artifacts.card import Card
from eyas.artifacts.quantization import Quantization
from eyas.cli.main import main
from eyas.decode import read_image
from eyas.files import read_json
from eyas.machine.processor import processor
from eyas.registry import open_registry
from eyas.renamed import with_new_keys
from eyas.training.saved import find_state
from eyas.types import Thresholds

FIXTURES = Path(__file__).parent.parent / "fixtures"
MADE = sorted(FIXTURES.glob("made_by_*"))
BUNDLES = ("onnx-fp32", "onnx-int8", "openvino-fp32")
# How far an answer may lie from the recorded one on another machine: pixels of a box's side, score. Processors without
# VNNI add the products of INT8 in another way.
ROUNDING = (0.02, 1e-4)
TOLERANCE = {"onnx-int8": (2.0, 0.05)}


@pytest.fixture(params=MADE, ids=lambda folder: folder.name)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what one version made, which is the working folder: the paths inside are as seen from there."""
    folder = shutil.copytree(request.param, tmp_path / "made")
    monkeypatch.chdir(folder)
    return folder


def recorded(name: str) -> dict[str, Any]:
    """Return the answers that the version gave that made the model."""
    found: dict[str, Any] = read_json(Path("answers.json"))[name]
    return found


def assert_answers(name: str, folder: Path, tolerance: tuple[float, float] = ROUNDING) -> None:
    """Assert that a model finds on the images what it found when it was made."""
    boxes_px, scores = tolerance
    expected = recorded(name)["detections"]
    assert sum(map(len, expected.values())) >= 10  # there is something to compare
    with eyas.load(folder, thresholds=Thresholds(confidence=0.05, max_detections=10)) as detector:
        for image, rows in expected.items():
            found = list(detector(read_image(Path("data/val") / image)))
            assert abs(len(found) - len(rows)) <= 1  # one may lie on the threshold
            for *box, score, label in rows[:-1]:
                assert any(
                    label == other_label
                    and abs(score - other_score) <= scores
                    and all(abs(a - b) <= boxes_px for a, b in zip(box, other, strict=True))
                    for other, other_score, other_label in found
                ), f"{image}: {label} {score} at {box} is not among {found}"


def test_there_is_something_made_before() -> None:
    assert MADE


def test_a_run_is_whole_and_answers_as_it_did(place: Path) -> None:
    card = Card.verify(Path("run"), needed=["config.json", "recipe.json", "model.safetensors"])
    assert (card.kind, len(card.files)) == ("run", 3)
    assert_answers("run", Path("run"))
    result = eyas.evaluate("run", "data", out="report")
    assert result.ap == pytest.approx(recorded("run")["AP"], abs=5e-4) and result.ap > 0


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_is_whole_and_answers_as_it_did(place: Path, name: str) -> None:
    Card.verify(Path(name), needed=["manifest.json"])
    assert_answers(name, Path(name), TOLERANCE.get(name, ROUNDING))


def test_a_run_is_compiled_with_the_quantization_that_it_carries(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["compile", "quantized", "--target", "onnx-int8", "--max-drop", "5", "--measure", "0", "--out", "new"])
        == 0
    )
    assert "calibrating" not in capsys.readouterr().err
    assert_answers("onnx-int8", Path("new"), TOLERANCE["onnx-int8"])
    assert Card.read(Path("new")).parents[0]["sha256"] == Card.read(Path("quantized")).sha256


def test_the_quantization_of_a_run_is_read_and_its_card_lists_it(place: Path) -> None:
    quantization = Quantization.read(Path("quantized"))
    assert quantization is not None and quantization.made["method"] and len(quantization.convolutions) > 20
    assert "quantization.json" in Card.verify(Path("quantized")).files


def test_a_saved_state_is_read_as_data(place: Path) -> None:
    state = torch.load("interrupted/checkpoints/last.ckpt", map_location="cpu", weights_only=True)
    found = find_state(Path("interrupted"))
    assert found is not None and found.notes == ()
    assert found.state["global_step"] == state["global_step"] == 8


def test_an_interrupted_run_goes_on_to_where_it_came_before(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its losses, its best epochs and what came out are those of the version that began it."""
    assert main(["train", "--resume", "interrupted"]) == 0
    assert "the average of the 2 best epochs has AP" in capsys.readouterr().err
    machine = read_json(Path("answers.json"))["made on"]
    exact = machine == {"processor": processor().name, "torch": torch.__version__}
    for name in ("metrics.csv", layout.STEPS):
        old, new = (rows(Path(folder) / name) for folder in ("resumed", "interrupted"))
        assert len(old) == len(new) > 0
        for before, now in zip(map(with_new_keys, old), new, strict=True):
            assert before.keys() <= now.keys()
            for column, value in before.items():
                # Other kernels round otherwise, and a step divides by a root of squares: that is no other run.
                assert now[column] == value if exact else same(value, now[column]), f"{name}, {column}: {before}, {now}"
    assert_answers("resumed", Path("interrupted"), ROUNDING if exact else (1.0, 0.02))
    assert Card.verify(Path("interrupted")).parents == Card.read(Path("resumed")).parents
    assert main(["lineage", "interrupted"]) == 0 and "─ run run\n" in capsys.readouterr().out


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table without the times, which differ from run to run."""
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if "seconds" not in name} for row in csv.DictReader(file)]


def same(before: str, now: str) -> bool:
    """Return whether two fields of a table are the same number but for rounding, or both empty."""
    if not before or not now:
        return before == now
    return math.isclose(float(before), float(now), rel_tol=5e-3, abs_tol=5e-4) or "nan" == before == now


def test_a_registry_lists_opens_and_changes_its_versions(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", "list"]) == 0
    assert "challenger -> 2" in capsys.readouterr().out
    registry = open_registry("registry")
    for reference, name in (("@champion", "onnx-fp32"), ("2", "onnx-int8")):
        resolved = registry.resolve("shapes", reference)
        assert resolved.version.sha256 == Card.read(Path(name)).sha256
        assert_answers(name, resolved.bundle, TOLERANCE.get(name, ROUNDING))
    assert main(["registry", "promote", "shapes", "2"]) == 0
    assert registry.resolve("shapes").version.key.version == "2"
    assert main(["registry", "rollback", "shapes"]) == 0
    assert registry.add(Path("openvino-fp32"), "shapes").key.version == "3"
    assert registry.resolve("shapes").version.key.version == "1"


@pytest.mark.parametrize("folder", ["run", "quantized", *BUNDLES])
def test_lineage_reaches_the_data(place: Path, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lineage", folder]) == 0
    told = capsys.readouterr().out
    assert "dataset data: no card there, can't be verified" in told
    assert told.count("unchanged") == {"run": 1, "onnx-int8": 3}.get(folder, 2)
