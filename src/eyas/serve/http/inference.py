"""The Open Inference Protocol's addresses over HTTP, below /v2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as Http
from starlette.responses import Response

from eyas.errors import UserError
from eyas.registry.base import check_alias
from eyas.serve import jsons
from eyas.serve.errors import ServeError, quoted
from eyas.serve.http.detect import while_connected
from eyas.serve.http.middleware import context_of
from eyas.serve.http.responses import JSON, reply
from eyas.serve.limits import check_model
from eyas.serve.oip.detection import (
    check_load,
    find_model,
    model_metadata,
    repository_index,
    server_metadata,
    to_request,
)
from eyas.serve.oip.rest import HEADER, answer_body, json_size, parse_request
from eyas.serve.service import Service, passed_on

MOST_ADMIN = 16 * 2**10  # bytes of what the admin says


@dataclass(frozen=True)
class Inference:
    """The handlers."""

    service: Service

    async def server(self, _http: Http) -> Response:
        """Tell what server this is."""
        return reply(server_metadata())

    async def live(self, _http: Http) -> Response:
        """Tell that the server answers."""
        return reply({"live": True})

    async def ready(self, _http: Http) -> Response:
        """Tell whether new requests are welcome: 200, or 503."""
        welcome = self.service.ready()
        told = {"ready": welcome, **{name: tell() for name, tell in self.service.details.items()}}
        return reply(told, 200 if welcome else 503, None if welcome else {"retry-after": "1"})

    async def model(self, http: Http) -> Response:
        """Tell a model's tensors, versions and classes."""
        return reply(model_metadata(self.service.engine, *self._name(http)))

    async def model_ready(self, http: Http) -> Response:
        """Tell whether a model takes requests: 200, 503, or 404 where there is none."""
        name, version = self._name(http)
        ready = find_model(self.service.engine, name, version).state == "ready"
        return reply({"name": name, "ready": ready}, 200 if ready else 503, None if ready else {"retry-after": "1"})

    async def infer(self, http: Http) -> Response:
        """Detect on the images of a tensor."""
        name, version = self._name(http)
        context, header, body = context_of(http.scope), http.headers.get(HEADER), await http.body()
        size = json_size(header, len(body))
        infer = await self.service.desk.read(size, parse_request, body, header, self.service.limits)
        request = to_request(
            infer, model=name, version=version, request_id=context.id, headers=passed_on(context.headers)
        )
        answer = await while_connected(http.receive, self.service.detect(request, protocol="oip", trace=context.trace))
        content, length = answer_body(answer, infer)
        if length is None:
            return Response(content, media_type=JSON)
        return Response(content, headers={HEADER: str(length)}, media_type="application/octet-stream")

    def _name(self, http: Http) -> tuple[str, str]:
        return http.path_params["model"], http.path_params.get("version", "")


@dataclass(frozen=True)
class Repository:
    """The repository extension, for the admin's port."""

    service: Service

    async def index(self, http: Http) -> Response:
        """List the models; with {"ready": true} those that take requests."""
        fields = await self._fields(http)
        return reply(repository_index(self.service.engine, ready=fields.get("ready") is True))

    async def load(self, http: Http) -> Response:
        """Load a model that the registry knows, and answer when it is ready."""
        key = await self.service.engine.load(*await self._model(http))
        return reply({"name": key.name, "version": key.version})

    async def unload(self, http: Http) -> Response:
        """Let a model answer what it has accepted, and free it."""
        await self.service.engine.unload(*await self._model(http))
        return reply({})

    async def alias(self, http: Http) -> Response:
        """Let an alias point to a version from now on."""
        fields = await self._fields(http)
        version = fields.get("version")
        if not isinstance(version, str) or not version:
            raise ServeError("invalid", "'version' must name a version.")
        model, alias = http.path_params["model"], http.path_params["alias"]
        check_model(model, version)
        try:
            check_alias(alias)
        except UserError as error:
            words = f"{quoted(alias)} can't be an alias; expected: {error.expected}."
            raise ServeError("invalid", words) from None
        self.service.engine.alias(model, alias, version)
        return reply({"name": model, "alias": alias, "version": version})

    async def _fields(self, http: Http) -> dict[str, Any]:
        body = await http.body()
        return jsons.parse(body, dict[str, Any], most=MOST_ADMIN) if body.strip() else {}

    async def _model(self, http: Http) -> tuple[str, str]:
        """Return the name in the path, and the version in the parameters."""
        given = (await self._fields(http)).get("parameters", {})
        if not isinstance(given, dict):
            raise ServeError("invalid", "'parameters' must be an object.")
        model, version = http.path_params["model"], given.get("version", "")
        if not isinstance(version, str):
            raise ServeError("invalid", "'version' must be a text.")
        check_load(model, version, given)
        return model, version
