"""A run becomes a detector if its bytes are what its card says; the torch engine gives the network's answers."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.runtime.fakes import CLASSES, make_image, write_run

from eyas.artifacts.card import CARD
from eyas.artifacts.layout import CONFIG, WEIGHTS
from eyas.artifacts.run import Run
from eyas.errors import UserError
from eyas.models import weights, zoo
from eyas.models.decode import Deployed
from eyas.runtime.loading import load
from eyas.runtime.sessions.torch import open_run, pick_device
from eyas.types import Detections, InputSpec, Thresholds


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "tiny"))


def test_a_run_is_loaded_as_its_config_says(made: Path) -> None:
    with load(made) as detector:
        assert detector.classes == CLASSES
        assert detector.input == InputSpec(64, 64)
        assert detector.thresholds.confidence == 0.001
        assert "PyTorch" in detector.describe()
        found = detector(make_image(200, 300))
    assert isinstance(found, Detections) and len(found) > 0
    assert found.boxes.min() >= 0 and found.boxes[:, 2].max() <= 300 and found.boxes[:, 3].max() <= 200


def test_the_session_gives_what_the_unfused_network_gives(made: Path) -> None:
    config = Run.read(made).config
    net = weights.load_model(made / WEIGHTS, zoo.build_described(config.model, len(CLASSES))).eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 64, 3), np.uint8)
    boxes, scores = open_run(Run(made, config), "cpu").run(images)
    with torch.inference_mode():
        expected_boxes, expected_scores = Deployed(net, config.input)(torch.from_numpy(images))
    assert boxes.shape == (2, 12 * 8 + 6 * 4 + 3 * 2, 4) and scores.shape == (2, 126, 2)  # strides 8, 16, 32
    assert scores.std() > 0.001 and boxes.std() > 5
    assert boxes.dtype == scores.dtype == np.float32
    assert boxes.flags.c_contiguous and scores.flags.c_contiguous
    np.testing.assert_allclose(scores, expected_scores.numpy(), atol=1e-4)
    np.testing.assert_allclose(boxes, expected_boxes.numpy(), atol=1e-2)


def test_a_batch_gives_the_same_as_one_by_one(made: Path) -> None:
    with load(made) as detector:
        images = [make_image(100, 80, (i, 10, i + 40, 60)) for i in range(3)]
        together = detector(images, batch=3)
        for image, found in zip(images, together, strict=True):
            alone = detector(image)
            np.testing.assert_allclose(alone.scores, found.scores, atol=1e-4)
            np.testing.assert_allclose(alone.boxes, found.boxes, atol=1e-2)


def test_threads_share_a_detector(made: Path) -> None:
    images = [make_image(100, 80, (i, 10, i + 40, 60)) for i in range(4)]
    with load(made) as detector:
        expected = detector(images, batch=1)
        got: dict[int, Detections] = {}

        def work(i: int) -> None:
            for _ in range(3):
                got[i] = detector(images[i])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i, one in enumerate(expected):
        np.testing.assert_allclose(got[i].scores, one.scores, atol=1e-5)


def test_thresholds_and_size_of_ones_own(made: Path) -> None:
    strict = Thresholds(confidence=1.0, candidates=7)
    with load(made, thresholds=strict, size=96) as detector:
        assert detector.thresholds == strict and detector.input == InputSpec(96, 96)
        assert len(detector(make_image())) == 0
    with load(made, thresholds=Thresholds(confidence=0.0, suppression="soft")) as detector:
        assert len(detector(make_image())) > 100


def test_a_size_that_no_network_takes(made: Path) -> None:
    with pytest.raises(UserError, match="multiple of 32"):
        load(made, size=100)


def test_a_missing_run_suggests_its_neighbour(made: Path) -> None:
    with pytest.raises(UserError, match=r"no run at .*tinny .did you mean 'tiny'"):
        load(made.parent / "tinny")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run"):
        load(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_changed_byte_is_refused(run: Path, name: str) -> None:
    data = bytearray((run / name).read_bytes())
    place = -1 if name == WEIGHTS else data.index(b"red")
    data[place] ^= 1
    (run / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name} was changed"):
        load(run)


def test_weights_that_are_missing_or_of_another_model(run: Path) -> None:
    (run / CARD).unlink()
    weights.save_model(zoo.build("p", 5), run / WEIGHTS)
    with pytest.warns(UserWarning, match="no card"), pytest.raises(UserError, match="don't fit"):
        load(run)
    (run / WEIGHTS).write_bytes(b"rubbish")
    with pytest.warns(UserWarning), pytest.raises(UserError, match="can't be read as safetensors"):
        load(run)
    (run / WEIGHTS).unlink()
    with pytest.warns(UserWarning), pytest.raises(UserError, match="has no model"):
        load(run)


def test_a_run_made_by_a_newer_eyas(run: Path) -> None:
    fields = json.loads((run / CONFIG).read_text())
    (run / CONFIG).write_text(json.dumps({**fields, "version": 99}))
    with pytest.raises(UserError, match="newer Eyas"):
        load(run)


def test_a_run_without_a_card_is_used_with_a_warning(run: Path) -> None:
    (run / CARD).unlink()
    with pytest.warns(UserWarning, match="can't be checked"), load(run) as detector:
        assert detector(make_image()).height == 64


def test_an_unknown_session_and_an_unknown_device(made: Path) -> None:
    with pytest.raises(UserError, match=r"Unknown session 'troch' .did you mean 'torch'"):
        load(made, session="troch")
    with pytest.raises(UserError, match="device 'cuda:77' can't be used"):
        load(made, device="cuda:77")
    with pytest.raises(UserError, match="device 'gpu' can't be used"):
        pick_device("gpu")


def test_a_fused_run_gives_the_same(made: Path, run: Path) -> None:
    from eyas.models.fuse import fused

    config = Run.read(run).config
    net = weights.load_model(run / WEIGHTS, zoo.build_described(config.model, len(CLASSES)))
    weights.save_model(fused(net), run / WEIGHTS)
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    for one, other in zip(
        open_run(Run(made, config), "cpu").run(images), open_run(Run(run, config), "cpu").run(images), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-4)
