"""A detector of a few hundred weights, and batches for it: steps of milliseconds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from eyas.data.loading.batch import Batch
from eyas.head_output import HeadOutput


class TinyDetector(nn.Module):
    """One level of stride 8, with what a step must cope with: batch statistics, a frozen and an unused parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 8, 8, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.classes, self.boxes = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 68, 1)
        self.unused = nn.Parameter(torch.ones(4))
        self.frozen = nn.Parameter(torch.ones(()), requires_grad=False)
        nn.init.constant_(self.classes.bias, -2.0)

    def forward(self, images: torch.Tensor) -> HeadOutput:
        features = self.stem(images) * self.frozen
        rows, columns = features.shape[2:]
        y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
        logits = (head(features).flatten(2).transpose(1, 2).float() for head in (self.classes, self.boxes))
        points = torch.stack([x.flatten(), y.flatten()], dim=-1)
        return HeadOutput(*logits, points, torch.full((len(points), 1), 8.0))


def batches(count: int, sizes: tuple[int, ...] = (64,), most: int = 10) -> list[Batch]:
    """Return batches of 4 images, some without any object."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for number in range(count):
        size = sizes[number % len(sizes)]
        counts = torch.randint(0, most, (4,), generator=generator) * (torch.arange(4) != number % 4)
        if number == 2:
            counts *= 0
        total = int(counts.sum())
        top_left = torch.rand(total, 2, generator=generator) * size * 0.7
        sides = 8 + torch.rand(total, 2, generator=generator) * size * 0.3
        made.append(
            Batch(
                images=torch.randint(0, 256, (4, size, size, 3), dtype=torch.uint8, generator=generator),
                boxes=torch.cat([top_left, top_left + sides], dim=-1),
                labels=torch.randint(0, 3, (total,), generator=generator),
                counts=counts,
                indices=torch.arange(4),
                placements=torch.zeros(4, 6),
                sizes=torch.full((4, 2), size),
                skipped=torch.zeros(0, dtype=torch.int64),
            )
        )
    return made


class Loader:
    """Gives the same batches every epoch; of a list Lightning would take each for a loader."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)
