"""Every row of the tables of heads and backbones keeps what the rest of Eyas relies on."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tests.models.nets import IRREGULAR
from torch import nn

from eyas.losses.settings import LossSettings
from eyas.models import backbones, detection_net, heads, spec, surgery, zoo
from eyas.models.backbones import BACKBONES
from eyas.models.decode import Deployed
from eyas.models.detection_net import DetectionNet, head_row_of
from eyas.models.fuse import fused
from eyas.models.heads import HEADS
from eyas.models.surgery import layout_of, slice_state
from eyas.models.weights import load_state, transfer
from eyas.types import InputSpec, Vocabulary

TRUTH = SimpleNamespace(
    boxes=torch.tensor([[4.0, 6, 40, 50], [10, 10, 60, 30]]),
    labels=torch.tensor([0, 2]),
    counts=torch.tensor([1, 1]),
    extras={},
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


def test_of_the_two_branches_the_dense_one_alone_teaches_the_features() -> None:
    net = built("dual").train()
    said = net(torch.rand(1, 3, 64, 64))
    said.one_to_one.class_logits.sum().backward()
    assert all(parameter.grad is None for parameter in (*net.backbone.parameters(), *net.neck.parameters()))
    said.dense.class_logits.sum().backward()
    assert all(parameter.grad is not None for parameter in (*net.backbone.parameters(), *net.neck.parameters()))


@pytest.mark.parametrize("kind", HEADS)
def test_a_heads_rows_of_classes_follow_their_names(kind: str) -> None:
    net, other = built(kind), built(kind)
    transfer(net.state_dict(), ("a", "b", "c"), ("c", "x", "a"), other)
    marks = HEADS[kind].class_rows
    rows = {name: value for name, value in other.state_dict().items() if any(mark in name for mark in marks)}
    for name, value in rows.items():
        assert torch.equal(value[0], net.state_dict()[name][2]) and torch.equal(value[2], net.state_dict()[name][0])


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


PAGE = Path(__file__).resolve().parents[2] / "docs" / "add-a-model.md"


def with_documented_row(table: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Mapping[str, Any]]:
    """Return the key and the table that the documentation's diff, which adds a file and a row, makes of the table.

    The row is added to whatever rows there are by now.
    """
    folder = f"src/{table.__name__.replace('.', '/')}"
    diffs = re.findall(r"^```diff\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    file, row = next(re.split(r"^--- (?=a/)", each, flags=re.M) for each in diffs if f"b/{folder}/" in each)
    added = [
        [line[1:] for line in each.splitlines() if line.startswith("+") and not line.startswith("+++")]
        for each in (file, row)
    ]
    file_name = re.findall(rf"^\+\+\+ b/{folder}/(\w+)\.py$", file, flags=re.M)[0]
    module = ModuleType(f"{table.__name__}.{file_name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(table, file_name, module, raising=False)
    exec("\n".join(added[0]), vars(module))
    (line, *rows), names = added[1], dict(vars(table))
    exec(line, names)  # the import
    new = eval("{" + "\n".join(rows) + "}", names)
    assert len(new) == 1 and not new.keys() & getattr(table, name).keys()
    return next(iter(new)), MappingProxyType({**getattr(table, name), **new})


def test_the_documentations_head_and_backbone_are_all_that_others_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the spec's JSON to a training step, a smaller network's weights and what is deployed."""
    found = {
        name: with_documented_row(table, name, monkeypatch)
        for name, table in (("HEADS", heads), ("BACKBONES", backbones))
    }
    new = {name: key for name, (key, _) in found.items()}
    tables = {name: table for name, (_, table) in found.items()}
    for name, table in tables.items():
        for module in (detection_net, spec, surgery) if name == "HEADS" else (backbones,):
            monkeypatch.setattr(module, name, table)
    described = dataclasses.replace(IRREGULAR, head=new["HEADS"], backbone=new["BACKBONES"])
    net = zoo.build_described(json.loads(json.dumps(zoo.describe(described))), Vocabulary(("a", "b", "c")))
    assert type(net.heads).__module__.endswith(new["HEADS"])
    assert type(net.backbone).__module__.endswith(new["BACKBONES"])
    assert net.num_classes == 3 and head_row_of(net) is tables["HEADS"][new["HEADS"]]
    criterion = head_row_of(net).criterion(None, None)
    loss = torch.stack(list(criterion(net(torch.rand(2, 3, 64, 96)), TRUTH).values())).sum()
    loss.backward()
    assert loss.isfinite() and all(parameter.grad is not None for parameter in net.parameters())
    smaller = dataclasses.replace(described, stem_width=3, head_widths=(4, 10, 12))
    load_state(slice_state(net.state_dict(), described, smaller), zoo.build(smaller, 3))
    boxes, scores = Deployed(fused(net), InputSpec(64, 64), 7)(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert boxes.shape == (1, 7, 4) and scores.shape == (1, 7, 3)


def test_another_heads_output_is_its_own_affair(monkeypatch: pytest.MonkeyPatch) -> None:
    """No one but the row's own functions looks into what a head returns."""

    class Own(nn.Module):
        def forward(self, *features: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"finest": features[0]}

    row = dataclasses.replace(
        HEADS["ndfl"],
        build=lambda *_: Own(),
        initialize=lambda _: None,
        decode=lambda output, candidates: (output["finest"].flatten(2)[:, :4, :candidates].mT, output["finest"]),
    )
    for module in (detection_net, spec):
        monkeypatch.setattr(module, "HEADS", MappingProxyType({**HEADS, "own": row}))
    net = zoo.build(dataclasses.replace(zoo.resolve("p"), head="own"), 3)
    boxes, _ = Deployed(fused(net), InputSpec(64, 64), 7)(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert boxes.shape == (1, 7, 4)


def test_a_network_knows_its_classes() -> None:
    words = Vocabulary(("cat", "dog"))
    assert zoo.build("p", words).vocabulary is words
    assert zoo.build("p", 2).vocabulary.names == ("0", "1")
