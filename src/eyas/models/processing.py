"""What a SuperGradients checkpoint says of its images, as Eyas's input contract, thresholds and class names.

SuperGradients keeps a list of steps by name, which its `predict` runs one after the other. Eyas has one form of input:
fitted into a frame, padded, RGB, divided by 255. A list that means the same becomes that; the order of colours and
factors are folded into the first convolution. What means something else is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from eyas.errors import UserError
from eyas.models.records import Record
from eyas.types import DETECT, InputSpec, PadMode, Thresholds

STEM = "backbone.stem.conv."  # the first convolution, or the block of which it is
PADDINGS: Mapping[str, PadMode] = {"DetectionCenterPadding": "center", "DetectionBottomRightPadding": "bottom_right"}
IGNORE = "give --input published to use the published networks' processing, whatever the file says"


@dataclass(frozen=True)
class Contract:
    """How the network of a checkpoint is fed.

    Attributes:
        input: Eyas's input contract.
        bgr: whether the network takes blue first.
        factors: what the channels (in the network's own order) are multiplied by, beside `input.scale`.
    """

    input: InputSpec
    bgr: bool = False
    factors: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def folded(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a network that takes RGB without factors and gives the same answers.

        Args:
            state: weights under YOLO-NAS's names, in any form; those of the first convolution are replaced.
        """
        whole = dict(state)
        if not self.bgr and self.factors == (1.0, 1.0, 1.0):
            return whole
        factors = torch.tensor(self.factors, dtype=torch.float64)[None, :, None, None]
        for name, kernel in state.items():
            if name.startswith(STEM) and kernel.dim() == 4 and kernel.shape[1] == 3:
                scaled = (kernel.double() * factors).to(kernel.dtype)
                whole[name] = scaled.flip(1) if self.bgr else scaled
        return whole


def contract_of(processing: Any, where: str) -> Contract:
    """Return the contract that an "image_processor" means.

    Args:
        processing: the entry of the checkpoint: steps by name, or the objects themselves as `Record`s.
        where: what an error names as the place.

    Raises:
        UserError: a step means something that Eyas does not do to images; it is named.
    """
    walk = _Walk(where)
    for name, settings in _steps(processing, where):
        walk.take(name, settings)
    return walk.contract()


def thresholds_of(said: Mapping[str, Any], where: str) -> Thresholds:
    """Return the thresholds that `processing_params` names; what it leaves out is Eyas's own."""
    names = {"conf": "confidence", "iou": "iou", "nms_top_k": "candidates", "max_predictions": "max_detections"}
    found: dict[str, Any] = {}
    for theirs, ours in names.items():
        value = said.get(theirs)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UserError(f"The checkpoint's '{theirs}' is {value!r}.", where=where, expected="a number")
        found[ours] = type(getattr(DETECT, ours))(value)
    if said.get("class_agnostic_nms") is True:
        found["suppression"] = "class_agnostic"
    return Thresholds(**found)


def classes_of(said: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the class names that `processing_params` has, () if it has none."""
    names = said.get("class_names")
    if names is None or names == []:
        return ()
    if isinstance(names, Mapping):  # some datasets number them
        names = [names[key] for key in sorted(names)] if all(isinstance(key, int) for key in names) else None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str | int | float) for name in names):
        raise UserError("The checkpoint's class names are not a list of names.", where=where, fix="give --classes FILE")
    return tuple(str(name) for name in names)


def _steps(processing: Any, where: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the steps as (name, settings), those of lists within lists one after the other."""
    if isinstance(processing, Record):
        state = processing.state if isinstance(processing.state, dict) else {}
        name, settings = processing.kind.rpartition(".")[2], state
    elif isinstance(processing, str):
        name, settings = processing, {}
    elif isinstance(processing, Mapping) and len(processing) == 1:
        name, settings = next(iter(processing.items()))
        settings = {} if settings is None else settings
    else:
        raise UserError(f"A processing step of the checkpoint is {processing!r}.", where=where, fix=IGNORE)
    if name != "ComposeProcessing":
        return [(str(name), settings if isinstance(settings, Mapping) else {})]
    inner = settings.get("processings", ()) if isinstance(settings, Mapping) else settings
    return [step for one in (inner if isinstance(inner, list | tuple) else ()) for step in _steps(one, where)]


class _Walk:
    """Takes one step after the other and keeps what they mean together."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.fit: tuple[int, int] | None = None  # height, width that an image is fitted into
        self.frame: tuple[int, int] | None = None
        self.pad_mode: PadMode = "center"
        self.pad_value = 114.0
        self.bgr = False
        self.divisor = 1.0
        self.factors = (1.0, 1.0, 1.0)
        self.permuted = False

    def take(self, name: str, settings: Mapping[str, Any]) -> None:
        """Take a step."""
        if name == "DetectionLongestMaxSizeRescale":
            size = self._pair(name, settings)
            if self.frame is not None or (self.fit is not None and self.fit != size):
                self._refuse(name, "images are resized twice")
            self.fit = size
        elif name in PADDINGS:
            if self.frame is not None or self.factors != (1.0, 1.0, 1.0):
                self._refuse(name, "images are padded twice, or after normalization")
            self.frame, self.pad_mode = self._pair(name, settings), PADDINGS[name]
            self.pad_value = self._numbers(settings.get("pad_value", 114), name)[0] * self.divisor
        elif name == "ReverseImageChannels" and not self.permuted:
            self.bgr = not self.bgr
            self.factors = (self.factors[2], self.factors[1], self.factors[0])
        elif name == "StandardizeImage":
            self.divisor *= self._numbers(settings.get("max_value", 255.0), name)[0]
        elif name == "NormalizeImage":
            self._normalize(name, settings)
        elif name == "ImagePermute":
            if tuple(self._numbers(settings.get("permutation", (2, 0, 1)), name)) != (2, 0, 1):
                self._refuse(name, "it changes the order to something other than channels, rows, columns")
            self.permuted = True
        else:
            self._refuse(name, "Eyas does not support this step")

    def contract(self) -> Contract:
        """Return what the steps mean together."""
        frame = self.frame or self.fit
        if frame is None:
            self._refuse("image_processor", "no step gives the network's input size")
        fit = self.fit or frame
        margins = {frame[0] - fit[0], frame[1] - fit[1]}
        if self.fit is None or len(margins) > 1:
            self._refuse("image_processor", f"images are fitted into {fit} of {frame}")
        if self.pad_value != round(self.pad_value) or not 0 <= self.pad_value <= 255:
            self._refuse("image_processor", f"the padding is {self.pad_value:g} of 255")
        spec = InputSpec(frame[0], frame[1], margins.pop(), self.pad_mode, round(self.pad_value))
        # One scale for all, so that a training which starts from the weights feeds them as they are used to.
        red, green, blue = (factor * 255.0 / self.divisor for factor in self.factors)
        return Contract(spec, self.bgr, (red, green, blue))

    def _normalize(self, name: str, settings: Mapping[str, Any]) -> None:
        """Take a normalization; a mean that is not zero can't be folded into a convolution that pads with zeros."""
        means = self._numbers(settings.get("mean", 0.0), name)
        stds = self._numbers(settings.get("std", 1.0), name)
        if any(means):
            self._refuse(name, f"it subtracts the mean {means}, which Eyas's graph does not")
        if len(stds) not in (1, 3) or not all(stds):
            self._refuse(name, f"it divides by {stds}")
        each = stds * 3 if len(stds) == 1 else stds
        self.factors = (self.factors[0] / each[0], self.factors[1] / each[1], self.factors[2] / each[2])

    def _pair(self, name: str, settings: Mapping[str, Any]) -> tuple[int, int]:
        """Return a step's (height, width)."""
        sides = self._numbers(settings.get("output_shape"), name)
        if len(sides) == 1:
            sides *= 2
        if len(sides) != 2 or not all(side == round(side) and 0 < side < 100_000 for side in sides):
            self._refuse(name, f"its size is {settings.get('output_shape')!r}")
        return round(sides[0]), round(sides[1])

    def _numbers(self, value: Any, name: str) -> list[float]:
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [number for one in value for number in self._numbers(one, name)]
        if not isinstance(value, int | float) or isinstance(value, bool):
            self._refuse(name, f"it has {value!r} instead of a number")
        return [float(value)]

    def _refuse(self, name: str, why: str) -> NoReturn:
        raise UserError(
            f"The checkpoint's image processing is not supported: {name}: {why}.",
            where=self.where,
            expected="images fitted into the frame, padded, in RGB or BGR, divided by a number",
            fix=IGNORE,
        )
