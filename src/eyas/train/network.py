"""The network that a recipe asks for, with the weights it starts from."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from eyas import runfolder
from eyas.errors import UserError
from eyas.files import read_json
from eyas.models import zoo
from eyas.models.public import COCO_CLASSES, FIRST_HEAD, load_public
from eyas.models.spec import YoloNasSpec
from eyas.models.weights import load_model, read_state, transfer
from eyas.runfolder import read_config, verify_run
from eyas.train.recipe import ModelRecipe

DEFAULT = "n"


def resolve_spec(model: ModelRecipe) -> str | YoloNasSpec:
    """Return the zoo's name or the spec that the recipe means.

    Raises:
        UserError: the name is unknown, or the file holds no spec.
    """
    if model.spec is not None:
        fields = read_json(Path(model.spec))
        if not isinstance(fields, dict):
            raise UserError(f"{model.spec} holds no model spec.", where="model.spec", expected="a JSON object")
        return YoloNasSpec.from_dict(fields.get("spec", fields))
    if model.name != "auto":
        zoo.resolve(model.name)
        return model.name
    if model.weights is None:
        return DEFAULT
    path = Path(model.weights)
    if path.is_dir():
        verify_run(path)
        described = read_config(path).model
        name = described.get("name")
        return name if isinstance(name, str) and name else YoloNasSpec.from_dict(described.get("spec", {}))
    if is_public(path):
        return load_public(path).name
    raise UserError(
        f"{path.name} does not say which model its weights are of.", where="model.name", fix="add --model NAME"
    )


def make_network(model: ModelRecipe, classes: tuple[str, ...]) -> tuple[nn.Module, list[str]]:
    """Return the network with its starting weights, and what there is to say about them, a line each.

    Raises:
        UserError: the weights can't be read or don't fit.
    """
    net = zoo.build(resolve_spec(model), len(classes))
    if model.weights is None:
        return net, []
    path = Path(model.weights)
    if path.is_dir():
        source = read_config(path).classes
        kept = transfer(read_state(path / runfolder.WEIGHTS), source, classes, net)
        return net, [_kept_line(path, kept, classes)]
    if is_public(path):
        public = load_public(path)
        rows = len(public.net.state_dict()[FIRST_HEAD])
        # A checkpoint holds no class names; 80 classes are COCO's, of any others nothing is known.
        source = COCO_CLASSES if rows == len(COCO_CLASSES) else tuple(f"unknown class {row}" for row in range(rows))
        kept = transfer(public.net.state_dict(), source, classes, net)
        return net, [_kept_line(path, kept, classes), "note: YOLO-NAS's published weights are for non-commercial use"]
    if not path.is_file():
        raise UserError(f"There are no weights at {path}.", where="model.weights")
    return load_model(path, net), [f"starting from {path}"]


def is_public(path: Path) -> bool:
    """Return whether the file is a pickled checkpoint, as YOLO-NAS was published, not one of Eyas's own files."""
    return path.is_file() and path.suffix in (".pth", ".pt", ".ckpt")


def _kept_line(path: Path, kept: tuple[str, ...], classes: tuple[str, ...]) -> str:
    """Return one line that says which classes of the head were kept."""
    names = ", ".join(kept[:5]) + (", ..." if len(kept) > 5 else "")
    return f"starting from {path}; {len(kept)} of {len(classes)} classes keep their head{': ' + names if kept else ''}"
