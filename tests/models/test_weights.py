from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.models.nets import IRREGULAR, with_random_statistics

from eyas.errors import UserError
from eyas.models import zoo
from eyas.models.detection_net import DetectionNet
from eyas.models.fuse import fuse_blocks, fused
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


def test_transfer_between_the_same_classes_in_another_order_gives_the_same_scores(net: DetectionNet) -> None:
    other = zoo.build("p", 3).eval()
    assert transfer(net.state_dict(), ("a", "b", "c"), ("c", "a", "b"), other) == ("c", "a", "b")
    with torch.no_grad():
        torch.testing.assert_close(other(IMAGES).class_logits, net(IMAGES).class_logits[..., [2, 0, 1]])


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


@pytest.mark.parametrize("fuse", [fused, fuse_blocks])
def test_transfer_refuses_a_fused_network(net: DetectionNet, fuse: Callable[[DetectionNet], DetectionNet]) -> None:
    with pytest.raises(UserError, match="can't be trained further"):
        transfer(fuse(net).state_dict(), ("a", "b", "c"), ("a",), zoo.build("p", 1))


def test_transfer_refuses_what_does_not_fit(net: DetectionNet) -> None:
    with pytest.raises(UserError, match="2 class names are given for the weights"):
        transfer(net.state_dict(), ("a", "b"), ("a",), zoo.build("p", 1))
    with pytest.raises(UserError, match="2 class names are given for the model"):
        transfer(net.state_dict(), ("a", "b", "c"), ("a", "b"), zoo.build("p", 1))
    with pytest.raises(UserError, match="have another shape"):
        transfer(net.state_dict(), ("a", "b", "c"), ("a",), zoo.build("n", 1))
