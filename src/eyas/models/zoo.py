"""The named networks: a frozen mapping from a name to its spec, and the functions that build and measure one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from eyas.checks import shown
from eyas.errors import UserError, suggest
from eyas.models.detection_net import DetectionNet, build_net
from eyas.models.layers import LAYERS, Layers
from eyas.models.spec import StageSpec, YoloNasSpec
from eyas.types import Vocabulary

_REFERENCE_CHANNELS = (96, 192, 384, 768)
_REFERENCE_DEPTHS = (2, 3, 5, 2)
_REFERENCE_NECK_CHANNELS = (192, 96, 192, 384)


def _reference(
    hidden: tuple[int, ...], concat: tuple[bool, ...], neck: tuple[tuple[int, int], ...], head_widths: tuple[int, ...]
) -> YoloNasSpec:
    """Return a spec with the common settings of S, M and L; `neck` has (depth, hidden) of each stage."""
    return YoloNasSpec(
        stem_width=48,
        stages=tuple(map(StageSpec, _REFERENCE_CHANNELS, _REFERENCE_DEPTHS, hidden, concat)),
        context_hidden=384,
        context_width=768,
        neck=_neck(_REFERENCE_NECK_CHANNELS, neck),
        head_widths=head_widths,
    )


def _neck(channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> tuple[StageSpec, ...]:
    """Return the neck's stages from the widths and the (depth, hidden): plain convolutions on the way down."""
    kinds = ("qarepvgg", "qarepvgg", "conv", "conv")
    return tuple(
        StageSpec(width, depth, hidden, False, kind)
        for width, (depth, hidden), kind in zip(channels, sizes, kinds, strict=True)
    )


# P and N are made for CPUs: the features of strides 2 and 4, which cost most of the time and few of the parameters, are
# narrow and of plain convolutions; the parameters are at stride 32.
SPECS: Mapping[str, YoloNasSpec] = MappingProxyType({
    "yolo_nas_p": YoloNasSpec(
        stem_width=16,
        stages=(
            StageSpec(16, 1, 8, block="conv"), StageSpec(32, 1, 16), StageSpec(64, 2, 32), StageSpec(160, 1, 80),
        ),
        context_hidden=80,
        context_width=160,
        neck=_neck((48, 32, 48, 96), ((1, 32), (1, 16), (1, 32), (1, 48))),
        head_widths=(32, 48, 80),
        stem_block="conv",
    ),
    "yolo_nas_n": YoloNasSpec(
        stem_width=16,
        stages=(
            StageSpec(24, 1, 8, block="conv"), StageSpec(48, 2, 24), StageSpec(96, 3, 48), StageSpec(256, 2, 128),
        ),
        context_hidden=128,
        context_width=256,
        neck=_neck((64, 40, 64, 160), ((1, 48), (1, 24), (1, 48), (1, 96))),
        head_widths=(40, 64, 112),
        stem_block="conv",
    ),
    "yolo_nas_s": _reference(
        (32, 64, 96, 192), (False, False, False, False), ((2, 64), (2, 48), (2, 64), (2, 64)), (64, 128, 256)
    ),
    "yolo_nas_m": _reference(
        (64, 128, 256, 384), (True, True, True, False), ((2, 192), (3, 64), (2, 192), (3, 256)), (96, 192, 384)
    ),
    "yolo_nas_l": _reference(
        (96, 128, 256, 512), (True, True, True, True), ((4, 128), (4, 128), (4, 128), (4, 256)), (128, 256, 512)
    ),
})  # fmt: skip
ALIASES: Mapping[str, str] = MappingProxyType({name.removeprefix("yolo_nas_"): name for name in SPECS})
KIND = "yolo_nas"


def resolve(name: str) -> YoloNasSpec:
    """Return the spec of a named network, for example "yolo_nas_s" or "s".

    Raises:
        UserError: there is no such network; the nearest name is suggested.
    """
    full = ALIASES.get(name, name)
    if full not in SPECS:
        raise UserError(
            f"There is no model '{name}'{suggest(name, [*SPECS, *ALIASES])}.",
            where="model",
            expected="one of " + ", ".join(f"{full} (short: {short})" for short, full in ALIASES.items()),
        )
    return SPECS[full]


def build(name_or_spec: str | YoloNasSpec, classes: int | Vocabulary, layers: Layers = LAYERS) -> DetectionNet:
    """Return a new, untrained network.

    Args:
        name_or_spec: a name that `resolve` knows, or any spec.
        classes: the classes, or just how many there are, at least 1.
        layers: makes every layer; plain ones by default.

    Raises:
        UserError: no such name, or no class.
    """
    if isinstance(classes, int):
        if classes < 1:
            raise UserError(f"A detector with {classes} classes can't be built.", expected="at least 1 class")
        classes = Vocabulary.numbered(classes)
    return build_net(resolve(name_or_spec) if isinstance(name_or_spec, str) else name_or_spec, classes, layers)


def describe(name_or_spec: str | YoloNasSpec) -> dict[str, Any]:
    """Return the entry "model" of a run's `config.json`: {"kind", "name", "spec"}; the name is "" for an own spec."""
    if isinstance(name_or_spec, str):
        return {"kind": KIND, "name": ALIASES.get(name_or_spec, name_or_spec), "spec": resolve(name_or_spec).to_dict()}
    return {"kind": KIND, "name": "", "spec": name_or_spec.to_dict()}


def build_described(model: Mapping[str, Any], classes: int | Vocabulary, layers: Layers = LAYERS) -> DetectionNet:
    """Return a new network from the entry "model" of a run's `config.json`, as `describe` returns it.

    Args:
        model: the entry.
        classes, layers: as for `build`.

    Raises:
        UserError: the kind is unknown or the spec is not one.
    """
    if model.get("kind") != KIND or not isinstance(model.get("spec"), Mapping):
        raise UserError(
            f"The model's kind is {shown(model.get('kind'))}.",
            where="config.json, model",
            expected=f"'{KIND}' with a spec",
        )
    return build(YoloNasSpec.from_dict(model["spec"]), classes, layers)
