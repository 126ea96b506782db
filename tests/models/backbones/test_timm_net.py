from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tests.models.nets import with_random_statistics

from eyas.errors import UserError
from eyas.models import zoo
from eyas.models.backbones import backbone_row
from eyas.models.backbones.timm_library import pyramid_of
from eyas.models.backbones.timm_net import TimmBackbone
from eyas.models.fuse import fused
from eyas.models.measure import flops, num_parameters
from eyas.models.spec import YoloNasSpec
from eyas.models.surgery import layout_of, slice_state
from eyas.models.weights import load_model, load_state, save_model

pytest.importorskip("timm", reason='timm is not installed: pip install "eyas[timm]"')

# BatchNorm, depthwise, squeeze and excitation, LayerNorm, grouped; named modules, rows first, a getter, and a
# pretrained tag that expects another mean.
MODELS = (
    "resnet18", "mobilenetv3_small_100", "efficientnet_lite0", "convnext_atto", "regnetx_002", "mambaout_femto",
    "mobilenetv4_conv_small.e3600_r256_in1k",
)  # fmt: skip


def spec_of(name: str, **fields: object) -> YoloNasSpec:
    """Return the spec of the pico net with a backbone of timm."""
    return dataclasses.replace(zoo.resolve("p"), backbone=f"timm:{name}", **fields)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_gives_four_sizes_trains_and_has_the_same_answers_fused_and_from_its_file(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    spec = spec_of(name)
    net = zoo.build_described(json.loads(json.dumps(zoo.describe(spec))), 3)
    images = torch.rand(2, 3, 64, 96)
    widths = backbone_row(spec.backbone).channels(spec)
    assert [tuple(each.shape[1:]) for each in net.backbone(images)] == [
        (width, 64 // stride, 96 // stride) for width, stride in zip(widths, (4, 8, 16, 32), strict=True)
    ]
    output = net(images)
    (output.class_logits.square().mean() + output.box_logits.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    net = with_random_statistics(net)
    save_model(net, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors", zoo.build(spec, 3)).eval()
    with torch.no_grad():
        expected = net(images)
        for other in (again, fused(net)):
            torch.testing.assert_close(other(images).class_logits, expected.class_logits, rtol=1e-4, atol=1e-4)
    state = net.state_dict()
    cut = slice_state(state, spec, spec)
    assert cut.keys() == state.keys() and all(torch.equal(cut[key], value) for key, value in state.items())
    assert all(any(key.startswith(f"{layer}.") for key in state) for layer in layout_of(spec))


def test_a_smaller_neck_and_head_are_cut_out_and_the_backbone_stays_whole() -> None:
    spec = spec_of("resnet18")
    net = zoo.build(spec, 3)
    small = dataclasses.replace(spec, context_width=80, head_widths=(16, 24, 40))
    cut = load_state(slice_state(net.state_dict(), spec, small), zoo.build(small, 3))
    assert num_parameters(cut) < num_parameters(net)
    assert torch.equal(cut.state_dict()["backbone.net.conv1.weight"], net.state_dict()["backbone.net.conv1.weight"])


def test_the_first_weights_are_timms_own_and_the_same_for_a_seed() -> None:
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(zoo.build(spec_of("convnext_atto"), 3))
        pyramid_of.cache_clear()  # to look at the model again takes nothing of the seed
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    kernel = nets[0].backbone.net.get_submodule("stem_0").weight.detach()
    assert abs(float(kernel.std()) - 0.02) < 0.004  # ConvNeXt's; He's would be 0.05


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("mobilenetv4_conv_small.e3600_r256_in1k", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("mobilenetv3_large_100.miil_in21k", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ],
)
def test_images_are_normalized_as_the_weights_expect(
    name: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    backbone = zoo.build(spec_of(name), 1).backbone
    assert isinstance(backbone, TimmBackbone)
    images = torch.rand(2, 3, 5, 4)
    expected = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(backbone.normalize(images), expected)
    own = {key for key in backbone.state_dict() if key.startswith("normalize.")}
    assert own == {"normalize.scale", "normalize.shift"}  # a run keeps them, whatever timm says later


def test_operations_and_parameters_are_counted_linear_layers_too() -> None:
    resnet, convnext = (zoo.build(spec_of(name), 1) for name in ("resnet18", "convnext_atto"))
    alone = {name: net.backbone.net for name, net in (("resnet18", resnet), ("convnext_atto", convnext))}
    # As timm's paper tables have them without the classifiers: 1.82 and 0.55 GMAC at 224.
    assert flops(alone["resnet18"], 224, 224) / 2e9 == pytest.approx(1.82, abs=0.02)
    assert flops(alone["convnext_atto"], 224, 224) / 2e9 == pytest.approx(0.55, abs=0.02)
    assert num_parameters(alone["resnet18"]) / 1e6 == pytest.approx(11.18, abs=0.01)


@pytest.mark.parametrize(
    ("name", "problem", "rest"),
    [
        ("resnet81", "no model 'resnet81' (did you mean 'resnet18'?)", "timm: and one of the"),
        ("resnet18.a1in1k", "no weights 'resnet18.a1in1k' (did you mean 'resnet18.a1_in1k'?)", "resnet18.a2_in1k"),
        ("vit_tiny_patch16_224", "no features of stride 4 and 8 and 32", "such as resnet18"),
        ("levit_128", "no features of stride 4 and 8; it has strides 16, 32, 64", "such as resnet18"),
        ("swin_tiny_patch4_window7_224", "images of one size only", "images of any size"),
        ("hf-hub:timm/resnet18.a1_in1k", "no model 'hf-hub:timm/resnet18'", "timm.list_models()"),
        ("../resnet18", "no model", "timm.list_models()"),
    ],
)
def test_a_model_that_can_not_be_used_is_refused_with_what_can(name: str, problem: str, rest: str) -> None:
    with pytest.raises(UserError) as caught:
        zoo.build(spec_of(name), 3)
    assert problem in caught.value.problem and rest in caught.value.expected
    assert caught.value.where == "model.backbone"


@pytest.mark.parametrize("name", ["timm", "timm:", "tim:resnet18", "yolo-nas", "resnet18"])
def test_a_backbone_that_does_not_exist_is_refused_when_the_spec_is_made(name: str) -> None:
    with pytest.raises(UserError, match="There is no backbone") as caught:
        dataclasses.replace(zoo.resolve("p"), backbone=name)
    assert "yolo_nas, timm:NAME" in caught.value.expected


@pytest.mark.parametrize("name", [None, 3, ["timm:resnet18"]])
def test_a_backbone_that_is_no_name_is_refused(name: object) -> None:
    with pytest.raises(UserError, match="The backbone is"):
        YoloNasSpec.from_dict({**zoo.resolve("p").to_dict(), "backbone": name})
