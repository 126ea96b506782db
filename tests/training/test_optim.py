"""Which parameters decay."""

from __future__ import annotations

import torch

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
