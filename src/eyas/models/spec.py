"""`YoloNasSpec`: one frozen value describes a network of the family. The named rows are in `eyas.models.zoo`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from eyas.checks import check_whole, shown
from eyas.errors import UserError, suggest
from eyas.models.layers import Activation, BlockKind
from eyas.types import checked_fields

HeadKind = Literal["ndfl"]

# Far beyond any detector that runs in real time; a spec beyond them would only take this machine's memory or time.
MAX_WIDTH = 8192
MAX_DEPTH = 100
MAX_BINS = 255
MAX_WEIGHTS = 300_000_000


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise a UserError unless `value` is one of `choices`."""
    if value not in choices:
        near = suggest(value, choices) if isinstance(value, str) else ""
        raise UserError(
            f"Unknown {name} {shown(value)}{near}.",
            where=name,
            expected="one of " + ", ".join(choices),
        )


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
        check_whole("channels", self.channels, 2, MAX_WIDTH)
        check_whole("depth", self.depth, 0, MAX_DEPTH)
        check_whole("hidden", self.hidden, 1, MAX_WIDTH)
        if not isinstance(self.concat_intermediates, bool):
            raise UserError(
                f"concat_intermediates is {shown(self.concat_intermediates)}.",
                where="concat_intermediates",
                expected="true or false",
            )
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
        for name in ("stem_width", "context_hidden", "context_width"):
            check_whole(name, getattr(self, name), 1, MAX_WIDTH)
        check_whole("reg_max", self.reg_max, 1, MAX_BINS)
        for width in self.head_widths:
            check_whole("head_widths", width, 1, MAX_WIDTH)
        _check_choice("stem_block", self.stem_block, get_args(BlockKind))
        _check_choice("activation", self.activation, ("relu", "silu", "hardswish"))
        _check_choice("head", self.head, get_args(HeadKind))
        if self._weights() > MAX_WEIGHTS:
            raise UserError(
                f"The network would have some {self._weights() / 1e6:.0f} million weights.",
                where="model spec",
                expected=f"at most {MAX_WEIGHTS / 1e6:.0f} million",
            )

    def _weights(self) -> int:
        """Return about how many weights the network has, without making it: those of its 3x3 convolutions."""
        total, before = 0, self.stem_width
        for stage in (*self.stages, *self.neck):
            total += 9 * before * stage.channels + 2 * stage.depth * 9 * stage.hidden**2
            total += (2 + stage.depth * stage.concat_intermediates) * stage.hidden * stage.channels
            before = stage.channels
        total += 4 * self.context_hidden * self.context_width
        return total + sum(2 * 9 * width**2 for width in self.head_widths)

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
            for name in ("stages", "neck", "head_widths"):
                if not isinstance(values[name], list | tuple) or len(values[name]) > 4:
                    raise TypeError(f"{name} is {shown(values[name])}")
                values[name] = tuple(values[name])
            for name in ("stages", "neck"):
                values[name] = tuple(
                    StageSpec(**checked_fields(StageSpec, stage, f"model spec, {name}")) for stage in values[name]
                )
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"The model spec lacks a field or has one of the wrong type: {error}.",
                expected="what YoloNasSpec.to_dict() writes",
            ) from None
