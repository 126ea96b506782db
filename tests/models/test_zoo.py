from __future__ import annotations

import json

import pytest
import torch
from tests.models.nets import IRREGULAR, meta_net
from torch import nn

from eyas.errors import UserError
from eyas.models import measure, zoo
from eyas.models.fuse import fuse_blocks, fused
from eyas.models.measure import flops, num_parameters, table
from eyas.models.public_form import to_public_state

# Parameters in the public form, which has the fused kernels beside the branches, and fused: 12.2, 31.9 and 42.0 million
# are published; GFLOP at 640 x 640: 31.8 for S.
GOLDEN = {
    "yolo_nas_s": (19_053_888, 12_175_888, 31.8),
    "yolo_nas_m": (51_182_658, 31_906_578, 87.8),
    "yolo_nas_l": (66_976_392, 41_999_192, 119.8),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_parameters_and_flops_are_the_published_ones(name: str) -> None:
    unfused, small, gflop = GOLDEN[name]
    net = meta_net(name)
    statistics = sum(value.numel() for value in net.buffers())
    assert sum(value.numel() for value in to_public_state(net.state_dict()).values()) - statistics == unfused
    assert small < num_parameters(net) < unfused
    blocks = fuse_blocks(net)
    assert num_parameters(blocks) == small
    assert flops(blocks, 640, 640) / 1e9 == pytest.approx(gflop, abs=0.05)
    assert flops(fused(net), 640, 640) == flops(blocks, 640, 640)


def test_own_rows_are_of_their_class() -> None:
    nano, pico = fuse_blocks(meta_net("yolo_nas_n")), fuse_blocks(meta_net("yolo_nas_p"))
    assert num_parameters(nano) == 2_251_408
    assert flops(nano, 640, 640) < 5e9
    assert num_parameters(pico) == 830_037
    assert flops(pico, 640, 640) < 2.5e9


def test_names_and_short_names_mean_the_same_frozen_specs() -> None:
    assert set(zoo.SPECS) == {f"yolo_nas_{short}" for short in "pnsml"}
    for short, name in zoo.ALIASES.items():
        assert zoo.resolve(short) is zoo.resolve(name) is zoo.SPECS[name]
    with pytest.raises(TypeError):
        zoo.SPECS["x"] = zoo.resolve("s")  # type: ignore[index]


@pytest.mark.parametrize(
    ("given", "near"), [("yolo_nas_x", "yolo_nas_"), ("yolonas_s", "yolo_nas_s"), ("yolo-nas-m", "yolo_nas_m")]
)
def test_unknown_name_is_refused_with_the_nearest(given: str, near: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{near}"):
        zoo.resolve(given)


def test_no_class_is_refused() -> None:
    with pytest.raises(UserError, match="0 classes"):
        zoo.build("p", 0)


@pytest.mark.parametrize("model", ["n", "yolo_nas_p", IRREGULAR])
def test_a_described_model_is_built_again(model: str) -> None:
    entry = json.loads(json.dumps(zoo.describe(model)))
    with torch.device("meta"):
        again = zoo.build_described(entry, 3)
    assert again.num_classes == 3
    assert again.spec == (zoo.resolve(model) if isinstance(model, str) else model)
    assert entry["name"] == {"n": "yolo_nas_n", "yolo_nas_p": "yolo_nas_p"}.get(model, "")  # type: ignore[call-overload]


@pytest.mark.parametrize("entry", [{}, {"kind": "other", "spec": {}}, {"kind": "yolo_nas", "spec": 3}])
def test_a_foreign_description_is_refused(entry: dict[str, object]) -> None:
    with pytest.raises(UserError, match="kind"):
        zoo.build_described(entry, 3)


def test_flops_of_layers_counted_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 5, 2, 2), nn.Conv2d(5, 6, 1)).train()
    by_hand = 2 * (4 * 3 * 9 * 5 * 6 + 4 * 5 * 4 * 5 * 6 + 5 * 6 * 10 * 12)
    assert flops(net, 10, 12) == by_hand
    assert net.training and not net[0]._forward_hooks


def test_table_has_a_line_for_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "build", lambda name, num_classes: meta_net(name))  # built once for all tests
    lines = table().splitlines()
    assert len(lines) == 1 + len(zoo.SPECS)
    assert next(line for line in lines if line.startswith("yolo_nas_s")).split()[2:] == ["12.878", "12.176", "31.8"]
