"""How weights move: which decay, Muon against its paper, the schedule of the rate, and the weight average."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from eyas.errors import UserError
from eyas.models.zoo import build
from eyas.training.ema import Ema
from eyas.training.muon import Muon, is_matrix, orthogonal
from eyas.training.optim import SGD_FACTOR, make_optimizer, parameter_groups
from eyas.training.recipe import OptimRecipe
from eyas.training.schedule import ema_decay, warmup_cosine


def test_kernels_decay_and_nothing_else_does() -> None:
    net = build("p", 3)
    decaying, rest = parameter_groups(net, 0.05)
    assert decaying["weight_decay"] == 0.05 and rest["weight_decay"] == 0.0
    assert all(p.ndim == 4 for p in decaying["params"])
    assert all(p.ndim <= 1 for p in rest["params"])
    trainable = [p for p in net.parameters() if p.requires_grad]
    assert len(decaying["params"]) + len(rest["params"]) == len(trainable)


def test_without_a_gradient_only_kernels_shrink() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))
    before = [p.clone() for p in net.parameters()]
    optimizer = make_optimizer(net, OptimRecipe(lr=0.1, weight_decay=0.5))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = list(net.parameters())
    torch.testing.assert_close(after[0], before[0] * 0.95)
    for old, new in zip(before[1:], after[1:], strict=True):
        assert torch.equal(old, new)


def trained(
    fused: bool, steps: int, state: dict | None = None, kind: str = "adamw"
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = make_optimizer(net, OptimRecipe(lr=0.01, optimizer=kind), fused=fused)
    if state is not None:
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
    for step in range(steps):
        images = torch.rand(2, 2, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(images).pow(2).mean().backward()
        optimizer.step()
    return net, optimizer


@pytest.mark.parametrize("saved_fused", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_saved_state_goes_on_in_either_kind(kind: str, saved_fused: bool, fused: bool) -> None:
    """A run may be stopped on a GPU and go on without one: how its optimizer computes is the new place's matter."""
    net, optimizer = trained(saved_fused, 3, kind=kind)
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True, map_location="cpu")
    again, resumed = trained(fused, 2, state, kind)
    expected, _ = trained(fused, 2, {"net": net.state_dict(), "optimizer": optimizer.state_dict()}, kind)
    for group in resumed.param_groups:
        assert bool(group["fused"]) == bool(group["capturable"]) == fused and bool(group["foreach"]) != fused
    if kind == "adamw":
        assert {float(values["step"]) for values in resumed.state.values()} == {5.0}
    for one, other in zip(again.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_unknown_optimizer_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'muon'"):
        make_optimizer(build("p", 1), OptimRecipe(optimizer="moun"))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_backbone_may_learn_at_a_rate_of_its_own(kind: str) -> None:
    net = build("p", 2)
    whole = make_optimizer(net, OptimRecipe(optimizer=kind, lr=0.01))
    split = make_optimizer(net, OptimRecipe(optimizer=kind, lr=0.01, backbone_factor=0.1))
    inside = set(net.backbone.parameters())
    rates = {p: group["lr"] for group in split.param_groups for p in group["params"]}
    for group in whole.param_groups:
        for parameter in group["params"]:
            assert rates[parameter] == pytest.approx(group["lr"] * (0.1 if parameter in inside else 1.0))
    assert split.param_groups[0]["lr"] == 0.01  # what is shown as the learning rate
    decays = {p: group["weight_decay"] for group in split.param_groups for p in group["params"]}
    assert all(decays[p] == group["weight_decay"] for group in whole.param_groups for p in group["params"])


def test_a_net_without_a_backbone_has_no_rate_for_it() -> None:
    with pytest.raises(UserError, match="has no backbone"):
        make_optimizer(torch.nn.Sequential(torch.nn.Linear(2, 2)), OptimRecipe(backbone_factor=0.5))


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (8, 40), (32, 33)])
def test_singular_values_come_near_one_and_vectors_stay(rows: int, columns: int) -> None:
    matrix = torch.randn(1, rows, columns, generator=torch.Generator().manual_seed(0))
    even = orthogonal(matrix)[0]
    u, values, v = torch.linalg.svd(matrix[0], full_matrices=False)
    inner = u.T @ even @ v.T  # diagonal where the vectors are the same
    wanted = values > 0.05 * values.max()  # the smallest are not lifted all the way
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-3, rtol=0)
    assert ((inner.diagonal()[wanted] > 0.6) & (inner.diagonal()[wanted] < 1.3)).all()


def test_kernels_of_one_shape_move_as_each_alone() -> None:
    shapes = [(8, 4, 3, 3), (8, 4, 3, 3), (4, 72, 1, 1), (36, 8, 1, 1), (8, 36, 1, 1)]
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    slopes = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(3)]

    def moved(together: bool) -> list[torch.Tensor]:
        kernels = [torch.nn.Parameter(value.clone()) for value in start]
        sets = [kernels] if together else [[one] for one in kernels]
        optimizers = [
            Muon([{"params": one, "lr": 0.1, "weight_decay": 0.2, "orthogonal": True}], momentum=0.9) for one in sets
        ]
        for step in slopes:
            for kernel, slope in zip(kernels, step, strict=True):
                kernel.grad = slope.clone()
            for optimizer in optimizers:
                optimizer.step()
        return [one.detach() for one in kernels]

    torch.testing.assert_close(moved(together=True), moved(together=False))


def test_one_step_is_the_paper_s() -> None:
    kernel = torch.nn.Parameter(torch.zeros(6, 5, 3, 3))
    kernel.grad = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(2))
    Muon([{"params": [kernel], "lr": 0.5, "orthogonal": True}], momentum=0.95).step()
    expected = orthogonal(kernel.grad.reshape(1, 6, 45)).reshape(6, 5, 3, 3)  # Nesterov's first step: 1.95 times it
    torch.testing.assert_close(kernel.detach(), -0.5 * 0.2 * 45**0.5 * expected)
    assert 0.15 * 0.5 < float(kernel.detach().pow(2).mean().sqrt()) < 0.25 * 0.5  # as large as AdamW's, whatever shape


def test_the_rest_goes_as_pytorch_s_sgd() -> None:
    slopes = torch.randn(4, 7, generator=torch.Generator().manual_seed(3))
    own, other = (torch.nn.Parameter(torch.ones(7)) for _ in range(2))
    optimizers = [
        Muon([{"params": [own], "lr": 0.1}], momentum=0.9),
        torch.optim.SGD([other], lr=0.1, momentum=0.9, nesterov=True),
    ]
    for slope in slopes:
        for parameter, optimizer in zip((own, other), optimizers, strict=True):
            parameter.grad = slope.clone()
            optimizer.step()
    torch.testing.assert_close(own, other)


def test_kernels_are_orthogonal_and_decay_and_the_rest_goes_faster() -> None:
    net = build("p", 3)
    kernels, rest = make_optimizer(net, OptimRecipe(optimizer="muon", lr=0.01, weight_decay=0.1)).param_groups
    assert kernels["orthogonal"] and kernels["weight_decay"] == 0.1 and kernels["lr"] == 0.01
    assert not rest["orthogonal"] and rest["weight_decay"] == 0.0 and rest["lr"] == pytest.approx(0.01 * SGD_FACTOR)
    assert all(is_matrix(p) for p in kernels["params"]) and not any(is_matrix(p) for p in rest["params"])
    assert len(kernels["params"]) + len(rest["params"]) == len(list(net.parameters()))


def test_a_rate_may_be_a_tensor() -> None:
    """A replayed step reads it from the device."""
    moved = []
    for rate in (0.1, torch.tensor(0.1)):
        kernel = torch.nn.Parameter(torch.ones(4, 4, 3, 3))
        kernel.grad = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(4))
        Muon([{"params": [kernel], "lr": rate, "weight_decay": 0.1, "orthogonal": True}], fused=True).step()
        moved.append(kernel.detach())
    torch.testing.assert_close(*moved)


SCHEDULE = {"warmup_steps": 100, "warmup_factor": 0.001, "final_factor": 0.1}


def test_warms_up_peaks_and_ends_where_it_should() -> None:
    assert warmup_cosine(0, 1000, **SCHEDULE) == pytest.approx(0.001)
    assert warmup_cosine(50, 1000, **SCHEDULE) == pytest.approx(0.5005)
    assert warmup_cosine(100, 1000, **SCHEDULE) == pytest.approx(1.0)
    assert warmup_cosine(550, 1000, **SCHEDULE) == pytest.approx(0.55)
    assert warmup_cosine(1000, 1000, **SCHEDULE) == pytest.approx(0.1)


def test_a_short_run_still_reaches_the_peak() -> None:
    factors = [warmup_cosine(step, 20, **SCHEDULE) for step in range(21)]
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(0.1)


def test_stays_at_the_full_rate_for_the_flat_share() -> None:
    flat = {**SCHEDULE, "flat": 0.5}
    assert [warmup_cosine(step, 1100, **flat) for step in (100, 400, 600)] == [1.0, 1.0, 1.0]
    assert warmup_cosine(850, 1100, **flat) == pytest.approx(0.55)
    assert warmup_cosine(1100, 1100, **flat) == pytest.approx(0.1)


@given(st.integers(1, 5000), st.data())
def test_stays_within_bounds_and_never_jumps(total: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, total))
    here, after = (warmup_cosine(s, total, **SCHEDULE) for s in (step, step + 1))
    assert 0.001 - 1e-9 <= here <= 1.0 + 1e-9
    warmup = min(100, total // 2)
    assert abs(after - here) <= max(1 / max(1, warmup), 3.2 / 2 / max(1, total - warmup)) + 1e-9


def test_the_average_is_short_sighted_at_first() -> None:
    assert ema_decay(1, 0.9997) == pytest.approx(2 / 11)
    assert ema_decay(10**6, 0.9997) == 0.9997


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_follows_the_formula_for_parameters_and_buffers() -> None:
    torch.manual_seed(0)
    net = small_net()
    ema = Ema(net, 0.99)
    expected = {name: value.clone() for name, value in net.state_dict().items()}
    for step in range(1, 4):
        net(torch.randn(2, 3, 8, 8))
        with torch.no_grad():
            net[0].weight += 0.1
        ema.update(net)
        decay = min(0.99, (1 + step) / (10 + step))
        for name, value in net.state_dict().items():
            old = expected[name]
            expected[name] = decay * old + (1 - decay) * value if value.is_floating_point() else value.clone()
    for name, value in ema.net.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert int(ema.net[1].num_batches_tracked) == 3


def test_is_a_separate_frozen_copy_in_evaluation_mode() -> None:
    net = small_net()
    ema = Ema(net, 0.99)
    assert not any(p.requires_grad for p in ema.net.parameters())
    assert not ema.net.training and net.training
    pointers = {p.data_ptr() for p in net.parameters()}
    assert not pointers & {p.data_ptr() for p in ema.net.parameters()}
