"""`eyas serve` as a process whose workers wait at gates: for getting warm, and for running a batch."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# What the workers run at their start: a bundle is warm when a file of its name lies in the gate's folder, and no batch
# is run while a file "hold" lies there.
_GATE = """
import time
from pathlib import Path
import eyas.serve.workers.pipeline as opening

whole = opening.open_pipeline
gate = Path({folder!r})

def open_pipeline(spec):
    while not (gate / spec.bundle.name).exists():
        time.sleep(0.01)
    pipeline, *rest = whole(spec)
    run = pipeline.run

    def held(tasks):
        while (gate / "hold").exists():
            time.sleep(0.01)
        return run(tasks)

    pipeline.run = held
    return pipeline, *rest

opening.open_pipeline = open_pipeline
"""


@dataclass(frozen=True)
class Gated:
    """A server's process, the folder of its gates, and where it listens before it is warm."""

    process: subprocess.Popen[str]
    gate: Path
    rest: str
    grpc: str

    def open(self, name: str) -> None:
        """Let the bundle of that name get warm; "hold": let the workers run no batch."""
        (self.gate / name).touch()

    def release(self) -> None:
        """Let the workers run batches again."""
        (self.gate / "hold").unlink(missing_ok=True)


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def gated(folder: Path, words: Sequence[str]) -> Iterator[Gated]:
    """Start `eyas serve` with these words; its bundles' gates are closed."""
    gate = folder / "gate"
    gate.mkdir()
    (folder / "sitecustomize.py").write_text(_GATE.format(folder=str(gate)), "utf-8")
    rest, plain = free_port(), free_port()
    command = [sys.executable, "-m", "eyas", "serve", *words, "--port", str(rest), "--grpc-port", str(plain)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield Gated(process, gate, f"http://127.0.0.1:{rest}", f"127.0.0.1:{plain}")
    finally:
        process.kill()
        process.communicate()
