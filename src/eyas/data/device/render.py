"""Draws whole batches of planned samples from the store: a few operations on all samples at once, on any device.

Shapes depend on the batch alone and nothing waits for the device, so that it can run ahead. The pixels are those that
`eyas.data.augment.augmenter` draws with OpenCV, but for rounding: where OpenCV counts in fixed point, so does this.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eyas.data.augment.config import AugmentPolicy
from eyas.data.device import rows
from eyas.data.device.colours import inside, recolour
from eyas.types import InputSpec

_RESIZE_SCALE = 1 << 11  # OpenCV's resize weighs in 1/2048


class Canvas(NamedTuple):
    """Where the pieces of n canvases lie; q = 2 where quadrants have pieces of their own, 1 where one covers all.

    Attributes:
        columns: int64 [n, 1, W], the column of the sample, before its flip, that each column shows.
        lines: int64 [H].
        of_columns: float64 [PIECE, n, q, W or 1], the numbers of the piece that a column belongs to, in the upper and
            in the lower half.
        of_lines: float64 [PIECE, n, q, H or 1], the numbers of the piece that a row belongs to, in the left and in the
            right half.
        right: bool [n, W], which columns are of the right quadrants.
        below: bool [n, H], which rows are of the lower quadrants.
    """

    columns: Tensor
    lines: Tensor
    of_columns: Tensor
    of_lines: Tensor
    right: Tensor
    below: Tensor

    @classmethod
    def of(cls, pieces: Tensor, middle: Tensor, columns: Tensor, lines: Tensor) -> Canvas:
        """Return the canvases of pieces, float64 [n, q, q, PIECE], whose quadrants meet at a point, float64 [n, 2]."""
        right, below = columns >= middle[:, :1], lines >= middle[:, 1:]
        numbers = pieces.permute(3, 0, 1, 2)[..., None]
        if pieces.shape[1] == 1:
            of_columns, of_lines = numbers[:, :, 0], numbers[:, :, :, 0]
        else:
            of_columns = torch.where(right[:, None], numbers[:, :, :, 1], numbers[:, :, :, 0])
            of_lines = torch.where(below[:, None], numbers[:, :, 1], numbers[:, :, 0])
        return cls(columns[:, None], lines, of_columns, of_lines, right, below)

    def across(self, table: Tensor) -> Tensor:
        """Return what holds for columns, [n, q, W], for all pixels: [n, H or 1, W]."""
        if table.shape[1] == 1:
            return table
        return torch.where(self.below[:, :, None], table[:, 1, None], table[:, 0, None])

    def down(self, table: Tensor) -> Tensor:
        """Return what holds for rows, [n, q, H], for all pixels: [n, H, W or 1]."""
        if table.shape[1] == 1:
            return table[:, 0, :, None]
        return torch.where(self.right[:, None], table[:, 1, :, None], table[:, 0, :, None])


def render(pixels: Tensor, numbers: Tensor, mixed: Tensor | None, spec: InputSpec, policy: AugmentPolicy) -> Tensor:
    """Draw samples.

    Args:
        pixels: uint8 [P, 3], the store, with a margin at both ends (see `eyas.data.device.store`).
        numbers: float64 [n, WIDTH], the plans, on the device of `pixels`.
        mixed: int64 [k], the samples that may have a partner, each once, on the same device; None if none has.
        spec: the network's input.
        policy: by which they were planned.

    Returns:
        uint8 [n, H, W, 3].
    """
    images = _layer(pixels, numbers, spec, policy, partner=False)
    if policy.within == "frame" and mixed is not None:
        _blend(images, mixed, pixels, numbers, spec, policy)
    if policy.colours:
        images = recolour(images, numbers, policy)
    if policy.within == "image" and mixed is not None:
        _blend(images, mixed, pixels, numbers, spec, policy)
    return images.to(torch.uint8)


def _blend(
    images: Tensor, mixed: Tensor, pixels: Tensor, numbers: Tensor, spec: InputSpec, policy: AugmentPolicy
) -> None:
    """Let partners shine through some of the images, int32 [n, H, W, 3], in place."""
    chosen, own = numbers[mixed], images[mixed]
    other = _layer(pixels, chosen, spec, policy, partner=True)
    weight = chosen[:, rows.WEIGHT, None, None, None]
    blended = torch.round(own * weight.float() + other * (1 - weight).float()).to(torch.int32)
    if policy.within == "image":
        blended = torch.where(inside(chosen[:, rows.AREA], images), blended, own)
    images[mixed] = blended


def _layer(pixels: Tensor, numbers: Tensor, spec: InputSpec, policy: AugmentPolicy, *, partner: bool) -> Tensor:
    """Draw the samples' own pieces, or their partners, in values 0..255: int32 [n, H, W, 3]."""
    pieces = numbers[:, rows.SAMPLE :].reshape(len(numbers), rows.PIECES, rows.PIECE)
    if partner:
        pieces = pieces[:, rows.OWN :].unsqueeze(1)
    elif policy.mosaic:
        pieces = pieces[:, : rows.OWN].reshape(-1, 2, 2, rows.PIECE)
    else:
        pieces = pieces[:, :1].unsqueeze(1)
    columns = torch.arange(spec.width, device=pixels.device)[None]
    lines = torch.arange(spec.height, device=pixels.device)
    width = numbers[:, rows.AREA][:, 1:].long()
    unflipped = columns.expand(len(numbers), -1)
    # Within the image a partner comes after the flip.
    if policy.flip and not (partner and policy.within == "image"):
        flipped = (numbers[:, rows.FLIP, None] > 0) & (columns < width)
        unflipped = torch.where(flipped, width - 1 - columns, columns)
    canvas = Canvas.of(pieces, numbers[:, rows.MIDDLE], unflipped, lines)
    turned = (policy.degrees or policy.shear) and not (partner and policy.within == "image")
    drawn = _warped(pixels, canvas, spec.pad_value) if turned else _resized(pixels, canvas)
    ground: Tensor | int = spec.pad_value
    if partner and policy.within == "image":
        ground = torch.where(inside(numbers[:, rows.GROUND], drawn), spec.pad_value, 0).to(torch.int32)
    return torch.where(_seen(canvas)[..., None], drawn, ground)


def _seen(canvas: Canvas) -> Tensor:
    """Return where there is an image, bool [n, H, W]."""
    x0, y0, x1, y1 = range(rows.TARGET.start, rows.TARGET.stop)
    across = (canvas.columns >= canvas.of_columns[x0]) & (canvas.columns < canvas.of_columns[x1])
    down = (canvas.lines >= canvas.of_lines[y0]) & (canvas.lines < canvas.of_lines[y1])
    return canvas.across(across) & canvas.down(down)


def _resized(pixels: Tensor, canvas: Canvas) -> Tensor:
    """Return the pieces resized as OpenCV does it for 8-bit images, int32 [n, H, W, 3]; wrong where none is seen."""
    x, left, right = _weighed(canvas.columns, canvas.of_columns, rows.WINDOW.start, rows.TARGET.start)
    y, upper, lower = _weighed(canvas.lines, canvas.of_lines, rows.WINDOW.start + 1, rows.TARGET.start + 1)
    mirrored = canvas.of_columns[rows.MIRRORED] > 0
    x = torch.where(mirrored, canvas.of_columns[rows.STRIDE].long() - 2 - x, x)
    left, right = torch.where(mirrored, right, left), torch.where(mirrored, left, right)
    stride = canvas.of_lines[rows.STRIDE].long()
    index = canvas.down(canvas.of_lines[rows.START].long() + y * stride) + canvas.across(x)
    pairs = _pairs(pixels)
    left, right = canvas.across(left)[..., None], canvas.across(right)[..., None]

    def line(pair: Tensor, weight: Tensor) -> Tensor:
        mean = pair[..., :3] * left
        mean += pair[..., 3:] * right
        mean >>= 4
        mean *= canvas.down(weight)[..., None]
        return mean.bitwise_right_shift_(16)

    drawn = line(pairs[index], upper)
    drawn += line(pairs[index + canvas.down(stride)], lower)
    drawn += 2
    return drawn.bitwise_right_shift_(2)


def _weighed(places: Tensor, numbers: Tensor, window: int, target: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return along one axis the first of the two part pixels that each canvas pixel lies between, and their weights.

    Args:
        places: int64, the canvas pixels.
        numbers: float64 [PIECE, n, q, side or 1], of the pieces that they belong to.
        window, target: the numbers at which the window and the target begin; two further on, they end.

    Returns:
        int64, int32 and int32, all [n, q, side].
    """
    start, begin = numbers[window], numbers[target]
    size = (numbers[window + 2] - start).clamp(min=1)
    room = (numbers[target + 2] - begin).clamp(min=1)
    centre = ((places - begin + 0.5) * (1 / (room / size)) - 0.5).float()
    first = centre.floor()
    part = torch.where((first >= 0) & (first < size - 1), centre - first, 0.0)
    first = torch.minimum(first.clamp(min=0), size - 1)
    low, high = (torch.round(one * _RESIZE_SCALE).to(torch.int32) for one in (1 - part, part))
    return (start + first).long(), low, high


def _warped(pixels: Tensor, canvas: Canvas, pad_value: int) -> Tensor:
    """Return the pieces turned and slanted, int32 [n, H, W, 3]; around them there is padding."""
    x, left, right = _warp_axis(canvas, rows.INVERSE.start, rows.STRIDE)
    y, upper, lower = _warp_axis(canvas, rows.INVERSE.start + 3, rows.HEIGHT)
    stride = canvas.down(canvas.of_lines[rows.STRIDE].long())
    index = canvas.down(canvas.of_lines[rows.START].long()) + y * stride + x
    pairs = _pairs(pixels)

    def line(pair: Tensor, weight: Tensor) -> Tensor:
        mean = pair[..., :3] * left[..., None]
        mean += pair[..., 3:] * right[..., None]
        mean *= weight[..., None]
        return mean

    drawn = line(pairs[index], upper)
    drawn += line(pairs[index + stride], lower)
    drawn += (pad_value * (1 - (left + right) * (upper + lower)))[..., None]
    return drawn.round_().to(torch.int32)


def _warp_axis(canvas: Canvas, inverse: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return along one axis of the parts the first of the two pixels between which each canvas pixel lies, and weights.

    A pixel outside has the weight 0; so has all that is further away than one pixel.

    Returns:
        int64, float32 and float32, all [n, H, W].
    """
    by_column = canvas.across(canvas.columns * canvas.of_columns[inverse])
    by_line = canvas.down(canvas.lines * canvas.of_lines[inverse + 1] + canvas.of_lines[inverse + 2])
    last = canvas.down(canvas.of_lines[size]).float() - 1
    centre = torch.minimum((by_column + by_line).float().clamp(min=-1), last + 1)
    first = centre.floor()
    part = centre - first
    low = torch.where((first >= 0) & (first <= last), 1 - part, 0.0)
    high = torch.where(first < last, part, 0.0)
    return first.long(), low, high


def _pairs(pixels: Tensor) -> Tensor:
    """Return every pixel with the one to its right, uint8 [P - 1, 6], in the memory of the pixels."""
    return pixels.as_strided((len(pixels) - 1, 6), (3, 1))
