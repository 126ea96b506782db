"""Converting a dataset from one format to another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eyas.data.formats import FORMATS, load_splits
from eyas.data.rewrite.export import (
    Losses,
    copy,
    fresh_folder,
    link,
    losses,
    place_images,
    require_images,
    require_new_folder,
)
from eyas.errors import UserError, suggest


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote.

    Attributes:
        images: split -> number of images.
        boxes: split -> number of boxes of the source.
        losses: what the target format can't hold.
    """

    images: dict[str, int]
    boxes: dict[str, int]
    losses: Losses


def convert(
    source: Path | str,
    out: Path | str,
    to: str,
    *,
    link_images: bool = False,
    format: str | None = None,  # noqa: A002
    rows: str | None = None,
) -> Converted:
    """Write the dataset in `source` as a new one in the format `to`, with all its splits.

    Args:
        source: the dataset's root.
        out: a new or empty folder.
        to: "coco", "yolo" or "voc".
        link_images: hard-link the images instead of copying them.
        format: the source's format, when the folder alone does not say.
        rows: what long rows of YOLO label files hold, when they alone do not say.

    Raises:
        UserError: the source can't be read, an image is missing or `out` is not empty; nothing is written then.
    """
    if to not in FORMATS:
        raise UserError(f"Unknown format '{to}'{suggest(to, FORMATS)}.", expected="one of " + ", ".join(FORMATS))
    folder = Path(out)
    require_new_folder(folder)
    splits = load_splits(source, format=format, rows=rows)
    require_images(splits)
    indexes = list(splits.values())
    target = FORMATS[to]
    lost = losses(indexes, target)
    place, text = (link, "linking images") if link_images else (copy, "copying images")
    with fresh_folder(folder) as partial:
        target.write(place_images(indexes, partial, target, place, text), partial)
    return Converted(
        images={index.split: len(index) for index in indexes},
        boxes={index.split: len(index.boxes) for index in indexes},
        losses=lost,
    )
