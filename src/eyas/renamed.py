"""Names of one release ago that are still understood; each is told when it is used, and goes with the next release."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

IMAGE_LIST = "pictures.csv"  # of a run
SHEETS = "pictures"  # of a run
IMAGE_COLUMN = "picture"  # of the list
PLANNED_IMAGES = "pictures"  # what a line of a prediction's plan calls a part of single files, by which it is known

# Key of a report in JSON -> the old one, which is written beside it.
KEYS: Mapping[str, str] = MappingProxyType({
    "images": "pictures",
    "class_images": "class_pictures",
    "image_sizes": "picture_sizes",
    "worst_images": "worst_pictures",
    "milliseconds_per_image": "milliseconds_per_picture",
})  # fmt: skip
OLD_KEYS: Mapping[str, str] = MappingProxyType({old: new for new, old in KEYS.items()} | {"picture": "image"})

# Metric of the server -> the old one, which is served beside it.
METRICS: Mapping[str, str] = MappingProxyType({
    "eyas_images": "eyas_pictures",
    "eyas_batch_images": "eyas_batch_pictures",
    "eyas_images_refused": "eyas_pictures_refused",
})  # fmt: skip

# Command -> its old options -> what they are called now.
OPTIONS: Mapping[str, Mapping[str, str]] = MappingProxyType({
    "compile": {"--budget": "--max-drop"},
    "detect": {"--no-pictures": "--no-images"},
    "serve": {"--keep-pictures": "--keep-images"},
})  # fmt: skip


def tell(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that a name is an old one."""
    warnings.warn(
        f"{old} is now {new}; the old name will be removed in the next release.", FutureWarning, stacklevel=stacklevel
    )


def with_old_keys(value: Any) -> Any:
    """Return a report as JSON holds it, with each renamed key under its old name, too."""
    if isinstance(value, dict):
        fields = {key: with_old_keys(each) for key, each in value.items()}
        return fields | {KEYS[key]: fields[key] for key in value if key in KEYS}
    return [with_old_keys(each) for each in value] if isinstance(value, list) else value


def with_new_keys(fields: Any) -> Any:
    """Return an object of JSON, written by any release, with the keys of this one; whatever else it is as it is."""
    if not isinstance(fields, dict):
        return fields
    return {OLD_KEYS.get(key, key) if isinstance(key, str) else key: value for key, value in fields.items()}


def with_new_options(command: str, arguments: Sequence[str]) -> list[str]:
    """Return a command's arguments with the options of this release."""
    known, found = OPTIONS.get(command, {}), list(arguments)
    end = found.index("--") if "--" in found else len(found)
    for i, (option, equals, value) in enumerate(each.partition("=") for each in found[:end]):
        if option in known:
            tell(option, known[option])
            found[i] = known[option] + equals + value
    return found


def renamed_arguments(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take arguments by old names: old -> new."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in names.keys() & kwargs.keys():
                tell(f"{function.__name__}({old}=...)", f"{names[old]}=")
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapped

    return decorate
