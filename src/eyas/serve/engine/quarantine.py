"""Images that killed workers: they are not run again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

from eyas.types import UInt8Array

DEATHS = 2
KILLER = "The image made workers fail."
KEPT_SECONDS = 600.0
MOST = 1024


class Quarantine:
    """Counts in how many dead batches an image was, one after the other; one that is run with success is cleared.

    Only images as long as those of dead batches are ever hashed. After some minutes a suspect is forgotten.
    """

    def __init__(self) -> None:
        self._deaths: OrderedDict[bytes, tuple[int, float, str]] = OrderedDict()  # -> number, the last one, why
        self._lengths: dict[bytes, int] = {}

    def __len__(self) -> int:
        """Return how many images are kept out."""
        return sum(deaths >= DEATHS for deaths, _, _ in self._deaths.values())

    def died(self, now: float, images: Iterable[bytes | UInt8Array], why: str = KILLER) -> None:
        """Note that a worker died while these images were in its batch, and what is told of one of them."""
        for key, length in {_digest(image): _length(image) for image in images}.items():
            deaths, _, _ = self._deaths.pop(key, (0, now, ""))
            self._deaths[key] = (deaths + 1, now, why)
            self._lengths[key] = length
        while len(self._deaths) > MOST:
            self._forget(next(iter(self._deaths)))

    def survived(self, image: bytes | UInt8Array) -> None:
        """Note that the image was run and no worker died of it: what happened before was not its fault."""
        if self._lengths and _length(image) in self._lengths.values() and (key := _digest(image)) in self._deaths:
            self._forget(key)

    def holds(self, now: float, image: bytes | UInt8Array) -> str:
        """Return why the image is kept out, "" if it isn't. Costs next to nothing unless a suspect is as long."""
        if not self._lengths or _length(image) not in self._lengths.values():
            return ""
        key = _digest(image)
        deaths, last, why = self._deaths.get(key, (0, now, ""))
        if now - last > KEPT_SECONDS:
            self._forget(key)
            return ""
        return why if deaths >= DEATHS else ""

    def _forget(self, key: bytes) -> None:
        del self._deaths[key], self._lengths[key]


def _length(image: bytes | UInt8Array) -> int:
    return len(image) if isinstance(image, bytes) else image.nbytes


def _digest(image: bytes | UInt8Array) -> bytes:
    """Return the image's SHA-256; an array's shape counts too."""
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    return hashlib.sha256(str(image.shape).encode() + image.tobytes()).digest()
