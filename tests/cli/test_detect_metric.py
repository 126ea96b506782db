"""The results file of `eyas detect`, scored by pycocotools, gives what `eyas evaluate` says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tests.runtime.fakes import CLASSES, make_image, write_jpeg, write_run

import eyas
from eyas.cli.main import main
from eyas.evaluation.coco import METRICS
from eyas.types import EVALUATE


def write_dataset(root: Path, run: Path) -> Path:
    """Write images whose truth is some of what the network itself finds, shifted a little: an AP between 0 and 1."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    with eyas.load(run, thresholds=EVALUATE) as detector:
        for i in range(8):
            size = rng.integers(40, 200, 2).tolist()
            image = rng.integers(0, 256, (*size, 3), np.uint8) // 3 + make_image(*size, (5, 5, 30, 20)) // 2
            found = detector(write_jpeg(root / "val" / f"{i}.jpg", image))
            images.append({"id": 7 * i + 3, "file_name": f"{i}.jpg", "height": size[0], "width": size[1]})
            for k in rng.choice(len(found), min(4, len(found)), replace=False):
                x0, y0, x1, y1 = (found.boxes[k] + rng.normal(0, 1.5, 4)).tolist()
                annotations.append({
                    "id": len(annotations) + 1, "image_id": 7 * i + 3, "category_id": 20 - int(found.labels[k]),
                    "bbox": [x0, y0, max(x1 - x0, 1), max(y1 - y0, 1)],
                    "area": max(x1 - x0, 1) * max(y1 - y0, 1), "iscrowd": int(k % 9 == 0),
                })  # fmt: skip
    categories = [{"id": 20 - label, "name": name} for label, name in enumerate(CLASSES)]
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return root


def test_detect_and_evaluate_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    data = write_dataset(tmp_path / "data", run)
    truth = data / "annotations" / "instances_val.json"
    evaluated = eyas.evaluate(run, data, batch=1).metrics
    options = ["--conf", str(EVALUATE.confidence), "--no-images", "--save-json", "r.json", "--like", str(truth)]
    assert main(["detect", str(run), str(data / "val"), "--out", str(tmp_path / "out"), *options]) == 0
    reference = COCO(str(truth))
    scored = COCOeval(reference, reference.loadRes(str(tmp_path / "out" / "r.json")), "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    expected = {name: value for name, value in zip(METRICS, scored.stats.tolist(), strict=True) if value >= 0}
    assert 0.05 < expected["AP"] < 0.95
    assert {name: evaluated[name] for name in expected} == pytest.approx(expected, abs=1e-9)
