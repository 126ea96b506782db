"""The same good and bad requests to Eyas and to a real Triton, and what each answers.

    python benchmarks/conformance.py --triton PYTHON [--out benchmarks/conformance.md]

PYTHON is that of an environment with nvidia-pytriton, which brings Triton without a container. On Debian:

    apt-get install python3.11-venv libpython3.11
    /usr/bin/python3.11 -m venv triton && triton/bin/pip install nvidia-pytriton
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.serve.bundles import write_bundle
from tests.serve.started import started

import eyas.serve.grpc.protocol.inference_pb2 as pb

HERE = Path(__file__).resolve().parent
INFER = "/v2/models/m/infer"
HEADER = "Inference-Header-Content-Length"
IMAGE = np.full((1, 4, 6, 3), 200, np.uint8)
DIED = "the server died"
# Where both are right, and why Eyas does not do the same.
WHY = {
    "is an unknown model ready": "no such model is 404 wherever it is asked for",
    "is the model of an unknown version ready": "no such version is 404 wherever it is asked for",
    "nine images": "a request's images are batched as the model wants them; the limit is 64 a request",
    "an unknown parameter": "a parameter that nobody reads is a mistake: it is never ignored",
    "numbers out of range": "300 is no byte; what it wraps round to is another image",
    "bytes of two inputs": "bytes that belong to no input are a mistake",
    "the list of the repository": "on the admin's port only",
}


@dataclass(frozen=True)
class Case:
    """A request over HTTP."""

    name: str
    method: str
    path: str
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


def tensor(binary: bytes | None = None, **fields: Any) -> dict[str, Any]:
    """Return an input."""
    entry = {"name": "images", "datatype": "UINT8", "shape": list(IMAGE.shape), **fields}
    if binary is None and "data" not in entry:
        entry["data"] = IMAGE.ravel().tolist()
    return entry


def infer(name: str, *inputs: dict[str, Any], path: str = INFER, **more: Any) -> Case:
    """Return a case of inference in JSON."""
    body = json.dumps({"inputs": list(inputs) or [tensor()], **more}).encode()
    return Case(name, "POST", path, body, (("Content-Type", "application/json"),))


def binary(name: str, raw: bytes, size: Any, length: str | None = None, **fields: Any) -> Case:
    """Return a case of inference with bytes behind its JSON; `length` is what the header says, None for the truth."""
    head = json.dumps({"inputs": [tensor(raw, parameters={"binary_data_size": size}, **fields)]}).encode()
    return Case(name, "POST", INFER, head + raw, ((HEADER, str(len(head)) if length is None else length),))


def plain(name: str, body: bytes) -> Case:
    """Return a case of inference with any body."""
    return Case(name, "POST", INFER, body, (("Content-Type", "application/json"),))


RAW = IMAGE.tobytes()
CASES = (
    Case("live", "GET", "/v2/health/live"),
    Case("ready", "GET", "/v2/health/ready"),
    Case("metadata of the server", "GET", "/v2"),
    Case("metadata of the model", "GET", "/v2/models/m"),
    Case("is the model ready", "GET", "/v2/models/m/ready"),
    infer("infer with numbers"),
    infer("infer with nested numbers", tensor(data=IMAGE.tolist())),
    infer("infer with an id and one output", id="a", outputs=[{"name": "num_detections"}]),
    infer("infer of version 1", path="/v2/models/m/versions/1/infer"),
    binary("infer with bytes", RAW, len(RAW)),
    infer("nine images", tensor(shape=[9, 4, 6, 3], data=IMAGE.ravel().tolist() * 9)),
    Case("metadata of an unknown model", "GET", "/v2/models/gone"),
    Case("is an unknown model ready", "GET", "/v2/models/gone/ready"),
    Case("is the model of an unknown version ready", "GET", "/v2/models/m/versions/9/ready"),
    infer("infer of an unknown model", path="/v2/models/gone/infer"),
    infer("infer of an unknown version", path="/v2/models/m/versions/9/infer"),
    infer("infer of version -1", path="/v2/models/m/versions/-1/infer"),
    Case("infer with GET", "GET", INFER),
    Case("an unknown address", "GET", "/v2/nothing"),
    Case("the list of the repository", "POST", "/v2/repository/index", b""),
    infer("another datatype", tensor(datatype="FP32")),
    infer("an unknown datatype", tensor(datatype="UINT7")),
    infer("an unknown input", tensor(name="pixels")),
    infer("an input twice", tensor(), tensor()),
    infer("an unknown output", outputs=[{"name": "masks"}]),
    infer("an output twice", outputs=[{"name": "num_detections"}] * 2),
    infer("an unknown parameter", parameters={"nothing": 1}),
    infer("an unknown key", nothing=1),
    infer("too few numbers", tensor(data=[1, 2, 3])),
    infer("too many numbers", tensor(data=IMAGE.ravel().tolist() * 2)),
    infer("numbers out of range", tensor(data=[300] * IMAGE.size)),
    infer("numbers below 0", tensor(data=[-1] * IMAGE.size)),
    infer("numbers with a fraction", tensor(data=[0.5] * IMAGE.size)),
    infer("texts for numbers", tensor(data=["1"] * IMAGE.size)),
    infer("no data", tensor(data=None)),
    infer("a side of -1", tensor(shape=[1, -4, 6, 3])),
    infer("a side of 0", tensor(shape=[1, 0, 6, 3], data=[])),
    infer("no image", tensor(shape=[0, 4, 6, 3], data=[])),
    infer("four channels", tensor(shape=[1, 4, 6, 4], data=[0] * 96)),
    infer("three sides", tensor(shape=[4, 6, 3])),
    infer("a shape of texts", tensor(shape=["1", "4", "6", "3"])),
    plain("no body", b""),
    plain("no JSON", b"{"),
    plain("not UTF-8", b"\xff\xfe{}"),
    plain("a list", b"[]"),
    plain("no inputs", b"{}"),
    plain("an empty list of inputs", b'{"inputs": []}'),
    plain("a key twice", b'{"inputs": [], ' + json.dumps({"inputs": [tensor()]}).encode()[1:]),
    plain("NaN", json.dumps({"inputs": [tensor(data=[float("nan")] * IMAGE.size)]}).encode()),
    plain("100 000 brackets", b"[" * 100_000),
    plain("100 000 brackets as data", b'{"inputs": [{"name": "images", "data": ' + b"[" * 100_000),
    binary("a header's length that is no number", RAW, len(RAW), "abc"),
    binary("a header's length beyond the body", RAW, len(RAW), "99999"),
    binary("a header's length below 0", RAW, len(RAW), "-1"),
    binary("a header's length that cuts the JSON", RAW, len(RAW), "10"),
    binary("fewer bytes than announced", RAW[:-1], len(RAW)),
    binary("more bytes than announced", RAW + b"\0", len(RAW)),
    binary("fewer bytes than the shape", RAW[:-1], len(RAW) - 1),
    binary("a size of bytes below 0", RAW, -1),
    binary("a size of bytes that is a text", RAW, "72"),
    infer("a side of 2**62", tensor(shape=[1, 2**62, 6, 3], data=[1])),
    binary("sides whose product overflows", RAW, len(RAW), shape=[1, 2**62, 4, 3]),
)


def message(**fields: Any) -> pb.ModelInferRequest:
    """Return a request over gRPC."""
    made = pb.ModelInferRequest(model_name=fields.pop("model", "m"))
    raw = fields.pop("raw", [RAW])
    made.inputs.add(**{"name": "images", "datatype": "UINT8", "shape": IMAGE.shape, **fields})
    made.raw_input_contents.extend(raw)
    return made


GRPC: dict[str, Callable[[], bytes]] = {
    "infer": lambda: message().SerializeToString(),
    "an unknown model": lambda: message(model="gone").SerializeToString(),
    "another datatype": lambda: message(datatype="FP32").SerializeToString(),
    "an unknown input": lambda: message(name="pixels").SerializeToString(),
    "no input": lambda: pb.ModelInferRequest(model_name="m").SerializeToString(),
    "fewer bytes than the shape": lambda: message(raw=[RAW[:-1]]).SerializeToString(),
    "no bytes": lambda: message(raw=[]).SerializeToString(),
    "bytes of two inputs": lambda: message(raw=[RAW, RAW]).SerializeToString(),
    "a side of -1": lambda: message(shape=[1, -4, 6, 3]).SerializeToString(),
    "no message of the protocol": lambda: b"\xff\xff\xff",
    "sides whose product overflows": lambda: message(shape=[1, 2**62, 4, 3]).SerializeToString(),
}


class Peer:
    """A server under test: where it listens, and how it is started again when it has died."""

    def __init__(self, name: str, start: Callable[[], contextlib.AbstractContextManager[tuple[int, str]]]) -> None:
        self.name, self._start = name, start
        self._stack = contextlib.ExitStack()
        self.version = ""

    def up(self) -> None:
        """Start it."""
        self.port, self.grpc = self._stack.enter_context(self._start())
        document = json.loads(self.ask(Case("", "GET", "/v2"))[1])
        self.version = f"{document['name']} {document['version']}"

    def down(self) -> None:
        """End it."""
        self._stack.close()
        self._stack = contextlib.ExitStack()

    def ask(self, case: Case) -> tuple[int, bytes]:
        """Return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(case.method, case.path, case.body, dict(case.headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def live(self) -> bool:
        """Return whether it answers."""
        for _ in range(3):
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.ask(CASES[0])[0] == 200
            time.sleep(0.5)
        return False

    def http(self, case: Case) -> str:
        """Return what becomes of a request."""
        try:
            found = str(self.ask(case)[0])
        except TimeoutError:
            found = "no answer"
        except (OSError, http.client.HTTPException):
            found = "the connection broke"
        return self._checked(found)

    def call(self, body: bytes) -> str:
        """Return what becomes of a call."""
        with grpc.insecure_channel(self.grpc) as channel:
            try:
                channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(body, timeout=20)
                found = "OK"
            except grpc.RpcError as error:
                found = str(error.code().name)
        return self._checked(found)

    def _checked(self, found: str) -> str:
        if self.live():
            return found
        self.down()
        self.up()
        return DIED


@contextlib.contextmanager
def triton(python: str) -> Iterator[tuple[int, str]]:
    """Start Triton in its environment, and yield its port and its gRPC address."""
    port = 18_700
    command = [python, str(HERE / "conformance_triton.py"), str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(240):
                with contextlib.suppress(OSError, http.client.HTTPException):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    connection.request("GET", "/v2/models/m/ready")
                    if connection.getresponse().status == 200:
                        break
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(log.read().decode(errors="replace")[-3000:])
                time.sleep(0.5)
            yield port, f"127.0.0.1:{port + 1}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(1.0)


@contextlib.contextmanager
def eyas(folder: Path) -> Iterator[tuple[int, str]]:
    """Start `eyas serve`, and yield its port and its gRPC address."""
    with started(folder, f"m={folder / 'bundle'}", "--workers", "1", "--threads", "1", "--slo", "10000") as server:
        yield int(server.address("REST").rpartition(":")[2]), server.address("gRPC")


def verdict(name: str, theirs: str, ours: str) -> str:
    """Return how the two compare."""
    bad = (DIED, "no answer", "the connection broke", "INTERNAL", "UNKNOWN", "UNAVAILABLE")
    if (theirs.startswith("5") or theirs in bad) and not (ours.startswith("5") or ours in bad):
        return "better"
    if theirs == ours:
        return "same"
    if theirs[0] == ours[0] == "4" and name not in WHY:
        return "same: the client's fault"
    return WHY.get(name, "differs")


def main() -> int:
    """Ask both and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triton", required=True, metavar="PYTHON")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_bundle(folder / "bundle")
        peers = Peer("Triton", lambda: triton(args.triton)), Peer("Eyas", lambda: eyas(folder))
        for peer in peers:
            peer.up()
        try:
            rows = [(case.name, *(peer.http(case) for peer in peers)) for case in CASES]
            calls = [(name, *(peer.call(make()) for peer in peers)) for name, make in GRPC.items()]
        finally:
            for peer in peers:
                peer.down()
    told = document(peers[0].version, rows, calls)
    print(told)
    if args.out:
        args.out.write_text(told, "utf-8")
    return 0


def document(version: str, rows: list[Any], calls: list[Any]) -> str:
    """Return the tables as Markdown."""
    judged = [(*row, verdict(*row)) for row in rows + calls]
    better = sum(row[3] == "better" for row in judged)
    same = sum(row[3].startswith("same") for row in judged)
    lines = [
        "# Conformance with Triton",
        "",
        "`python benchmarks/conformance.py --triton PYTHON` sends the same requests to Eyas and to a real Triton",
        f"({version}, which nvidia-pytriton brings). Of {len(judged)}, {same} end in the same way. Eyas is better in",
        f"{better}, where Triton answers 5xx or dies. The others say why they differ.",
    ]
    for title, part in (("Over HTTP", judged[: len(rows)]), ("Over gRPC", judged[len(rows) :])):
        lines += ["", f"## {title}", "", "| request | Triton | Eyas | |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in part]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
