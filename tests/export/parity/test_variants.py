"""Target x kind of graph (sizes and batches, suppression inside) gives the trained network's answers; see `matrix`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.export.parity.matrix import LARGE, MIDDLE, NEEDS_GPU, SMALL, Graphs, build, make_images, reference

from eyas.export.gates import BOUNDS, parity
from eyas.export.settings import BuildSettings
from eyas.export.target import TARGETS, Sides
from eyas.models import zoo
from eyas.runtime.loading import open_bundle
from eyas.types import InputSpec

VARIANTS = {
    "dynamic, nms in the graph": BuildSettings(batch=(1, 3), size=(64, 128), nms="graph", candidates=60),
    "fixed batch, no square, few candidates": BuildSettings(batch=(2, 2), size=Sides(96, 64), candidates=40),
}


def test_every_row_of_the_zoo_is_in_a_file() -> None:
    assert sorted((*SMALL, *MIDDLE, *LARGE)) == sorted(zoo.ALIASES)


@pytest.mark.parametrize("target", sorted(set(TARGETS) - NEEDS_GPU))
@pytest.mark.parametrize("variant", VARIANTS)
def test_variant(variant: str, target: str, tiny: Path, graphs: Graphs, data: Path, tmp_path: Path) -> None:
    settings = replace(VARIANTS[variant], target=target)
    manifest = build(tiny, graphs(tiny, settings), data, tmp_path / "bundle", settings)
    nms = settings.nms or "host"  # what a run with suppression gets unless something else is asked for
    assert (manifest.batch, manifest.nms) == (settings.batch, nms)
    session = open_bundle(tmp_path / "bundle", manifest, 1)
    expected = reference(tiny, nms, settings.candidates)
    shapes = [(2, 64, 96)] if manifest.sizes is None else [(1, 64, 64), (2, 128, 64), (3, 96, 128)]
    for num, height, width in shapes:
        images = make_images(data, InputSpec(height, width), num)
        boxes, scores = session.run(images)
        assert len(boxes) == len(scores) == num and boxes.shape[1] == scores.shape[1] <= settings.candidates
        if settings.nms == "graph":
            assert ((scores > 0).sum(2) <= 1).all()  # a row is a pair of box and class
            assert (scores.max(2) == 0).any()  # some were dropped
        found = parity(session, expected, [images], BOUNDS["fp32"])
        assert found.boxes_px <= 0.5 and found.scores <= 1e-3
    session.close()
