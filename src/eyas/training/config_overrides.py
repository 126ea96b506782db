"""Overriding a recipe's fields from a file and the command line, each value checked against the field's type."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from eyas.checks import shown
from eyas.data.yaml_file import load_yaml
from eyas.errors import UserError, suggest
from eyas.training.recipe import Recipe, dotted_fields

_DEPTH = 8  # of a recipe's fields; real ones have two
_LEAVES = frozenset(dotted_fields(Recipe()))  # a field may itself be a mapping


def override(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe with fields replaced: `override(scratch(), {"optim.lr": 1e-3, "model.name": "s"})`.

    Raises:
        UserError: a field is unknown (the nearest is suggested) or a value has the wrong type.
    """
    fields = dotted_fields(recipe)
    for name in changes:
        if name not in fields:
            if not isinstance(name, str) or len(name) > 200:
                raise UserError(f"The recipe has no field {shown(name)}.")
            leaf = name.rsplit(".", 1)[-1]
            by_leaf = [known for known in fields if known.endswith(f".{leaf}")]
            near = f" (did you mean '{by_leaf[0]}'?)" if by_leaf else suggest(name, fields)
            raise UserError(
                f"The recipe has no field '{name}'{near}.",
                expected="a field listed by 'eyas train --help'",
                where=name,
            )
    if not changes:
        return recipe
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe, None)
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            parsed = parser.parse_object(nest({**fields, **changes}))
            return Recipe(**vars(parser.instantiate_classes(parsed)))
    except (ArgumentError, TypeError, ValueError) as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        text = str(error) or messages.getvalue()
        raise UserError(
            f"A recipe value has the wrong type: {text}", expected="the types shown by 'eyas train --help'"
        ) from None


def read_config(path: Path) -> dict[str, Any]:
    """Return the dotted fields that a YAML or JSON file of nested recipe fields sets.

    Raises:
        UserError: there is no such file, or it holds no mapping.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.", where="--config")
    try:
        content = load_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: {error}", where="--config") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a mapping.", expected="nested fields, as in recipe.json", where="--config")
    return flatten(content)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"optim": {"lr": 1}} as {"optim.lr": 1}.

    Raises:
        UserError: it is no mapping, or is nested deeper than any recipe.
    """
    if not isinstance(nested, Mapping) or prefix.count(".") > _DEPTH:
        raise UserError(f"A recipe's fields are {shown(nested)}.", expected="nested fields, as in recipe.json")
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) and name not in _LEAVES else {name: value}
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"optim.lr": 1} as {"optim": {"lr": 1}}."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[leaf] = value
    return nested
