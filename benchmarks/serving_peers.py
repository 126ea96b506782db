"""Servers beside `eyas serve`, each with the very same work: JPEG bytes to detections by `eyas.load` of one bundle.

    PYTHON serving_peers.py triton|ray|greedy|bridge|floor BUNDLE PORT

Each runs in an environment of its own: numpy, opencv-python-headless, simplejpeg, onnxruntime, and nvidia-pytriton (the
real Triton, its dynamic batcher) or ray[serve]; Eyas' sources are on the path. `greedy` is Eyas' own
server with a plain queue in place of the scheduler's admission: all are taken, none is dropped, batches are as large
as the queue. `floor` is a Starlette application on uvicorn that takes the body and answers, and does no work at all:
what this machine needs for a request however little a server does. `bridge` is the least that has the shape of Eyas: a
bare ASGI function on uvicorn hands the body through a socket to one worker process, which does the work and hands JSON
back; no queue, no limits, no checks, no metrics, no second worker. What it takes over the bare work is what two
processes and HTTP cost here.
Each prints its address once it answers. LitServe has a file of its own, since it imports its own again.
"""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MOST = 8


def detector(bundle: str) -> Any:
    """Return the bundle, opened as Eyas' workers open it: one thread, no spinning."""
    import cv2

    from eyas.runtime.loading import load

    cv2.setNumThreads(1)
    return load(bundle, threads=1, spin=False)


def document(found: Any) -> dict[str, Any]:
    """Return detections as JSON's types, as Eyas' REST does."""
    return {"boxes": found.boxes.tolist(), "scores": found.scores.tolist(), "labels": found.labels.tolist()}


def triton(bundle: str, port: int) -> None:
    """Serve with Triton: its dynamic batcher, batches up to 8, no delay; images as BYTES, answers as JSON."""
    import numpy as np
    from pytriton.decorators import batch
    from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    found = detector(bundle)

    @batch
    def infer(images: Any) -> dict[str, Any]:
        answers = found([bytes(each[0]) for each in images])
        return {"answer": np.array([[json.dumps(document(each)).encode()] for each in answers], np.object_)}

    config = TritonConfig(
        http_port=port, grpc_port=port + 1, metrics_port=port + 2, http_address="127.0.0.1", log_verbose=0
    )
    with Triton(config=config) as server:
        server.bind(
            model_name="m",
            infer_func=infer,
            inputs=[Tensor(name="images", dtype=np.bytes_, shape=(1,))],
            outputs=[Tensor(name="answer", dtype=np.bytes_, shape=(1,))],
            config=ModelConfig(max_batch_size=MOST, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
            strict=False,
        )
        server.run()
        print(f"REST http://127.0.0.1:{port}/v2/models/m/infer", flush=True)
        server.serve()


def ray(bundle: str, port: int) -> None:
    """Serve with Ray Serve as it comes: one replica behind its proxy."""
    import time

    import ray as cluster
    from ray import serve
    from starlette.requests import Request

    cluster.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=1 << 27)
    serve.start(http_options={"host": "127.0.0.1", "port": port})

    @serve.deployment(max_ongoing_requests=64)
    class Api:
        """Raw bodies in, JSON out."""

        def __init__(self) -> None:
            self.found = detector(bundle)

        async def __call__(self, request: Request) -> dict[str, Any]:
            return document(self.found(await request.body()))

    serve.run(Api.bind(), route_prefix="/predict")
    print(f"REST http://127.0.0.1:{port}/predict", flush=True)
    while True:
        time.sleep(3600)


def greedy(bundle: str, port: int) -> None:
    """Serve with Eyas, and a plain greedy batcher: everybody is admitted, and waits however long it takes."""
    import dataclasses

    from eyas.serve.engine import executor as flow
    from eyas.serve.engine.settings import EngineSettings
    from eyas.serve.launch import serve
    from eyas.serve.scheduler.scheduler import Scheduler
    from eyas.serve.scheduler.types import Decision, Item
    from eyas.serve.server_settings import ServerSettings

    class Greedy(Scheduler):
        """No deadline: nobody is refused or dropped."""

        def submit(self, now: float, item: Item) -> Decision:
            return super().submit(now, dataclasses.replace(item, deadline=math.inf))

    flow.Scheduler = Greedy  # type: ignore[misc]
    engine = EngineSettings(workers=1, threads=1, goal=60.0, max_batch=MOST, max_waiting=1 << 20)
    serve([bundle], ServerSettings(port=port, grpc_port=None), engine, say=lambda line: print(line, flush=True))


def floor(_bundle: str, port: int) -> None:
    """Serve nothing: take the body, and answer the same few numbers."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def answer(request: Request) -> JSONResponse:
        return JSONResponse({"bytes": len(await request.body()), "box": [1.0, 2.0, 3.0, 4.0]})

    print(f"REST http://127.0.0.1:{port}/detect", flush=True)
    app = Starlette(routes=[Route("/detect", answer, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


def bridge(bundle: str, port: int) -> None:
    """Serve with two processes and nothing else: bytes to the worker, JSON back, one request at a time."""
    import asyncio

    import uvicorn

    front, back = socket.socketpair()
    with back:
        command = [sys.executable, __file__, "bridge-worker", bundle, str(back.fileno())]
        subprocess.Popen(command, pass_fds=[back.fileno()])
    front.setblocking(False)
    one = asyncio.Lock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        parts = []
        while True:
            message = await receive()
            parts.append(message["body"])
            if not message.get("more_body"):
                break
        image, loop = b"".join(parts), asyncio.get_running_loop()
        async with one:
            await loop.sock_sendall(front, len(image).to_bytes(8, "little") + image)
            answer = await loop.sock_recv(front, 1 << 20)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    print(f"REST http://127.0.0.1:{port}/detect", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False, lifespan="off")


def bridge_worker(bundle: str, descriptor: int) -> None:
    """Read a length and an image, do what Eyas' worker does with it, answer; so on until the front is gone."""
    from eyas.serve.workers.base import Task
    from eyas.serve.workers.pipeline import Pipeline

    back = socket.socket(fileno=descriptor)
    found = detector(bundle)
    pipeline = Pipeline(found)
    while head := back.recv(8, socket.MSG_WAITALL):
        image = back.recv(int.from_bytes(head, "little"), socket.MSG_WAITALL)
        (result,) = pipeline.run([Task(image, found.thresholds)]).results
        back.sendall(json.dumps(document(result.detections)).encode())


def body(image: bytes, name: str) -> tuple[bytes, dict[str, str]]:
    """Return what a peer is sent for an image, and the headers."""
    if name == "litserve":
        head = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="p.jpg"\r\n\r\n'
        return head + image + b"\r\n--xyz--\r\n", {"Content-Type": "multipart/form-data; boundary=xyz"}
    if name != "triton":
        return image, {"Content-Type": "application/octet-stream" if name != "eyas" else "image/jpeg"}
    blob = len(image).to_bytes(4, "little") + image
    described = json.dumps(
        {
            "inputs": [
                {"name": "images", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
            ],
            "outputs": [{"name": "answer", "parameters": {"binary_data": True}}],
        }
    ).encode()
    length = str(len(described))
    return described + blob, {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": length}


def main(arguments: Sequence[str]) -> None:
    """Run one of them."""
    name, bundle, port = arguments
    # A script's folder comes first on the path; other packages there must not shadow what is installed.
    sys.path[:] = [each for each in sys.path if Path(each or ".").resolve() != Path(__file__).parent.resolve()]
    peers = {"triton": triton, "ray": ray, "greedy": greedy, "bridge": bridge, "floor": floor}
    {**peers, "bridge-worker": bridge_worker}[name](bundle, int(port))


if __name__ == "__main__":
    main(sys.argv[1:])
