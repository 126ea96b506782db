"""How requests are shared out, as it is written on the command line or in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from eyas.errors import UserError
from eyas.serve.engine.routing import Split


def read_routes(path: Path) -> dict[str, Split]:
    """Return the splits of a file: {"MODEL": {"weights": {"@champion": 9, ...}, "sticky", "header", "shadows"}}.

    Raises:
        UserError: the file can't be read, or says something that makes no sense.
    """
    try:
        document = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Any]])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"The file of routes can't be read: {error}.", where=str(path), expected='{"MODEL": {...}}'
        ) from None
    return {name: _split(fields, f"{path}: {name}") for name, fields in document.items()}


def splits_of(weights: Sequence[str], shadows: Sequence[str], sticky: str, header: str) -> dict[str, Split]:
    """Return the splits that the command line asks for; "" stands for every model.

    Args:
        weights: each "[MODEL:]@champion=9,@challenger=1".
        shadows: each "[MODEL:]@challenger".
        sticky: the header that one client always sends alike, "" for none.
        header: the header that chooses a version, "" for none.

    Raises:
        UserError: one of them makes no sense.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in weights:
        model, _, rest = text.rpartition(":")
        shares = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        try:
            found.setdefault(model, {})["weights"] = {name: float(share) for name, share in shares.items()}
        except ValueError:
            raise UserError(f"'{rest}' are no shares.", expected="@champion=9,@challenger=1", where=text) from None
    for text in shadows:
        model, _, rest = text.rpartition(":")
        found.setdefault(model, {}).setdefault("shadows", []).append(rest)
    if (sticky or header) and not found:
        found[""] = {}
    where = " ".join([*weights, *shadows, sticky, header])
    return {model: _split({**fields, "sticky": sticky, "header": header}, where) for model, fields in found.items()}


def _split(fields: Mapping[str, Any], where: str) -> Split:
    try:
        split = msgspec.convert(fields, Split)
    except msgspec.ValidationError as error:
        raise UserError(
            f"This is no way to share out requests: {error}.",
            where=where,
            expected=f"{', '.join(Split.__struct_fields__)}; a version is @alias or a number",
        ) from None
    return msgspec.structs.replace(split, sticky=split.sticky.lower(), header=split.header.lower())
