"""`YoloNasSpec`: one frozen value describes a network of the family. The named rows are in `eyas.models.zoo`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from eyas.errors import UserError, suggest
from eyas.models.layers import Activation, BlockKind
from eyas.types import checked_fields

HeadKind = Literal["ndfl"]


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise a UserError unless `value` is one of `choices`."""
    if value not in choices:
        raise UserError(
            f"Unknown {name} '{value}'{suggest(str(value), choices)}.",
            where=name,
            expected="one of " + ", ".join(choices),
        )


def _check_int(name: str, value: object, least: int) -> None:
    """Raise a UserError unless `value` is an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{name} is {value!r}.", where=name, expected=f"an integer of at least {least}")


@dataclass(frozen=True)
class StageSpec:
    """A stage of the backbone or of the neck.

    Attributes:
        channels: output width.
        depth: number of bottlenecks in its CSP layer.
        hidden: width of the bottlenecks.
        concat_intermediates: give every bottleneck's input to the CSP layer's last convolution.
        block: kind of the 3x3 blocks: in the bottlenecks, and in a backbone stage's downsampling.
    """

    channels: int
    depth: int
    hidden: int
    concat_intermediates: bool = False
    block: BlockKind = "qarepvgg"

    def __post_init__(self) -> None:
        """Refuse values that no network can be built from."""
        _check_int("channels", self.channels, 2)
        _check_int("depth", self.depth, 0)
        _check_int("hidden", self.hidden, 1)
        _check_choice("block", self.block, get_args(BlockKind))


@dataclass(frozen=True)
class YoloNasSpec:
    """A network: backbone (stem, four stages, SPP), neck (two stages up, two down), three heads.

    Widths and depths may be any positive numbers, each stage its own.

    Attributes:
        stem_width: width after the first convolution (stride 2).
        stages: the backbone's four stages, of strides 4, 8, 16 and 32.
        context_hidden, context_width: inner and output width of the spatial pyramid pooling.
        neck: the neck's four stages: up to stride 16, up to stride 8, down to 16, down to 32.
        head_widths: widths of the heads of strides 8, 16 and 32.
        stem_block: kind of the first convolution.
        activation: after every convolution but the predictions.
        reg_max: the distance to a box's side is an expectation over the bins 0..reg_max, in strides.
        head: "ndfl", YOLO-NAS's own: dense predictions, distances as distributions, to be followed by NMS.
    """

    stem_width: int
    stages: tuple[StageSpec, ...]
    context_hidden: int
    context_width: int
    neck: tuple[StageSpec, ...]
    head_widths: tuple[int, ...]
    stem_block: BlockKind = "qarepvgg"
    activation: Activation = "relu"
    reg_max: int = 16
    head: HeadKind = "ndfl"

    def __post_init__(self) -> None:
        """Refuse values that no network can be built from."""
        for name, count in (("stages", 4), ("neck", 4), ("head_widths", 3)):
            if len(getattr(self, name)) != count:
                raise UserError(
                    f"{name} has {len(getattr(self, name))} entries.", where=name, expected=f"{count} entries"
                )
        for name in ("stem_width", "context_hidden", "context_width", "reg_max"):
            _check_int(name, getattr(self, name), 1)
        for width in self.head_widths:
            _check_int("head_widths", width, 1)
        _check_choice("stem_block", self.stem_block, get_args(BlockKind))
        _check_choice("activation", self.activation, ("relu", "silu", "hardswish"))
        _check_choice("head", self.head, get_args(HeadKind))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> YoloNasSpec:
        """Return the spec that `to_dict` wrote, also after a trip through JSON.

        Raises:
            UserError: a field is unknown (the nearest name is suggested), missing or out of range.
        """
        values = checked_fields(cls, fields, "model spec")
        try:
            for name in ("stages", "neck"):
                values[name] = tuple(
                    StageSpec(**checked_fields(StageSpec, stage, f"model spec, {name}")) for stage in values[name]
                )
            values["head_widths"] = tuple(values["head_widths"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"The model spec lacks a field or has one of the wrong type: {error}.",
                expected="what YoloNasSpec.to_dict() writes",
            ) from None
