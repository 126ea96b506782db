"""A real browser without a window, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

SECONDS = 60.0
BINARY = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


class Tab:
    """One page: scripts are run in it, files are given to it, and what it complains of is kept.

    Attributes:
        complaints: what the page's console and the browser had to say: errors, refusals, exceptions.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._number, self.complaints = socket, 0, list[str]()

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(SECONDS))
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                self.complaints.append(json.dumps(message["params"]))

    def open(self, url: str) -> None:
        """Go there, and return when the page has run its script."""
        for domain in ("Log", "Runtime", "Page", "DOM"):
            self.command(f"{domain}.enable")
        self.command("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """Return the value of an expression."""
        answer = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Return when the expression is true."""
        end = time.monotonic() + SECONDS
        while not self.run(script):
            assert time.monotonic() < end, f"never came true: {script}; {self.run('document.body.innerText')}"
            time.sleep(0.05)

    def choose(self, selector: str, *files: Path) -> None:
        """Give files to an input, as its dialog does."""
        root = self.command("DOM.getDocument")["root"]["nodeId"]
        node = self.command("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.command("DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node)

    def drop(self, selector: str, *files: Path) -> None:
        """Drag files over an element, and let them go."""
        x, y = self.run(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])"
            f"(document.querySelector('{selector}').getBoundingClientRect())"
        )
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.command("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def screen(self, width: int, height: int, scale: float = 1.0) -> None:
        """Have a screen of that size, in points."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def make_image(self, *, whole: bool = False) -> bytes:
        """Return a PNG of what can be seen, or of the whole page."""
        return base64.b64decode(self.command("Page.captureScreenshot", captureBeyondViewport=whole)["data"])


@contextlib.contextmanager
def browser(folder: Path, options: Sequence[str] = ()) -> Iterator[Tab]:
    """Start a browser whose profile is in the folder."""
    assert BINARY is not None
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--remote-debugging-port=0",
    ]
    command = [BINARY, *words, f"--user-data-dir={folder}", *options, "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            port = _port(folder / "DevToolsActivePort", process)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=SECONDS) as answer:
                page = next(each for each in json.load(answer) if each["type"] == "page")
            with connect(page["webSocketDebuggerUrl"], max_size=None) as socket:
                yield Tab(socket)
        finally:
            process.terminate()
            process.wait(SECONDS)


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + SECONDS
    while not (file.exists() and (found := re.match(r"(\d+)\n", file.read_text("ascii")))):
        assert process.poll() is None and time.monotonic() < end, "the browser did not start"
        time.sleep(0.05)
    return int(found[1])
