"""The two HTTP applications: the public one, and the admin's on a port of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Http
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from eyas.serve.errors import ServeError
from eyas.serve.http.detect import Detect
from eyas.serve.http.fast_path import RawImages
from eyas.serve.http.inference import Inference, Repository
from eyas.serve.http.middleware import Log, Surround
from eyas.serve.http.openapi import document
from eyas.serve.http.responses import on_crash, on_disconnect, on_http_error, on_serve_error, reply
from eyas.serve.http.stream import Stream
from eyas.serve.http.urls import Fetcher
from eyas.serve.observe.metrics import CONTENT_TYPE
from eyas.serve.security import OPEN_PATHS, Keys, check_host, check_origin, check_token, key_of
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
_ERRORS: Mapping[Any, Callable[[Http, Exception], Any]] = {
    ServeError: on_serve_error,
    HTTPException: on_http_error,
    ClientDisconnect: on_disconnect,
    Exception: on_crash,
}


def public_app(
    service: Service,
    *,
    keys: Keys | None = None,
    hosts: frozenset[str] = frozenset(),
    origins: frozenset[str] = frozenset(),
    fetch: Fetcher | None = None,
    log: Log | None = None,
) -> ASGIApp:
    """Return the application that clients talk to.

    Args:
        service: what answers.
        keys: who may come in; None for everybody.
        hosts: names that the server answers for; empty for all.
        origins: of pages of other sites that may ask; "*" for all.
        fetch: gets images from URLs; None where they are off.
        log: takes the lines of the access log; None for no log.
    """
    detect, inference = Detect(service, fetch), Inference(service)
    app = Starlette(
        routes=[
            Route("/", partial(_file, PAGE, "text/html; charset=utf-8"), methods=["GET"]),
            Route("/openapi.json", partial(_document, service), methods=["GET"]),
            Route("/v1/detect", detect.one, methods=["POST"]),
            Route("/v1/detect/batch", detect.batch, methods=["POST"]),
            Route("/v1/feedback", detect.feedback, methods=["POST"]),
            Route("/v1/models", detect.models, methods=["GET"]),
            WebSocketRoute("/v1/stream", Stream(service).handle),
            Route("/v2", inference.server, methods=["GET"]),
            *_probes(inference),
            Route("/v2/models/{model}", inference.model, methods=["GET"]),
            Route("/v2/models/{model}/ready", inference.model_ready, methods=["GET"]),
            Route("/v2/models/{model}/infer", inference.infer, methods=["POST"]),
            Route("/v2/models/{model}/versions/{version}", inference.model, methods=["GET"]),
            Route("/v2/models/{model}/versions/{version}/ready", inference.model_ready, methods=["GET"]),
            Route("/v2/models/{model}/versions/{version}/infer", inference.infer, methods=["POST"]),
            Route("/metrics", partial(_metrics, service), methods=["GET"]),
        ],
        exception_handlers=_ERRORS,
    )
    app.router.redirect_slashes = False

    def guard(method: str, path: str, headers: Mapping[str, str]) -> str:
        check_host(headers.get("host"), hosts)
        check_origin(method, path, headers, origins)
        return "" if keys is None or path in OPEN_PATHS else keys.client(key_of(headers))

    whole = Surround(RawImages(app, service), service, guard, log)
    if not origins:
        return whole
    return CORSMiddleware(whole, tuple(origins), ("GET", "POST"), ("*",), expose_headers=_READABLE)


def admin_app(service: Service, token: str, *, hosts: frozenset[str] = frozenset(), log: Log | None = None) -> Surround:
    """Return the application that loads, unloads and flips aliases; everything but the probes needs the token."""
    repository, inference, detect = Repository(service), Inference(service), Detect(service)
    app = Starlette(
        routes=[
            *_probes(inference),
            Route("/metrics", partial(_metrics, service), methods=["GET"]),
            Route("/v1/models", detect.models, methods=["GET"]),
            Route("/v1/models/{model}/aliases/{alias}", repository.alias, methods=["PUT"]),
            Route("/v2/repository/index", repository.index, methods=["POST"]),
            Route("/v2/repository/models/{model}/load", repository.load, methods=["POST"]),
            Route("/v2/repository/models/{model}/unload", repository.unload, methods=["POST"]),
        ],
        exception_handlers=_ERRORS,
    )
    app.router.redirect_slashes = False

    def guard(method: str, path: str, headers: Mapping[str, str]) -> str:
        check_host(headers.get("host"), hosts)
        check_origin(method, path, headers, frozenset())
        if path not in OPEN_PATHS:
            check_token(token, headers)
        return "admin"

    return Surround(app, service, guard, log)


def _probes(inference: Inference) -> list[Route]:
    """Return the addresses that a supervisor asks."""
    return [
        Route("/livez", inference.live, methods=["GET"]),
        Route("/readyz", inference.ready, methods=["GET"]),
        Route("/v2/health/live", inference.live, methods=["GET"]),
        Route("/v2/health/ready", inference.ready, methods=["GET"]),
    ]


async def _file(path: Path, kind: str, _http: Http) -> Response:
    return Response(path.read_bytes(), headers=_PAGE_HEADERS, media_type=kind)


async def _document(service: Service, _http: Http) -> Response:
    return reply(document(service.limits))


async def _metrics(service: Service, _http: Http) -> Response:
    return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})
