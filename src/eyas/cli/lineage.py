"""`eyas lineage FOLDER`: the chain from an artefact back to the images, each link checked against its hashes."""

from __future__ import annotations

import argparse
from pathlib import Path

from eyas.artifacts.card import CARD, Card, hash_file, lineage
from eyas.artifacts.hints import refuse_file
from eyas.errors import UserError
from eyas.text import say

HELP = "show what an artefact was made from, and verify that nothing was changed"
EXAMPLES: tuple[str, ...] = ("eyas lineage runs/quickstart",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("folder", type=Path, help="the folder of a run, bundle or dataset that has a card.json")


def run(args: argparse.Namespace) -> int:
    """Print the chain; return 1 if anything in it was changed, else 0."""
    refuse_file(args.folder)
    if not args.folder.is_dir():
        raise UserError(f"There is no folder {args.folder}.", expected=f"the folder of an artefact, with a {CARD}")
    changed = False
    expected: dict[Path, str] = {}  # folder -> the hash its child says it had
    for depth, folder, card in lineage(args.folder):
        fault = check(folder, card, expected.get(folder.resolve(), ""))
        changed = changed or bool(fault)
        say(describe(depth, folder, card, fault or "unchanged"))
        leaves: dict[str, None] = {}  # in order; the splits of a dataset are parents of their own, in one folder
        for parent in card.parents:
            path = Path(parent.get("path", ""))
            expected[path.resolve()] = parent.get("sha256", "")
            if path.is_file():
                same = hash_file(path) == parent.get("sha256")
                changed = changed or not same
                state = "unchanged" if same else "CHANGED: its SHA-256 differs from when it was read"
                leaves[f"{parent.get('kind', 'file')} {path}: {state}"] = None
            elif not (path / CARD).is_file():
                leaves[f"{parent.get('kind', 'artefact')} {path}: no card there, can't be verified"] = None
        for line in leaves:
            say(f"{'   ' * depth}└─ {line}")
    return 1 if changed else 0


def check(folder: Path, card: Card, expected: str) -> str:
    """Return what is wrong with the artefact, "" when nothing is.

    Args:
        folder: where it lies.
        card: its card.
        expected: the hash that what was made from it recorded, "" when nothing recorded one.
    """
    try:
        Card.verify(folder)
    except UserError as error:
        return f"CHANGED: {error.problem}"
    # A child notes the hash of the whole artefact, or of the one file of it that it read; of a dataset, of its index.
    if expected and card.kind != "dataset" and expected not in (card.sha256, *card.files.values()):
        return f"CHANGED: created again since; its descendants were made from {expected[:12]}"
    return ""


def describe(depth: int, folder: Path, card: Card, state: str) -> str:
    """Return the lines that show one artefact of the chain."""
    indent = "   " * depth
    branch = f"{'   ' * (depth - 1)}└─ " if depth else ""
    licence = card.recipe.get("licence")
    lines = [f"licence of the weights: {licence}"] if licence else []
    trackers = card.recipe.get("trackers")
    for name, place in trackers.items() if isinstance(trackers, dict) else ():
        if isinstance(place, dict):
            lines.append(f"tracked by {name}: run {place.get('id')} at {place.get('where')}")
    return (
        f"{branch}{card.kind} {folder}\n"
        f"{indent}   {card.sha256[:12]}  {card.created}  eyas {card.version}  {len(card.files)} files  {state}"
    ) + "".join(f"\n{indent}   {line}" for line in lines)
