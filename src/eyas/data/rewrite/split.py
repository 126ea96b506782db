"""Splitting a dataset anew: near-duplicates stay together, and every class is spread as evenly as can be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eyas.data.checks.image_scan import scan_images
from eyas.data.checks.phash import groups, near_pairs
from eyas.data.concat import concatenate
from eyas.data.formats import FORMATS, find_format, load_splits
from eyas.data.index import DatasetIndex
from eyas.data.rewrite.export import (
    copy,
    fresh_folder,
    link,
    place_images,
    require_images,
    require_new_folder,
)
from eyas.errors import UserError, shorten


@dataclass(frozen=True)
class SplitSettings:
    """How a dataset is split.

    Attributes:
        val, test: share of the images, 0 to below 1; the rest is for training.
        group: keep images that are nearly the same in one split.
        seed: another seed splits otherwise.
        link: hard-link the images instead of copying them.
    """

    val: float = 0.2
    test: float = 0.0
    group: bool = True
    seed: int = 0
    link: bool = False

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing for training."""
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and 0 < self.val + self.test < 1):
            raise UserError(
                f"The fractions val {self.val:g} and test {self.test:g} can't be used.",
                expected="numbers from 0 to 1 that leave something for training, such as --val 0.2",
            )

    @property
    def shares(self) -> dict[str, float]:
        """The share of each split that gets any image."""
        every = {"train": 1 - self.val - self.test, "val": self.val, "test": self.test}
        return {name: share for name, share in every.items() if share > 0}


def split_dataset(
    root: Path | str,
    out: Path | str,
    settings: SplitSettings,
    *,
    format: str | None = None,  # noqa: A002
    rows: str | None = None,
) -> dict[str, DatasetIndex]:
    """Write the images of all splits in `root` as a new dataset, split anew, in the same format.

    Args:
        root: the dataset.
        out: a new or empty folder.
        settings: the shares and the rest.
        format: the dataset's format, when the folder alone does not say.
        rows: what long rows of YOLO label files hold, when they alone do not say.

    Returns:
        The new splits.

    Raises:
        UserError: the dataset can't be read, an image is missing or (when grouping) broken, or too few are there.
    """
    folder = Path(out)
    require_new_folder(folder)
    found_format, _ = find_format(root, format)
    splits = load_splits(root, format=format, rows=rows)
    require_images(splits)
    whole = concatenate(list(splits.values()), "all")
    members = _groups(whole) if settings.group else [[i] for i in range(len(whole))]
    parts = assign_groups(whole, members, settings.shares, settings.seed)
    empty = [name for name, indices in parts.items() if not len(indices)]
    if empty:
        raise UserError(
            f"{len(whole)} images in {len(members)} groups are too few: nothing is left for {shorten(empty)}.",
            where=str(root),
            fix="use a larger fraction, or --no-group if similar images are really different",
        )
    indexes = [dataclasses.replace(whole.subset(indices), split=name) for name, indices in parts.items()]
    place, text = (link, "linking images") if settings.link else (copy, "copying images")
    with fresh_folder(folder) as partial:
        target = FORMATS[found_format.name]
        target.write(place_images(indexes, partial, target, place, text), partial)
    return {index.split: index for index in indexes}


def assign_groups(
    index: DatasetIndex, members: Sequence[Sequence[int]], shares: Mapping[str, float], seed: int
) -> dict[str, npt.NDArray[np.int64]]:
    """Return split -> its images, rising: iterative stratification (Sechidis et al. 2011) of groups.

    The class that has the fewest images left is dealt out first, each group to the split that still lacks most
    images of the class, then most images at all; a full split gets no more.

    Args:
        index: the whole dataset.
        members: groups of images that stay together; each image is in exactly one.
        shares: split -> share of the images, adding up to 1.
        seed: of the order in which equals are dealt out.
    """
    rng = np.random.default_rng(seed)
    names = list(shares)
    share = np.array([shares[name] for name in names])
    has = np.zeros((len(index), len(index.classes)), bool)
    has[index.image_of_row(), index.labels] = True
    group_size = np.array([len(group) for group in members])
    group_has = np.stack([has[list(group)].sum(axis=0) for group in members]).astype(np.int64)
    lacks_class = share[:, None] * group_has.sum(axis=0)
    lacks = share * len(index)
    order = rng.permutation(len(members))
    home = np.full(len(members), -1)

    def deal(group: int, wanted: npt.NDArray[np.float64]) -> None:
        best = np.lexsort((lacks, wanted, lacks > 0))[-1]  # a split that is full takes no more, whatever the class
        home[group] = best
        lacks_class[best] -= group_has[group]
        lacks[best] -= group_size[group]

    while True:
        left = group_has[home < 0].sum(axis=0)
        if not left.any():
            break
        rarest = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
        for group in order[(home[order] < 0) & (group_has[order, rarest] > 0)]:
            deal(int(group), lacks_class[:, rarest])
    for group in order[home[order] < 0]:  # images without any box
        deal(int(group), lacks)
    split_of = np.empty(len(index), np.int64)
    for group, images in enumerate(members):
        split_of[list(images)] = home[group]
    return {name: np.flatnonzero(split_of == i).astype(np.int64) for i, name in enumerate(names)}


def _groups(index: DatasetIndex) -> list[list[int]]:
    """Return the images grouped by near-duplicates.

    Raises:
        UserError: images can't be read.
    """
    scan = scan_images(list(index.files))
    broken = [f"{index.files.name(i)} ({fault})" for i, fault in enumerate(scan.faults) if fault]
    if broken:
        raise UserError(
            f"{len(broken)} images can't be read: {shorten(broken, 3)}.",
            where=str(index.root),
            fix="replace or remove them ('eyas data check' lists them all), or split with --no-group",
        )
    return groups(len(index), near_pairs(scan.bits, scan.thumbnails))
