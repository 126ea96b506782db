"""Serve on a cluster on this machine, load it, kill a node, end under load; print what happened as JSON.

The nodes' room decides what the killed node takes along: one of two replicas, or, with the word `all`, both.

Run by `test_ray.py` in a process of its own: Ray reads its settings once, when it is loaded.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eyas.artifacts.model_key import ModelKey
from eyas.cluster import tokens
from eyas.cluster.application import Application
from eyas.cluster.routing_table import NAMESPACE, read_entry
from eyas.cluster.settings import ClusterSettings
from eyas.serve.engine.settings import EngineSettings
from eyas.serve.server_settings import ServerSettings

MOST_RATE = 60.0  # requests a second; more would only show that this machine is busy with sending them
LONGEST_IDLE = 2.0  # seconds after which the server may be about to close a connection
MOST_OPEN = 1024  # requests that may be open; so many threads are only there when so many are


class Load:
    """An open loop: requests at their times, whether or not the ones before were answered.

    Args:
        address: host:port of REST.
        image: what is sent.
    """

    def __init__(self, address: str, image: bytes) -> None:
        self._address, self._image = address, image
        self._local = threading.local()
        self.outcomes: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()  # who answered
        self.slowest = 0.0
        self.failed: list[tuple[float, float, str]] = []  # when one was sent that was accepted; seconds; what it got
        self._begin = 0.0

    def one(self, query: str = "?model=shapes") -> tuple[str, Any]:
        """Send one request; return its status, or what went wrong, and the answer."""
        start = time.monotonic()
        connection = getattr(self._local, "connection", None)
        fresh = connection is None or start - self._local.used > LONGEST_IDLE
        if fresh:
            connection = self._local.connection = http.client.HTTPConnection(self._address, timeout=60)
        self._local.used = start
        try:
            connection.request("POST", "/v1/detect" + query, self._image, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            body = json.loads(response.read())
            self._local.used = time.monotonic()
            return str(response.status), body
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self._local.connection = None
            # An idle connection may be closed just when it is to be used again: nobody has taken the request then.
            # Nor has anybody where the connection is reset: who has read a request closes it in order.
            idle = not fresh and time.monotonic() - start < 0.5
            reset = isinstance(error, ConnectionResetError) and not isinstance(error, http.client.RemoteDisconnected)
            closed = isinstance(error, ConnectionRefusedError | BrokenPipeError) or reset or idle
            return "refused" if closed else type(error).__name__, None

    def _timed(self) -> None:
        start = time.monotonic()
        outcome, body = self.one()
        self.outcomes[outcome] += 1
        seconds = time.monotonic() - start
        if outcome not in ("200", "429"):
            self.failed.append((round(start - self._begin, 2), round(seconds, 2), f"{outcome} {body}"))
        if outcome == "200":
            self.versions[body.get("model", body)["version"]] += 1
        self.slowest = max(self.slowest, seconds)

    @contextmanager
    def running(self, rate: float) -> Iterator[None]:
        """Send that many requests a second within the block; at its end all of them have been answered."""
        self.outcomes, self.versions = Counter(), Counter()
        self.slowest, self.failed, self._begin = 0.0, [], time.monotonic()
        stop = threading.Event()

        def send() -> None:
            with ThreadPoolExecutor(MOST_OPEN) as pool:
                due = time.monotonic()
                while not stop.wait(max(0.0, due - time.monotonic())):
                    pool.submit(self._timed)
                    due += 1.0 / rate

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def replicas() -> int:
    """Return how many replicas of the detector run."""
    from ray import serve

    status = serve.status().applications["eyas"].deployments["detector"]
    return int(status.replica_states.get("RUNNING", 0))


def wait_for(number: int, seconds: float) -> float:
    """Wait until at least that many replicas run, and return the seconds; -1 when it takes too long."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if replicas() >= number:
            return round(time.monotonic() - start, 1)
        time.sleep(0.2)
    return -1.0


def ask_grpc(address: str, image: bytes) -> list[float]:
    """Return the scores that the Open Inference Protocol gives for the image."""
    import grpc
    import numpy as np

    from eyas.serve.grpc.protocol import inference_pb2 as pb

    message = pb.ModelInferRequest(model_name="shapes")
    tensor = message.inputs.add(name="images", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(image)
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        answer = pb.ModelInferResponse.FromString(call(message.SerializeToString(), timeout=30))
    index = [output.name for output in answer.outputs].index("scores")
    if answer.raw_output_contents:
        return [float(score) for score in np.frombuffer(answer.raw_output_contents[index], np.float32)]
    return [float(score) for score in answer.outputs[index].contents.fp32_contents]


def main(folder: Path, image: bytes, lose_all: bool) -> dict[str, Any]:
    """Return what happened.

    Args:
        folder: has the bundles: shapes, next, which takes its place where all replicas are lost, and other.
        image: what is detected on.
        lose_all: whether the node that is killed has both replicas.
    """
    tokens.ask_for_tokens()
    import ray
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray.cluster_utils import Cluster

    ensure_token_if_auth_enabled(create_token_if_missing=True)
    logging.disable(logging.WARNING)
    head, cpus, replicas_first = (0, 2, 2) if lose_all else (1, 1, 1)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": head, "include_dashboard": False})
    ray.init(address=cluster.address, namespace=NAMESPACE, logging_level="error", log_to_driver=False)
    second = cluster.add_node(num_cpus=cpus)  # the driver is on the head, since no other node was there before
    report: dict[str, Any] = {"open_to_all": tokens.open_to_all(cluster.address)}
    named = {"shapes": ModelKey("shapes", "1"), "other": ModelKey("other", "1")}
    application = Application.start(
        [read_entry(key, folder / name) for name, key in named.items()],
        ServerSettings(port=0, grpc_port=0, grace=10.0),
        EngineSettings(goal=1.0),
        # Nobody answers until a replica has been started again where all are lost, which takes this machine its time.
        ClusterSettings(
            replicas_first,
            2,
            models=2 if lose_all else 1,
            patience=40.0 if lose_all else 5.0,
            up_after=0.5,
            down_after=600.0,
        ),
    )
    wait_for(replicas_first, 120.0)
    load = Load(application.addresses.rest, image)
    if not lose_all:
        report["scores"] = {
            "rest": [found["score"] for found in load.one()[1]["detections"]],
            "grpc": ask_grpc(application.addresses.grpc, image),
        }
        # Room for one model: each of these requests loads one and unloads the other.
        names = ("other", "shapes", "other", "shapes")
        report["other"] = [load.one(f"?model={name}&timeout=30")[0] for name in names]
        with load.running(rate=3.0):
            time.sleep(4.0)
        report["calm"] = {"outcomes": dict(load.outcomes), "replicas": replicas()}

    report["rate"] = rate = min(1.3 / busy_seconds(load), MOST_RATE)
    with load.running(rate):
        report["scaled_up_after"] = wait_for(2, 120.0)
    report["scaling"] = {"outcomes": dict(load.outcomes), "slowest": round(load.slowest, 2)}

    if lose_all:
        with load.running(rate / 3.0):
            asyncio.run(flip(application, folder / "next"))
            time.sleep(1.0)
        report["flipped"] = {
            "outcomes": dict(load.outcomes),
            "versions": dict(load.versions),
            "failed": load.failed,
        }
    cluster.add_node(num_cpus=cpus)  # room for what is lost
    before = application.retried()
    with load.running(rate):
        time.sleep(3.0)
        cluster.remove_node(second, allow_graceful=False)
        time.sleep(10.0)
        report["restored_after"] = wait_for(2, 120.0)
    report["node_killed"] = {
        "outcomes": dict(load.outcomes),
        "slowest": round(load.slowest, 2),
        "versions": dict(load.versions),
        "failed": load.failed,
        "retried": application.retried() - before,
        "replicas": replicas(),
    }
    with load.running(rate / 2.0):
        time.sleep(2.0)
        application.stop()
    report["ended"] = dict(load.outcomes)
    ray.shutdown()
    cluster.shutdown()
    return report


async def flip(application: Application, bundle: Path) -> None:
    """Put a second version of the model in the place of the first."""
    control = application.control()
    await control.load("shapes", "2", bundle)
    control.alias("shapes", "champion", "2")
    await control.unload("shapes", "1")


def busy_seconds(load: Load) -> float:
    """Return the seconds that one request keeps a replica busy."""
    found = [load.one()[1]["milliseconds"] for _ in range(10)]
    busy = sorted(sum(each[stage] for stage in ("decode", "preprocess", "inference", "postprocess")) for each in found)
    return float(busy[len(busy) // 2]) / 1e3


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print(json.dumps(main(folder, (folder / "image.jpg").read_bytes(), lose_all=sys.argv[2:] == ["all"])))
