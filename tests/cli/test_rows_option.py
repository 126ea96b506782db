"""`--rows`: every verb that reads a dataset asks for it where YOLO's rows are in doubt, and takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data.cases import yolo_root

from eyas.cli.main import main
from eyas.errors import UserError
from eyas.export.images import find_images
from eyas.training.recipe import DataRecipe
from eyas.training.splits import load_train_and_val

ROWS = "0 0.5 0.5 0.25 0.5 0.4 0.5 0.6 0.6\n1 0.25 0.25 0.5 0.5 0.1 0.1 0.2 0.2\n"
OF_BOXES = [[15, 7.5, 25, 22.5], [0, 0, 20, 15]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset whose rows can be polygons, boxes with two keypoints, or oriented boxes."""
    return yolo_root(tmp_path / "set", ROWS)


@pytest.mark.parametrize(
    ("verb", "rest"),
    [
        ("check", []), ("info", []), ("show", ["--split", "train", "--out", "{}/a.png"]),
        ("convert", ["{}/out", "--to", "coco"]), ("split", ["{}/out", "--val", "0.5", "--no-group"]),
        ("pack", ["{}/out"]),
    ],
)  # fmt: skip
def test_data_verbs(verb: str, rest: list[str], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", verb, str(root), *(word.format(tmp_path) for word in rest)]
    assert main(command) == 2
    assert "--rows keypoints" in capsys.readouterr().err
    assert main([*command, "--rows", "keypoints"]) in ((0, 1) if verb == "check" else (0,))


def test_converted_boxes_are_those_that_were_asked_for(root: Path, tmp_path: Path) -> None:
    assert main(["data", "convert", str(root), str(tmp_path / "out"), "--to", "coco", "--rows", "keypoints"]) == 0
    document = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert [each["bbox"] for each in document["annotations"]] == [[15, 7.5, 10, 15], [0, 0, 20, 15]]


def test_the_recipe_of_a_run_says_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = DataRecipe(root=str(root), batch_size=1)
    with pytest.raises(UserError, match="polygons or boxes with keypoints"):
        load_train_and_val(recipe)
    train, val = load_train_and_val(DataRecipe(root=str(root), batch_size=1, rows="keypoints"))
    assert train.boxes.tolist() == val.boxes.tolist() == OF_BOXES
    assert main(["train", "--data", str(root), "--rows", "keypoints", "--print-recipe"]) == 0
    assert "rows: keypoints" in capsys.readouterr().out
    assert main(["train", "--data", str(root), "--data.rows", "bogus", "--print-recipe"]) == 2


def test_a_build_takes_it_from_the_runs_recipe(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps({"data": {"root": str(root), "rows": "keypoints"}}))
    assert find_images(run).judge.boxes.tolist() == OF_BOXES
    with pytest.raises(UserError, match="polygons or boxes with keypoints"):
        find_images(run, root)
    assert find_images(run, root, rows="keypoints").calibrate.boxes.tolist() == OF_BOXES


@pytest.mark.parametrize("command", [["evaluate", "run", "--data", "x"], ["compile", "run"]])
def test_other_verbs_take_it(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--rows", "bogus"]) == 2
    assert "'polygon', 'keypoints', 'oriented'" in capsys.readouterr().err
