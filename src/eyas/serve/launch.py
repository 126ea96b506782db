"""`eyas serve` as a function: bundles and a registry to a running server, and the words for whoever started it."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from eyas.artifacts.manifest import Manifest
from eyas.artifacts.model_key import ModelKey
from eyas.errors import UserError
from eyas.registry import open_registry
from eyas.serve.api import Answer, Engine, Request, Versions
from eyas.serve.blocking import in_thread
from eyas.serve.engine.engine import LocalEngine
from eyas.serve.engine.follow import Follower, wanted_of
from eyas.serve.engine.routing import Router
from eyas.serve.engine.settings import EngineSettings
from eyas.serve.errors import ServeError
from eyas.serve.server import Addresses, Server
from eyas.serve.server_settings import ServerSettings
from eyas.text import say as say_line


@dataclass(frozen=True)
class Serving:
    """A bundle to serve, under its name and version."""

    key: ModelKey
    bundle: Path

    @property
    def line(self) -> str:
        """A line of words for whoever started the server."""
        return f"Serving {self.key.name}, version {self.key.version} ({self.bundle})"


@dataclass(frozen=True)
class Registered:
    """What of a registry is served, and followed.

    Attributes:
        registry: a folder or an MLflow server's address; None for the usual place.
        models: what of the registry is served, as NAME, NAME@ALIAS or NAME:VERSION; none for all that has an alias.
    """

    registry: str | None = None
    models: tuple[str, ...] = ()


def _print(line: str) -> None:
    say_line(line, flush=True)  # whoever waits for the address reads it now, also through a pipe


def serve(
    bundles: Sequence[str],
    settings: ServerSettings,
    engine: EngineSettings,
    *,
    registered: Registered | None = None,
    router: Router | None = None,
    say: Callable[[str], None] = _print,
    seconds: float | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        bundles: folders of bundles, or NAME=FOLDER; a name that comes again is the next version.
        settings: how the server is started.
        engine: how bundles are served.
        registered: what of a registry is served besides.
        router: which version answers which request; by aliases if None.
        say: prints a line.
        seconds: after which the server ends by itself; None for never.

    Raises:
        UserError: a bundle or nothing of the registry can be served, or an address is taken.
    """
    wanted = named(bundles, more=registered is not None)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(wanted, registered, router, settings, engine, say, seconds))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def named(bundles: Sequence[str], *, more: bool = False) -> list[Serving]:
    """Return the bundles with their names, from NAME=FOLDER or the manifest, and versions from 1.

    Args:
        bundles: the words.
        more: whether something else is served as well, so that they may be none.

    Raises:
        UserError: a folder is no bundle, or none is named.
    """
    if not bundles and not more:
        raise UserError(
            "There is nothing to serve.",
            fix="eyas serve BUNDLE, or eyas serve --model NAME for a model of the registry",
        )
    found: list[Serving] = []
    for text in bundles:
        name, separator, folder = text.partition("=")
        if not separator or Path(text).is_dir():
            name, folder = "", text
        name = name or Manifest.read(Path(folder), verify=False).name
        version = 1 + sum(each.key.name == name for each in found)
        found.append(Serving(ModelKey(name, str(version)), Path(folder)))
    return found


async def _serve(
    bundles: list[Serving],
    registered: Registered | None,
    router: Router | None,
    settings: ServerSettings,
    engine_settings: EngineSettings,
    say: Callable[[str], None],
    seconds: float | None,
) -> None:
    def shadowed(request: Request, key: ModelKey, result: Answer | ServeError) -> None:
        server.service.shadowed(request, key, result)

    engine = LocalEngine(engine_settings, router, shadowed)
    server = Server(engine, settings)
    await server.start()
    phase = server.service.phase
    phase.warming.set()
    following: list[asyncio.Future[None]] = []

    async def warm_up() -> None:
        await _load(engine, bundles)
        lines = [each.line for each in bundles]
        if registered is not None:
            follower = await follower_of(engine, registered, bundles)
            server.service.metrics.registry.register(follower)
            server.service.details["registry"] = follower.document
            lines += await follower.start()
            following.append(asyncio.ensure_future(phase.unless_draining(follower.run())))
        gc.collect()
        gc.freeze()  # what is there by now stays: to look through it again would hold up every request for 30 ms
        phase.warming.clear()
        for line in greeting(settings, server.addresses, lines):
            say(line)

    try:
        await server.run(warm_up(), seconds)
    except ServeError as error:
        raise UserError(error.message) from error
    finally:
        await asyncio.gather(*following, return_exceptions=True)
    say("Stopped: all accepted requests have been answered.")


async def follower_of(versions: Versions, registered: Registered, bundles: Sequence[Serving]) -> Follower:
    """Return what follows the registry.

    Args:
        versions: what is served, to be kept in step with it.
        registered: what of the registry is wanted.
        bundles: what is served besides.

    Raises:
        UserError: a name of the registry is a bundle's as well.
    """
    wanted = wanted_of(registered.models)
    registry = open_registry(registered.registry)
    names = set(wanted.follow or ()) | {key.name for key in wanted.fixed}
    if wanted.follow is None:
        names |= {model.name for model in await in_thread(registry.list)}
    for each in bundles:
        if each.key.name in names:
            raise UserError(
                f"The registry also has a model '{each.key.name}'.", fix=f"give the bundle a name: NAME={each.bundle}"
            )
    return Follower(registry, versions, wanted)


async def _load(engine: Engine, wanted: Sequence[Serving]) -> None:
    """Load the bundles, one after the other: the last version of a name becomes its default."""
    for each in wanted:
        try:
            await engine.load(each.key.name, each.key.version, each.bundle)
        except ServeError as error:
            raise UserError(error.message, where=str(each.bundle)) from error


def greeting(settings: ServerSettings, addresses: Addresses, served: Sequence[str]) -> list[str]:
    """Return what a person wants to know of a server that has just started, after the lines of what it serves."""
    scheme = "http" if settings.tls is None else "https"
    here = partial(reachable, settings=settings)
    rest = here(addresses.rest)
    key = " -H 'X-API-Key: KEY'" if settings.keys.hashes else ""
    lines = [*served, f"  REST   {scheme}://{rest}  (a page to try an image: {scheme}://{rest}/)"]
    lines += [f"  gRPC   {here(addresses.grpc)}  (Open Inference Protocol)"] if addresses.grpc else []
    lines += [f"  admin  {scheme}://{here(addresses.admin)}"] if addresses.admin else []
    lines += [f"  admin  {here(addresses.admin_grpc)}  (gRPC)"] if addresses.admin_grpc else []
    ask = f"curl{key} -H 'Content-Type: image/jpeg' --data-binary @image.jpg"
    lines += [f"Try:  {ask} {scheme}://{rest}/v1/detect"]
    if is_wildcard(settings.host) and not settings.hosts and (other := outer_address(":" in settings.host)):
        port = addresses.rest.rpartition(":")[2]
        lines += [f"From other machines:  {scheme}://{other}:{port}"]
    known = settings.keys.hashes or (settings.tls is not None and settings.tls.client_authority is not None)
    if not settings.loopback and not known:
        lines += ["warning: anyone who can reach this machine may use the server; --keys FILE requires a key"]
    return lines


def is_wildcard(host: str) -> bool:
    """Return whether the host stands for all addresses of this machine, and so is none that can be opened."""
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def reachable(address: str, settings: ServerSettings) -> str:
    """Return an address that can be opened on this machine for one that the server listens at."""
    if not is_wildcard(settings.host):
        return address
    local = "[::1]" if ":" in settings.host else "127.0.0.1"
    if settings.hosts and local.strip("[]") not in settings.hosts:
        local = min(settings.hosts)  # others are refused, see `check_host`
    return f"{local}:{address.rpartition(':')[2]}"


def outer_address(version_6: bool) -> str:
    """Return the address that this machine has on the way out, "" where there is no way; nothing is sent."""
    family, there = (socket.AF_INET6, "2001:db8::1") if version_6 else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((there, 9))
            found = str(probe.getsockname()[0])
    except OSError:
        return ""
    return f"[{found}]" if version_6 else found
