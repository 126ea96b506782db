"""A run on disk, with a real network: the whole way from its folder to the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.evaluation.colours import COLOURS, SPEC, write_dataset

from eyas.artifacts.layout import WEIGHTS
from eyas.artifacts.run import Run, RunConfig
from eyas.errors import UserError
from eyas.evaluation import evaluate
from eyas.evaluation.run import evaluate_run
from eyas.models import weights, zoo


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and `run`: an untrained network of the smallest size."""
    root = tmp_path_factory.mktemp("place")
    write_dataset(root / "data")
    torch.manual_seed(0)
    net = zoo.build("p", len(COLOURS))
    (root / "run").mkdir()
    weights.save_model(net, root / "run" / WEIGHTS)
    Run(root / "run", RunConfig(model=zoo.describe("p"), classes=tuple(COLOURS), input=SPEC)).write()
    return root


@pytest.mark.filterwarnings("ignore:.*has no card.json")
def test_untrained_network_is_measured(place: Path) -> None:
    evaluation = evaluate_run(place / "run", place / "data", batch=2)
    result = evaluation.result
    assert evaluation.folder == place / "run" / "evaluation" / "data-val"
    assert result.num_predictions > 0 and result.ap < 0.2  # it says something, and knows nothing
    fields = json.loads((evaluation.folder / "metrics.json").read_text())
    assert "PyTorch" in fields["subject"]["engine"] and "128 x 128" in fields["subject"]["input"]
    assert "confidence 0.01" in fields["subject"]["thresholds"]
    detections = json.loads((evaluation.folder / "detections.json").read_text())
    assert len(detections) == result.num_predictions
    for row in detections:
        left, top, width, height = row["bbox"]
        assert left >= 0 and top >= 0 and left + width <= 128.01 and top + height <= 96.01  # pixels of the image


@pytest.mark.filterwarnings("ignore:.*has no card.json")
def test_size_changes_what_the_network_sees(place: Path) -> None:
    small = evaluate_run(place / "run", place / "data", out=place / "small", size=64)
    assert "64 x 64" in json.loads((small.folder / "metrics.json").read_text())["subject"]["input"]
    with pytest.raises(UserError, match="100"):
        evaluate(place / "run", place / "data", size=100)
