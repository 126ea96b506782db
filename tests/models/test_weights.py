"""Weights in every form: saved, fused, public, of another head or other classes, damaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tests.models.foreign import narrow_net, published
from tests.models.nets import IRREGULAR, with_random_statistics
from torch import nn

from eyas.errors import UserError
from eyas.models import zoo
from eyas.models.detection_net import DetectionNet
from eyas.models.fuse import fuse_blocks, fused
from eyas.models.layers import LAYERS, PLACEHOLDER, BlockArgs, ConvBnAct, Layers, make_block, make_bn, make_conv
from eyas.models.public_form import from_public_state, to_public_state
from eyas.models.spec import YoloNasSpec
from eyas.models.weights import load_model, load_state, read_state, save_model, transfer

IMAGES = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
PREDICTIONS = tuple(f"heads.head{level}.cls_pred.{kind}" for level in (1, 2, 3) for kind in ("weight", "bias"))


@pytest.fixture(scope="module")
def net() -> DetectionNet:
    """A pico of three classes with statistics as after training; don't change it."""
    torch.manual_seed(0)
    return with_random_statistics(zoo.build("p", 3))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_saved_weights_come_back_bit_equal(tmp_path: Path, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    net = with_random_statistics(zoo.build("p", 3)).to(memory_format=layout)
    save_model(net, tmp_path / "a" / "model.safetensors")
    other = zoo.build("p", 3)
    assert load_model(tmp_path / "a" / "model.safetensors", other) is other
    loaded = other.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in net.state_dict().items())
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("fuse", [fused, fuse_blocks])
def test_fused_weights_load_into_a_fused_copy(
    tmp_path: Path, net: DetectionNet, fuse: Callable[[DetectionNet], DetectionNet]
) -> None:
    small = fuse(net)
    save_model(small, tmp_path / "model.safetensors")
    given = zoo.build("p", 3)
    loaded = load_model(tmp_path / "model.safetensors", given)
    assert loaded is not given
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES).class_logits, small(IMAGES).class_logits)


def test_a_net_without_blocks_to_fuse_is_loaded_in_place() -> None:
    plain = tuple(dataclasses.replace(stage, block="conv") for stage in IRREGULAR.stages)
    neck = tuple(dataclasses.replace(stage, block="conv") for stage in IRREGULAR.neck)
    spec = dataclasses.replace(IRREGULAR, stages=plain, neck=neck, stem_block="conv")
    given = zoo.build(spec, 2)
    assert load_state(zoo.build(spec, 2).state_dict(), given) is given


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\xff" * 100, None], ids=["empty", "text", "bytes", "cut"])
def test_damaged_file_is_refused(tmp_path: Path, net: DetectionNet, content: bytes | None) -> None:
    path = tmp_path / "model.safetensors"
    save_model(net, path)
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(UserError, match=r"model\.safetensors can't be read"):
        load_model(path, net)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file none\.safetensors"):
        read_state(tmp_path / "none.safetensors")


def test_wrong_tensors_are_named(net: DetectionNet) -> None:
    state = net.state_dict()
    first = next(iter(state))
    with pytest.raises(UserError, match=f"1 tensors have another shape: {first} is 2x2, not "):
        load_state({**state, first: torch.zeros(2, 2)}, net)
    with pytest.raises(UserError, match=f"1 tensors are missing: {first}"):
        load_state({name: value for name, value in state.items() if name != first}, net)
    with pytest.raises(UserError, match=r"1 tensors are unknown: extra\.weight"):
        load_state({**state, "extra.weight": torch.zeros(1)}, net)


def test_weights_of_another_size_are_refused_with_a_few_names(net: DetectionNet) -> None:
    with pytest.raises(UserError, match=r"and \d+ more") as caught:
        load_state(net.state_dict(), zoo.build("n", 3))
    assert len(str(caught.value)) < 1000


def test_refused_weights_change_nothing(net: DetectionNet) -> None:
    other = zoo.build("p", 3)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(UserError):
        load_state({**net.state_dict(), PREDICTIONS[0]: torch.zeros(2, 2)}, other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_head_is_transferred_by_class_name(net: DetectionNet) -> None:
    torch.manual_seed(5)
    other = zoo.build("p", 4)
    own = {name: value.clone() for name, value in other.state_dict().items()}
    source = net.state_dict()
    shared = transfer(source, ("cat", "traffic light", "dog"), ("Dog", "boat", "Traffic_Light", "ship"), other)
    assert shared == ("Dog", "Traffic_Light")
    loaded = other.state_dict()
    for name in PREDICTIONS:
        assert torch.equal(loaded[name][0], source[name][2])
        assert torch.equal(loaded[name][2], source[name][1])
        assert torch.equal(loaded[name][[1, 3]], own[name][[1, 3]])
    others = [name for name in source if name not in PREDICTIONS]
    assert any(".reg_pred." in name for name in others) and any("heads.head1.stem" in name for name in others)
    assert all(torch.equal(loaded[name], source[name]) for name in others)


@pytest.mark.parametrize("fuse", [fused, fuse_blocks])
def test_weights_without_what_only_training_needs_are_of_a_fused_network(
    fuse: Callable[[DetectionNet], DetectionNet],
) -> None:
    torch.manual_seed(0)
    dual = with_random_statistics(zoo.build(dataclasses.replace(zoo.resolve("p"), head="dual"), 3))
    small = fuse(dual)
    loaded = load_state(small.state_dict(), zoo.build(dual.spec, 3))
    assert loaded.state_dict().keys() == small.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES).one_to_one.class_logits, small(IMAGES).one_to_one.class_logits)
    with pytest.raises(UserError, match="can't be trained further"):
        transfer(small.state_dict(), ("a", "b", "c"), ("a",), zoo.build(dual.spec, 1))


def test_classes_keep_their_rows_in_both_branches() -> None:
    torch.manual_seed(0)
    spec = dataclasses.replace(zoo.resolve("p"), head="dual")
    source, other = zoo.build(spec, 3).state_dict(), zoo.build(spec, 2)
    assert transfer(source, ("a", "b", "c"), ("new", "c"), other) == ("c",)
    rows = [name for name in source if ".cls_pred." in name]
    assert len(rows) == 2 * len(PREDICTIONS)
    for name in rows:
        assert torch.equal(other.state_dict()[name][1], source[name][2])


def test_transfer_refuses_what_does_not_fit(net: DetectionNet) -> None:
    with pytest.raises(UserError, match="2 class names are given for the weights"):
        transfer(net.state_dict(), ("a", "b"), ("a",), zoo.build("p", 1))
    with pytest.raises(UserError, match="2 class names are given for the model"):
        transfer(net.state_dict(), ("a", "b", "c"), ("a", "b"), zoo.build("p", 1))
    with pytest.raises(UserError, match="have another shape"):
        transfer(net.state_dict(), ("a", "b", "c"), ("a",), zoo.build("n", 1))


@pytest.mark.parametrize("model", ["p", IRREGULAR], ids=["p", "irregular"])
def test_to_the_public_form_and_back(model: str | YoloNasSpec) -> None:
    state = zoo.build(model, 2).state_dict()
    public = to_public_state(state)
    added = public.keys() - state.keys()
    assert added and all(f".{PLACEHOLDER}." in name and not public[name].any() for name in added)
    assert not any(PLACEHOLDER in name for name in state)
    back = from_public_state(public)
    assert back.keys() == state.keys() and all(back[name] is state[name] for name in state)
    assert to_public_state(public) == public


@pytest.mark.parametrize("fuse", [fuse_blocks, fused])
def test_fused_weights_are_the_same_in_both_forms(fuse: Callable[[nn.Module], nn.Module]) -> None:
    state = fuse(zoo.build("p", 2)).state_dict()
    assert any(f".{PLACEHOLDER}." in name for name in state)
    assert to_public_state(state).keys() == state.keys() == from_public_state(state).keys()


def test_a_runs_file_is_in_the_public_form_and_older_ones_load(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = with_random_statistics(zoo.build("p", 2))
    save_model(net, tmp_path / "new.safetensors")
    written = safetensors.torch.load_file(tmp_path / "new.safetensors")
    assert written.keys() == to_public_state(net.state_dict()).keys()
    old = {name: value + 3 if f".{PLACEHOLDER}." in name else value for name, value in written.items()}
    safetensors.torch.save_file(old, tmp_path / "old.safetensors")
    for name in ("new", "old"):
        loaded = load_model(tmp_path / f"{name}.safetensors", zoo.build("p", 2)).eval()
        assert loaded.state_dict().keys() == net.state_dict().keys()
        with torch.no_grad():
            assert torch.equal(loaded(IMAGES).class_logits, net(IMAGES).class_logits)


def test_every_way_of_loading_takes_the_public_form() -> None:
    source = narrow_net(2)
    state = source.state_dict()
    public = published(state)
    for load in (
        lambda net: net.load_state_dict(public),  # as Lightning does when a run of an older version is resumed
        lambda net: load_state(public, net),
        lambda net: transfer(public, ("a", "b"), ("a", "b"), net),
    ):
        net = zoo.build(source.spec, 2)
        load(net)
        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert any(PLACEHOLDER in name for name in public), "loading changed what it was given"


def test_what_is_unknown_is_still_refused() -> None:
    net = zoo.build("p", 2)
    state = {**net.state_dict(), f"backbone.stem.conv.{PLACEHOLDER}.weight": torch.zeros(1)}  # a conv has none
    with pytest.raises(RuntimeError, match="Unexpected key"):
        net.load_state_dict(state)


class BlockWithPlaceholder(nn.Module):
    """A QARepVGG as it was when it had the placeholder: the same parts in the same order."""

    def __init__(self, args: BlockArgs) -> None:
        super().__init__()
        self.branch_3x3 = ConvBnAct(args.in_channels, args.out_channels, args.kernel, args.stride, "identity")
        self.branch_1x1 = nn.Conv2d(args.in_channels, args.out_channels, 1)
        self.post_bn = make_bn(args.out_channels)
        self.rbr_reparam = make_conv(args.in_channels, args.out_channels, args.kernel, args.stride, bias=True)


@pytest.mark.parametrize("model", ["p", "n", IRREGULAR], ids=["p", "n", "irregular"])
def test_a_seed_gives_the_weights_that_it_gave_with_placeholders(model: str | YoloNasSpec) -> None:
    def block(args: BlockArgs, layers: Layers) -> nn.Module:
        return BlockWithPlaceholder(args) if args.kind == "qarepvgg" else make_block(args, layers)

    torch.manual_seed(3)
    old = zoo.build(model, 2, dataclasses.replace(LAYERS, block=block)).state_dict()
    torch.manual_seed(3)
    new = zoo.build(model, 2).state_dict()
    assert new.keys() == from_public_state(old).keys() < old.keys()
    assert all(torch.equal(value, old[name]) for name, value in new.items())
