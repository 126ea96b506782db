"""`YoloNasSpec`: one frozen value describes a network of the family. The named rows are in `eyas.models.zoo`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eyas.checks import check_whole, shown
from eyas.errors import UserError, suggest
from eyas.models.backbones import backbone_row
from eyas.models.heads import HEADS
from eyas.models.layers import BLOCKS, KERNELS, Activation
from eyas.types import checked_fields

# Far beyond any detector that runs in real time; a spec beyond them would only take this machine's memory or time.
MAX_WIDTH = 8192
MAX_DEPTH = 100
MAX_BINS = 255
MAX_WEIGHTS = 300_000_000
BITS = (8, 16, 32)
# Fields that the first version did not have: left out where they have their defaults, so that what is written of a
# network without them stays the same and older versions read it.
LATER = frozenset({"kernel", "bits", "stem_kernel", "stem_bits", "backbone"})


def _check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise a UserError unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        near = suggest(value, choices) if isinstance(value, str) else ""
        raise UserError(
            f"Unknown {name} {shown(value)}{near}.",
            where=name,
            expected="one of " + ", ".join(choices),
        )


def _check_number(name: str, value: object, choices: tuple[int, ...]) -> None:
    if type(value) is not int or value not in choices:
        raise UserError(f"{name} is {shown(value)}.", where=name, expected="one of " + ", ".join(map(str, choices)))


def _fields(value: StageSpec | YoloNasSpec) -> dict[str, Any]:
    fields = {one.name: (getattr(value, one.name), one.default) for one in dataclasses.fields(value)}
    return {name: own for name, (own, default) in fields.items() if name not in LATER or own != default}


@dataclass(frozen=True)
class StageSpec:
    """A stage of the backbone or of the neck.

    Attributes:
        channels: output width.
        depth: number of bottlenecks in its CSP layer.
        hidden: width of the bottlenecks.
        concat_intermediates: give every bottleneck's input to the CSP layer's last convolution.
        block: kind of the blocks, a row of `eyas.models.layers.BLOCKS`: in the bottlenecks, and in a backbone stage's
            downsampling.
        kernel: size of these blocks' kernel, 3 or 5.
        bits: of these blocks' weights and activations where the network is quantized: 8, 16, or 32 for not at all.
            Training does not look at it.
    """

    channels: int
    depth: int
    hidden: int
    concat_intermediates: bool = False
    block: str = "qarepvgg"
    kernel: int = 3
    bits: int = 32

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
        _check_choice("block", self.block, BLOCKS)
        _check_number("kernel", self.kernel, KERNELS)
        _check_number("bits", self.bits, BITS)


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
        head: kind of the heads, a row of `eyas.models.heads.HEADS`. "ndfl" is YOLO-NAS's own: dense predictions,
            distances as distributions, to be followed by NMS; "dual" gives one box an object and needs none.
        backbone: its kind, a row of `eyas.models.backbones.BACKBONES`; or "timm:NAME", a model of timm:
            `stages` and the stem then say nothing, the spatial pyramid pooling still follows.
        stem_kernel: size of the first convolution's kernel, 3 or 5.
        stem_bits: of the first convolution, as a stage's `bits`.
    """

    stem_width: int
    stages: tuple[StageSpec, ...]
    context_hidden: int
    context_width: int
    neck: tuple[StageSpec, ...]
    head_widths: tuple[int, ...]
    stem_block: str = "qarepvgg"
    activation: Activation = "relu"
    reg_max: int = 16
    head: str = "ndfl"
    backbone: str = "yolo_nas"
    stem_kernel: int = 3
    stem_bits: int = 32

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
        _check_choice("stem_block", self.stem_block, BLOCKS)
        _check_number("stem_kernel", self.stem_kernel, KERNELS)
        _check_number("stem_bits", self.stem_bits, BITS)
        _check_choice("activation", self.activation, ("relu", "silu", "hardswish"))
        _check_choice("head", self.head, HEADS)
        backbone_row(self.backbone)
        if self._weights() > MAX_WEIGHTS:
            raise UserError(
                f"The network would have about {self._weights() / 1e6:.0f} million weights.",
                where="model spec",
                expected=f"at most {MAX_WEIGHTS / 1e6:.0f} million",
            )

    def _weights(self) -> int:
        """Return about how many weights the network has, without making it: those of its large convolutions."""
        total, before = 0, self.stem_width
        for stage in (*self.stages, *self.neck):
            total += stage.kernel**2 * (before * stage.channels + 2 * stage.depth * stage.hidden**2)
            total += (2 + stage.depth * stage.concat_intermediates) * stage.hidden * stage.channels
            before = stage.channels
        total += 4 * self.context_hidden * self.context_width
        return total + sum(2 * 9 * width**2 for width in self.head_widths)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON; later ones only where they differ from their defaults."""
        stages = {name: tuple(map(_fields, getattr(self, name))) for name in ("stages", "neck")}
        return {**_fields(self), **stages}

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
                expected="the output of YoloNasSpec.to_dict()",
            ) from None
