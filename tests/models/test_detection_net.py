from __future__ import annotations

import math

import pytest
import torch
from tests.models.nets import IRREGULAR, meta_net, with_random_statistics
from tests.models.reference import ROWS, reference_shapes
from torch import nn

from eyas.models import zoo
from eyas.models.heads.ndfl import anchors
from eyas.models.layers import QARepVGG
from eyas.models.public_form import to_public_state

KEYS = {"yolo_nas_s": 921, "yolo_nas_m": 965, "yolo_nas_l": 1097}


@pytest.mark.parametrize("name", ROWS)
def test_tensors_are_exactly_the_published_ones(name: str) -> None:
    state = to_public_state(meta_net(name).state_dict())
    expected = reference_shapes(name)
    assert len(expected) == KEYS[name]
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == expected


@pytest.mark.parametrize("name", zoo.SPECS)
@pytest.mark.parametrize(("height", "width"), [(64, 96), (32, 32)])
def test_output_shapes_of_every_row(name: str, height: int, width: int) -> None:
    output = meta_net(name)(torch.zeros(2, 3, height, width, device="meta"))
    count = height * width * 21 // 1024
    assert output.class_logits.shape == (2, count, 80)
    assert output.box_logits.shape == (2, count, 68)
    assert output.anchor_points.shape == (count, 2)
    assert output.strides.shape == (count, 1)


def test_irregular_spec_works_forward_and_backward() -> None:
    net = zoo.build(IRREGULAR, 2)
    output = net(torch.rand(2, 3, 96, 64))
    assert output.class_logits.shape == (2, 126, 2)
    assert output.box_logits.shape == (2, 126, 4 * 10)
    (output.class_logits.square().sum() + output.box_logits.square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters() if p.requires_grad)


def test_anchors_are_cell_centres_level_by_level_and_row_by_row() -> None:
    points, strides = anchors([(2, 3), (1, 2), (1, 1)])
    expected = [
        [0.5, 0.5],
        [1.5, 0.5],
        [2.5, 0.5],
        [0.5, 1.5],
        [1.5, 1.5],
        [2.5, 1.5],
        [0.5, 0.5],
        [1.5, 0.5],
        [0.5, 0.5],
    ]
    assert points.tolist() == expected
    assert strides.flatten().tolist() == [8] * 6 + [16] * 2 + [32]


def test_predictions_belong_to_the_anchor_of_their_place() -> None:
    # A net whose class logit is the brightness around the anchor: the best anchor must be where the bright spot is.
    net = with_random_statistics(zoo.build("p", 1))
    dark, bright = torch.zeros(1, 3, 128, 192), torch.zeros(1, 3, 128, 192)
    bright[..., 72:88, 136:152] = 1
    with torch.no_grad():
        change = (net(bright).class_logits - net(dark).class_logits).abs()[0, :, 0]
    output = net(dark)
    fine = output.strides[:, 0] == 8
    x, y = (output.anchor_points * output.strides)[fine][change[fine].argmax()].tolist()
    assert math.hypot(x - 144, y - 80) < 32


def test_untrained_net_says_the_prior() -> None:
    torch.manual_seed(0)
    net = zoo.build("n", 20).train()
    scores = net(torch.rand(2, 3, 128, 128)).class_logits.sigmoid()
    assert scores.mean().item() == pytest.approx(0.01, rel=0.2)
    for head in (net.heads.head1, net.heads.head2, net.heads.head3):
        assert head.cls_pred.bias.tolist() == pytest.approx([-math.log(99)] * 20)


@pytest.mark.parametrize("name", ["p", "n"])
def test_gradients_reach_every_trainable_parameter(name: str) -> None:
    torch.manual_seed(0)
    net = zoo.build(name, 4).train()
    nn.init.normal_(net.heads.head1.reg_pred.weight)  # starts at zero, which holds the gradient back for one step
    nn.init.normal_(net.heads.head2.reg_pred.weight)
    nn.init.normal_(net.heads.head3.reg_pred.weight)
    output = net(torch.rand(2, 3, 64, 64))
    (output.class_logits.sigmoid().square().sum() + output.box_logits.square().sum()).backward()
    for key, parameter in net.named_parameters():
        # The bias before a BatchNorm has a gradient of zero by its nature; all others must really learn.
        assert parameter.grad is not None, key
        assert ".branch_1x1.bias" in key or ".branch_3x3.bn.bias" in key or parameter.grad.abs().max() > 0, key


def test_norms_have_the_familys_constants_and_rows_have_blocks_to_fuse() -> None:
    for name in zoo.SPECS:
        net = meta_net(name)
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.03)}
        assert any(isinstance(module, QARepVGG) for module in net.modules())


def test_logits_are_float32_under_autocast() -> None:
    net = zoo.build("p", 2).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = net(torch.rand(1, 3, 64, 64))
    assert output.class_logits.dtype == output.box_logits.dtype == torch.float32
