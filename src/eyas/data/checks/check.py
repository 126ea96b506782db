"""Checking a dataset for what ruins training or flatters evaluation, before either has cost anything."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from eyas.data.checks.boxes import check_boxes
from eyas.data.checks.findings import CheckReport, Finding, Level, finding
from eyas.data.checks.image_scan import MISSING, Scan, scan_images
from eyas.data.checks.phash import near_pairs
from eyas.data.checks.sizes import SizeCheck, SizeState, apply, compare, describe
from eyas.data.checks.statistics import SplitStatistics, split_statistics
from eyas.data.checks.usable import TOO_SMALL
from eyas.data.formats import find_format, load_splits
from eyas.data.formats.base import BrokenImages, Format, Found, StrayLabels
from eyas.data.index import DatasetIndex
from eyas.image_files import is_image

_FEW_BOXES = 10


def check_dataset(
    root: Path | str,
    *,
    format: str | None = None,  # noqa: A002
    rows: str | None = None,
    train_size: int = 640,
    workers: int | None = None,
) -> CheckReport:
    """Return what is wrong with the dataset; every image is decoded.

    Args:
        root: the dataset.
        format: its format, when the folder alone does not say.
        rows: what long rows of YOLO label files hold, when they alone do not say.
        train_size: the network's input size in pixels, for telling box sizes.
        workers: threads that decode; one a core if None.

    Raises:
        UserError: the dataset can't be read at all: no known format, malformed annotations, unknown classes.
    """
    dataset_format, found = find_format(root, format, rows)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        splits = load_splits(root, format=format, rows=rows, fit=False)
        strays = _check_strays(dataset_format, found)
    scans = _scan(splits, workers)
    sizes = {
        name: SizeCheck(scans[name].sizes, compare(index.sizes, scans[name].sizes)) for name, index in splits.items()
    }
    findings: list[Finding] = []
    for name, index in splits.items():
        findings += _check_files(index, scans[name])
        findings += _check_sizes(index, sizes[name])
    splits = {name: apply(index, sizes[name]) for name, index in splits.items()}
    statistics = {name: split_statistics(index, train_size) for name, index in splits.items()}
    for name, index in splits.items():
        known = np.where(scans[name].sizes > 0, scans[name].sizes, index.sizes)
        findings += check_boxes(index, known)
        findings += _check_use(name, statistics[name], "train" in splits)
    findings += _check_copies(splits, scans)
    findings += strays
    findings += _check_unlisted(splits)
    findings += _check_balance(statistics)
    lines = dict.fromkeys(
        str(each.message) for each in told if not issubclass(each.category, BrokenImages | StrayLabels)
    )
    findings += finding("warning", "reading", "all", "Warnings while reading the labels.", list(lines))
    findings.sort(key=lambda each: each.level != "error")
    classes = next(iter(splits.values())).classes
    return CheckReport(Path(root), dataset_format.name, classes, train_size, statistics, tuple(findings))


def dataset_numbers(
    root: Path | str,
    *,
    format: str | None = None,  # noqa: A002
    rows: str | None = None,
    train_size: int = 640,
) -> CheckReport:
    """Return the numbers of the dataset as a report without findings; no image is decoded."""
    dataset_format, _ = find_format(root, format, rows)
    splits = load_splits(root, format=format, rows=rows)
    statistics = {name: split_statistics(index, train_size) for name, index in splits.items()}
    classes = next(iter(splits.values())).classes
    return CheckReport(Path(root), dataset_format.name, classes, train_size, statistics, ())


def _scan(splits: Mapping[str, DatasetIndex], workers: int | None) -> dict[str, Scan]:
    """Decode the images of all splits behind one progress bar."""
    scan = scan_images([path for index in splits.values() for path in index.files], workers=workers)
    scans, start = {}, 0
    for name, index in splits.items():
        part = slice(start, start + len(index))
        scans[name] = Scan(scan.faults[part], scan.sizes[part], scan.bits[part], scan.thumbnails[part])
        start += len(index)
    return scans


def _check_files(index: DatasetIndex, scan: Scan) -> list[Finding]:
    """Return images that are missing, can't be decoded, or have another size than the annotations say."""
    names = [index.files.name(i) for i in range(len(index))]
    missing = [name for name, fault in zip(names, scan.faults, strict=True) if fault == MISSING]
    broken = [f"{name}: {fault}" for name, fault in zip(names, scan.faults, strict=True) if fault not in ("", MISSING)]
    return [
        *finding("error", "missing image", index.split, "It is annotated, but there is no file.", missing),
        *finding("error", "unreadable image", index.split, "It can't be decoded.", broken),
    ]


def _check_sizes(index: DatasetIndex, check: SizeCheck) -> list[Finding]:
    """Return images of another size than the annotations say: boxes are scaled along where the shape is the same."""
    scaled = [describe(index, check, int(i)) for i in check.which(SizeState.SCALED)]
    turned = set(check.which(SizeState.TURNED).tolist())
    wrong = [
        describe(index, check, int(i)) + (" (rotated: the labels ignore its EXIF orientation)" if i in turned else "")
        for i in check.which(SizeState.TURNED, SizeState.OTHER).tolist()
    ]
    meaning = "Its size differs from the annotation, its aspect ratio does not: the boxes are scaled."
    return [
        *finding(
            "error",
            "wrong image size",
            index.split,
            "Its aspect ratio differs from the annotation, so its boxes don't fit it.",
            wrong,
        ),
        *finding("warning", "scaled image", index.split, meaning, scaled),
    ]


def _check_use(name: str, numbers: SplitStatistics, has_train: bool) -> list[Finding]:
    """Return that nothing of a split can be trained on, or measured, and boxes that training would never see."""
    is_trained = name == "train" or not has_train
    reasons = ", ".join(f"{n:,} {why}" for why, n in numbers.left_out.items())
    text = f"{numbers.boxes:,} boxes" + (f", of which {reasons}" if reasons else "")
    if is_trained and not numbers.trained:
        return finding("error", "nothing to train on", name, "None of its boxes can be trained on.", [text])
    if not is_trained and not numbers.measured:
        level: Level = "error" if name == "val" else "warning"
        return finding(
            level,
            "nothing to evaluate",
            name,
            "None of its boxes can be detected, so there is nothing to measure.",
            [text],
        )
    small = {why: count for why, count in numbers.left_out.items() if is_trained and why.startswith(TOO_SMALL)}
    meaning = "At its largest training scale, such a box is still too small to be trained on."
    return finding("warning", "box too small", name, meaning, [f"{n:,} boxes {why}" for why, n in small.items()])


def _check_copies(splits: Mapping[str, DatasetIndex], scans: Mapping[str, Scan]) -> list[Finding]:
    """Return near-duplicates: errors across splits, because evaluation then measures memory; warnings within one."""
    owners = [(name, i) for name, index in splits.items() for i in range(len(index)) if not scans[name].faults[i]]
    if not owners:
        return []
    bits = np.array([scans[name].bits[i] for name, i in owners], np.uint64)
    thumbnails = np.stack([scans[name].thumbnails[i] for name, i in owners])
    found: dict[tuple[str, str], list[str]] = {}
    for first, second in near_pairs(bits, thumbnails):
        (one, i), (other, j) = owners[first], owners[second]
        text = f"{splits[one].files.name(i)} and {splits[other].files.name(j)}"
        found.setdefault((one, other), []).append(text)
    findings = []
    for (one, other), texts in found.items():
        if one == other:
            meaning = "Two images of one split are nearly the same."
            findings += finding("warning", "duplicate image", one, meaning, texts)
        else:
            meaning = "Nearly the same image is in both splits, so the evaluation rewards memorizing it."
            findings += finding("error", "leak", f"{one} and {other}", meaning, texts)
    return findings


def _check_strays(dataset_format: Format, found: tuple[Found, ...]) -> list[Finding]:
    """Return label files that belong to no image."""
    findings = []
    for each in found:
        strays = [path.relative_to(each.root).as_posix() if path.is_relative_to(each.root) else str(path)
                  for path in dataset_format.strays(each)]  # fmt: skip
        meaning = "A label file without an image is never used."
        findings += finding("warning", "stray label file", each.split, meaning, strays)
    return findings


def _check_unlisted(splits: Mapping[str, DatasetIndex]) -> list[Finding]:
    """Return images that lie right beside those of a split and belong to none."""
    paths = {path for index in splits.values() for path in index.files}
    unlisted = []
    for folder in sorted({path.parent for path in paths}):
        if folder.is_dir():
            unlisted += [path for path in sorted(folder.iterdir()) if is_image(path) and path not in paths]
    names = [path.name for path in unlisted if not path.name.startswith(".") and path.is_file()]
    meaning = "It is in an image folder of a split, but not in the split: it is never used."
    return finding("warning", "image not listed", " and ".join(splits), meaning, names)


def _check_balance(statistics: Mapping[str, SplitStatistics]) -> list[Finding]:
    """Return classes that a split has no or hardly any boxes of, and training splits that are mostly background."""
    findings = []
    for name, numbers in statistics.items():
        none = [each for each, count in numbers.class_boxes.items() if count == 0]
        few = [f"{each}: {count}" for each, count in numbers.class_boxes.items() if 0 < count < _FEW_BOXES]
        level_meaning = "The split has no box of the class."
        findings += finding("warning", "class without boxes", name, level_meaning, none)
        findings += finding("warning", "rare class", name, f"Fewer than {_FEW_BOXES} boxes of the class.", few)
        if numbers.background > numbers.images / 2:
            text = f"{numbers.background} of {numbers.images} images"
            findings += finding("warning", "mostly background", name, "Most images have no boxes.", [text])
    return findings
