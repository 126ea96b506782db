"""The quickstart, shortened, leaves all that it promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eyas.cli.main import main
from eyas.decode import read_image


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
