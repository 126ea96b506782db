"""LitServe beside `eyas serve`: `PYTHON serving_litserve.py litserve BUNDLE PORT`; see `serving_peers.py`.

Its environment holds python-multipart too.
"""

import sys
from pathlib import Path
from typing import Any

sys.path[:] = [each for each in sys.path if Path(each or ".").resolve() != Path(__file__).parent.resolve()]

import litserve as ls  # noqa: E402  # after the path is mended
from starlette.requests import Request  # noqa: E402


class Api(ls.LitAPI):
    """Multipart in, JSON out; one worker, no batches, which at one request at a time only cost."""

    def setup(self, device: str) -> None:
        """Open the bundle as Eyas' workers do."""
        import cv2

        from eyas.runtime.loading import load

        cv2.setNumThreads(1)
        self.found = load(sys.argv[2], threads=1, spin=False)

    def decode_request(self, request: Request) -> bytes:
        """Return the file of a form, which LitServe hands to its worker by itself; raw bodies it does not.

        The annotation is what makes it read the form: with any other it tries to hand over its own request.
        """
        return bytes(request["file"].file.read())

    def predict(self, x: bytes) -> Any:
        """Detect."""
        return self.found(x)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Return JSON's types."""
        return {"boxes": output.boxes.tolist(), "scores": output.scores.tolist(), "labels": output.labels.tolist()}


if __name__ == "__main__":
    port = int(sys.argv[3])
    print(f"REST http://127.0.0.1:{port}/predict", flush=True)
    ls.LitServer(Api(), accelerator="cpu").run(
        host="127.0.0.1", port=port, generate_client_file=False, log_level="error"
    )
