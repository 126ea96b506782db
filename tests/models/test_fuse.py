from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.models.nets import IRREGULAR, meta_net, with_random_statistics
from tests.models.reference import ROWS, reference_shapes
from torch import Tensor, nn

from eyas.models import zoo
from eyas.models.fuse import FusedQARepVGG, fold_bn, fuse_blocks, fused
from eyas.models.layers import QARepVGG
from eyas.models.spec import YoloNasSpec


def relative(ours: Tensor, reference: Tensor) -> float:
    """Return the largest difference as a share of the reference's largest value."""
    return ((ours - reference).abs().max() / reference.abs().max()).item()


@pytest.mark.parametrize("model", ["p", "n", "s", IRREGULAR], ids=["p", "n", "s", "irregular"])
def test_fused_nets_have_the_same_outputs(model: str | YoloNasSpec) -> None:
    torch.manual_seed(0)
    net = with_random_statistics(zoo.build(model, 3))
    images = torch.rand(1, 3, 96, 64)
    blocks = fuse_blocks(net)
    with torch.no_grad():
        expected = net(images)
        for small in (blocks, fused(net), fused(blocks)):
            output = small(images)
            assert relative(output.class_logits, expected.class_logits) < 1e-4
            assert relative(output.box_logits, expected.box_logits) < 1e-4
            assert relative(output.class_logits, expected.class_logits.flip(1)) > 1e-2  # the measure tells nets apart


@pytest.mark.parametrize(("kernel", "stride", "residual"), [(3, 1, True), (5, 1, True), (5, 1, False), (5, 2, False)])
def test_a_block_is_exactly_one_convolution_of_its_kernel(kernel: int, stride: int, residual: bool) -> None:
    torch.manual_seed(0)
    block = with_random_statistics(QARepVGG(5, 5, stride, residual=residual, kernel=kernel).double())
    small = fused(nn.Sequential(block))[0]
    assert isinstance(small, FusedQARepVGG)
    convolution = small.rbr_reparam
    assert (convolution.kernel_size, convolution.stride) == ((kernel, kernel), (stride, stride))
    x = torch.randn(2, 5, 11, 12, dtype=torch.float64)
    torch.testing.assert_close(small(x), block(x), rtol=1e-12, atol=1e-12)


def test_what_only_training_needs_is_dropped() -> None:
    torch.manual_seed(0)
    net = with_random_statistics(zoo.build(dataclasses.replace(zoo.resolve("p"), head="dual"), 3))
    images = torch.rand(1, 3, 96, 64)
    for small in (fuse_blocks(net), fused(net)):
        assert not any("dense" in name for name in (*small.state_dict(), *dict(small.named_parameters())))
        with torch.no_grad():
            (kept, dense), expected = small(images), net(images).one_to_one
        assert dense is None
        assert relative(kept.class_logits, expected.class_logits) < 1e-4
        assert relative(kept.box_logits, expected.box_logits) < 1e-4
    assert any("dense" in name for name in net.state_dict())  # the given one has it still


def test_a_block_alone_is_fused_too() -> None:
    assert type(fused(QARepVGG(2, 2))) is FusedQARepVGG


@pytest.mark.parametrize("name", ROWS)
def test_block_fused_tensors_are_exactly_the_published_ones(name: str) -> None:
    state = fuse_blocks(meta_net(name)).state_dict()
    assert len(state) == {"yolo_nas_s": 440, "yolo_nas_m": 458, "yolo_nas_l": 512}[name]
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == reference_shapes(name, fused=True)


def test_nothing_is_left_to_fold_and_the_given_net_stays_as_it_is() -> None:
    net = zoo.build("p", 2).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    small = fused(net)
    assert not any(isinstance(module, nn.BatchNorm2d | QARepVGG) for module in small.modules())
    assert not small.training and not any(parameter.requires_grad for parameter in small.parameters())
    assert net.training and any(isinstance(module, QARepVGG) for module in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert small.spec == net.spec


def test_folded_norm_is_the_norm_after_the_convolution() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, eps=0.1)
    with_random_statistics(norm)
    x = torch.randn(1, 3, 6, 6)
    for bias in (None, conv.bias):
        weight, shift = fold_bn(conv.weight, bias, norm)
        expected = norm(nn.functional.conv2d(x, conv.weight, bias))
        torch.testing.assert_close(nn.functional.conv2d(x, weight.float(), shift.float()), expected)
