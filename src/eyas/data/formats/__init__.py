"""Datasets on disk: which format a root is of, its splits, and reading one."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from eyas.data.checks.sizes import fit_to_images
from eyas.data.concat import same_classes
from eyas.data.formats.base import Format, Found, StrayLabels, pick, plain_names
from eyas.data.formats.coco import COCO
from eyas.data.formats.hints import hint
from eyas.data.formats.voc import VOC
from eyas.data.formats.yolo import YOLO
from eyas.data.formats.yolo_kinds import KINDS
from eyas.data.index import DatasetIndex
from eyas.errors import UserError, shorten, suggest

FORMATS: Mapping[str, Format] = MappingProxyType({f.name: f for f in (COCO, YOLO, VOC)})


def find_format(
    root: Path | str,
    format: str | None = None,  # noqa: A002
    rows: str | None = None,
) -> tuple[Format, tuple[Found, ...]]:
    """Return the one format that `root` is of and the splits found.

    Args:
        root: a dataset's folder, one COCO .json file or a data.yaml.
        format: its name if the user says it; else every format looks for its files.
        rows: what long rows of YOLO label files hold ("polygon", "keypoints", "oriented"), if they alone do not say.

    Raises:
        UserError: nothing there, no format fits or several do; says what was found.
    """
    path = Path(root)
    if not path.exists():
        raise UserError(f"There is no {path}.", expected="a dataset folder, a COCO .json file or a data.yaml")
    if format is not None and format not in FORMATS:
        raise UserError(
            f"Unknown format '{format}'{suggest(format, FORMATS)}.", expected="one of " + ", ".join(FORMATS)
        )
    wanted = [FORMATS[format]] if format else list(FORMATS.values())
    fitting = [(f, found) for f in wanted if (found := f.sniff(path))]
    if len(fitting) == 1:
        return _with_rows(*fitting[0], rows)
    if fitting:
        lines = [f"{f.name}: {', '.join(sorted({_relative(s.source, path) for s in found}))}" for f, found in fitting]
        raise UserError(
            "The folder matches more than one dataset format. Found " + "; ".join(lines) + ".",
            where=str(path),
            fix=f"choose one with the format option ({' or '.join(f.name for f, _ in fitting)}), or move one away",
        )
    told = hint(path, tuple(FORMATS.values()))
    raise UserError(
        f"No dataset was found{' in the format ' + format if format else ''}. {_listing(path)} {told.looks}".rstrip(),
        where=str(path),
        expected="; ".join(f.title for f in wanted),
        fix=told.fix,
    )


def _with_rows(found_format: Format, found: tuple[Found, ...], rows: str | None) -> tuple[Format, tuple[Found, ...]]:
    """Return the splits with what the user says of their rows.

    Raises:
        UserError: the format has no such rows, or there is no such kind.
    """
    if rows is None:
        return found_format, found
    if found_format is not YOLO or rows not in KINDS:
        raise UserError(
            f"--rows {rows} does not apply to the format {found_format.name}.",
            where=str(found[0].root),
            expected=f"for YOLO one of {', '.join(KINDS)}, for other formats nothing",
        )
    return found_format, tuple(dataclasses.replace(each, rows=rows) for each in found)


def find_splits(root: Path | str, format: str | None = None) -> tuple[str, ...]:  # noqa: A002
    """Return the plain names of the dataset's splits ("train", "val", ...)."""
    return tuple(plain_names(find_format(root, format)[1]))


def load_dataset(
    root: Path | str,
    split: str | None = None,
    *,
    format: str | None = None,  # noqa: A002
    rows: str | None = None,
) -> DatasetIndex:
    """Return the index of one split of the dataset in `root`.

    Args:
        root: a dataset's folder, one COCO .json file or a data.yaml.
        split: its name; "val", "valid" and "validation" are one. None is fine when there is only one.
        format: "coco", "yolo" or "voc" when the folder alone does not say.
        rows: what long rows of YOLO label files hold ("polygon", "keypoints", "oriented"), if they alone do not say.

    Raises:
        UserError: the root, the split or the annotations can't be used, or they are for images of another shape.
    """
    found_format, found = find_format(root, format, rows)
    return _fitted(found_format, _read(found_format, pick(found, split, str(root))))


def load_splits(
    root: Path | str,
    *,
    format: str | None = None,  # noqa: A002
    rows: str | None = None,
    fit: bool = True,
) -> dict[str, DatasetIndex]:
    """Return the indexes of all splits by plain name, with the classes of the training split.

    Args:
        root: as for `load_dataset`.
        format, rows: the same.
        fit: bring sizes and boxes to the image files; False leaves them as the annotations have them.

    Raises:
        UserError: something can't be used, or a split has boxes of classes that the training split lacks.
    """
    found_format, found = find_format(root, format, rows)
    splits = {name: dataclasses.replace(_read(found_format, f), split=name) for name, f in plain_names(found).items()}
    first = "train" if "train" in splits else next(iter(splits))
    splits = {
        name: dataclasses.replace(index, category_ids=splits[first].category_ids)
        for name, index in same_classes(splits, str(root), first).items()
    }
    return {name: _fitted(found_format, index) for name, index in splits.items()} if fit else splits


def _read(found_format: Format, found: Found) -> DatasetIndex:
    """Return the index of a split, having told of label files that belong to no image."""
    index = found_format.read(found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for the same images again, and would tell the same again
        strays = found_format.strays(found)
    if strays:
        warnings.warn(
            f"{len(strays)} label files of '{found.split}' have no image and are not used: "
            f"{shorten([path.name for path in strays], 3)}.",
            StrayLabels,
            stacklevel=3,
        )
    return index


def _fitted(found_format: Format, index: DatasetIndex) -> DatasetIndex:
    return fit_to_images(index) if found_format.says_sizes else index


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else path.name


def _listing(path: Path) -> str:
    if path.is_file():
        return f"{path.name} is neither a COCO .json file nor a data.yaml."
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in path.iterdir())
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"The folder contains {', '.join(names[:8])}{rest}." if names else "The folder is empty."
