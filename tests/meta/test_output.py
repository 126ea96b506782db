"""Whatever reaches the terminal goes by one door, which shows what names hold and obeys none of it."""

from __future__ import annotations

import ast

import pytest
from tests.meta.source import modules

DOORS = {"eyas.text", "eyas.terminal"}
# Lines for another program, in JSON of ASCII letters, or made printable on the spot.
LINES = {"eyas.serve.server", "eyas.serve.profile", "eyas.cli.main"}


@pytest.mark.parametrize("name", sorted(modules().keys() - DOORS))
def test_nothing_is_printed_past_the_door(name: str) -> None:
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not calls & ({"Console"} if name in LINES else {"print", "Console"}), "use eyas.text.say or open_console"
