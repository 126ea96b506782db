"""The network that a recipe asks for, with the weights it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from eyas.artifacts.card import CARD, Card
from eyas.artifacts.layout import run_of
from eyas.artifacts.run import Run, RunFolder
from eyas.data.formats.class_names import read_class_names
from eyas.errors import UserError, row_of
from eyas.files import read_json
from eyas.models import zoo
from eyas.models.backbones.timm_library import PREFIX
from eyas.models.backbones.timm_weights import PRETRAINED, BackboneWeights, backbone_weights, load_backbone
from eyas.models.checkpoint import COCO_CLASSES, PUBLISHED_LICENCE, Checkpoint, read_checkpoint
from eyas.models.detection_net import DetectionNet
from eyas.models.factories import factory_of
from eyas.models.heads import HEADS
from eyas.models.importing import UNKNOWN_LICENCE
from eyas.models.infer import name_of
from eyas.models.processing import contract_of
from eyas.models.spec import YoloNasSpec
from eyas.models.weights import read_state, transfer, with_own_head
from eyas.training.recipe import ModelRecipe
from eyas.types import InputSpec, Vocabulary

DEFAULT = "n"


def open_start(model: ModelRecipe) -> Weights | None:
    """Return the weights that the recipe's network starts from, read; None where it names none.

    Raises:
        UserError: see `open_weights`.
    """
    return open_weights(Path(model.weights)) if model.weights is not None else None


def resolve_spec(model: ModelRecipe, start: Weights | None = None) -> str | YoloNasSpec:
    """Return the zoo's name or the spec that the recipe means.

    Args:
        model: the recipe's part on the network.
        start: the weights that it names, see `open_start`.

    Raises:
        UserError: the name or the head is unknown, or the file holds no spec.
    """
    named = _named(model, start)
    spec = zoo.resolve(named) if isinstance(named, str) else named
    if model.head:
        row_of(HEADS, model.head, "There is no head", "model.head")
    asked = {"backbone": model.backbone, "head": model.head}
    changed: dict[str, Any] = {name: kind for name, kind in asked.items() if kind and kind != getattr(spec, name)}
    return replace(spec, **changed) if changed else named


def _named(model: ModelRecipe, start: Weights | None) -> str | YoloNasSpec:
    """Return the zoo's name or the spec, with the backbone and the head of its own."""
    if model.spec is not None:
        fields = read_json(Path(model.spec))
        if not isinstance(fields, dict):
            raise UserError(f"{model.spec} contains no model spec.", where="model.spec", expected="a JSON object")
        return YoloNasSpec.from_dict(fields.get("spec", fields))
    if model.name != "auto":
        zoo.resolve(model.name)
        return model.name
    return DEFAULT if start is None else start.model


def make_network(
    model: ModelRecipe, classes: tuple[str, ...], source: Weights | None
) -> tuple[DetectionNet, list[str]]:
    """Return the network with its starting weights, and what there is to say about them, a line each.

    Args:
        model: the recipe's part on the network.
        classes: what it tells apart.
        source: the weights that the recipe names, see `open_start`.

    Raises:
        UserError: the weights can't be read or don't fit, or there are no such layers.
    """
    net = zoo.build(resolve_spec(model, source), Vocabulary(classes), factory_of(model.layers))
    if source is None:
        start = backbone_start(model)
        if start is None:
            return net, []
        return net, [load_backbone(net, start)]
    if source.head != net.spec.head:
        transfer(with_own_head(source.state, net), None, classes, net)
        return net, [_new_head_line(source, net.spec.head), *source.notes]
    names = read_class_names(Path(model.weights_classes)) if model.weights_classes else source.classes
    kept = transfer(source.state, names, classes, net)
    return net, [_kept_line(source.path, names, kept, classes), *source.notes]


def backbone_start(model: ModelRecipe) -> BackboneWeights | None:
    """Return the weights that the network's backbone starts from; None for random ones and those of a whole network.

    Nothing is fetched: what can't work is found here, before anything that takes long.

    Raises:
        UserError: timm is missing or has no such model or weights, there is no such file, or the settings disagree.
    """
    if model.weights is not None:
        if model.backbone_weights != PRETRAINED:
            raise UserError(
                f"Both --model.backbone_weights ({model.backbone_weights}) and --weights ({model.weights}) are given.",
                where="model.backbone_weights",
                fix="give only one: --weights or --model.backbone_weights",
            )
        return None
    spec = resolve_spec(model)
    if isinstance(spec, YoloNasSpec) and spec.backbone.startswith(PREFIX):
        return backbone_weights(spec.backbone, model.backbone_weights)
    if model.backbone_weights != PRETRAINED:
        raise UserError(
            f"The backbone weights {model.backbone_weights} apply only to a timm backbone.",
            where="model.backbone_weights",
            fix=f"name a timm backbone, --model.backbone {PREFIX}NAME, or start from a whole network: --weights RUN",
        )
    return None


@dataclass(frozen=True)
class Weights:
    """Weights to start from.

    Attributes:
        path: where they come from.
        model: the network's name in the zoo, or its spec.
        state: the tensors by name.
        classes: the names of their classes, in label order; None where nothing says them.
        notes: what is to be known of them.
        input: how images are fed to them; None where nothing says it: as training here does.
    """

    path: Path
    model: str | YoloNasSpec
    state: Mapping[str, Tensor]
    classes: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    input: InputSpec | None = None

    @property
    def head(self) -> str:
        """The kind of their head."""
        return (zoo.resolve(self.model) if isinstance(self.model, str) else self.model).head


def open_weights(path: Path, where: str = "model.weights") -> Weights:
    """Return the weights of a run, of a file in a run's folder, or of a checkpoint.

    Class names come from the run or from the checkpoint itself; how many classes there are says nothing of them.

    Args:
        path: of the folder or the file.
        where: the option or field that it was given by.

    Raises:
        UserError: there is no such file, or it can't be read.
    """
    folder = path if path.is_dir() else run_of(path)
    if not path.exists():
        raise UserError(f"There are no weights at {path}.", where=where)
    if folder is not None:
        if path.is_dir():
            RunFolder(folder).verify()
        run = Run.read(folder)
        spec = YoloNasSpec.from_dict(run.config.model["spec"])
        state = read_state(run.trained_weights()) if path.is_dir() else read_checkpoint(path).state
        return Weights(path, name_of(spec) or spec, state, run.config.classes, _licence_of(folder), run.config.input)
    checkpoint = read_checkpoint(path)
    names: tuple[str, ...] | None = checkpoint.classes or None
    notes: tuple[str, ...] = ()
    if checkpoint.published:
        names = names or COCO_CLASSES
        notes = (f"note: {PUBLISHED_LICENCE}",)
    weights, fed = _fed_as_here(checkpoint)
    return Weights(path, checkpoint.spec(), weights, names, (*fed, *notes))


def _fed_as_here(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Return the checkpoint's weights for images as training here feeds them, and what is to be known of that."""
    processing = checkpoint.said.get("image_processor")
    if processing is None:
        return checkpoint.state, ()
    try:
        return contract_of(processing, str(checkpoint.path)).folded(checkpoint.state), ()
    except UserError as error:
        return checkpoint.state, (f"note: {error.problem} The weights are assumed to expect RGB, divided by 255.",)


def _licence_of(run: Path) -> tuple[str, ...]:
    licence = Card.read(run).recipe.get("licence") if (run / CARD).is_file() else None
    return (f"note: {licence}",) if licence and licence != UNKNOWN_LICENCE else ()


def _new_head_line(source: Weights, head: str) -> str:
    return (
        f"starting from {source.path}: backbone and neck are kept; its head is '{source.head}', so the head '{head}' "
        "starts from random weights"
    )


def _kept_line(path: Path, names: tuple[str, ...] | None, kept: tuple[str, ...], classes: tuple[str, ...]) -> str:
    """Return one line that says which classes of the head were kept."""
    if names is None:
        return (
            f"starting from {path}, which does not name its classes: the class predictions start from random weights; "
            "if you know the names, give --weights-classes FILE"
        )
    first = ", ".join(kept[:5]) + (", ..." if len(kept) > 5 else "")
    return f"starting from {path}; {len(kept)} of {len(classes)} classes keep their head{': ' + first if kept else ''}"
