"""`eyas serve` as a function: bundles to a running server, and the words that greet whoever started it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eyas.errors import UserError
from eyas.runtime.manifest import read_manifest
from eyas.serve.api import Engine, ModelKey
from eyas.serve.engine import LocalEngine
from eyas.serve.engine_settings import EngineSettings
from eyas.serve.errors import ServeError
from eyas.serve.server import Addresses, Server
from eyas.serve.server_settings import ServerSettings


@dataclass(frozen=True)
class Serving:
    """A bundle to serve, under its name and version."""

    key: ModelKey
    bundle: Path


def _print(line: str) -> None:
    print(line, flush=True)  # whoever waits for the address reads it now, also through a pipe


def serve(
    bundles: Sequence[str],
    settings: ServerSettings,
    engine: EngineSettings,
    *,
    say: Callable[[str], None] = _print,
    seconds: float | None = None,
) -> None:
    """Serve the bundles until SIGTERM or SIGINT.

    Args:
        bundles: folders of bundles, or NAME=FOLDER; a name that comes again is the next version.
        settings: how the server is started.
        engine: how bundles are served.
        say: prints a line.
        seconds: after which the server ends by itself; None for never.

    Raises:
        UserError: a bundle can't be served, or an address is taken.
    """
    wanted = named(bundles)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(wanted, settings, engine, say, seconds))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes uvloop's event loop, None where it is not installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def named(bundles: Sequence[str]) -> list[Serving]:
    """Return the bundles with their names, from NAME=FOLDER or the manifest, and versions from 1.

    Raises:
        UserError: a folder is no bundle, or none is named.
    """
    if not bundles:
        raise UserError("There is nothing to serve.", fix="eyas serve FOLDER-OF-A-BUNDLE")
    found: list[Serving] = []
    for text in bundles:
        name, separator, folder = text.partition("=")
        if not separator or Path(text).is_dir():
            name, folder = "", text
        name = name or read_manifest(Path(folder), verify=False).name
        version = 1 + sum(each.key.name == name for each in found)
        found.append(Serving(ModelKey(name, str(version)), Path(folder)))
    return found


async def _serve(
    wanted: Sequence[Serving],
    settings: ServerSettings,
    engine_settings: EngineSettings,
    say: Callable[[str], None],
    seconds: float | None,
) -> None:
    engine = LocalEngine(engine_settings)
    server = Server(engine, settings)
    await server.start()
    try:
        await _load(engine, wanted)
    except BaseException:
        await server.stop()
        raise
    for line in greeting(settings, server.addresses, wanted):
        say(line)
    await server.run(seconds)
    say("Ended: everything that was accepted has been answered.")


async def _load(engine: Engine, wanted: Sequence[Serving]) -> None:
    """Load the bundles, one after the other: the last version of a name becomes its default."""
    for each in wanted:
        try:
            await engine.load(each.key.name, each.key.version, each.bundle)
        except ServeError as error:
            raise UserError(error.message, where=str(each.bundle)) from error


def greeting(settings: ServerSettings, addresses: Addresses, wanted: Sequence[Serving]) -> list[str]:
    """Return what a person wants to know of a server that has just started."""
    scheme = "http" if settings.tls is None else "https"
    key = " -H 'X-API-Key: KEY'" if settings.keys.hashes else ""
    lines = [f"Serving {each.key.name}, version {each.key.version} ({each.bundle})" for each in wanted]
    lines += [f"  REST   {scheme}://{addresses.rest}  (a page to try a picture: {scheme}://{addresses.rest}/)"]
    lines += [f"  gRPC   {addresses.grpc}  (Open Inference Protocol)"] if addresses.grpc else []
    lines += [f"  admin  {scheme}://{addresses.admin}"] if addresses.admin else []
    lines += [f"  admin  {addresses.admin_grpc}  (gRPC)"] if addresses.admin_grpc else []
    ask = f"curl{key} -H 'Content-Type: image/jpeg' --data-binary @picture.jpg"
    lines += [f"Try:  {ask} {scheme}://{addresses.rest}/v1/detect"]
    known = settings.keys.hashes or (settings.tls is not None and settings.tls.client_authority is not None)
    if not settings.loopback and not known:
        lines += ["warning: everybody who reaches this machine may use the server; --keys FILE asks for a key"]
    return lines
