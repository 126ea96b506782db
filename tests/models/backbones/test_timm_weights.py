from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from eyas.artifacts.card import hash_file
from eyas.errors import UserError
from eyas.models import zoo
from eyas.models.backbones import timm_weights
from eyas.models.backbones.timm_library import pyramid_of, weights_config
from eyas.models.backbones.timm_weights import BackboneWeights, backbone_weights, load_backbone
from eyas.models.detection_net import DetectionNet
from eyas.models.measure import flops, num_parameters

timm = pytest.importorskip("timm", reason='timm is not installed: pip install "eyas[timm]"')


def net_of(name: str) -> DetectionNet:
    """Return the pico net with a backbone of timm, of random weights."""
    return zoo.build(dataclasses.replace(zoo.resolve("p"), backbone=f"timm:{name}"), 3)


def written(path: Path, name: str, **options: Any) -> torch.nn.Module:
    """Write the weights of a whole model of timm, of random weights, and return it in eval mode."""
    torch.manual_seed(7)
    model = timm.create_model(name, **options).eval()
    state = model.state_dict()
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(
            {"epoch": 3, "arch": name, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path
        )
    return model


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet18", "own.safetensors"),
        ("resnet18", "trained.pth.tar.pth"),
        ("mobilenetv3_small_100", "own.pth"),
        ("convnext_atto", "own.safetensors"),  # whose features have other names than the whole model
    ],
)
def test_a_local_file_of_the_whole_model_is_what_the_features_start_from(name: str, file: str, tmp_path: Path) -> None:
    whole = written(tmp_path / file, name, num_classes=12)
    net = net_of(name)
    weights = backbone_weights(f"timm:{name}", str(tmp_path / file))
    assert weights is not None
    line = load_backbone(net, weights)
    assert name in line and file in line
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        features = net.eval().backbone.net(net.backbone.normalize(images))
        expected = timm.create_model(name, features_only=True, out_indices=pyramid_of(name).indices).eval()
        expected.load_state_dict(net.backbone.net.state_dict())
        for own, theirs in zip(features, expected(net.backbone.normalize(images)), strict=True):
            torch.testing.assert_close(own, theirs)
        if name == "resnet18":  # whose last feature is what the whole model makes before its classifier
            torch.testing.assert_close(features[-1], whole.forward_features(net.backbone.normalize(images)))
    for key, value in whole.state_dict().items():
        if key in (own := net.backbone.net.state_dict()):
            assert torch.equal(own[key], value)


@pytest.mark.parametrize(
    ("model", "of", "problem"),
    [
        ("resnet18", "mobilenetv3_small_100", "0 of 100 tensors match; conv1.weight is missing"),
        ("resnet50", "resnet18", "tensors match; layer1.0.conv1.weight is [64, 64, 3, 3], not [64, 64, 1, 1]"),
        ("resnet18", "resnet34", "its 100 tensors match, but the file has further layers: layer1.2.bn1.bias, "),
    ],
)
def test_weights_of_another_model_are_refused_with_how_many_fit(
    model: str, of: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.safetensors"
    written(path, of)
    net = net_of(model)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    weights = backbone_weights(f"timm:{model}", str(path))
    assert weights is not None
    with pytest.raises(UserError) as caught:
        load_backbone(net, weights)
    assert problem in caught.value.problem and caught.value.where == str(path)
    assert f"timm's own file of {model}" in caught.value.fix
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


class Opener:
    """What a pickle may name that is no data."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("run", "w")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": timm.create_model("resnet18").state_dict(), "args": Opener()}, "model.pth")
    weights = backbone_weights("timm:resnet18", "model.pth")
    assert weights is not None
    with pytest.raises(UserError, match=r"reading it would run code \(.*open\)"):
        load_backbone(net_of("resnet18"), weights)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("name", "licence", "words"),
    [
        ("resnet18", "apache-2.0", ""),
        ("resnet18.tv_in1k", "bsd-3-clause", ""),
        ("regnetx_002", "mit", ""),
        ("resnet18.fb_swsl_ig1b_ft_in1k", "cc-by-nc-4.0", "MAY NOT BE SOLD"),
        ("convnext_tiny.eupe_lvd1689m", "fair-noncommercial-research-license", "MAY NOT BE SOLD"),
        ("fastvit_mci0.apple_mclip", "apple-amlr", "MAY NOT BE SOLD"),
        ("convnext_tiny.dinov3_lvd1689m", "dinov3-license", "have their own terms"),
        ("mobileone_s0", "mobileone-license", "have their own terms"),
        ("resnet50.bamboo", "unknown", "is unknown"),
        ("res2net50_14w_8s", "unknown", "is unknown"),
    ],
)
def test_the_licence_that_timm_names_is_told_as_loudly_as_it_needs(name: str, licence: str, words: str) -> None:
    weights = backbone_weights(f"timm:{name}", "pretrained")
    assert weights is not None
    assert weights.licence_line().startswith(f"{licence} (timm's {name}")
    assert words in weights.warning() and bool(weights.warning()) is bool(words)
    assert weights.as_parent()["licence"] == weights.licence_line() and weights.as_parent()["path"] == weights.origin


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"license": "apache-2.0", "notes": ("for research only",)}, "MAY NOT BE SOLD"),
        ({"license": "CC-BY-NC-SA-4.0"}, "MAY NOT BE SOLD"),
        ({"license": "mit", "description": "Non-commercial use."}, "MAY NOT BE SOLD"),
        ({"license": "other"}, "is unknown"),
        ({"license": None}, "is unknown"),
        ({"license": "gemma"}, "have their own terms"),
        ({"license": "Apache-2.0"}, ""),
    ],
)
def test_what_a_table_of_timm_says_of_weights_is_what_counts(
    fields: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(weights_config("resnet18"), **fields)
    monkeypatch.setattr(timm_weights, "weights_config", lambda _: config)
    weights = backbone_weights("timm:resnet18", "pretrained")
    assert weights is not None
    assert words in weights.warning() and bool(weights.warning()) is bool(words)


def test_the_licence_of_a_file_is_that_of_the_tag_that_its_user_names(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    written(path, "resnet18")
    unnamed, named = (backbone_weights(f"timm:{name}", str(path)) for name in ("resnet18", "resnet18.a1_in1k"))
    assert unnamed is not None and named is not None
    assert "is unknown" in unnamed.warning() and unnamed.licence_line().startswith("unknown (")
    assert not named.warning() and named.licence_line().startswith("apache-2.0 (timm's resnet18.a1_in1k from ")
    assert named.as_parent()["sha256"] == hash_file(path) and named.as_parent()["path"] == str(path)


@pytest.mark.parametrize(
    ("name", "weights", "problem", "fix"),
    [
        ("resnet18", "gone.pth", "There are no weights at gone.pth", ""),
        ("regnetz_005", "pretrained", "timm has no weights for regnetz_005", "--model.backbone_weights random"),
        ("resnet18", "pretraind", "There are no weights at pretraind", ""),
    ],
)
def test_weights_that_do_not_exist_are_refused_before_anything_is_read(
    name: str, weights: str, problem: str, fix: str
) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        backbone_weights(f"timm:{name}", weights)
    assert fix in caught.value.fix and caught.value.where == "model.backbone_weights"


def test_random_weights_have_no_licence() -> None:
    assert backbone_weights("timm:resnet18", "random") is None


def test_a_hub_that_can_not_be_reached_is_told_with_what_helps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    weights = backbone_weights("timm:mobilenetv3_small_100", "pretrained")
    assert weights is not None
    net = net_of("mobilenetv3_small_100")
    seed = torch.get_rng_state()
    with pytest.raises(UserError, match="can't be downloaded") as caught:
        load_backbone(net, weights)
    assert caught.value.where == "hf-hub:timm/mobilenetv3_small_100.lamb_in1k"
    assert "--model.backbone_weights model.safetensors" in caught.value.fix
    assert torch.equal(torch.get_rng_state(), seed)


def test_what_timm_fetches_is_what_the_backbone_starts_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's own code loads a table's weights; here they come from memory, as its tables allow."""
    torch.manual_seed(5)
    whole = timm.create_model("resnet18")
    make = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda *args, **options: make(*args, **options, pretrained_cfg_overlay={"state_dict": whole.state_dict()}),
    )
    net = net_of("resnet18")
    load_backbone(net, BackboneWeights("resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k", "", "apache-2.0", "", None))
    for key, value in net.backbone.net.state_dict().items():
        assert torch.equal(value, whole.state_dict()[key])


PAGE = Path(__file__).resolve().parents[3] / "docs" / "pretrained.md"
ROWS = re.findall(
    r"^\| `timm:([\w.]+)` \| ([\w.-]+)(: [\w ]+)? \| ([\d.]+) \| ([\d.]+) \|$", PAGE.read_text("utf-8"), re.M
)


@pytest.mark.parametrize(("name", "licence", "word", "millions", "gflop"), ROWS)
def test_the_manuals_table_says_what_timm_says(name: str, licence: str, word: str, millions: str, gflop: str) -> None:
    weights = backbone_weights(f"timm:{name}", "pretrained")
    assert weights is not None
    assert (weights.name, weights.licence) == (name, licence)
    default = backbone_weights(f"timm:{name.partition('.')[0]}", "pretrained")
    assert default == weights or weights.forbidden
    assert bool(word) is bool(weights.warning()) and (word == ": not for sale") is weights.forbidden
    with torch.device("meta"):
        net = net_of(name).backbone.net
    assert f"{num_parameters(net) / 1e6:.1f}" == millions
    assert f"{flops(net, 320, 320) / 1e9:.2f}" == gflop


def test_the_manual_has_such_a_table() -> None:
    assert len(ROWS) > 10
