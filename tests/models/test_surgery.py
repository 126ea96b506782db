from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.nets import IRREGULAR, with_random_statistics
from torch import Tensor, nn

from eyas.errors import UserError
from eyas.models import zoo
from eyas.models.detection_net import DetectionNet
from eyas.models.fuse import fused
from eyas.models.public_form import to_public_state
from eyas.models.spec import StageSpec, YoloNasSpec
from eyas.models.surgery import replace_modules, slice_state
from eyas.models.weights import load_state

IMAGES = torch.rand(1, 3, 64, 32, generator=torch.Generator().manual_seed(1))


class Marked(nn.Module):
    """What stands in for a module in the tests."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_modules_are_replaced_by_type_and_name_in_a_copy() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), nn.BatchNorm2d(4))
    seen: list[str] = []

    def wanted(name: str, module: nn.Module) -> bool:
        seen.append(name)
        return name != "0"

    out = replace_modules(net, {nn.Conv2d: Marked, nn.ReLU: lambda _: nn.SiLU()}, wanted)
    assert seen == ["0", "1.0", "1.1"]
    assert isinstance(out, nn.Sequential) and isinstance(out[0], nn.Conv2d)
    assert isinstance(out[1][0], Marked) and isinstance(out[1][1], nn.SiLU)  # type: ignore[index]
    assert out[1][0].module is not net[1][0], "the given network's own module went into the copy"  # type: ignore[index]
    assert isinstance(net[1][0], nn.Conv2d) and isinstance(net[1][1], nn.ReLU)  # type: ignore[index]


def test_the_nearest_types_rule_is_taken_and_what_it_is_for_is_a_whole() -> None:
    class Own(nn.Conv2d):
        pass

    class Nest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)

    net = nn.Sequential(Own(1, 1, 1), nn.Conv2d(1, 1, 1), Nest())
    out = replace_modules(net, {nn.Conv2d: Marked, Own: lambda _: nn.ReLU(), Nest: lambda nest: nest})
    assert [type(module) for module in out.children()] == [nn.ReLU, Marked, Nest]
    left = replace_modules(net, {nn.Conv2d: Marked, Nest: Marked}, lambda _, module: isinstance(module, nn.Conv2d))
    nest = left.get_submodule("2")
    assert isinstance(nest, Nest) and isinstance(nest.conv, nn.Conv2d), "a whole was looked into"


def test_the_network_itself_and_shared_modules_are_replaced_once() -> None:
    assert isinstance(replace_modules(nn.ReLU(), {nn.ReLU: Marked}), Marked)
    shared = nn.ReLU()
    out = replace_modules(nn.Sequential(shared, nn.Sequential(shared)), {nn.ReLU: Marked})
    assert out.get_submodule("0") is out.get_submodule("1.0")


def widths(least: int, most: int) -> st.SearchStrategy[int]:
    return st.integers(least, most)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[YoloNasSpec, YoloNasSpec]:
    """A spec, and one that is nowhere wider, deeper or of larger kernels."""

    def stage() -> tuple[StageSpec, StageSpec]:
        block = draw(st.sampled_from(("qarepvgg", "conv", "dwconv")))
        big = StageSpec(
            draw(widths(2, 12)), draw(widths(0, 2)), draw(widths(1, 6)), draw(st.booleans()), block,
            draw(st.sampled_from((3, 5))),
        )  # fmt: skip
        small = dataclasses.replace(
            big, channels=draw(widths(2, big.channels)), depth=draw(widths(0, big.depth)),
            hidden=draw(widths(1, big.hidden)), kernel=draw(st.sampled_from((3, big.kernel))),
        )  # fmt: skip
        return big, small

    stages, neck = ([stage() for _ in range(4)] for _ in range(2))
    names = ("stem_width", "context_hidden", "context_width", "reg_max")
    big = {name: draw(widths(1, 9)) for name in names} | {"stem_kernel": draw(st.sampled_from((3, 5)))}
    small = {name: draw(widths(1, big[name])) for name in names} | {
        "stem_kernel": draw(st.sampled_from((3, big["stem_kernel"])))
    }
    heads = tuple(draw(widths(1, 8)) for _ in range(3))
    kinds = {
        "stem_block": draw(st.sampled_from(("qarepvgg", "conv"))),
        "activation": draw(st.sampled_from(("relu", "silu", "hardswish"))),
        "head": draw(st.sampled_from(("ndfl", "dual"))),
    }
    return tuple(  # type: ignore[return-value]
        YoloNasSpec(
            **numbers, **kinds, stages=tuple(each[which] for each in stages), neck=tuple(each[which] for each in neck),
            head_widths=heads if which == 0 else tuple(draw(widths(1, width)) for width in heads),
        )
        for which, numbers in ((0, big), (1, small))
    )  # fmt: skip


def net_of(spec: YoloNasSpec) -> DetectionNet:
    return with_random_statistics(zoo.build(spec, 2))


def isolated(state: Mapping[str, Tensor], big: YoloNasSpec, small: YoloNasSpec) -> dict[str, Tensor]:
    """Return the larger network's weights with zeros wherever the smaller one has nothing.

    Which these are is found by slicing numbers. A bottleneck that is left out passes on what it gets.
    """
    numbers = {name: torch.arange(value.numel()).reshape(value.shape) for name, value in state.items()}
    kept = slice_state(numbers, big, small)
    out = {}
    for name, value in state.items():
        chosen = torch.zeros(value.numel(), dtype=torch.bool)
        chosen[kept.get(name, torch.zeros(0, dtype=torch.long)).flatten()] = True
        rest = 1.0 if name.endswith(("running_var", "alpha")) else 0.0
        out[name] = torch.where(chosen.reshape(value.shape), value, torch.full_like(value, rest))
    return out


@settings(max_examples=12, deadline=None, derandomize=True)
@given(pairs())
def test_a_smaller_networks_weights_are_the_larger_ones_first_channels(pair: tuple[YoloNasSpec, YoloNasSpec]) -> None:
    big, small = pair
    torch.manual_seed(0)
    large = net_of(big)
    state = large.state_dict()
    cut = slice_state(state, big, small)
    little = load_state(cut, zoo.build(small, 2)).eval()  # which refuses any name or shape that is not its own
    large.load_state_dict(isolated(state, big, small))
    with torch.no_grad():
        ours, theirs = little(IMAGES), large.eval()(IMAGES)
    bins = [side * (big.reg_max + 1) + number for side in range(4) for number in range(small.reg_max + 1)]
    if big.head == "dual":
        ours, theirs, bins = ours.one_to_one, theirs.one_to_one, list(range(4))
    torch.testing.assert_close(ours.class_logits, theirs.class_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.box_logits, theirs.box_logits[..., bins], rtol=1e-4, atol=1e-4)
    assert ours.class_logits.std() > 0, "the network says the same everywhere, which shows nothing"


@pytest.mark.parametrize("model", ["p", "m", IRREGULAR], ids=["p", "m", "irregular"])
def test_slicing_to_the_same_spec_is_the_identity_in_memory_of_its_own(model: str | YoloNasSpec) -> None:
    torch.manual_seed(0)
    net = zoo.build(model, 2)
    state = to_public_state(net.state_dict())
    cut = slice_state(state, net.spec, net.spec)
    assert cut.keys() == state.keys()
    assert all(
        torch.equal(cut[name], value) and cut[name].data_ptr() != value.data_ptr() for name, value in state.items()
    )


def test_named_rows_are_cut_out_of_larger_ones_in_any_form() -> None:
    with torch.device("meta"):
        big, small = (
            zoo.build("l", 3),
            zoo.build(dataclasses.replace(zoo.resolve("l"), stages=_thin(zoo.resolve("l"))), 3),
        )
    for form in (lambda net: net, fused):
        whole, part = form(big).state_dict(), form(small).state_dict()
        # Shapes only: indices can't be taken on the meta device.
        cut = slice_state({name: torch.empty(value.shape) for name, value in whole.items()}, big.spec, small.spec)
        assert {name: value.shape for name, value in cut.items()} == {name: value.shape for name, value in part.items()}


def _thin(spec: YoloNasSpec) -> tuple[StageSpec, ...]:
    return tuple(
        dataclasses.replace(stage, channels=stage.channels // 2, hidden=stage.hidden // 2, depth=1)
        for stage in spec.stages
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stem_width": 17}, "stem_width is 17, not 16"),
        ({"activation": "silu"}, "activation is silu, not relu"),
        ({"reg_max": 17}, "reg_max is 17"),
        ({"head_widths": (32, 49, 80)}, "head_widths 2 is 49"),
        ({"stem_kernel": 5}, "stem_kernel is 5"),
    ],
)
def test_what_is_no_part_is_refused_by_name(change: dict[str, object], words: str) -> None:
    spec = zoo.resolve("p")
    with pytest.raises(UserError, match=words):
        slice_state({}, spec, dataclasses.replace(spec, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": 3}, "stages 3, depth is 3, not 2"),
        ({"block": "conv"}, "stages 3, block is conv"),
        ({"concat_intermediates": True}, "stages 3, concat_intermediates is True"),
    ],
)
def test_a_stage_that_is_no_part_is_refused_by_name(change: dict[str, object], words: str) -> None:
    spec = zoo.resolve("p")
    stages = (*spec.stages[:2], dataclasses.replace(spec.stages[2], **change), spec.stages[3])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=words):
        slice_state({}, spec, dataclasses.replace(spec, stages=stages))


def test_bits_say_nothing_of_the_weights() -> None:
    spec = zoo.resolve("p")
    stages = tuple(dataclasses.replace(stage, bits=8) for stage in spec.stages)
    state = zoo.build(spec, 2).state_dict()
    cut = slice_state(state, spec, dataclasses.replace(spec, stages=stages, stem_bits=8))
    assert all(torch.equal(cut[name], value) for name, value in state.items())


def test_weights_of_another_network_are_refused() -> None:
    spec, other = zoo.resolve("p"), zoo.build("n", 2)
    with pytest.raises(UserError, match=r"not belong to the larger network: .* is \["):
        slice_state(other.state_dict(), spec, spec)
    with pytest.raises(UserError, match="it has no foreign"):
        slice_state({"foreign.weight": torch.zeros(1)}, spec, spec)
