"""The chart is drawn for any dataset: many classes, no boxes, unknown sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eyas.data.checks.chart import write_chart
from eyas.data.index import build_index
from eyas.decode import read_image


@pytest.mark.parametrize(("classes", "boxes"), [(2, 0), (3, 40), (60, 500)])
def test_chart_is_drawn(classes: int, boxes: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (boxes, 2))
    index = build_index(
        root=tmp_path, split="train", classes=[f"class {i}" for i in range(classes)], names=["a", "b"],
        sizes=[(100, 100), (0, 0)], images=rng.integers(0, 2, boxes),
        boxes=np.concatenate([corners, corners + rng.uniform(1, 50, (boxes, 2))], axis=1),
        labels=rng.integers(0, classes, boxes),
    )  # fmt: skip
    write_chart({"train": index, "val": index.subset([])}, 320, tmp_path / "chart.png")
    image = read_image(tmp_path / "chart.png")
    assert image.shape == (990, 1430, 3)
    assert image.std() > 20
