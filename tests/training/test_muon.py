"""Muon against what its paper says of it, and against a loop over single kernels."""

from __future__ import annotations

import pytest
import torch

from eyas.models.zoo import build
from eyas.training.muon import Muon, is_matrix, orthogonal
from eyas.training.optim import SGD_FACTOR, make_optimizer
from eyas.training.recipe import OptimRecipe


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
