"""Every row of the tables of heads and backbones keeps what the rest of Eyas relies on."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType, SimpleNamespace

import pytest
import torch
from tests.models.nets import IRREGULAR
from torch import nn

from eyas.losses.detection import DetectionCriterion
from eyas.losses.settings import LossSettings
from eyas.models import detection_net, spec, zoo
from eyas.models.backbones import BACKBONES
from eyas.models.decode import Deployed
from eyas.models.detection_net import DetectionNet, head_row_of
from eyas.models.fuse import fused
from eyas.models.heads import HEADS, HeadRow, ndfl
from eyas.models.surgery import layout_of, slice_state
from eyas.models.weights import transfer
from eyas.types import InputSpec, Suppression, Vocabulary

TRUTH = SimpleNamespace(
    boxes=torch.tensor([[4.0, 6, 40, 50], [10, 10, 60, 30]]), labels=torch.tensor([0, 2]), counts=torch.tensor([1, 1])
)


def built(head: str = "ndfl", backbone: str = "yolo_nas") -> DetectionNet:
    torch.manual_seed(0)
    return zoo.build(dataclasses.replace(zoo.resolve("p"), head=head, backbone=backbone), 3)


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_is_decoded_by_what_is_deployed(kind: str) -> None:
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        for net in (built(kind).eval(), fused(built(kind))):
            boxes, scores = Deployed(net, InputSpec(64, 96), candidates=20)(images)
            assert boxes.dtype == scores.dtype == torch.float32
            assert boxes.shape[:1] + boxes.shape[2:] == (2, 4) and scores.shape == (2, boxes.shape[1], 3)
            assert 0 < boxes.shape[1] <= 20 and bool(((scores >= 0) & (scores <= 1)).all())
            best = scores.amax(-1)
            assert bool((best[:, :-1] >= best[:, 1:]).all()), "not best first"


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_is_trained_by_its_criterion(kind: str) -> None:
    net, row = built(kind).train(), HEADS[kind]
    criterion = row.criterion(LossSettings(), None)
    terms = criterion(net(torch.rand(2, 3, 64, 96)), TRUTH)
    assert tuple(terms) == criterion.terms
    loss = torch.stack(list(terms.values())).sum()
    assert loss.isfinite()
    loss.backward()
    assert all(parameter.grad is not None for parameter in net.heads.parameters())


@pytest.mark.parametrize("kind", HEADS)
def test_a_heads_rows_of_classes_follow_their_names(kind: str) -> None:
    net, other = built(kind), built(kind)
    transfer(net.state_dict(), ("a", "b", "c"), ("c", "x", "a"), other)
    marks = HEADS[kind].class_rows
    rows = {name: value for name, value in other.state_dict().items() if any(mark in name for mark in marks)}
    for name, value in rows.items():
        assert torch.equal(value[0], net.state_dict()[name][2]) and torch.equal(value[2], net.state_dict()[name][0])


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_says_how_boxes_that_overlap_are_dropped(kind: str) -> None:
    assert HEADS[kind].suppression in Suppression.__args__  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_backbone_gives_four_sizes_of_the_widths_that_it_says(kind: str) -> None:
    net = built(backbone=kind).eval()
    features = net.backbone(torch.rand(1, 3, 64, 96))
    assert [tuple(each.shape[1:]) for each in features] == [
        (width, 64 // stride, 96 // stride)
        for width, stride in zip(BACKBONES[kind].channels(net.spec), (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(("head", "backbone"), [(h, b) for h in HEADS for b in BACKBONES])
def test_the_layout_tells_the_channels_of_every_tensor(head: str, backbone: str) -> None:
    net = built(head, backbone)
    state = net.state_dict()
    cut = slice_state(state, net.spec, net.spec)
    assert cut.keys() == state.keys() and all(torch.equal(cut[name], value) for name, value in state.items())
    assert all(any(name.startswith(f"{layer}.") for name in state) for layer in layout_of(net.spec))


def test_tables_are_frozen() -> None:
    for table in (HEADS, BACKBONES):
        with pytest.raises(TypeError):
            table["other"] = None  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        HEADS["ndfl"].suppression = "soft"  # type: ignore[misc]


class Single(nn.Module):
    """A head that is none of Eyas's: one convolution a level, boxes straight from it."""

    def __init__(self, channels: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(width, num_classes + 4, 1) for width in channels)

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        rows = [level(x).flatten(2).transpose(1, 2) for level, x in zip(self.levels, features, strict=True)]
        return torch.cat(rows, 1)


def test_the_spec_chooses_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is all that another head needs, up to what is deployed."""

    def decode(output: torch.Tensor, candidates: int) -> tuple[torch.Tensor, torch.Tensor]:
        return output[:, :candidates, :4], output[:, :candidates, 4:].sigmoid()

    row = HeadRow(
        build=lambda spec, channels, vocabulary, layers: Single(channels, len(vocabulary)),
        initialize=lambda heads: None,
        decode=decode,
        criterion=DetectionCriterion,
        suppression="class_wise",
        class_rows=(),
        widths=ndfl.widths,
    )
    table = MappingProxyType({**HEADS, "single": row})
    for module in (detection_net, spec):
        monkeypatch.setattr(module, "HEADS", table)
    net = zoo.build_described(zoo.describe(dataclasses.replace(IRREGULAR, head="single")), Vocabulary(("a", "b")))
    assert isinstance(net.heads, Single) and head_row_of(net) is row and net.num_classes == 2
    boxes, scores = Deployed(fused(net), InputSpec(64, 64), 7)(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert boxes.shape == (1, 7, 4) and scores.shape == (1, 7, 2)


def test_a_network_knows_its_classes() -> None:
    words = Vocabulary(("cat", "dog"))
    assert zoo.build("p", words).vocabulary is words
    assert zoo.build("p", 2).vocabulary.names == ("0", "1")
