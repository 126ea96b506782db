"""Whatever reaches the terminal goes by one door, which shows what names hold and obeys none of it."""

from __future__ import annotations

import ast

import pytest
from tests.meta.source import modules

DOORS = {"eyas.text", "eyas.terminal"}
# Lines for another program, in JSON of ASCII letters, or made printable on the spot.
LINES = {"eyas.serve.server", "eyas.serve.engine.worker_planning", "eyas.cli.main"}


@pytest.mark.parametrize("name", sorted(modules().keys() - DOORS))
def test_nothing_is_printed_past_the_door(name: str) -> None:
    text = modules()[name].read_text(encoding="utf-8")
    found = (node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    calls = {function.id for function in found if isinstance(function, ast.Name)}
    banned = {"Console"} if name in LINES else {"print", "Console"}
    banned |= {"Table"} if "from rich.table import Table" in text else set()
    assert not calls & banned, "use eyas.text.say, or open_console and open_table of eyas.terminal"
