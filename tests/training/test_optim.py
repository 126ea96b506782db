"""Which parameters decay."""

from __future__ import annotations

import io

import pytest
import torch

from eyas.errors import UserError
from eyas.models.zoo import build
from eyas.training.optim import make_optimizer, parameter_groups
from eyas.training.recipe import OptimRecipe


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
