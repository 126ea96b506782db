"""A criterion with a teacher: what is trained and what is not, what is saved, and that any kind of step can do it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from tests.training.emulated_graph import emulate
from tests.training.tiny_detector import batches
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from eyas.losses.detection import DetectionCriterion
from eyas.losses.distill_settings import DistillSettings
from eyas.losses.distillation import Distillation, Teacher
from eyas.losses.knowledge import KNOWLEDGE
from eyas.losses.weighting import WEIGHTINGS, weighed
from eyas.models.detection_net import DetectionNet
from eyas.models.fuse import fused
from eyas.models.zoo import build
from eyas.training.batches import loss_terms
from eyas.training.graph import CudaGraphs
from eyas.training.optim import make_optimizer
from eyas.training.recipe import OptimRecipe
from eyas.training.step import StaticInputs, StepSettings, TrainingStep

DATA = batches(6, most=3)  # of one number of rows: the fourth step is captured
SETTINGS = DistillSettings(teacher="runs/n")
WIDTHS = ((32, 40), (48, 64), (96, 160))  # of P and N


def network(name: str, seed: int = 0, classes: int = 3) -> DetectionNet:
    torch.manual_seed(seed)
    net = build(name, classes).train()
    with torch.no_grad():
        for part, parameter in net.named_parameters():
            if ".cls_pred." in part or ".reg_pred." in part:  # one that is sure of something
                parameter += 0.3 * torch.randn_like(parameter)
    return net


def teaching(
    settings: DistillSettings = SETTINGS, columns: Sequence[int] | None = None, weighting: str = "fixed"
) -> Distillation:
    net = network("n", 1, 3 if columns is None else len(columns) + 1)
    torch.manual_seed(2)
    return Distillation(weighed(DetectionCriterion(), weighting), Teacher(fused(net), columns), settings, WIDTHS)


def terms(net: nn.Module, criterion: Distillation) -> Tensor:
    batch = batches(2)[1]
    return loss_terms(net, criterion, batch.images, batch, 1 / 255)


def learned(net: nn.Module, criterion: Distillation) -> Tensor:
    return terms(net, criterion).detach()[3:]


def test_terms_come_after_the_inner_ones_which_stay_as_they_are() -> None:
    criterion = teaching()
    assert criterion.terms == ("class", "iou", "dfl", "responses", "features", "localisation")
    assert criterion.of_any_size == {*KNOWLEDGE} and criterion.static
    got = terms(network("p"), criterion)
    batch = batches(2)[1]
    plain = loss_terms(network("p"), DetectionCriterion(), batch.images, batch, 1 / 255)
    assert torch.equal(got[:3], plain) and bool((got[3:] > 0.01).all())


@pytest.mark.parametrize("name", KNOWLEDGE)
def test_each_kind_alone_is_a_term_and_its_factor_scales_it(name: str) -> None:
    silent = dict.fromkeys(KNOWLEDGE, 0.0)
    once, twice = (teaching(DistillSettings("runs/n", **{**silent, name: factor})) for factor in (1.0, 2.0))
    assert once.terms == ("class", "iou", "dfl", name)
    assert len(once.adapters) == (3 if KNOWLEDGE[name].features else 0)
    assert float(learned(network("p"), twice)) == pytest.approx(2 * float(learned(network("p"), once)), rel=1e-4)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_gradients_reach_student_adapters_and_inner_parameters_and_never_the_teacher(weighting: str) -> None:
    net, criterion = network("p"), teaching(weighting=weighting)
    (teacher,) = criterion.beside
    before = copy.deepcopy(teacher.state_dict())
    terms(net, criterion)[3:].sum().backward(retain_graph=False)
    assert all(p.grad is not None and bool(p.grad.abs().max() > 0) for p in criterion.adapters.parameters())
    assert all(p.grad is not None for p in net.neck.parameters())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    criterion.train()  # as Lightning does with everything
    terms(net, criterion).sum().backward()
    assert all(p.grad is not None for p in criterion.parameters())
    assert not any(part.training for part in teacher.modules() if part is not teacher)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_the_teacher_is_no_part_of_the_state_nor_of_what_is_trained_but_goes_along() -> None:
    criterion = teaching()
    adapters = [f"adapters.{level}.weight" for level in range(3)]
    assert list(criterion.state_dict()) == adapters == [name for name, _ in criterion.named_parameters()]
    (teacher,) = criterion.beside
    copied = copy.deepcopy(criterion).to(torch.float64)
    assert {p.dtype for p in copied.beside[0].parameters()} == {torch.float64}
    assert {p.dtype for p in teacher.parameters()} == {torch.float32}


def test_its_own_teacher_leaves_nothing_to_say() -> None:
    """The student in eval mode, as in training its BatchNorm looks at the batch."""
    net = network("p").eval()
    criterion = Distillation(DetectionCriterion(), Teacher(fused(net)), SETTINGS, [(c, c) for c, _ in WIDTHS])
    assert not list(criterion.parameters())  # features of one width are compared as they are
    assert learned(net, criterion).tolist() == pytest.approx([0.0] * 3, abs=2e-3)
    apart = learned(network("p", 5).eval(), criterion)
    assert bool((apart > 0.02).all())


def test_classes_in_another_order_teach_the_same() -> None:
    """A teacher of the classes (c, ?, a, b) whose columns are brought to (a, b, c)."""
    plain = teaching()
    (teacher,) = plain.beside
    permuted = copy.deepcopy(teacher.net)
    for name, parameter in permuted.named_parameters():
        if ".cls_pred." in name:
            owner = permuted.get_submodule(name.rpartition(".")[0])
            extra = torch.full_like(parameter[:1], 9.0)  # a class that the student doesn't have, and is everywhere
            rows = torch.cat([parameter[2:3], extra, parameter[:2]])
            setattr(owner, name.rpartition(".")[2], nn.Parameter(rows, requires_grad=False))
    other = Distillation(DetectionCriterion(), Teacher(permuted, [2, 3, 0]), SETTINGS, WIDTHS)
    other.load_state_dict(plain.state_dict())
    torch.testing.assert_close(terms(network("p"), other), terms(network("p"), plain), rtol=1e-5, atol=1e-5)


def test_a_teacher_that_takes_other_numbers_gets_them() -> None:
    """Pixels in 0..1 for the student, in 0..255 for its teacher: the same as a first convolution 255 times smaller."""
    plain = teaching()
    teacher = copy.deepcopy(plain.beside[0].net)
    first = next(part for part in teacher.modules() if isinstance(part, nn.Conv2d))
    first.weight.mul_(1 / 255)
    other = Distillation(DetectionCriterion(), Teacher(teacher, factor=255.0), SETTINGS, WIDTHS)
    other.load_state_dict(plain.state_dict())
    torch.testing.assert_close(terms(network("p"), other), terms(network("p"), plain), rtol=1e-3, atol=1e-4)


def trained(kind: str, patch: pytest.MonkeyPatch | None = None, autocast: torch.dtype | None = None) -> Tensor:
    """Return the terms of six steps: eager, padded, graphed or compiled."""
    net, criterion = network("p").to(memory_format=torch.channels_last), teaching()
    if kind == "compiled":
        net.compile(backend="eager")
    optimizer = make_optimizer(net, OptimRecipe(lr=2e-4), criterion.parameters(), fused=kind != "padded")
    losses = []
    if kind in ("padded", "graphed"):
        graphs = None
        if kind == "graphed":
            assert patch is not None
            emulate(patch)
            said: list[str] = []
            graphs = CudaGraphs(torch.device("cpu"), said.append)
        step = TrainingStep(net, criterion, optimizer, None, StepSettings(1 / 255, 0.0, autocast), graphs)
        losses = [step(batch).clone() for batch in DATA]
        assert graphs is None or (graphs.captured and said == [])
        return torch.stack(losses)
    for batch in DATA:
        with torch.autocast("cpu", autocast, autocast is not None):
            loss = loss_terms(net, criterion, batch.images, batch, 1 / 255)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@pytest.fixture(scope="module")
def eager() -> Tensor:
    return trained("eager")


@pytest.mark.parametrize("kind", ["padded", "graphed", "compiled"])
def test_every_kind_of_step_gives_the_eager_terms(kind: str, eager: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert float(eager[-1].sum()) < float(eager[0].sum())
    torch.testing.assert_close(trained(kind, monkeypatch), eager, rtol=5e-3, atol=1e-3)


def test_in_bf16_they_are_to_its_precision(eager: Tensor) -> None:
    half = trained("padded", autocast=torch.bfloat16)[0]
    torch.testing.assert_close(half, eager[0], rtol=5e-2, atol=2e-2)
    assert not torch.equal(half, eager[0])


def test_a_step_needs_no_value_of_a_tensor() -> None:
    """Tensors without values stand for a device that one must not wait for."""
    with FakeTensorMode():
        net, teacher = network("p"), Teacher(network("n", classes=4), (2, 0, 1))
        criterion = Distillation(DetectionCriterion(), teacher, SETTINGS, WIDTHS)
        optimizer = make_optimizer(net, OptimRecipe(), criterion.parameters(), fused=True)
        step = TrainingStep(net, criterion, optimizer, None, StepSettings(1 / 255, 10.0, torch.bfloat16))
        step.run(StaticInputs.of_shape(2, 64, 64, 3, 16, device=torch.device("cpu")))
        assert step.terms.shape == (6,)
