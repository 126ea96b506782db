"""What timm, which is optional, knows of its models: which there are, and which of their features make a pyramid."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch

from eyas.errors import UserError, missing_extra, shorten, suggest
from eyas.models.torchvision_operators import let_torchvision_load

PREFIX = "timm:"
STRIDES = (4, 8, 16, 32)
TRIAL = (64, 96)  # height, width: other than any size that a model may be made for, and no square
WHERE = "model.backbone"


@dataclass(frozen=True)
class Pyramid:
    """The features of a timm model that the neck takes.

    Attributes:
        model: its name in timm, without a tag of weights.
        indices: which of its features are those of strides 4, 8, 16 and 32.
        channels: their widths.
        rows_first: whether they come as [B, H, W, C].
        mean, std: what its weights expect to be taken from RGB in 0..1, and what the rest is divided by.
    """

    model: str
    indices: tuple[int, ...]
    channels: tuple[int, int, int, int]
    rows_first: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


def import_timm() -> ModuleType:
    """Return timm.

    Raises:
        UserError: it is not installed.
    """
    let_torchvision_load()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's, of parts that it can't load and nobody uses
            import timm
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "timm", "timm") from None
    module: ModuleType = timm
    return module


def weights_config(name: str) -> Any:
    """Return what timm says of the weights that a name means, its `PretrainedCfg`.

    Args:
        name: a model of timm, or one with a tag of its weights: "resnet18" means timm's default, "resnet18.a1_in1k".

    Raises:
        UserError: timm is not installed, or has no such model or tag; the nearest is suggested.
    """
    timm = import_timm()
    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        known = [*timm.list_models(), *timm.list_models(pretrained=True)]
        raise UserError(
            f"timm has no model '{model}'{suggest(name, known) or suggest(model, known)}.",
            where=WHERE,
            expected=f"timm: and one of the {len(timm.list_models())} names listed by timm.list_models()",
        )
    known = [each for each in timm.models.get_arch_pretrained_cfgs(model) if each != model]
    if tag and name not in known:
        raise UserError(
            f"timm has no weights '{name}'{suggest(name, known)}.",
            where=WHERE,
            expected=f"{PREFIX}{model}" + (f", or with a tag: {shorten(known)}" if known else ", which has no tags"),
        )
    # Names that timm keeps for older programs have no entry: nothing is known of their weights.
    return timm.models.get_pretrained_cfg(name) or timm.models.PretrainedCfg()


def features_model(model: str, indices: tuple[int, ...] | None = None, **options: Any) -> Any:
    """Return a timm model that gives its features: all, or those of some indices.

    Raises:
        UserError: timm can't make one of it.
    """
    chosen = {} if indices is None else {"out_indices": indices}
    try:
        return import_timm().create_model(model, features_only=True, **chosen, **options)
    except (RuntimeError, AssertionError, AttributeError, TypeError, NotImplementedError) as error:
        raise UserError(
            f"timm can't extract the features of '{model}': {_line(error)}.",
            where=WHERE,
            expected="a model supported by timm.create_model(..., features_only=True)",
        ) from None


@cache
def pyramid_of(name: str) -> Pyramid:
    """Return which features of a model the neck takes. It is made and tried without memory or arithmetic.

    Args:
        name: as for `weights_config`.

    Raises:
        UserError: timm is not installed, has no such model, or the model has no features of strides 4, 8, 16 and 32
            for images of any size.
    """
    config = weights_config(name)
    model = name.partition(".")[0]
    with torch.device("meta"):
        strides = features_model(model).feature_info.reduction()
        if missing := [stride for stride in STRIDES if stride not in strides]:
            raise UserError(
                f"timm's {model} has no features of stride {' and '.join(map(str, missing))}; it has strides "
                f"{', '.join(map(str, dict.fromkeys(strides)))}.",
                where=WHERE,
                expected=f"a model with features of strides {', '.join(map(str, STRIDES))}, such as resnet18",
            )
        # Of several of one stride the last, which has seen most.
        indices = tuple(len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES)
        net = features_model(model, indices)
        shapes = _tried(net, model, bool(config.fixed_input_size))
    channels, sizes = tuple(net.feature_info.channels()), [(TRIAL[0] // each, TRIAL[1] // each) for each in STRIDES]
    columns = [(width, *size) for width, size in zip(channels, sizes, strict=True)]
    rows = [(*size, width) for width, size in zip(channels, sizes, strict=True)]
    if shapes not in (columns, rows):
        raise UserError(f"The features of timm's {model} have the sizes {shapes}.", where=WHERE, expected=f"{columns}")
    return Pyramid(model, indices, channels, shapes != columns, tuple(config.mean), tuple(config.std))


def _tried(net: Any, model: str, fixed: bool) -> list[tuple[int, ...]]:
    """Return the shapes of the features of an image of `TRIAL`, without the batch's dimension."""
    try:
        with torch.no_grad():
            return [tuple(feature.shape[1:]) for feature in net.eval()(torch.empty(1, 3, *TRIAL))]
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as error:
        raise UserError(
            f"timm's {model} takes images of one size only." if fixed else f"timm's {model} fails: {_line(error)}.",
            where=WHERE,
            expected="a model for images of any size in multiples of 32, such as resnet18",
        ) from None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
