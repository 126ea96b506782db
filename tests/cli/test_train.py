"""`eyas train` and the quickstart from the command line: recipes, overrides, resume, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from eyas.cli.main import main
from eyas.data.shapes import make_shapes
from eyas.decode import read_image


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("data") / "shapes", train=12, val=4, size=96, seed=2)


TINY = ["--recipe", "quick", "--size", "64", "--batch", "4", "--data.workers", "0", "--trainer.preflight", "false"]


def test_trains_with_overrides_and_prints_the_folder(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "recipe.yaml"
    config.write_text("optim: {lr: 0.5}\naugment: {flip: 0.25}\n")
    out = tmp_path / "run"
    arguments = [*TINY, "--data", str(shapes), "--epochs", "1", "--config", str(config), "--optim.lr", "1e-3"]
    assert main(["train", *arguments, "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["optim"]["lr"] == 1e-3  # the command line wins over the file
    assert recipe["augment"]["flip"] == 0.25 and recipe["data"]["size"] == 64 and recipe["name"] == "quick"
    assert main(["train", "--resume", str(out), "--epochs", "3"]) == 2
    assert main(["train", "--resume", str(out), "--optim.lr", "1"]) == 2
    errors = capsys.readouterr().err
    assert "keeps its length" in errors and "--optim.lr can't be changed" in errors


def test_a_new_folder_is_found_when_none_is_given(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*TINY, "--data", str(shapes), "--trainer.max_steps", "1"]
    assert main(["train", *arguments]) == 0
    assert main(["train", *arguments]) == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["shapes-quick", "shapes-quick-2"]


def test_prints_the_resolved_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipe", "yolo_nas_coco", "--trainer.devices", "2", "--print-recipe"]) == 0
    recipe = yaml.safe_load(capsys.readouterr().out)
    assert recipe["trainer"]["devices"] == 2 and recipe["optim"]["lr"] == 2e-4


def test_loggers_are_given_at_once_or_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--logger", "mlflow,wandb", "--logger", "tensorboard", "--print-recipe"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["logger"] == ["mlflow", "wandb", "tensorboard"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", "."], ""),
        (["--recipe", "scrach"], "did you mean 'scratch'"),
        (["--optim.lrr", "1"], "did you mean '--optim.lr'"),
        (["--model", "nn", "--data", "x"], ""),
        (["--config", "none.yaml"], "no file none.yaml"),
        (["--logger", "mlflow,wandbs"], "no logger 'wandbs' (did you mean 'wandb'?)"),
        (["--resume", "run", "--logger", "mlflow"], "--logger can't be changed"),
    ],
)
def test_wrong_input_is_explained(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and len(error) > 20
    assert not (tmp_path / "runs").exists()  # nothing is left behind by a run that never began


def test_quickstart_makes_every_image_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "quickstart"
    arguments = ["quickstart", "--out", str(out), "--epochs", "1", "--train", "32", "--val", "8"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "AP50" in text and str(out / "detections") in text and "eyas train --data path/to/dataset" in text
    metrics = json.loads((out / "report" / "metrics.json").read_text())["metrics"]
    assert f"AP {metrics['AP']:.3f}, AP50 {metrics['AP50']:.3f} on 8 images" in text
    for image in ("run/results.png", "run/images/epoch_001.jpg", "report/precision_recall.png"):
        assert read_image(out / image).size > 0
    drawn = list((out / "detections").rglob("*.jpg"))
    assert len(drawn) == 8
    assert main(arguments) == 2  # never overwrites
    assert "exists already" in capsys.readouterr().err
