"""The step as one unit: the numbers of the plain loop, in any kind, and nothing in it that a CUDA graph can't hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from eyas.data.loading.batch import Batch
from eyas.losses.detection import DetectionCriterion
from eyas.models.zoo import build
from eyas.training.batches import to_float_images
from eyas.training.ema import Ema
from eyas.training.graph import CudaGraphs
from eyas.training.optim import make_optimizer
from eyas.training.recipe import OptimRecipe
from eyas.training.step import StaticInputs, StepSettings, TrainingStep, truth_rows

from .emulated_graph import emulate
from .tiny_detector import TinyDetector, batches

CPU = torch.device("cpu")
RECIPE = OptimRecipe(lr=2e-3)
SETTINGS = StepSettings(clip_norm=1.0)


def parts(fused: bool = False) -> tuple[nn.Module, DetectionCriterion, torch.optim.Optimizer, Ema]:
    torch.manual_seed(0)
    net = TinyDetector().to(memory_format=torch.channels_last).train()
    return net, DetectionCriterion(), make_optimizer(net, RECIPE, fused=fused), Ema(net, 0.99)


def schedule(optimizer: torch.optim.Optimizer, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = RECIPE.lr * (step % 7 + 1) / 7


def plain(data: list[Batch], autocast: torch.dtype | None = None, fused: bool = False):
    """Train as one would write it by hand, and return the losses, the network and its average."""
    net, criterion, optimizer, ema = parts(fused)
    losses = []
    for step, batch in enumerate(data):
        schedule(optimizer, step)
        with torch.autocast("cpu", autocast, autocast is not None):
            terms = criterion(net(to_float_images(batch.images, 1 / 255)), batch)
        stacked = torch.stack([terms[name] for name in criterion.terms])
        losses.append(stacked.detach())
        optimizer.zero_grad()
        stacked.sum().backward()
        nn.utils.clip_grad_norm_(net.parameters(), SETTINGS.clip_norm)
        optimizer.step()
        ema.update(net)
    return torch.stack(losses), net, ema


def whole(
    data: list[Batch], autocast: torch.dtype | None = None, fused: bool = False, graphs: CudaGraphs | None = None
):
    net, criterion, optimizer, ema = parts(fused)
    step = TrainingStep(net, criterion, optimizer, ema, StepSettings(1 / 255, SETTINGS.clip_norm, autocast), graphs)
    losses = []
    for number, batch in enumerate(data):
        schedule(optimizer, number)
        losses.append(step(batch).clone())
    return torch.stack(losses), net, ema


def same(first: nn.Module, second: nn.Module, compare: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        compare(one, other)


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def equal(one: torch.Tensor, other: torch.Tensor) -> None:
    assert torch.equal(one, other)


@pytest.mark.parametrize("boxes", [0, 1, 16, 17, 100, 3000])
def test_rows_of_truth_are_few_and_not_too_many(boxes: int) -> None:
    assert boxes <= truth_rows(boxes) <= max(16, 1.5 * boxes)
    assert len({truth_rows(number) for number in range(3001)}) == 16


def test_fifty_padded_steps_are_fifty_plain_ones() -> None:
    data = batches(50)
    losses, net, ema = plain(data)
    padded, other, average = whole(data)
    torch.testing.assert_close(padded, losses, rtol=1e-6, atol=1e-6)
    same(net, other, close)
    same(ema.net, average.net, close)
    assert average.steps == 50 and int(average.net.stem[1].num_batches_tracked) == 50


def test_in_bf16_they_are_to_its_precision() -> None:
    data = batches(50)
    losses, _, _ = plain(data, torch.bfloat16)
    padded, _, _ = whole(data, torch.bfloat16)
    torch.testing.assert_close(padded, losses, rtol=1e-2, atol=1e-2)
    assert not torch.allclose(padded, whole(data)[0], rtol=1e-4)  # it is bf16 that was compared


def test_the_fused_optimizer_takes_its_rate_from_a_tensor_and_leaves_the_number() -> None:
    data = batches(20)
    losses, net, _ = plain(data, fused=True)
    padded, _, _ = whole(data, fused=True)
    torch.testing.assert_close(padded, losses, rtol=1e-4, atol=1e-5)
    optimizer = make_optimizer(net, RECIPE, fused=True)
    TrainingStep(net, DetectionCriterion(), optimizer)(data[0])
    groups = optimizer.state_dict()["param_groups"]
    assert [group["lr"] for group in groups] == [RECIPE.lr] * 2
    assert not any(isinstance(value, torch.Tensor) for group in groups for value in group.values())


@pytest.mark.parametrize("sizes", [(64,), (64, 96)])
def test_replayed_steps_are_the_padded_ones_to_the_bit(sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates, decay, counts of steps and batches, gradients: nothing of them may be as it was when it was captured."""
    emulate(monkeypatch)
    data = batches(24, sizes)
    said: list[str] = []
    graphs = CudaGraphs(CPU, said.append)
    losses, net, ema = whole(data, fused=True)
    replayed, other, average = whole(data, fused=True, graphs=graphs)
    assert said == [] and graphs.captured >= len(sizes)
    assert torch.equal(replayed, losses)
    same(net, other, equal)
    same(ema.net, average.net, equal)


def test_an_optimizer_that_waits_can_not_be_captured_and_the_steps_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW in parts counts its steps on the host: what a capture must not swallow."""
    emulate(monkeypatch)
    data = batches(12)
    said: list[str] = []
    losses, net, _ = whole(data)
    going_on, other, _ = whole(data, graphs=CudaGraphs(CPU, said.append))
    assert len(said) == 1 and "not permitted when stream is capturing" in said[0]
    assert torch.equal(going_on, losses)
    same(net, other, equal)


def test_a_criterion_with_parameters_is_trained_along() -> None:
    class Weighted(DetectionCriterion):
        def __init__(self) -> None:
            super().__init__()
            self.logarithm = nn.Parameter(torch.zeros(3))

        def forward(self, output, batch):
            terms = super().forward(output, batch)
            return {name: term * s.exp() - s for (name, term), s in zip(terms.items(), self.logarithm, strict=True)}

    net, criterion = TinyDetector(), Weighted()
    step = TrainingStep(net, criterion, make_optimizer(net, RECIPE, criterion.parameters()))
    for batch in batches(3):
        step(batch)
    assert bool((criterion.logarithm.detach().abs() > 1e-4).all())
    assert torch.equal(net.unused.detach(), torch.ones(4)) and net.unused.grad is None


def test_a_step_of_a_real_network_needs_no_value_of_a_tensor() -> None:
    """Tensors without values stand for a device that one must not wait for: its whole step is done on them."""
    with FakeTensorMode():
        net = build("p", 3).train()
        optimizer = make_optimizer(net, RECIPE, fused=True)
        step = TrainingStep(net, DetectionCriterion(), optimizer, None, StepSettings(1 / 255, 10.0, torch.bfloat16))
        step.run(StaticInputs.of_shape(2, 64, 64, 3, 16, device=CPU))
        with pytest.raises(DataDependentOutputException):
            bool(step.terms.isfinite().all())
