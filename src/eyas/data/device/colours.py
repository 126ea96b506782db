"""Changes of colours on a device, for all samples at once, in the fixed point in which OpenCV makes them."""

from __future__ import annotations

import torch
from torch import Tensor

from eyas.data.augment.config import AugmentPolicy
from eyas.data.device import rows

_HSV_BITS = 12


def recolour(images: Tensor, numbers: Tensor, policy: AugmentPolicy) -> Tensor:
    """Return images, int32 [n, H, W, 3] in 0..255, with the colours of their plans (float64 [n, WIDTH])."""
    matrix = numbers[:, rows.MATRIX].to(torch.int32).view(-1, 1, 1, 3, 4)
    changed = images[..., 0:1] * matrix[..., 0] + matrix[..., 3]
    for channel in (1, 2):
        changed += images[..., channel : channel + 1] * matrix[..., channel]
    changed = (changed >> rows.COLOUR_BITS).clamp_(0, 255)
    if policy.gamma:
        levels = torch.arange(256, device=images.device, dtype=torch.float64) / 255
        table = torch.round(255 * levels ** numbers[:, rows.EXPONENT, None]).to(torch.int32)
        own = torch.arange(len(images), device=images.device, dtype=torch.int32) * 256
        changed = table.view(-1)[changed + own[:, None, None, None]]
    if policy.hsv_chance and any(policy.hsv):
        shifts = numbers[:, rows.SHIFTS].to(torch.int32)
        shifted = shift_hsv(changed, shifts[:, None, None])
        changed = torch.where((shifts != 0).any(dim=1)[:, None, None, None], shifted, changed)
    if policy.within == "frame":
        return changed
    return torch.where(inside(numbers[:, rows.AREA], images), changed, images)


def inside(corner: Tensor, images: Tensor) -> Tensor:
    """Return which pixels of images, [n, H, W, 3], lie above and left of a corner (height, width), [n, 2].

    Returns:
        bool [n, H, W, 1].
    """
    lines = torch.arange(images.shape[1], device=images.device) < corner[:, :1]
    columns = torch.arange(images.shape[2], device=images.device) < corner[:, 1:]
    return (lines[:, :, None] & columns[:, None])[..., None]


def shift_hsv(images: Tensor, shifts: Tensor) -> Tensor:
    """Return images, int32 [n, H, W, 3], with hue (of 180), saturation and value shifted by int32 [n, 1, 1, 3]."""
    hue, saturation, value = _to_hsv(images)
    hue = (hue + shifts[..., 0]) % 180
    saturation, value = ((one + shifts[..., i]).clamp(0, 255) for i, one in ((1, saturation), (2, value)))
    return _to_rgb(hue, saturation, value)


def _to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hue (0..179), saturation and value (0..255), int32 [n, H, W] each."""
    red, green, blue = images.unbind(-1)
    value = images.amax(dim=-1)
    range_ = value - images.amin(dim=-1)
    steps = torch.arange(256, device=images.device, dtype=torch.float64).clamp(min=1)
    by_value = torch.round((255 << _HSV_BITS) / steps).to(torch.int32)
    by_range = torch.round((180 << _HSV_BITS) / (6 * steps)).to(torch.int32)
    half = 1 << (_HSV_BITS - 1)
    # Of black and of grey the range is 0, and so is what it is multiplied with.
    saturation = (range_ * by_value[value] + half) >> _HSV_BITS
    sixth = torch.where(value == green, blue - red + 2 * range_, red - green + 4 * range_)
    sixth = torch.where(value == red, green - blue, sixth)
    hue = (sixth * by_range[range_] + half) >> _HSV_BITS
    return torch.where(hue < 0, hue + 180, hue), saturation, value


def _to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return the colours, int32 [n, H, W, 3], of hues, saturations and values."""
    turn = hue * (6 / 180)
    sector = turn.floor()
    part, pale = turn - sector, saturation * (1 / 255)
    bright = value * (1 / 255)
    low, falling, rising = bright * (1 - pale), bright * (1 - pale * part), bright * (1 - pale * (1 - part))
    sides = torch.stack([bright, falling, low, low, rising, bright], dim=-1)
    # Red runs through the sides in this order; green is two sectors behind, blue four.
    places = (sector.long()[..., None] + torch.tensor([0, 4, 2], device=hue.device)) % 6
    return (torch.gather(sides, -1, places) * 255).to(torch.int32)
