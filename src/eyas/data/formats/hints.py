"""What a place that is no dataset looks like, and what helps: the ends of searches that found nothing."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eyas.data.formats.base import Format, canonical
from eyas.data.formats.text import read_names
from eyas.errors import UserError, shorten
from eyas.files import open_regular
from eyas.image_files import is_image

_DEPTH = 3  # folders within folders that are looked into
_FOLDERS = 200  # of them at most
_FILES = 20  # files of a kind that are looked at
_HEAD = 1 << 16  # bytes of a file's beginning and end that tell what it is
_PARTS = frozenset({"images", "labels", "annotations", "jpegimages", "imagesets"})  # folders of a dataset
_SPLITS = frozenset({"train", "val", "test"})
_ARCHIVES = {".zip": "python3 -m zipfile -e {0} {1}", ".7z": "7z x {0} -o{1}", ".rar": "unrar x {0} {1}/"}
_TARS = (".tar", ".tgz", ".gz", ".bz2", ".xz")


@dataclass(frozen=True)
class Hint:
    """What the place looks like, a sentence or "", and what to do about it, or ""."""

    looks: str = ""
    fix: str = ""


def hint(path: Path, formats: Sequence[Format]) -> Hint:
    """Return what `path`, which no format reads, looks like, and what helps."""
    own = _fitting(path, formats)
    if own:
        return Hint(f"It is a dataset in the format {own.name}.", f"give that format (--format {own.name}), or none")
    if path.is_file():
        return _archive(path) or _above(path, formats) or Hint()
    return (
        _below(path, formats)
        or _above(path, formats)
        or _labels_without_yaml(path)
        or _json(path)
        or _exports(path)
        or next((found for each in sorted(path.iterdir()) if (found := _archive(each))), None)
        or _images(path)
        or Hint()
    )


def _below(root: Path, formats: Sequence[Format]) -> Hint | None:
    """Look for datasets in the folders inside."""
    found: list[tuple[Path, Format]] = []
    level, looked = [root], 0
    for _ in range(_DEPTH):
        level = [inner for folder in level for inner in _folders(folder)][:_FOLDERS]
        for folder in level:
            looked += 1
            fitting = _fitting(folder, formats) if looked <= _FOLDERS else None
            if fitting:
                found.append((folder, fitting))
        if found:
            break
    if not found:
        return None
    names = [str(folder) for folder, _ in found]
    if len(found) == 1:
        return Hint(f"A dataset in the format {found[0][1].name} is inside.", f"give the folder inside: {names[0]}")
    return Hint(f"There are {len(found)} datasets inside.", f"give one of the folders inside: {shorten(names, 4)}")


def _above(path: Path, formats: Sequence[Format]) -> Hint | None:
    """Look whether this is a part of a dataset."""
    for folder in list(path.absolute().parents)[:2]:
        part = path.absolute().relative_to(folder).parts[0].lower()
        fitting = _fitting(folder, formats) if part in _PARTS or canonical(part) in _SPLITS else None
        if fitting:
            return Hint(f"It is part of the dataset {folder} (format {fitting.name}).", f"give that folder: {folder}")
    return None


def _fitting(folder: Path, formats: Sequence[Format]) -> Format | None:
    """Return the format that the folder is of, None if it is of none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in formats:
            try:
                if each.sniff(folder):
                    return each
            except (UserError, OSError):
                continue
    return None


def _folders(folder: Path) -> list[Path]:
    try:
        inside = sorted(folder.iterdir())
        return [each for each in inside if each.is_dir() and not each.name.startswith((".", "__MACOSX"))]
    except OSError:
        return []


def _archive(path: Path) -> Hint | None:
    """Look whether the file is an archive."""
    suffix = path.suffix.lower()
    if not path.is_file() or path.name.startswith(".") or suffix not in (*_ARCHIVES, *_TARS):
        return None
    out = path.with_suffix("").with_suffix("") if suffix in _TARS else path.with_suffix("")
    source, target = shlex.quote(str(path)), shlex.quote(str(out))
    command = _ARCHIVES.get(suffix, "python3 -m tarfile -e {0} {1}").format(source, target)
    return Hint(f"{path.name} is an archive.", f"unpack it and give the folder {out}: {command}")


def _labels_without_yaml(root: Path) -> Hint | None:
    """Look for YOLO's label files; exports of Label Studio and labelImg lack the data.yaml."""
    groups = [folder for folder in (root, *_folders(root)) if (folder / "labels").is_dir()]
    labelled = [folder for folder in (root / "labels", *(g / "labels" for g in groups), root, *_folders(root))
                if any(_is_rows(each) for each in _some(folder, "*.txt"))]  # fmt: skip
    inner = [folder for folder in labelled if folder.parent.name == "labels"] + [
        folder for group in groups for folder in _folders(group / "labels")
    ]
    if not labelled and not any(_is_rows(each) for folder in inner for each in _some(folder, "*.txt")):
        return None
    lists = [root / name for name in ("classes.txt", "obj.names", "labels.txt", "names.txt")]
    lists += [file for folder in _folders(root) for file in (folder / "_darknet.labels", folder / "classes.txt")]
    listed = next((each for each in lists if each.is_file()), None)
    who = "Label Studio's YOLO export" if (root / "notes.json").is_file() else "YOLO labels"
    lines = [
        *_split_lines(root),
        f"names: {json.dumps(_names(listed), ensure_ascii=False) if listed else '[cat, dog]'}",
    ]
    command = "printf '%s\\n' " + " ".join(map(shlex.quote, lines)) + f" > {shlex.quote(str(root / 'data.yaml'))}"
    names = "" if listed else " (with your classes in the order of their numbers)"
    return Hint(
        f"It looks like {who} without a data.yaml, which lists the splits and the classes.",
        f"YOLO labels need a data.yaml; write one{names}: {command}",
    )


def _split_lines(root: Path) -> list[str]:
    """Return the lines of a data.yaml that say where the images are."""
    lists = {name: f"{name}.txt" for name in ("train", "val", "valid", "test") if _lists_images(root / f"{name}.txt")}
    if "train" in lists:
        return [f"{'val' if name == 'valid' else name}: {place}" for name, place in lists.items()]
    for base, prefix in ((root / "images", "images/"), (root, "")):
        inside = [each.name for each in _folders(base)] if base.is_dir() else []
        splits = {name: prefix + name for name in inside if name in ("train", "val", "valid", "test")}
        if splits:
            return [f"{'val' if name == 'valid' else name}: {place}" for name, place in splits.items()]
    return ["train: images" if (root / "images").is_dir() else "train: ."]


def _lists_images(path: Path) -> bool:
    lines = _ends(path)[:_HEAD].decode(errors="replace").split("\n")
    return is_image(Path(lines[0].strip()))


def _names(path: Path) -> list[str]:
    """Return the class names in the list, [] if it can't be read."""
    try:
        return read_names(path)
    except (UserError, OSError):
        return []


def _is_rows(path: Path) -> bool:
    return re.match(rb"\s*\d+(\s+-?\d*\.?\d+(e-?\d+)?){4,}\s*(\n|$)", _ends(path)[:_HEAD]) is not None


def _json(root: Path) -> Hint | None:
    """Look at the JSON files."""
    files = [each for folder in (root, *_folders(root)) for each in _some(folder, "*.json")]
    kinds = {each: _json_kind(each) for each in files}
    coco = [each for each, kind in kinds.items() if kind == "coco"]
    if coco:
        return Hint("It contains COCO files with other names.", f"give the COCO file itself, for example {coco[0]}")
    for kind, (looks, fix) in _OTHERS.items():
        if kind in kinds.values():
            return Hint(looks, fix.format(shlex.quote(str(root))))
    return None


# Other tools' JSON -> what it looks like, what helps.
_OTHERS = {
    "labelme": (
        "It looks like labelme files, one JSON per image, which Eyas does not read.",
        "convert them to COCO, for example: pip install labelme2coco && labelme2coco {0}",
    ),
    "labelstudio": (
        "It looks like Label Studio's own JSON, which Eyas does not read.",
        "export the project again, as COCO, YOLO with images or Pascal VOC",
    ),
    "via": (
        "It looks like a VGG Image Annotator project, which Eyas does not read.",
        "export it there as COCO (Annotation, Export Annotations)",
    ),
    "createml": (
        "It looks like CreateML's JSON, which Eyas does not read.",
        "export the dataset again, as COCO, YOLO or Pascal VOC",
    ),
}


def _json_kind(path: Path) -> str:
    """Return whose JSON the file is, by the keys at its beginning and end; "" if that is not known."""
    text = _ends(path)
    keys = set(re.findall(rb'"(\w+)"\s*:', text))
    if len({b"images", b"annotations", b"categories"} & keys) >= 2:
        return "coco"
    if {b"shapes", b"imagePath"} <= keys:
        return "labelme"
    if b"_via_img_metadata" in keys or {b"regions", b"file_attributes"} <= keys:
        return "via"
    if text.lstrip()[:1] == b"[" and {b"annotations", b"data"} <= keys:
        return "labelstudio"
    return "createml" if text.lstrip()[:1] == b"[" and {b"annotations", b"coordinates"} <= keys else ""


def _exports(root: Path) -> Hint | None:
    """Look for exports in formats that are not read."""
    again = "export the dataset again, as COCO, YOLO or Pascal VOC"
    for folder in (root, *_folders(root)):
        for pattern, looks in (
            ("_annotations.csv", "Roboflow's CSV export"),
            ("_classes.csv", "Roboflow's export for classification"),
            ("*.tfrecord", "TFRecord files"),
        ):
            if _some(folder, pattern):
                return Hint(f"It looks like {looks}, which Eyas does not read.", again)
        if any(b"<annotations>" in _ends(each) for each in _some(folder, "*.xml")):
            return Hint("It looks like 'CVAT for images', which Eyas does not read.", again)
    return None


def _images(root: Path) -> Hint | None:
    if any(is_image(each) for folder in (root, *_folders(root)) for each in _some(folder, "*")):
        return Hint("It contains images, but no labels in a supported format.")
    return None


def _some(folder: Path, pattern: str) -> list[Path]:
    return list(_first(folder, pattern))


def _first(folder: Path, pattern: str) -> Iterator[Path]:
    count = 0
    for path in sorted(folder.glob(pattern)) if folder.is_dir() else ():
        if path.is_file() and not path.name.startswith("."):
            yield path
            count += 1
            if count == _FILES:
                return


def _ends(path: Path) -> bytes:
    """Return the beginning and the end of the file, b"" if it can't be read."""
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD)
            size = file.seek(0, 2)
            file.seek(max(len(head), size - _HEAD))
            return head + b"\n" + file.read()
    except (OSError, UserError):
        return b""
