"""Weights to start from: their classes are known by name, from the file, and never by their number."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from tests.models.foreign import NAMES, NARROW, narrow_net, partially_fused, steps, trained

from eyas.artifacts import layout
from eyas.errors import UserError
from eyas.models import zoo
from eyas.models.checkpoint import COCO_CLASSES
from eyas.models.fuse import fused
from eyas.models.importing import import_checkpoint
from eyas.models.weights import save_model
from eyas.training.build_model import DEFAULT, make_network, open_start, resolve_spec
from eyas.training.recipe import ModelRecipe

HEAD = "heads.head1.cls_pred.weight"


def started(weights: Path, classes: tuple[str, ...], names: Path | None = None):
    """Return (rows of the first head, row of the source by class or None, what is said)."""
    recipe = ModelRecipe(weights=str(weights), weights_classes=str(names) if names else None)
    net, notes = make_network(recipe, classes, open_start(recipe))
    return net.state_dict()[HEAD], notes


def assert_rows(weights: Path, source: torch.Tensor, wanted: dict[str, int | None], names: Path | None = None) -> None:
    """Hold the rows of the wanted classes against rows of the source; None is a row of the net's own."""
    rows, notes = started(weights, tuple(wanted), names)
    for row, (name, expected) in enumerate(wanted.items()):
        same = [i for i in range(len(source)) if torch.equal(rows[row], source[i])]
        assert same == ([] if expected is None else [expected]), name
    kept = sum(expected is not None for expected in wanted.values())
    assert (f"{kept} of {len(wanted)} classes keep their head" in notes[0]) or (
        kept == 0 and "start from random weights" in notes[0]
    )


def checkpoint(path: Path, num: int, names: tuple[str, ...] | None) -> torch.Tensor:
    net = narrow_net(num)
    torch.save(trained(net.state_dict(), names=names) if names else {"net": net.state_dict()}, path)
    return net.state_dict()[HEAD]


def test_rows_follow_the_names_in_the_checkpoint(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "a.pth", 5, NAMES)
    wanted: dict[str, int | None] = {"Red-Car": 2, "horse": None, "cat": 0}
    assert_rows(tmp_path / "a.pth", source, wanted)


def test_ones_own_fine_tune_keeps_its_head(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "a.pth", 5, NAMES)
    assert_rows(tmp_path / "a.pth", source, {name: row for row, name in enumerate(NAMES)})


def test_80_named_parts_are_not_coco(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "a.pth", 80, tuple(f"part {i}" for i in range(80)))
    assert_rows(tmp_path / "a.pth", source, {"dog": None, "part 16": 16})


@pytest.mark.parametrize("num", [5, 80])
def test_without_names_nothing_is_kept_and_that_is_said(tmp_path: Path, num: int) -> None:
    source = checkpoint(tmp_path / "a.pth", num, None)
    assert_rows(tmp_path / "a.pth", source, {"dog": None, "person": None})
    _, notes = started(tmp_path / "a.pth", ("dog",))
    assert "does not name its classes" in notes[0] and "--weights-classes" in notes[0]


def test_names_may_be_given_beside_the_file(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "a.pth", 80, None)
    (tmp_path / "names.txt").write_text("\n".join(COCO_CLASSES) + "\n", encoding="utf-8")
    assert_rows(tmp_path / "a.pth", source, {"dog": 16, "part 16": None}, tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("cat\ndog\n", encoding="utf-8")
    with pytest.raises(UserError, match="2 class names"):
        started(tmp_path / "a.pth", ("dog",), tmp_path / "names.txt")


def test_the_published_weights_are_cocos_by_their_name(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "yolo_nas_s_coco.pth", 80, None)
    assert_rows(tmp_path / "yolo_nas_s_coco.pth", source, {"dog": 16})
    _, notes = started(tmp_path / "yolo_nas_s_coco.pth", ("dog",))
    assert "non-commercial" in notes[1]


def test_a_checkpoint_of_ones_own_is_not_called_published(tmp_path: Path) -> None:
    checkpoint(tmp_path / "ckpt_best.pth", 5, NAMES)
    _, notes = started(tmp_path / "ckpt_best.pth", NAMES)
    assert len(notes) == 1 and "commercial" not in notes[0]


def test_the_licence_of_imported_weights_is_told(tmp_path: Path) -> None:
    checkpoint(tmp_path / "yolo_nas_s_coco.pth", 80, None)
    run = import_checkpoint(tmp_path / "yolo_nas_s_coco.pth", tmp_path / "run")
    assert "non-commercial" in started(run, ("dog",))[1][1]


def test_safetensors_alone_have_no_names_and_in_a_run_the_runs(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "a.pth", 5, NAMES)
    run = import_checkpoint(tmp_path / "a.pth", tmp_path / "run")
    wanted: dict[str, int | None] = {"boat": 4, "horse": None}
    assert_rows(run, source, wanted)
    assert_rows(run / layout.WEIGHTS, source, wanted)
    alone = tmp_path / "alone.safetensors"
    save_model(narrow_net(5), alone)
    assert_rows(alone, source, dict.fromkeys(NAMES))
    # Another tool's config.json beside it is no run's.
    (tmp_path / "config.json").write_text('{"architectures": ["X"]}', encoding="utf-8")
    assert_rows(alone, source, dict.fromkeys(NAMES))


def test_the_model_is_the_weights_own(tmp_path: Path) -> None:
    checkpoint(tmp_path / "a.pth", 5, NAMES)
    recipe = ModelRecipe(weights=str(tmp_path / "a.pth"))
    assert resolve_spec(recipe, open_start(recipe)) == NARROW


@pytest.mark.parametrize(("before", "after"), [("ndfl", "dual"), ("dual", "ndfl")])
def test_with_another_head_backbone_and_neck_are_taken_over_and_that_is_told(
    tmp_path: Path, before: str, after: str
) -> None:
    torch.manual_seed(0)
    source = zoo.build(dataclasses.replace(NARROW, head=before), 5)
    save_model(source, tmp_path / "a.safetensors")
    recipe = ModelRecipe(weights=str(tmp_path / "a.safetensors"), head=after)
    net, notes = make_network(recipe, NAMES, open_start(recipe))
    assert net.spec == dataclasses.replace(NARROW, head=after)
    assert f"its head is '{before}', so the head '{after}' starts from random weights" in notes[0] and len(notes) == 1
    state = source.state_dict()
    for name, value in net.state_dict().items():
        assert name.startswith("heads.") or torch.equal(value, state[name])
    with pytest.raises(UserError, match="have another shape"):
        make_network(dataclasses.replace(recipe, name="p"), NAMES, open_start(recipe))
    save_model(fused(source), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="fused network"):
        make_network(recipe, NAMES, open_start(recipe))


@pytest.mark.parametrize("name", ["p", "yolo_nas_s", "auto"])
def test_a_head_is_chosen_by_name(name: str) -> None:
    spec = resolve_spec(ModelRecipe(name=name, head="dual"))
    assert spec == dataclasses.replace(zoo.resolve(DEFAULT if name == "auto" else name), head="dual")
    with pytest.raises(UserError, match=r"no head 'daul' \(did you mean 'dual'"):
        resolve_spec(ModelRecipe(name=name, head="daul"))


def test_partially_fused_weights_start_a_training_and_fused_ones_do_not(tmp_path: Path) -> None:
    net = narrow_net()
    torch.save(trained(partially_fused(net)), tmp_path / "a.pth")
    rows, _ = started(tmp_path / "a.pth", NAMES)
    assert torch.equal(rows, net.state_dict()[HEAD])
    torch.save(trained(fused(net).state_dict()), tmp_path / "b.pth")
    with pytest.raises(UserError, match="fused network"):
        started(tmp_path / "b.pth", NAMES)


@pytest.mark.parametrize(("reverse", "divisor"), [(1, 255.0), (2, 255.0), (1, None), (2, 128.0)])
def test_a_training_feeds_the_weights_what_they_are_used_to(
    tmp_path: Path, reverse: int, divisor: float | None
) -> None:
    """The first convolution of what is trained takes RGB, divided by 255, whatever the checkpoint's own took."""
    net = narrow_net()
    torch.save(trained(net.state_dict(), processing=steps(reverse=reverse, divisor=divisor)), tmp_path / "a.pth")
    recipe = ModelRecipe(weights=str(tmp_path / "a.pth"))
    ours, _ = make_network(recipe, NAMES, open_start(recipe))
    pixels = torch.randint(0, 256, (1, 3, 32, 32)).float()
    with torch.no_grad():
        expected = net((pixels.flip(1) if reverse % 2 else pixels) / (divisor or 1.0))
        got = ours.eval()(pixels / 255)
    torch.testing.assert_close(got.class_logits, expected.class_logits, rtol=0.02, atol=0.02)


def test_missing_weights_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights at"):
        started(tmp_path / "gone.pth", NAMES)
