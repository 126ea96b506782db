"""The two HTTP applications: the public one, and the admin's on a port of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Http
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp

from eyas.serve.errors import ServeError
from eyas.serve.http.detect import Detect, RawImages
from eyas.serve.http.middleware import Guard, Log, Surround
from eyas.serve.http.openapi import document
from eyas.serve.http.responses import on_error, reply
from eyas.serve.http.stream import Stream
from eyas.serve.http.urls import Fetcher
from eyas.serve.observe.metrics import CONTENT_TYPE
from eyas.serve.oip.rest import RestInference, RestRepository
from eyas.serve.security import EVERYBODY, OPEN_PATHS, Keys, check_host, check_origin, check_token
from eyas.serve.service import Service

PAGE = Path(__file__).with_name("page.html")
# The page is its own script and style; it may talk to this server only, and nobody may put it into a frame.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
# Of an answer's headers, those that a page of an allowed origin may read.
_READABLE = ("x-request-id", "x-eyas-model", "x-eyas-detections", "inference-header-content-length", "retry-after")


def public_app(
    service: Service,
    *,
    keys: Keys = EVERYBODY,
    hosts: frozenset[str] = frozenset(),
    origins: frozenset[str] = frozenset(),
    fetch: Fetcher | None = None,
    log: Log | None = None,
) -> ASGIApp:
    """Return the application that clients talk to; hosts and origins are as in `ServerSettings`.

    `fetch` gets images from URLs, None where they are off; `log` takes the lines of the access log.
    """
    detect, inference = Detect(service, fetch), RestInference(service)
    routes = [
        Route("/", _page, methods=["GET"]),
        Route("/openapi.json", partial(_document, service), methods=["GET"]),
        Route("/v1/detect", detect.one, methods=["POST"]),
        Route("/v1/detect/batch", detect.batch, methods=["POST"]),
        Route("/v1/feedback", detect.feedback, methods=["POST"]),
        WebSocketRoute("/v1/stream", partial(Stream.handle, service)),
        Route("/v2", inference.server, methods=["GET"]),
        *_told(service, inference),
    ]
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            Route(path, inference.model, methods=["GET"]),
            Route(path + "/ready", inference.model_ready, methods=["GET"]),
            Route(path + "/infer", inference.infer, methods=["POST"]),
        ]
    app = RawImages(_routed(routes), service)
    whole = Surround(app, service, _guard(hosts, origins, keys.client), log)
    if not origins:
        return whole
    return CORSMiddleware(whole, tuple(origins), ("GET", "POST"), ("*",), expose_headers=_READABLE)


def admin_app(service: Service, token: str, *, hosts: frozenset[str] = frozenset(), log: Log | None = None) -> Surround:
    """Return the application that loads, unloads and flips aliases; everything but the probes needs the token."""
    repository = RestRepository(service)
    routes = [
        *_told(service, RestInference(service)),
        Route("/v1/models/{model}/aliases/{alias}", repository.alias, methods=["PUT"]),
        Route("/v2/repository/index", repository.index, methods=["POST"]),
        Route("/v2/repository/models/{model}/load", repository.load, methods=["POST"]),
        Route("/v2/repository/models/{model}/unload", repository.unload, methods=["POST"]),
    ]
    guard = _guard(hosts, frozenset(), partial(check_token, token))
    return Surround(_routed(routes), service, guard, log)


def _told(service: Service, inference: RestInference) -> list[BaseRoute]:
    """Return what both applications tell of the server."""
    return [
        Route("/livez", inference.live, methods=["GET"]),
        Route("/readyz", inference.ready, methods=["GET"]),
        Route("/v2/health/live", inference.live, methods=["GET"]),
        Route("/v2/health/ready", inference.ready, methods=["GET"]),
        Route("/v1/models", Detect(service).models, methods=["GET"]),
        Route("/metrics", partial(_metrics, service), methods=["GET"]),
    ]


def _routed(routes: list[BaseRoute]) -> Starlette:
    errors = dict.fromkeys((ServeError, HTTPException, ClientDisconnect, Exception), on_error)
    app = Starlette(routes=routes, exception_handlers=errors)
    app.router.redirect_slashes = False
    return app


def _guard(hosts: frozenset[str], origins: frozenset[str], let_in: Callable[[Mapping[str, str]], str]) -> Guard:
    def guard(method: str, path: str, headers: Mapping[str, str]) -> str:
        check_host(headers.get("host"), hosts)
        check_origin(method, path, headers, origins)
        return "" if path in OPEN_PATHS else let_in(headers)

    return guard


async def _page(_http: Http) -> Response:
    return Response(PAGE.read_bytes(), headers=_PAGE_HEADERS, media_type="text/html; charset=utf-8")


async def _document(service: Service, _http: Http) -> Response:
    return reply(document(service.limits))


async def _metrics(service: Service, _http: Http) -> Response:
    return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})
