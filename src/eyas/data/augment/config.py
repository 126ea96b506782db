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
    """Probabilities and ranges of the augmentations.

    Attributes:
        mosaic: probability of combining an image with three others, one per quadrant (YOLOv4, arXiv 2004.10934).
        mixup: probability of blending in another image (arXiv 1710.09412, as in YOLOX, arXiv 2107.08430).
        flip: probability of a horizontal flip.
        scale: minimum and maximum size of an image, relative to the size that fits the frame.
        translate: maximum shift of an image without mosaic from the centre, as a fraction of the frame's size.
        degrees: maximum rotation in either direction, in degrees.
        shear: maximum shear in either direction, in degrees.
        gain: maximum change of contrast: values are multiplied by 1 - gain .. 1 + gain.
        offset: maximum change of brightness, as a fraction of full scale.
        saturation: maximum change of saturation, as a fraction.
        hue: maximum rotation of hue, in degrees.
        tint: maximum change of each colour channel separately, as a fraction (white balance).
        gamma: maximum change of the exponent: values v become v ** g with g from 1 / (1 + gamma) to 1 + gamma.
        swap: probability of swapping red and blue.
        hsv: maximum shifts of hue (of 180), saturation and value (of 255), each applied with probability 0.5.
        hsv_chance: probability of shifting them at all.
        within: where an image is transformed: in the network's "frame", or in the "image"'s own rectangle in the upper
            left corner of the frame, as in SuperGradients. In the latter case mixup's partner is only resized and
            flipped and blended by half, and box sizes count in the image's pixels.
        min_size: drop boxes narrower or lower than this after augmentation, in network pixels.
        min_area: drop boxes with less area than this after augmentation, in square network pixels.
        min_visible: drop boxes of which less than this fraction is still visible.
        min_ratio: within the "image", drop boxes whose area is at most this fraction of the original.
        max_aspect: within the "image", drop boxes with a higher ratio of length to width; 0 keeps all.
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
                    f"{name} is {getattr(self, name)}.", expected="a probability or fraction from 0 to 1", where=name
                )
        for name in ("gain", "offset", "saturation", "tint"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(
                    f"{name} is {getattr(self, name)}.", expected="a fraction from 0 to below 1", where=name
                )
        for name in ("translate", "degrees", "shear", "hue", "gamma", "min_size", "min_area", "max_aspect"):
            if getattr(self, name) < 0.0:
                raise UserError(f"{name} is {getattr(self, name)}.", expected="a number, at least 0", where=name)
        if len(self.scale) != 2 or not 0.05 <= self.scale[0] <= self.scale[1] <= 8.0:
            raise UserError(f"scale is {self.scale}.", expected="(min, max) within 0.05 to 8", where="scale")
        if len(self.hsv) != 3 or not all(0.0 <= shift <= 255.0 for shift in self.hsv):
            raise UserError(f"hsv is {self.hsv}.", expected="three numbers from 0 to 255", where="hsv")
        if self.within == "image" and self.mosaic:
            raise UserError(
                'A mosaic of four images does not work within "image".', where="within", fix="set augment.mosaic to 0"
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
