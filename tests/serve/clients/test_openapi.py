"""schemathesis asks everything that the OpenAPI document allows, and much that it does not; nothing breaks."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from tests.serve.clients.environment import clients_python
from tests.serve.fake import FakeEngine
from tests.serve.running import running

from eyas.serve.http.app import public_app
from eyas.serve.http.openapi import document
from eyas.serve.limits import Limits
from eyas.serve.observe.events import EventSettings
from eyas.serve.observe.metrics import Metrics
from eyas.serve.service import Service

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection,unsupported_method"
)


def test_the_document_has_every_address_and_no_other() -> None:
    engine = FakeEngine()
    app: Any = public_app(Service(engine, Metrics(engine)))
    while not isinstance(app, Starlette):  # the layers around it
        app = app._app
    routes = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    paths = document(Limits())["paths"]
    assert {(path, method) for path, methods in paths.items() for method in methods} == routes


def test_references_lead_somewhere() -> None:
    text = str(document(Limits()))
    known = document(Limits())["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/(\w+)", text)) == set(known)


@pytest.mark.parametrize("seed", [1])
def test_fuzzing_finds_no_fault(tmp_path: Path, seed: int) -> None:
    python = clients_python()
    limits = Limits(body=1_000_000)
    with running(FakeEngine, grpc_port=None, limits=limits, events=EventSettings(tmp_path)) as server:
        words = [str(python), str(python.with_name("schemathesis")), "run", f"{server.url}/openapi.json",
                 "--checks", CHECKS,
                 "--max-examples", "5", "--phases", "coverage,fuzzing", "--seed", str(seed),
                 "--generation-database", "none", "--suppress-health-check", "all", "--no-color",
                 "--request-timeout", "20"]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
