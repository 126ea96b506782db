"""Reading a YOLO dataset's data.yaml: class names, and where each split's pictures are, oddities included."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from eyas.data.formats.found import canonical
from eyas.data.yaml_file import load_yaml
from eyas.errors import UserError

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
        has_keypoints: label rows go on with keypoints after the box.
    """

    path: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    base: Path
    has_keypoints: bool

    def resolve(self, entry: str) -> Path | None:
        """Return the folder or list that a split's entry means, None if there is none.

        Exports often say "../train/images" for what lies at "train/images" beside the file, or carry an absolute
        path of the machine they were made on; so besides the literal meaning, the entry without its leading dots is
        looked for.
        """
        plain = PurePosixPath(entry.replace("\\", "/"))
        inner = Path(*[part for part in plain.parts if part not in ("..", ".", "/")])
        for base in dict.fromkeys((self.base, self.path.parent)):
            for candidate in (base / plain, base / inner):
                if candidate.exists():
                    # "../train/images" may also exist beside the root; the dataset's own folder wins.
                    own = base / inner
                    return own if own.exists() else candidate
        return None


def find_yaml(root: Path) -> Path | None:
    """Return the root's data.yaml (or the one .yaml file that names classes), None if there is none."""
    if root.is_file():
        return root if root.suffix.lower() in (".yaml", ".yml") else None
    for name in _NAMES:
        if (root / name).is_file():
            return root / name
    others = [p for p in sorted(root.glob("*.y*ml")) if p.suffix in (".yaml", ".yml") and _names_classes(p)]
    return others[0] if len(others) == 1 else None


def read_yaml(path: Path) -> DataYaml:
    """Return what the data.yaml says.

    Raises:
        UserError: no YAML, no class names, names and count that disagree, or no split.
    """
    fields = _load(path)
    if not isinstance(fields, dict) or "names" not in fields:
        raise UserError(f"{path.name} names no classes.", where=str(path), expected="a line such as: names: [cat, dog]")
    classes = _classes(fields["names"], path)
    count = fields.get("nc")
    if count is not None and count != len(classes):
        raise UserError(f"{path.name} says nc: {count} but has {len(classes)} names.", where=str(path))
    base = path.parent / str(fields.get("path") or ".")
    data = DataYaml(path, classes, {}, base if base.is_dir() else path.parent, "kpt_shape" in fields)
    splits = {}
    for key, value in fields.items():
        entries = tuple(e for e in (value if isinstance(value, list) else [value]) if isinstance(e, str) and e)
        if not entries or str(key) in _NO_SPLITS:
            continue
        usual = canonical(str(key)).startswith(("train", "val", "test"))
        if usual or all(data.resolve(entry) is not None for entry in entries):
            splits[str(key)] = entries
    if not splits:
        raise UserError(f"{path.name} names no split.", where=str(path), expected="lines such as: train: images/train")
    return dataclasses.replace(data, splits=splits)


def _load(path: Path) -> Any:
    """Return the parsed file."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not valid YAML: {error}.", where=str(path)) from None
    return load_yaml(text, str(path))


def _names_classes(path: Path) -> bool:
    """Return whether a .yaml of any name is a dataset's: it has names and a training or validation split."""
    try:
        fields = _load(path)
    except UserError:
        return False
    return isinstance(fields, dict) and "names" in fields and bool({"train", "val"} & fields.keys())


def _classes(names: Any, path: Path) -> tuple[str, ...]:
    """Return the class names from a list, or from a mapping of numbers 0..C-1."""
    if isinstance(names, list):
        return tuple(str(name) for name in names)
    if isinstance(names, dict):
        try:
            numbered = {int(key): str(name) for key, name in names.items()}
        except ValueError:
            numbered = {}
        if numbered and sorted(numbered) == list(range(len(names))):
            return tuple(numbered[i] for i in range(len(names)))
    raise UserError(
        f"The names in {path.name} can't be read.",
        where=str(path),
        expected="a list of class names, or a mapping of the numbers 0, 1, 2, ... to names",
    )
