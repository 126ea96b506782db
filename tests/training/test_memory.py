"""A GPU's memory that runs out in training: the largest batch that fits is found by trying, and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.conftest import quiet

from eyas.errors import UserError
from eyas.losses.detection import DetectionCriterion
from eyas.losses.uncertainty import UncertaintyWeighting
from eyas.models.zoo import build
from eyas.training import batches
from eyas.training.data import DetectionData
from eyas.training.experiment import make_trainer
from eyas.training.fit import fit
from eyas.training.memory import advice, explained_memory, largest_that_fits, repeated, trial_step
from eyas.training.module import DetectionModule
from eyas.training.recipe import Recipe, evolve


class Gpu:
    """Has memory for so many images, and notes how many it was asked for."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.asked: list[int] = []

    def __call__(self, num: int) -> None:
        self.asked.append(num)
        if num > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has ...")


@pytest.mark.parametrize("most", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("room", [0, 1, 5, 63, 64, 2000])
def test_the_largest_batch_is_found_in_few_steps(room: int, most: int) -> None:
    gpu = Gpu(room)
    assert largest_that_fits(gpu, most) == min(room, most)
    assert len(gpu.asked) <= most.bit_length() and max(gpu.asked) <= most


@pytest.mark.parametrize(
    ("batch", "accumulate", "fits", "told"),
    [
        (64, 1, 40, "at most 40 images fit: use --batch 32 --optim.accumulate 2 to keep 64 images"),
        (64, 2, 63, "at most 63 images fit: use --batch 32 --optim.accumulate 4 to keep 128 images"),
        (48, 1, 20, "--batch 16 --optim.accumulate 3 to keep 48 images"),
        (16, 1, 1, "at most 1 image fits: use --batch 1 --optim.accumulate 16 to keep 16 images"),
        (16, 1, 0, "not even one image fits: use a smaller --size or a smaller --model"),
    ],
)
def test_what_to_do_keeps_the_images_of_a_step(tiny: Recipe, batch: int, accumulate: int, fits: int, told: str) -> None:
    recipe = evolve(tiny, data={"batch_size": batch}, optim={"accumulate": accumulate})
    assert told in advice(recipe, fits)


@pytest.mark.parametrize(
    ("room", "told"),
    [
        (4, "at most 4 images fit: use --batch 3 --optim.accumulate 2"),
        (0, "not even one image fits"),
        (9, "6 images alone would fit: check what else uses the GPU"),
    ],
)
def test_memory_that_runs_out_is_explained(tiny: Recipe, room: int, told: str) -> None:
    message = r"(?s)ran out of memory training with batches of 6 images \(CUDA out of memory\).*" + told
    with pytest.raises(UserError, match=message), explained_memory(tiny, Gpu(room)):
        Gpu(0)(6)


def test_other_errors_and_none_pass_through(tiny: Recipe) -> None:
    gpu = Gpu(4)
    with explained_memory(tiny, gpu):
        pass
    with pytest.raises(RuntimeError, match="another"), explained_memory(tiny, gpu):
        raise RuntimeError("another fault")
    assert not gpu.asked


@pytest.fixture(scope="module")
def data(tiny: Recipe) -> DetectionData:
    return DetectionData(tiny.data, tiny.augment, seed=tiny.trainer.seed)


def test_a_batch_of_any_size_is_made_of_a_few_images(data: DetectionData) -> None:
    few = data.trial_batch(4, epoch=0)
    for num in (1, 4, 7):
        batch = repeated(few, num)
        assert len(batch) == num and int(batch.counts.sum()) == len(batch.boxes) == len(batch.labels)
        for row in range(num):
            assert torch.equal(batch.images[row], few.images[row % 4])
            assert all(map(torch.equal, batch.truth(row), few.truth(row % 4)))


def test_a_step_is_tried_on_copies(tiny: Recipe, data: DetectionData, tmp_path: Path) -> None:
    net = build("p", len(data.classes))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    criterion = UncertaintyWeighting(DetectionCriterion(reduce=lambda _: pytest.fail("waits for other processes")))
    module = DetectionModule(net, data.classes, tiny.data.input_spec(), tiny.optim, criterion)
    step = trial_step(make_trainer(tiny, tmp_path, []), module, data)
    step(3)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_run_that_finds_no_memory_says_which_batch_does(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The made-up GPU takes four images at once; the command that the error offers trains."""
    plain = batches.to_float_images

    def on_gpu(images: torch.Tensor, scale: float) -> Any:
        if len(images) > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return plain(images, scale)

    monkeypatch.setattr(batches, "to_float_images", on_gpu)
    with pytest.raises(UserError, match=r"at most 4 images fit: use --batch 3 --optim\.accumulate 2 to keep 6"):
        fit(tiny, tmp_path / "first", console=quiet())
    smaller = evolve(tiny, data={"batch_size": 3}, optim={"accumulate": 2}, trainer={"epochs": 1, "close_epochs": 0})
    assert (fit(smaller, tmp_path / "second", console=quiet()) / "model.safetensors").is_file()
