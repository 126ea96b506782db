"""The weight average: its formula, its buffers, and that it never trains."""

from __future__ import annotations

import torch
from torch import nn

from eyas.training.ema import Ema


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
