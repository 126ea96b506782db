"""Reading a YOLO dataset's data.yaml: class names, and where each split's images are, oddities included.

Every value is read as the text that stands there: YAML's own rules would make True of a class "yes", 8 of "010" and a
date of "2024-01-01".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from eyas.data.formats.base import canonical
from eyas.data.formats.image_lists import exists
from eyas.data.formats.text import read_text, strip_blanks
from eyas.data.yaml_file import load_yaml
from eyas.errors import UserError
from eyas.path_ends import path_parts

_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NO_SPLITS = frozenset({"path", "nc", "names", "download", "kpt_shape", "flip_idx", "channels", "roboflow"})


@dataclass(frozen=True)
class DataYaml:
    """What a data.yaml says.

    Attributes:
        path: the file.
        classes: class names in label order.
        splits: split -> its entries as they stand in the file.
        base: the folder named by "path:" if it exists, else the file's own.
        kpt_shape: (keypoints of an object, numbers of a keypoint) if label rows go on with keypoints after the box.
        moved: entries that lead nowhere as they stand, but to this folder or list by the longest end of their path.
    """

    path: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    base: Path
    kpt_shape: tuple[int, int] | None
    moved: Mapping[str, Path] = field(default_factory=dict)

    def resolve(self, entry: str) -> Path | None:
        """Return the folder or list that a split's entry means, None if there is none.

        Exports often say "../train/images" for what lies at "train/images" beside the file, or carry an absolute
        path of the machine they were made on; so besides the literal meaning, the entry without its leading dots is
        looked for, and its path without the folders that are not here (`moved`).
        """
        plain = PurePosixPath(entry.replace("\\", "/"))
        inner = Path(*path_parts(entry))
        for base in self.bases:
            for candidate in (base / plain, base / inner):
                if exists(candidate):
                    # "../train/images" may also exist beside the root; the dataset's own folder wins.
                    own = base / inner
                    return own if exists(own) else candidate
        return self.moved.get(entry)

    @property
    def bases(self) -> tuple[Path, ...]:
        """The folders that entries are relative to, the likelier one first."""
        return tuple(dict.fromkeys((self.base, self.path.parent)))


def find_yaml(root: Path) -> Path | None:
    """Return the root's data.yaml (or the one .yaml file that names classes), None if there is none."""
    if root.is_file():
        return root if root.suffix.lower() in (".yaml", ".yml") else None
    for name in _NAMES:
        if (root / name).is_file():
            return root / name
    others = [
        path
        for path in sorted(root.glob("*.y*ml"))
        if path.suffix in (".yaml", ".yml") and not path.name.startswith(".") and _names_classes(path)
    ]
    return others[0] if len(others) == 1 else None


def read_yaml(path: Path) -> DataYaml:
    """Return what the data.yaml says.

    Raises:
        UserError: no YAML, no class names, names and count that disagree, or no split.
    """
    fields = _load(path)
    if not isinstance(fields, dict) or "names" not in fields:
        raise UserError(f"{path.name} lists no classes.", where=str(path), expected="a line such as: names: [cat, dog]")
    classes = _classes(fields["names"], path)
    count = fields.get("nc", "")
    if not _says_nothing(count) and _whole(count) != len(classes):
        raise UserError(f"{path.name} says nc: {count!s:.40} but has {len(classes)} names.", where=str(path))
    said = fields.get("path", "")
    base = path.parent / (said if isinstance(said, str) and not _says_nothing(said) else ".")
    shape = _kpt_shape(fields.get("kpt_shape", ""), path)
    data = DataYaml(path, classes, {}, base if base.is_dir() else path.parent, shape)
    splits = {}
    for key, value in fields.items():
        given = value if isinstance(value, list) else [value]
        entries = tuple(e for e in given if isinstance(e, str) and (_is_text(e) or (e and data.resolve(e))))
        if not entries or key in _NO_SPLITS:
            continue
        usual = canonical(key).startswith(("train", "val", "test"))
        if usual or all(data.resolve(entry) is not None for entry in entries):
            splits[key] = entries
    if not splits:
        raise UserError(f"{path.name} lists no split.", where=str(path), expected="lines such as: train: images/train")
    return dataclasses.replace(data, splits=splits, moved=_moved(dataclasses.replace(data, splits=splits)))


def _moved(data: DataYaml) -> dict[str, Path]:
    """Return where entries lead to without the first folders of their paths, for those that lead nowhere as they stand.

    A folder that holds another split's, or lies in one that the file names as it is, is left out: "/old/test/images"
    is not "images", where the images of all splits are.
    """
    literal = {entry: data.resolve(entry) for entries in data.splits.values() for entry in entries}
    ended = {entry: _by_end(data, entry) for entry, target in literal.items() if target is None}
    moved = {}
    for entry, target in ended.items():
        others = [place for other, place in {**literal, **ended}.items() if place is not None and other != entry]
        given = [place for place in literal.values() if place is not None]
        if (
            target is not None
            and not any(_inside(o, target) for o in others)
            and not any(_inside(target, g) for g in given)
        ):
            moved[entry] = target
    return moved


def _by_end(data: DataYaml, entry: str) -> Path | None:
    parts = path_parts(entry)
    ends = (base.joinpath(*parts[first:]) for first in range(1, len(parts)) for base in data.bases)
    return next((end for end in ends if exists(end)), None)


def _inside(one: Path, other: Path) -> bool:
    return one.resolve().is_relative_to(other.resolve())


def _load(path: Path) -> Any:
    """Return the parsed file: mappings, lists and texts."""
    try:
        text = read_text(path)
    except ValueError as error:
        raise UserError(f"{path.name} is not valid YAML: {error}.", where=str(path)) from None
    return load_yaml(text, str(path), plain=strip_blanks)


def _is_text(text: str) -> bool:
    import yaml

    tag = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return str(tag) == "tag:yaml.org,2002:str"


def _says_nothing(value: Any) -> bool:
    return value in ("", "~", "null", "Null", "NULL")


def _whole(text: Any) -> int | None:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10 else None


def _names_classes(path: Path) -> bool:
    """Return whether a .yaml of any name is a dataset's: it has names and a training or validation split."""
    try:
        fields = _load(path)
    except UserError:
        return False
    return isinstance(fields, dict) and "names" in fields and bool({"train", "val"} & fields.keys())


def _classes(names: Any, path: Path) -> tuple[str, ...]:
    """Return the class names from a list, or from a mapping of numbers 0..C-1."""
    if isinstance(names, dict):
        numbered = {_whole(key): name for key, name in names.items()}
        names = [numbered.get(i) for i in range(len(names))]
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return tuple(names)
    raise UserError(
        f"The names in {path.name} can't be read.",
        where=str(path),
        expected="a list of class names, or a mapping from the numbers 0, 1, 2, ... to names",
    )


def _kpt_shape(value: Any, path: Path) -> tuple[int, int] | None:
    """Return the shape of keypoints, None if the field says nothing."""
    if _says_nothing(value):
        return None
    shape: Sequence[int | None] = [_whole(each) for each in value] if isinstance(value, list) else []
    if len(shape) == 2 and shape[0] and shape[1] in (2, 3):
        return shape[0], shape[1]
    raise UserError(
        f"{path.name} says kpt_shape: {value!s:.40}.",
        where=str(path),
        expected="the number of keypoints and 2 or 3 values each, such as kpt_shape: [17, 3]",
    )
