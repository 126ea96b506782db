"""`eyas registry VERB`: keep bundles under names and versions, and say which one is the champion."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from eyas.text import json_text, say

if TYPE_CHECKING:
    from eyas.registry import Model, Registry, Version

HELP = "manage bundles by name, version and alias, such as champion"
EXAMPLES: tuple[str, ...] = (
    "eyas registry add bundles/quickstart --name shapes",
    "eyas registry promote shapes 1",
    "eyas registry add bundles/next --name shapes --alias challenger",
    "eyas registry promote shapes 2 --alias champion",
    "eyas registry rollback shapes",
    "eyas registry list",
    "eyas registry show shapes@champion --json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a sub-command for each piece of work."""
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (line, add, _) in COMMANDS.items():
        examples = "\n".join(f"  {example}" for example in EXAMPLES if example.startswith(f"eyas registry {name}"))
        epilog = f"examples:\n{examples}" if examples else None
        command = commands.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.", epilog=epilog)
        add(command)
        command.add_argument("--registry", metavar="PLACE",
            help="a folder, or the address of an MLflow server (default: $EYAS_REGISTRY, else ./registry)")  # fmt: skip
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
        command.add_argument("--debug", action="store_true", help="show the Python traceback of an error")


def run(args: argparse.Namespace) -> int:
    """Do the sub-command's work and return the exit code."""
    from eyas.registry import open_registry

    COMMANDS[args.command][2](open_registry(args.registry), args)
    return 0


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="the folder of a bundle, written by 'eyas compile'")
    parser.add_argument("--name", required=True, help="the model to add a version to; created if new")
    parser.add_argument("--alias", help="also point this alias to the version, such as challenger")


def _add_nothing(parser: argparse.ArgumentParser) -> None:
    """Add no argument."""


def _add_reference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="NAME for the whole model, NAME:3 or NAME@champion for one version"
    )


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the model")


def _add_alias(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--alias", default="champion", help="the alias to move (default: %(default)s)")


def _add_promoted(parser: argparse.ArgumentParser) -> None:
    _add_name(parser)
    parser.add_argument("version", metavar="VERSION", help="the version number")
    _add_alias(parser)


def _add_rolled_back(parser: argparse.ArgumentParser) -> None:
    _add_name(parser)
    _add_alias(parser)


def _add(registry: Registry, args: argparse.Namespace) -> None:
    if args.alias:
        from eyas.registry.base import check_alias

        check_alias(args.alias)  # before anything is copied
    version = registry.add(args.bundle, args.name)
    if args.alias:
        registry.promote(args.name, version.key.version, args.alias)
    _tell(version, args, f"{args.name} version {version.key.version} is {version.sha256[:12]}")


def _promote(registry: Registry, args: argparse.Namespace) -> None:
    version = registry.promote(args.name, args.version, args.alias)
    _tell(version, args, f"{args.name}@{args.alias} is version {version.key.version}")


def _roll_back(registry: Registry, args: argparse.Namespace) -> None:
    version = registry.rollback(args.name, args.alias)
    _tell(version, args, f"{args.name}@{args.alias} is version {version.key.version} again")


def _list(registry: Registry, args: argparse.Namespace) -> None:
    models = registry.list()
    if args.json:
        say(json_text([_model_fields(model) for model in models], indent=2))
        return
    if not models:
        say(f"The registry at {registry.location} is empty; add a bundle: eyas registry add BUNDLE --name NAME")
        return
    from eyas.terminal import open_table

    table = open_table("model", ">versions", "aliases")
    for model in models:
        pointing = ", ".join(f"{alias} -> {version}" for alias, version in sorted(model.aliases.items()))
        table.add_row(model.name, str(len(model.versions)), pointing)
    _print(table)


def _show(registry: Registry, args: argparse.Namespace) -> None:
    from eyas.registry.base import parse_reference

    name, reference = parse_reference(args.model)
    if reference:
        resolved = registry.resolve(name, reference)
        fields = {**_version_fields(resolved.version), "bundle": str(resolved.bundle), "files": dict(resolved.hashes)}
        if args.json:
            say(json_text(fields, indent=2))
        else:
            _print_fields({key: value for key, value in fields.items() if key not in ("files", "card")})
        return
    model = registry.show(name)
    if args.json:
        say(json_text(_model_fields(model), indent=2))
    else:
        _print_model(model)


def _tell(version: Version, args: argparse.Namespace, line: str) -> None:
    say(json_text(_version_fields(version), indent=2) if args.json else line)


def _version_fields(version: Version) -> dict[str, Any]:
    fields = {"name": version.key.name, "version": version.key.version, "sha256": version.sha256}
    return {**fields, "created": version.created, **version.tags}


def _model_fields(model: Model) -> dict[str, Any]:
    """Return a model, ready for JSON."""
    return {
        "name": model.name,
        "aliases": dict(model.aliases),
        "versions": [_version_fields(version) for version in model.versions],
        "history": [asdict(event) for event in model.events],
    }


def _print_model(model: Model) -> None:
    """Print a table of the versions and what was done to the aliases."""
    from eyas.terminal import open_table

    table = open_table(">version", "added", "bundle", "target", "precision", ">mAP", "aliases")
    for version in model.versions:
        tags = [version.tags.get(name, "") for name in ("target", "precision", "mAP")]
        here = ", ".join(sorted(alias for alias, number in model.aliases.items() if number == version.key.version))
        added = version.created[:16].replace("T", " ")
        table.add_row(version.key.version, added, version.sha256[:12], *tags, here)
    _print(table)
    for version in model.versions:
        if latency := version.tags.get("latency"):
            say(f"latency of {version.key.version}: {latency}")
    for event in model.events[-10:]:
        who = f" by {event.by}" if event.by else ""
        say(f"{event.at}  {event.action} {event.alias} -> {event.version}{who}")


def _print_fields(fields: Mapping[str, str]) -> None:
    width = max(map(len, fields))
    for key, value in fields.items():
        say(f"{key:<{width}}  {value}")


def _print(table: Any) -> None:
    from eyas.terminal import open_console

    open_console().print(table)


Work = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[["Registry", argparse.Namespace], None]]
COMMANDS: Mapping[str, Work] = MappingProxyType(
    {
        "add": ("store a copy of a bundle as a model's next version", _add_bundle, _add),
        "list": ("list the models", _add_nothing, _list),
        "show": (
            "show a model's versions and history, or one version and the path of its files",
            _add_reference,
            _show,
        ),
        "promote": ("point an alias to a version, after verifying its files", _add_promoted, _promote),
        "rollback": ("point an alias back to its previous version", _add_rolled_back, _roll_back),
    }
)
