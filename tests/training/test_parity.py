"""One model, one number: training's own evaluation, `eyas.evaluation` and what `eyas.detect` writes agree."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import eyas
from eyas.evaluation.coco import CocoResult
from eyas.training.recipe import Recipe


@pytest.fixture(scope="module")
def evaluated(finished: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> CocoResult:
    return eyas.evaluate(finished, shapes, split="val", out=tmp_path_factory.mktemp("report"))


def test_the_best_epoch_of_training_is_what_evaluate_measures(finished: Path, evaluated: CocoResult) -> None:
    with (finished / "metrics.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    best = max(epochs, key=lambda row: float(row["AP"]))
    for name in ("AP", "AP50", "AP_small"):
        assert evaluated.metrics[name] == pytest.approx(float(best[name]), rel=1e-5, abs=1e-9)


def test_what_detect_writes_has_the_ap_that_evaluate_says(
    finished: Path, shapes: Path, tiny: Recipe, evaluated: CocoResult, tmp_path: Path
) -> None:
    truth = shapes / "annotations" / "instances_val.json"
    images = sorted((shapes / "val").glob("*.jpg"))
    eyas.detect(
        finished, images, out=tmp_path, confidence=0.01, save_json="results.json", like=truth, save_images=False
    )
    coco = COCO(str(truth))
    engine = COCOeval(coco, coco.loadRes(str(tmp_path / "results.json")), "bbox")
    engine.evaluate()
    engine.accumulate()
    engine.summarize()
    assert evaluated.ap > 0
    assert float(engine.stats[0]) == pytest.approx(evaluated.ap, abs=1e-6)
    assert float(engine.stats[1]) == pytest.approx(evaluated.ap50, abs=1e-6)
