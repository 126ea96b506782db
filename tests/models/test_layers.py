"""Every layer is its formula, comes from the factory and learns."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from types import MappingProxyType

import pytest
import torch
from tests.models.nets import IRREGULAR, meta_net, with_random_statistics
from torch import nn
from torch.nn import functional

from eyas.errors import UserError
from eyas.models import factories, zoo
from eyas.models.csp import Bottleneck, CspLayer, Spp
from eyas.models.factories import FACTORIES, factory_of
from eyas.models.first_weights import initialize
from eyas.models.layers import (
    BLOCKS,
    BN_EPS,
    LAYERS,
    BlockArgs,
    ConvBnAct,
    DepthwiseSeparable,
    Layers,
    QARepVGG,
    make_activation,
    make_block,
)
from eyas.models.spec import YoloNasSpec
from eyas.training.build_model import make_network
from eyas.training.config_overrides import override
from eyas.training.recipe import Recipe

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


@pytest.mark.parametrize(("stride", "residual", "kernel"), [(1, True, 3), (1, False, 3), (2, False, 3), (1, True, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_block_is_its_formula(stride: int, residual: bool, kernel: int, layout: torch.memory_format) -> None:
    block = QARepVGG(6, 6, stride, residual=residual, kernel=kernel)
    block = with_random_statistics(block).to(memory_format=layout)
    x = torch.randn(2, 6, 9, 10).contiguous(memory_format=layout)
    kept = x.clone()
    pointwise = functional.conv2d(x, block.branch_1x1.weight, block.branch_1x1.bias, stride=stride)
    weight = block.branch_3x3.conv.weight
    wide = block.branch_3x3.bn(functional.conv2d(x, weight, stride=stride, padding=kernel // 2))
    expected = block.post_bn(wide + pointwise + (x if residual else 0)).relu()
    torch.testing.assert_close(block(x), expected)
    assert torch.equal(x, kept), "the block changed its input"


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_separable_is_its_formula(kernel: int, stride: int) -> None:
    block = make_block(BlockArgs("dwconv", 4, 6, kernel, stride, "silu"), LAYERS)
    assert isinstance(block, DepthwiseSeparable)
    with_random_statistics(block)
    x = torch.randn(2, 4, 9, 10)
    weight = block.depthwise.conv.weight
    deep = functional.silu(block.depthwise.bn(functional.conv2d(x, weight, None, stride, kernel // 2, groups=4)))
    wide = functional.conv2d(deep, block.pointwise.conv.weight)
    torch.testing.assert_close(block(x), functional.silu(block.pointwise.bn(wide)))
    assert weight.shape == (4, 1, kernel, kernel)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_every_kind_of_block_keeps_or_halves_the_size_and_learns(kind: str, kernel: int, stride: int) -> None:
    block = make_block(BlockArgs(kind, 5, 5, kernel, stride, residual=stride == 1), LAYERS)
    assert block(torch.rand(2, 5, 8, 10)).shape == (2, 5, 8 // stride, 10 // stride)
    block(torch.rand(2, 5, 8, 10)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())
    row, names = BLOCKS[kind], block.state_dict()
    assert sum(name in names for name in row.kernels) == 1 and sum(name in names for name in row.outs) == 1


@pytest.mark.parametrize("model", ["s", IRREGULAR], ids=["s", "irregular"])
def test_every_layer_of_a_network_comes_from_the_factory(model: str | YoloNasSpec) -> None:
    class Conv(nn.Conv2d):
        pass

    class Norm(nn.BatchNorm2d):
        pass

    class Up(nn.ConvTranspose2d):
        pass

    def conv(ins: int, out: int, kernel: int, stride: int = 1, *, groups: int = 1, bias: bool = False) -> Conv:
        return Conv(ins, out, kernel, stride, kernel // 2, groups=groups, bias=bias)

    blocks: list[BlockArgs] = []

    def block(args: BlockArgs, layers: Layers) -> nn.Module:
        blocks.append(args)
        return make_block(args, layers)

    own = Layers(conv, lambda channels: Norm(channels, BN_EPS), block, lambda ins, out: Up(ins, out, 2, 2))
    with torch.device("meta"):
        net, plain = zoo.build(model, 3, own), zoo.build(model, 3)
    kinds = [
        type(module) for module in net.modules() if type(module) in (nn.Conv2d, nn.BatchNorm2d, nn.ConvTranspose2d)
    ]
    assert not kinds, "a layer was made past the factory"
    assert net.state_dict().keys() == plain.state_dict().keys()
    stages = (*net.spec.stages, *net.spec.neck)
    assert len(blocks) == 1 + len(net.spec.stages) + 2 * sum(stage.depth for stage in stages)


def test_another_kind_of_block_in_the_factory_trains() -> None:
    """For example all of a network's blocks depthwise: no part of the network has to know of it."""
    layers = dataclasses.replace(
        LAYERS, block=lambda args, layers: make_block(dataclasses.replace(args, kind="dwconv"), layers)
    )
    net = zoo.build("p", 2, layers)
    assert not any(isinstance(module, QARepVGG) for module in net.modules())
    net(torch.rand(2, 3, 32, 32)).class_logits.square().sum().backward()
    assert all(p.grad is not None for name, p in net.named_parameters() if ".reg_" not in name)


def test_untrained_depthwise_convolutions_keep_the_size_of_what_they_get() -> None:
    torch.manual_seed(0)
    block = make_block(BlockArgs("dwconv", 256, 256), LAYERS)
    initialize(block)
    assert isinstance(block, DepthwiseSeparable)
    out = block.depthwise.conv(torch.randn(2, 256, 16, 16))
    assert out.std().item() == pytest.approx(2**0.5, rel=0.1)  # He: half of it is cut by the ReLU that follows


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


@pytest.mark.parametrize("name", FACTORIES)
def test_every_factorys_network_learns_and_has_the_plain_ones_tensors(name: str) -> None:
    net = zoo.build("p", 3, FACTORIES[name]).train()
    output = net(torch.rand(2, 3, 64, 64))
    (output.class_logits.sigmoid().mean() + output.box_logits.square().mean()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
    zoo.build("p", 3).load_state_dict(net.state_dict())


def test_a_recipe_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Norm(nn.BatchNorm2d):
        pass

    own = Layers(LAYERS.conv, Norm, LAYERS.block, LAYERS.upsample)
    monkeypatch.setattr(factories, "FACTORIES", MappingProxyType({**FACTORIES, "own": own}))
    recipe = override(Recipe(), {"model.name": "p", "model.layers": "own"})
    net, _ = make_network(recipe.model, ("a", "b"), None)
    assert {type(each) for each in net.modules() if isinstance(each, nn.BatchNorm2d)} == {Norm}
    plain, _ = make_network(Recipe().model, ("a", "b"), None)
    assert {type(each) for each in plain.modules() if isinstance(each, nn.BatchNorm2d)} == {nn.BatchNorm2d}


def test_one_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match=r"no layers 'plane' \(did you mean 'plain'"):
        factory_of("plane")
