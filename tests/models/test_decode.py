from __future__ import annotations

import pytest
import torch
from tests.models.nets import IRREGULAR, with_random_statistics
from torch import Tensor, nn

from eyas.head_output import HeadOutput
from eyas.models import zoo
from eyas.models.decode import Deployed
from eyas.models.fuse import fused
from eyas.models.heads.ndfl import STRIDES, anchors, decode_boxes
from eyas.types import InputSpec


def make_images(batch: int, height: int, width: int) -> Tensor:
    """Return random images, uint8 [batch, height, width, 3]."""
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
