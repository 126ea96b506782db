"""The network: the published tensors, shapes and anchors, gradients, and what is deployed of it."""

from __future__ import annotations

import math

import pytest
import torch
from tests.models.nets import IRREGULAR, meta_net, with_random_statistics
from tests.models.reference import ROWS, reference_shapes
from torch import Tensor, nn

from eyas.head_output import HeadOutput
from eyas.models import zoo
from eyas.models.decode import Deployed
from eyas.models.fuse import fused
from eyas.models.heads.ndfl import STRIDES, anchors, decode_boxes
from eyas.models.layers import QARepVGG
from eyas.models.public_form import to_public_state
from eyas.types import InputSpec

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
    fine = [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [0.5, 1.5], [1.5, 1.5], [2.5, 1.5]]
    assert points.tolist() == [*fine, [0.5, 0.5], [1.5, 0.5], [0.5, 0.5]]
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


def make_images(batch: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8)


def test_boxes_of_certain_distances() -> None:
    reg_max = 5
    points, strides = anchors([(1, 2), (1, 1), (1, 1)])
    logits = torch.full((1, 4, 4, reg_max + 1), -100.0)
    for side, bin_index in enumerate((1, 2, 3, 4)):  # left, top, right, bottom
        logits[..., side, bin_index] = 100.0
    logits[0, 1, 0, 2] = 100.0  # the second anchor: left half of 1 and half of 2
    boxes = decode_boxes(HeadOutput(torch.zeros(1, 4, 1), logits.flatten(2), points, strides))
    expected = [[-4, -12, 28, 36], [0, -12, 36, 36], [-8, -24, 56, 72], [-16, -48, 112, 144]]
    torch.testing.assert_close(boxes, torch.tensor([expected], dtype=torch.float32))


@pytest.mark.parametrize("candidates", [10, 1000])
@pytest.mark.parametrize("model", ["p", IRREGULAR], ids=["p", "irregular"])
def test_deployed_net_gives_the_best_of_what_training_sees(model: str, candidates: int) -> None:
    torch.manual_seed(0)
    net = with_random_statistics(zoo.build(model, 3))
    images = make_images(2, 64, 96)
    deployed = Deployed(net, InputSpec(64, 96, margin=0), candidates)
    with torch.no_grad():
        boxes, scores = deployed(images)
        output = net(images.permute(0, 3, 1, 2).float() * (1 / 255))
    every_box, every_score = decode_boxes(output), output.class_logits.sigmoid()
    count = min(candidates, 126)
    assert boxes.shape == (2, count, 4) and scores.shape == (2, count, 3)
    best = scores.amax(-1)
    assert bool((best[:, :-1] >= best[:, 1:]).all())
    for i in range(2):
        order = every_score[i].amax(-1).argsort(descending=True, stable=True)[:count]
        torch.testing.assert_close(scores[i], every_score[i][order], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(boxes[i], every_box[i][order], rtol=1e-4, atol=1e-2)


def test_the_scale_of_the_input_contract_is_applied() -> None:
    net = with_random_statistics(zoo.build("p", 2))
    images = make_images(1, 32, 32)
    with torch.no_grad():
        _, scores = Deployed(net, InputSpec(32, 32, margin=0, scale=1 / 255))(images)
        _, halved = Deployed(net, InputSpec(32, 32, margin=0, scale=0.5 / 255))(images)
        _, expected = Deployed(net, InputSpec(32, 32, margin=0, scale=1 / 255))(torch.zeros_like(images))
    assert not torch.allclose(scores, halved)
    assert not torch.allclose(scores, expected)


class Patches(nn.Module):
    """As small as a network can be: a convolution a level, of as large a step. Exporting a real one takes a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(3, 2 + 4 * 5, stride, stride) for stride in STRIDES)

    def forward(self, images: Tensor) -> HeadOutput:
        maps = [level(images) for level in self.levels]
        points, strides = anchors([(each.shape[2], each.shape[3]) for each in maps])
        rows = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], 1)
        return HeadOutput(rows[..., :2], rows[..., 2:], points, strides)


def test_deployed_net_is_traceable() -> None:
    torch.manual_seed(0)
    deployed = Deployed(fused(with_random_statistics(zoo.build(IRREGULAR, 3))), InputSpec(64, 64), 50).eval()
    traced = torch.jit.trace(deployed, make_images(2, 64, 64), check_trace=False)
    images = make_images(2, 64, 64)
    with torch.no_grad():
        for ours, expected in zip(traced(images), deployed(images), strict=True):
            torch.testing.assert_close(ours, expected)


def test_deployed_net_is_exportable_with_any_batch_and_size() -> None:
    torch.manual_seed(0)
    deployed = Deployed(Patches(), InputSpec(64, 64), 100).eval()
    size = {0: torch.export.Dim("batch", max=64)}
    size[1], size[2] = (32 * torch.export.Dim(name, max=60) for name in ("rows", "columns"))
    with torch.no_grad():
        program = torch.export.export(deployed, (make_images(2, 96, 64),), dynamic_shapes={"images": size})
        graph = program.module(check_guards=False)  # what is exported is the graph, without the guards
        for batch, height, width in ((1, 32, 32), (1, 64, 64), (3, 64, 160)):  # fewer anchors than candidates, and more
            images = make_images(batch, height, width)
            for ours, expected in zip(graph(images), deployed(images), strict=True):
                torch.testing.assert_close(ours, expected)
