"""Reading YAML that somebody else may have written: no value that holds itself, none that grows without end."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from eyas.errors import UserError, missing_extra

MAX_CHARACTERS = 16 * 2**20
MAX_VALUES = 2_000_000  # with each alias counted as what it stands for


def load_yaml(text: str, where: str, *, plain: Callable[[str], str] | None = None) -> Any:
    """Return what the YAML says, of Python's plain types.

    Args:
        text: the document.
        where: its file, for the error.
        plain: if given, every scalar is a text, so that `yes`, `010` and `1.50` stay what they are: in quotes what is
            in them, else what this makes of it; and a key that stands twice is refused.

    Raises:
        UserError: it is no YAML, or holds a value that contains itself, or grows beyond `MAX_VALUES`.
    """
    try:
        import yaml
    except ImportError:
        raise missing_extra("pyyaml", "train") from None
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"The YAML has {len(text) / 2**20:.0f} MiB.", where=where, expected="at most 16 MiB")
    loader = _texts_loader(plain)(text) if plain is not None else yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {}, where)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise UserError(f"This is not valid YAML: {error}.", where=where) from None
    except ValueError as error:  # a date that is none, a number of thousands of digits
        raise UserError(f"A value of the YAML can't be read: {error}.", where=where) from None
    except RecursionError:
        raise UserError("This is not valid YAML: it is nested too deeply.", where=where) from None
    finally:
        loader.dispose()


@cache
def _texts_loader(plain: Callable[[str], str]) -> Any:
    """Return a loader that makes a text of every scalar, and takes no key twice."""
    import yaml

    class Texts(yaml.BaseLoader):
        def construct_scalar(self, node: Any) -> Any:
            text = super().construct_scalar(node)
            return text if node.style else plain(text)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            mapping = super().construct_mapping(node, deep=deep)
            if len(mapping) < len(node.value):
                keys = [self.construct_object(key) for key, _ in node.value]
                twice = next(key for key in keys if keys.count(key) > 1)
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {twice!r:.80} occurs twice", node.start_mark
                )
            return mapping

    return Texts


def _size(node: Any, sizes: dict[int, int], where: str) -> int:
    """Return how many values a node stands for, aliases followed; 0 marks one that is being counted.

    Raises:
        UserError: it holds itself, or too many.
    """
    known = sizes.get(id(node))
    if known == 0:
        raise UserError("A value of the YAML contains itself through an alias.", where=where)
    if known is not None:
        return known
    sizes[id(node)] = 0
    total = 1
    if isinstance(node.value, list):
        for child in node.value:
            for one in child if isinstance(child, tuple) else (child,):
                total += _size(one, sizes, where)
    if total > MAX_VALUES:
        raise UserError(
            f"The YAML expands to more than {MAX_VALUES} values.", where=where, fix="write it without aliases"
        )
    sizes[id(node)] = total
    return total
