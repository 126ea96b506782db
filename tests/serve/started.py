"""`eyas serve` as it is really started: a process of its own, and the addresses that it prints."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Started:
    """A server's process, where it answers, and what it printed until it was ready."""

    process: subprocess.Popen[str]
    text: str
    errors: Path

    def address(self, name: str) -> str:
        """Return the address of "REST", "gRPC" or "admin"."""
        found = re.search(rf"^ +{name} +(\S+)", self.text, re.MULTILINE)
        assert found, self.text
        return found[1]


@contextlib.contextmanager
def started(folder: Path, *words: str) -> Iterator[Started]:
    """Start `eyas serve` with these words, on free ports; its standard error goes to a file of the folder."""
    errors = folder / "stderr.txt"
    command = [sys.executable, "-m", "eyas", "serve", *words, "--port", "0", "--grpc-port", "0"]
    with errors.open("w") as file:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True)
    try:
        assert process.stdout is not None
        text = ""
        while "Try:" not in text:
            line = process.stdout.readline()
            assert line, f"the server ended: {text}{errors.read_text()}"
            text += line
        yield Started(process, text, errors)
    finally:
        process.kill()
        process.communicate()
