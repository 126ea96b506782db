"""What a client may send, and the checks that need no protocol: images by their headers, names, ids, thresholds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from eyas.image_header import BadHeader, read_header
from eyas.serve.api import Options, Request
from eyas.serve.errors import Refused, ServeError

KINDS = ("jpeg", "png", "webp")
ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")  # of a request: safe in logs and headers
_VERSION = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Limits:
    """What a client may send.

    Attributes:
        body: most bytes of a request's body, or of a gRPC message.
        images: most images a request.
        pixels: most pixels an image, by its header.
        side: most pixels a side.
        headers: most bytes of a request's headers.
        bodies: most bytes of all bodies and messages that the server holds at once; half of them for one client.
        json: most bytes of a JSON body, or of the JSON before raw tensors.
        header_seconds: within which the headers must have arrived.
        body_seconds: within which the body, or the one message of a gRPC call, must have arrived.
        body_patience: seconds after which a body must have brought `body_rate` bytes for each second more.
        body_rate: least bytes a second of a body that takes long.
        idle_seconds: after which a stream without a frame is closed.
        connections: most connections of a port, and most gRPC calls, at once; besides these, half as many gRPC streams.
        detections: most detections that a client may ask for.
        timeout: most seconds that a client may ask the server to try.
    """

    body: int = 32 * 2**20
    images: int = 64
    pixels: int = 50_000_000
    side: int = 16_384
    headers: int = 16 * 2**10
    bodies: int = 512 * 2**20
    json: int = 8 * 2**20
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    body_patience: float = 5.0
    body_rate: float = 16 * 2**10
    idle_seconds: float = 300.0
    connections: int = 1024
    detections: int = 10_000
    timeout: float = 300.0

    def seconds(self, size: int) -> float:
        """Return within how many seconds from its start more of a body must come that has brought so many bytes."""
        return min(self.body_seconds, self.body_patience + size / self.body_rate)


def check_request(request: Request, limits: Limits) -> dict[int, Refused]:
    """Refuse what no engine should see.

    Returns:
        The images of a partial request that are refused alone, by number.

    Raises:
        ServeError: a name or id is malformed, there are no or too many images, one is of a kind that is not served
            or too large, or an option lies outside its range.
    """
    check_id(request.id)
    check_model(request.model, request.version)
    if not request.images:
        raise ServeError("invalid", "The request has no images.")
    check_count(len(request.images), limits)
    check_options(request.options, limits)
    if request.timeout is not None and not 0 < request.timeout <= limits.timeout:
        raise ServeError("invalid", f"The timeout must be above 0 and at most {limits.timeout:g} seconds.")
    refused = dict(request.refused)
    alone = request.partial or len(request.images) == 1
    for index, image in enumerate(request.images):
        if index in refused:
            continue
        where = "The image" if alone else f"Image {index + 1} of {len(request.images)}"
        try:
            if isinstance(image, bytes):
                check_file(image, limits, where)
            else:
                check_size(image.shape[0], image.shape[1], limits, where)
        except ServeError as error:
            if not request.partial:
                raise
            refused[index] = Refused(error.kind, error.message)
    return refused


def check_count(count: int, limits: Limits) -> None:
    """Refuse more images than a request may have."""
    if count > limits.images:
        raise ServeError("too_large", f"{count} images in a request; at most {limits.images} are allowed.")


def check_id(text: str) -> None:
    """Refuse what is no request id."""
    if not ID.fullmatch(text):
        raise ServeError("invalid", "A request id has 1 to 128 letters, digits or ._:/+=@- .")


def check_model(name: str, version: str) -> None:
    """Refuse a model's name or version that can be none; both may be empty."""
    if len(name) > 200 or not name.isprintable() or "/" in name or "\\" in name or ".." in name:
        raise ServeError("not_found", "There is no model with that name.")
    if version and not _VERSION.fullmatch(version):
        raise ServeError("not_found", "There is no such version; give a number, or an alias such as @champion.")


def check_options(options: Options, limits: Limits) -> None:
    """Refuse thresholds outside their range."""
    for name, value in (("confidence", options.confidence), ("IoU", options.iou)):
        if value is not None and not (math.isfinite(value) and 0.0 <= value <= 1.0):
            raise ServeError("invalid", f"The {name} threshold must be a number from 0 to 1.")
    most = options.max_detections
    if most is not None and not 1 <= most <= limits.detections:
        raise ServeError("invalid", f"max_detections must be from 1 to {limits.detections}.")
    if options.classes is not None and not 1 <= len(options.classes) <= 10_000:
        raise ServeError("invalid", "The list of classes is empty or too long.")


def check_file(data: bytes, limits: Limits, where: str) -> None:
    """Refuse a file by its first bytes, before anything is decoded."""
    if not data:
        raise ServeError("unprocessable", f"{where} is empty.")
    try:
        header = read_header(data)
    except BadHeader as error:
        reason = f": {error}." if str(error) else "."
        raise ServeError(
            "unprocessable", f"{where} is not a JPEG, PNG or WebP file, or it is damaged{reason}"
        ) from None
    if header.kind not in KINDS:
        raise ServeError(
            "unsupported", f"{where} is a {header.kind.upper()} file; only JPEG, PNG and WebP are supported."
        )
    check_size(header.height, header.width, limits, where)


def check_size(height: int, width: int, limits: Limits, where: str) -> None:
    """Refuse an image without pixels, or with too many."""
    if height < 1 or width < 1:
        raise ServeError("unprocessable", f"{where} is {width}x{height} pixels, so it is empty.")
    if height * width > limits.pixels or max(height, width) > limits.side:
        raise ServeError(
            "too_large",
            f"{where} is {width}x{height} pixels; at most {limits.pixels} pixels and {limits.side} per side are "
            "allowed.",
        )
