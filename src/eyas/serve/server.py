"""The server: one event loop with REST, gRPC and the admin's ports around an engine; it starts and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import uvicorn

from eyas.errors import UserError
from eyas.serve.api import Engine
from eyas.serve.budget import Budget
from eyas.serve.grpc.calls import Methods
from eyas.serve.grpc.server import make_server
from eyas.serve.grpc.service import admin_services, public_services
from eyas.serve.http import urls
from eyas.serve.http.app import admin_app, public_app
from eyas.serve.http.connections import InTurns, Places, Turns
from eyas.serve.http.http_protocol import Guarded
from eyas.serve.http.middleware import Log
from eyas.serve.http.websocket_protocol import GuardedStream
from eyas.serve.observe.events import EventLog
from eyas.serve.observe.jsonl_log import Journal
from eyas.serve.observe.metrics import Metrics
from eyas.serve.observe.tracing import no_span, open_telemetry
from eyas.serve.security import check_token
from eyas.serve.server_settings import ServerSettings, Tls, read_pem, ssl_context
from eyas.serve.service import Service

_LOG = logging.getLogger("eyas.serve")
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Addresses:
    """Where a started server listens: host:port of each protocol, "" where there is none."""

    rest: str
    grpc: str = ""
    admin: str = ""
    admin_grpc: str = ""


@dataclass
class Server:
    """A server around an engine.

    Attributes:
        engine: who detects. It is drained and closed with the server.
        settings: how it is started.
        addresses: where it listens, once it has started.
        service: what its protocols share.
    """

    engine: Engine
    settings: ServerSettings
    addresses: Addresses = field(init=False)
    service: Service = field(init=False)
    _http: list[tuple[_Http, asyncio.Task[None]]] = field(init=False, default_factory=list)
    _grpc: list[grpc.aio.Server] = field(init=False, default_factory=list)
    _journals: list[Callable[[], None]] = field(init=False, default_factory=list)

    async def start(self) -> None:
        """Listen.

        Raises:
            UserError: a port is taken, or a file of TLS can't be used. Nothing listens then.
        """
        settings = self.settings
        metrics = Metrics(self.engine)
        events = None
        if settings.events is not None:
            events = EventLog(settings.events, on_drop=metrics.events_dropped.inc)
            self._journals.append(events.close)
        span = open_telemetry() if settings.telemetry else no_span
        budget = Budget(settings.limits.bodies)
        self.service = Service(self.engine, metrics, settings.limits, events, span, budget=budget)
        metrics.ready = self.service.ready
        try:
            await self._listen()
        except BaseException:
            await self._stop(0.0)
            raise

    async def _listen(self) -> None:
        settings, service, log = self.settings, self.service, self._access_log()
        hosts = settings.allowed_hosts
        fetch = partial(urls.fetch, most=settings.limits.body) if settings.urls else None
        public = public_app(service, keys=settings.keys, hosts=hosts, origins=settings.origins, fetch=fetch, log=log)
        rest = await self._serve_http(public, settings.port)
        admin = ""
        if settings.admin_port is not None:
            admin = await self._serve_http(
                admin_app(service, settings.admin_token, hosts=hosts, log=log), settings.admin_port
            )
        plain, guarded_admin = "", ""
        if settings.grpc_port is not None:
            services = public_services(service, settings.keys.client)
            plain = await self._serve_grpc(services, settings.grpc_port)
        if settings.admin_grpc_port is not None:
            services = admin_services(service, partial(check_token, settings.admin_token))
            guarded_admin = await self._serve_grpc(services, settings.admin_grpc_port)
        self.addresses = Addresses(rest, plain, admin, guarded_admin)

    async def _serve_http(self, app: Any, port: int) -> str:
        settings = self.settings
        listener = _bind(settings.host, port)
        places = Places(settings.limits.connections)
        guarded, turns = {"limits": settings.limits, "places": places}, Turns()
        config = uvicorn.Config(
            InTurns(app, turns),
            http=partial(Guarded, **guarded, turns=turns),  # type: ignore[arg-type] # it is called only
            ws=partial(GuardedStream, **guarded, budget=self.service.budget),  # type: ignore[arg-type]
            ws_max_size=settings.limits.body,
            ws_per_message_deflate=False,  # a frame is compressed already, and a small one could unpack to a large one
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # who the client is may not be claimed by the client
            timeout_graceful_shutdown=max(1, round(settings.grace)),
            backlog=2048,
        )
        if settings.tls is not None:
            config.load()
            config.ssl = ssl_context(settings.tls)
        server = _Http(config)
        task = asyncio.ensure_future(server.serve(sockets=[listener]))
        self._http.append((server, task))
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        if task.done():
            await task
        return _address(settings.host, listener.getsockname()[1])

    async def _serve_grpc(self, services: list[Methods], port: int) -> str:
        settings = self.settings
        credentials = None if settings.tls is None else _credentials(settings.tls)
        server, bound = make_server(services, _address(settings.host, port), settings.limits, credentials)
        await server.start()
        self._grpc.append(server)
        return _address(settings.host, bound)

    def _access_log(self) -> Log | None:
        target = self.settings.access_log
        if target is None:
            return None
        if target == "-":
            return lambda line: print(json.dumps(line, separators=(",", ":")), file=sys.stderr, flush=True)
        journal = Journal(Path(target), self.service.metrics.events_dropped.inc)
        self._journals.append(journal.close)
        return journal.write

    async def run(self, warm_up: Awaitable[None], seconds: float | None = None) -> None:
        """Warm up, serve until SIGTERM or SIGINT, then end in order; a second signal ends at once.

        A signal during the warm-up gives that up, but not the requests that were accepted meanwhile. So does an error
        of the warm-up, which is raised after the end.

        Args:
            warm_up: loads what is to be served.
            seconds: after which the server, once it is warm, ends by itself; None for never.
        """
        phase, again = self.service.phase, asyncio.Event()
        with _signals(lambda: (again if phase.draining else phase.end).set()):
            try:
                await phase.unless_draining(warm_up)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await phase.end.wait()
            finally:
                ending, hurry = asyncio.ensure_future(self.stop()), asyncio.ensure_future(again.wait())
                await asyncio.wait((ending, hurry), return_when=asyncio.FIRST_COMPLETED)
                hurry.cancel()
                if not ending.done():
                    ending.cancel()
                    await asyncio.gather(ending, return_exceptions=True)
                    await self._stop(0.0)
                else:
                    await ending

    async def stop(self) -> None:
        """End in order: not ready, wait, accept no more, answer what was accepted, close."""
        self.service.phase.end.set()
        await asyncio.sleep(self.settings.pre_stop)
        await self._stop(self.settings.grace)

    async def _stop(self, grace: float) -> None:
        """Stop accepting, answer what was accepted within the grace, and close everything."""
        for server, _ in self._http:
            server.should_exit = True
        tasks = [task for _, task in self._http]
        stops = [asyncio.ensure_future(server.stop(grace)) for server in self._grpc]
        if tasks or stops:
            await asyncio.wait([*tasks, *stops], timeout=grace + 2.0)
        for server, task in self._http:
            server.force_exit = True
            if not task.done():
                task.cancel()
        await asyncio.gather(*tasks, *stops, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.1, grace)):
                await self.engine.drain()
        await self.engine.close()
        for close in self._journals:
            await asyncio.to_thread(close)


class _Http(uvicorn.Server):
    """uvicorn, leaving the process' signals alone: one place decides when everything ends."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@contextlib.contextmanager
def _signals(told: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for each in SIGNALS:
        loop.add_signal_handler(each, told)
    try:
        yield
    finally:
        for each in SIGNALS:
            loop.remove_signal_handler(each)


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens soon, so that a taken port is told before anything starts."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio looks before it sets NODELAY
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise UserError(
            f"REST can't listen on {host}:{port}: {error.strerror}.", fix="choose another --host or --port"
        ) from None
    listener.setblocking(False)
    return listener


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    authority = None if tls.client_authority is None else read_pem(tls.client_authority)
    pair = (read_pem(tls.key), read_pem(tls.certificate))
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)


@contextlib.asynccontextmanager
async def serving(engine: Engine, settings: ServerSettings) -> AsyncIterator[Server]:
    """Serve within the block; for embedding and tests."""
    server = Server(engine, settings)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
