"""Reading single values of annotation files as the many tools write them."""

from __future__ import annotations

from typing import Any

_YES = frozenset({"1", "true", "yes", "y", "t", "on", "1.0"})
_NO = frozenset({"", "0", "false", "no", "n", "f", "off", "0.0", "none", "null", "unspecified"})


def read_flag(value: Any) -> bool | None:
    """Return what a flag such as COCO's "iscrowd" or VOC's <difficult> says, None if it says neither yes nor no.

    Args:
        value: a JSON value or an element's text; None, blank and "Unspecified" mean no.
    """
    if isinstance(value, str):
        text = value.strip().lower()
        return True if text in _YES else False if text in _NO else None
    if value is None or isinstance(value, int | float):
        return bool(value) if value in (0, 1, None) else None
    return None
