"""Files have what networks don't: the kernel that a block would be fused into."""

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

from eyas.models import zoo
from eyas.models.fuse import fuse_blocks, fused
from eyas.models.layers import LAYERS, PLACEHOLDER, BlockArgs, ConvBnAct, Layers, make_block, make_bn, make_conv
from eyas.models.public_form import from_public_state, to_public_state
from eyas.models.spec import YoloNasSpec
from eyas.models.weights import load_model, load_state, save_model, transfer

IMAGES = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


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
