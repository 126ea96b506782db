"""What training does to images, and how strongly: one frozen dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from eyas import renamed
from eyas.errors import UserError
from eyas.types import checked_fields


@dataclass(frozen=True)
class AugmentPolicy:
    """The chances and ranges of the augmentations.

    Attributes:
        mosaic: chance that an image is shown with three partners, a quadrant each (YOLOv4, arXiv 2004.10934).
        mixup: chance that a partner shines through (arXiv 1710.09412, as YOLOX has it, arXiv 2107.08430).
        flip: chance of a left-right flip.
        scale: least and greatest size of an image, as a factor on the size that fits it into the frame.
        translate: how far an image without mosaic is moved from the middle, as a part of the frame's size.
        degrees: greatest rotation to either side, in degrees.
        shear: greatest slant to either side, in degrees.
        gain: greatest change of contrast, as a part: values are multiplied by 1 - gain .. 1 + gain.
        offset: greatest change of brightness, as a part of full scale.
        saturation: greatest change of saturation, as a part.
        hue: greatest rotation of hue, in degrees.
        tint: greatest change of each colour channel for itself, as a part (white balance).
        gamma: greatest exponent change: values v become v ** g with g from 1 / (1 + gamma) to 1 + gamma.
        swap: chance that red and blue change places.
        hsv: greatest shifts of hue (of 180), saturation and value (of 255), each drawn in one image of two only.
        hsv_chance: chance that they are shifted at all.
        within: in what an image is moved: in the network's "frame", or in the "image"'s own rectangle, which lies in
            the frame's upper left corner, as SuperGradients does it. Then mixup's partner is otherwise unchanged (but
            for its size, and the flip) and shines through by half, and sizes of boxes count in the image's pixels.
        min_size: a box less wide or high than this after all, in network pixels, is dropped.
        min_area: a box with less area than this after all, in square network pixels, is dropped.
        min_visible: a box of which less than this part is still in sight is dropped.
        min_ratio: within the "image", a box whose area is at most this part of what it was is dropped.
        max_aspect: within the "image", a box so many times as long as wide is dropped; 0 keeps any.
    """

    mosaic: float = 1.0
    mixup: float = 0.1
    flip: float = 0.5
    scale: tuple[float, float] = (0.5, 1.5)
    translate: float = 0.1
    degrees: float = 0.0
    shear: float = 0.0
    gain: float = 0.3
    offset: float = 0.05
    saturation: float = 0.4
    hue: float = 10.0
    tint: float = 0.05
    gamma: float = 0.0
    swap: float = 0.0
    hsv: tuple[float, float, float] = (0.0, 0.0, 0.0)
    hsv_chance: float = 0.0
    within: Literal["frame", "image", "picture"] = "frame"
    min_size: float = 2.0
    min_area: float = 16.0
    min_visible: float = 0.2
    min_ratio: float = 0.0
    max_aspect: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.within == renamed.IMAGE_COLUMN:
            renamed.tell(f"within: {self.within}", "within: image")
            object.__setattr__(self, "within", "image")
        for name in ("mosaic", "mixup", "flip", "swap", "hsv_chance", "min_visible", "min_ratio"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(
                    f"{name} is {getattr(self, name)}.", expected="a chance or part from 0 to 1", where=name
                )
        for name in ("gain", "offset", "saturation", "tint"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"{name} is {getattr(self, name)}.", expected="a part from 0 to below 1", where=name)
        for name in ("translate", "degrees", "shear", "hue", "gamma", "min_size", "min_area", "max_aspect"):
            if getattr(self, name) < 0.0:
                raise UserError(f"{name} is {getattr(self, name)}.", expected="a number from 0 on", where=name)
        if len(self.scale) != 2 or not 0.05 <= self.scale[0] <= self.scale[1] <= 8.0:
            raise UserError(f"scale is {self.scale}.", expected="(least, greatest) within 0.05 to 8", where="scale")
        if len(self.hsv) != 3 or not all(0.0 <= shift <= 255.0 for shift in self.hsv):
            raise UserError(f"hsv is {self.hsv}.", expected="three numbers from 0 to 255", where="hsv")
        if self.within == "image" and self.mosaic:
            raise UserError(
                "A mosaic of four images is not within the image.", where="within", fix="set augment.mosaic to 0"
            )
        object.__setattr__(self, "hsv", tuple(float(shift) for shift in self.hsv))
        object.__setattr__(self, "scale", (float(self.scale[0]), float(self.scale[1])))

    @classmethod
    def none(cls) -> AugmentPolicy:
        """Return the policy that changes nothing: images are letterboxed as in evaluation, boxes kept."""
        return cls(
            mosaic=0.0, mixup=0.0, flip=0.0, scale=(1.0, 1.0), translate=0.0, gain=0.0, offset=0.0, saturation=0.0,
            hue=0.0, tint=0.0, min_size=1.0, min_area=1.0, min_visible=0.0,
        )  # fmt: skip

    def closing(self) -> AugmentPolicy:
        """Return the policy for the last epochs: no mosaic and no mixup, so that training ends on whole images."""
        return dataclasses.replace(self, mosaic=0.0, mixup=0.0)

    @property
    def moves(self) -> bool:
        """Whether images are placed otherwise than by a plain letterbox."""
        still = self.scale == (1.0, 1.0) and not (self.translate or self.degrees or self.shear)
        return bool(self.mosaic or self.mixup or not still or self.within == "image")

    @property
    def colours(self) -> bool:
        """Whether colours are changed."""
        shifts = self.hsv_chance and any(self.hsv)
        return any((self.gain, self.offset, self.saturation, self.hue, self.tint, self.gamma, self.swap, shifts))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> AugmentPolicy:
        """Return the policy that `to_dict` wrote; an unknown field is refused."""
        known = checked_fields(cls, fields, "augment")
        for name in ("scale", "hsv"):
            if name in known:
                known[name] = tuple(known[name])
        return cls(**known)


class Policies(NamedTuple):
    """The policies of a run.

    Attributes:
        usual: of nearly all batches.
        closing: of the last ones.
    """

    usual: AugmentPolicy
    closing: AugmentPolicy

    def of(self, closing: bool) -> AugmentPolicy:
        """Return the policy of batches that are among the last ones, or not."""
        return self.closing if closing else self.usual
