"""Pictures that killed workers: they are not run again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

from eyas.types import UInt8Array

DEATHS = 2
KILLER = "The picture made workers fail."
KEPT_SECONDS = 600.0
MOST = 1024


class Quarantine:
    """Counts in how many dead batches a picture was, one after the other; one that is run with success is cleared.

    Only pictures as long as those of dead batches are ever hashed. After some minutes a suspect is forgotten.
    """

    def __init__(self) -> None:
        self._deaths: OrderedDict[bytes, tuple[int, float, str]] = OrderedDict()  # -> number, the last one, why
        self._lengths: dict[bytes, int] = {}

    def __len__(self) -> int:
        """Return how many pictures are kept out."""
        return sum(deaths >= DEATHS for deaths, _, _ in self._deaths.values())

    def died(self, now: float, pictures: Iterable[bytes | UInt8Array], why: str = KILLER) -> None:
        """Note that a worker died while these pictures were in its batch, and what is told of one of them."""
        for key, length in {_digest(picture): _length(picture) for picture in pictures}.items():
            deaths, _, _ = self._deaths.pop(key, (0, now, ""))
            self._deaths[key] = (deaths + 1, now, why)
            self._lengths[key] = length
        while len(self._deaths) > MOST:
            self._forget(next(iter(self._deaths)))

    def survived(self, picture: bytes | UInt8Array) -> None:
        """Note that the picture was run and no worker died of it: what happened before was not its fault."""
        if self._lengths and _length(picture) in self._lengths.values() and (key := _digest(picture)) in self._deaths:
            self._forget(key)

    def holds(self, now: float, picture: bytes | UInt8Array) -> str:
        """Return why the picture is kept out, "" if it isn't. Costs next to nothing unless a suspect is as long."""
        if not self._lengths or _length(picture) not in self._lengths.values():
            return ""
        key = _digest(picture)
        deaths, last, why = self._deaths.get(key, (0, now, ""))
        if now - last > KEPT_SECONDS:
            self._forget(key)
            return ""
        return why if deaths >= DEATHS else ""

    def _forget(self, key: bytes) -> None:
        del self._deaths[key], self._lengths[key]


def _length(picture: bytes | UInt8Array) -> int:
    return len(picture) if isinstance(picture, bytes) else picture.nbytes


def _digest(picture: bytes | UInt8Array) -> bytes:
    """Return the picture's SHA-256; an array's shape counts too."""
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).digest()
    return hashlib.sha256(str(picture.shape).encode() + picture.tobytes()).digest()
