from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from tests.models.nets import meta_net, with_random_statistics
from torch import nn
from torch.nn import functional

from eyas.models import zoo
from eyas.models.csp import Bottleneck, CspLayer, Spp
from eyas.models.layers import BlockArgs, ConvBnAct, QARepVGG, make_activation

# Several steps of training in float32 and channels_last; the heap, if it was damaged, is then used a lot.
TRAIN = """
import torch
from eyas.models import zoo
from eyas.models.backbones.yolo_nas import Stem
torch.set_num_threads(1)
def images():
    return torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
stem = Stem(zoo.resolve("s")).to(memory_format=torch.channels_last)
for step in range(20):
    with torch.autocast("cpu", torch.bfloat16, enabled=step < 3):
        stem(images()).float().square().sum().backward()
    kept = [torch.rand(size) for size in range(1, 4000, 37)]
net = zoo.build("p", 3).train().to(memory_format=torch.channels_last)
output = net(images())
(output.class_logits.square().sum() + output.box_logits.square().sum()).backward()
print("survived")
"""


def test_training_in_channels_last_leaves_the_heap_whole() -> None:
    done = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "survived\n", done.stderr[-2000:]


@pytest.mark.parametrize("name", zoo.SPECS)
def test_no_layer_is_of_the_kind_that_corrupts_the_heap(name: str) -> None:
    convolutions = [module for module in meta_net(name).modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) > 50
    assert not [module for module in convolutions if module.kernel_size == (1, 1) and module.stride != (1, 1)]


@pytest.mark.parametrize(("stride", "residual"), [(1, True), (1, False), (2, False)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_block_is_its_formula(stride: int, residual: bool, layout: torch.memory_format) -> None:
    block = with_random_statistics(QARepVGG(6, 6, stride, residual=residual)).to(memory_format=layout)
    x = torch.randn(2, 6, 9, 10).contiguous(memory_format=layout)
    kept = x.clone()
    pointwise = functional.conv2d(x, block.branch_1x1.weight, block.branch_1x1.bias, stride=stride)
    threefold = block.branch_3x3.bn(functional.conv2d(x, block.branch_3x3.conv.weight, stride=stride, padding=1))
    expected = block.post_bn(threefold + pointwise + (x if residual else 0)).relu()
    torch.testing.assert_close(block(x), expected)
    assert torch.equal(x, kept), "the block changed its input"


def test_block_gradients_are_the_formulas() -> None:
    block = QARepVGG(4, 4, activation="silu").double().train()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)

    def formula(x: torch.Tensor) -> torch.Tensor:
        threefold = block.branch_3x3.bn(functional.conv2d(x, block.branch_3x3.conv.weight, padding=1))
        return functional.silu(block.post_bn(threefold + block.branch_1x1(x) + x))

    ours = torch.autograd.grad(block(x).square().sum(), x)[0]
    torch.testing.assert_close(ours, torch.autograd.grad(formula(x).square().sum(), x)[0])


def test_pools_in_a_row_are_the_pools_of_5_9_and_13() -> None:
    spp = with_random_statistics(Spp(6, 4, 5, "relu"))
    x = torch.randn(1, 6, 17, 20)
    narrow = spp.cv1(x)
    pools = [functional.max_pool2d(narrow, size, 1, size // 2) for size in (5, 9, 13)]
    torch.testing.assert_close(spp(x), spp.cv2(torch.cat([narrow, *pools], 1)))


def test_bottleneck_weighs_its_shortcut() -> None:
    bottleneck = with_random_statistics(Bottleneck(BlockArgs("conv", 4, 4)))
    x = torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        bottleneck.alpha.fill_(0.25)
    torch.testing.assert_close(bottleneck(x), 0.25 * x + bottleneck.cv2(bottleneck.cv1(x)))


def test_csp_layer_gives_its_last_convolution_the_published_order() -> None:
    layer = with_random_statistics(CspLayer(8, 6, 2, True, BlockArgs("conv", 4, 4)))
    x = torch.randn(1, 8, 6, 6)
    first = layer.conv1(x)
    second = layer.bottlenecks[0](first)
    parts = [first, second, layer.bottlenecks[1](second), layer.conv2(x)]
    torch.testing.assert_close(layer(x), layer.conv3(torch.cat(parts, 1)))
    layer.concat_intermediates = False
    layer.conv3 = ConvBnAct(8, 6, 1).eval()
    torch.testing.assert_close(layer(x), layer.conv3(torch.cat(parts[2:], 1)))


def test_activations_are_their_functions() -> None:
    x = torch.randn(50)
    for kind, function in (("relu", functional.relu), ("silu", functional.silu), ("hardswish", functional.hardswish)):
        assert torch.equal(make_activation(kind)(x.clone()), function(x))  # type: ignore[arg-type]
