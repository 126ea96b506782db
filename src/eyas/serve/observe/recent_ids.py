"""Which requests were answered lately, in memory that does not grow."""

from __future__ import annotations

import numpy as np


class Recent:
    """Remembers the last ids by their hashes, eight bytes each, all of it taken at the start.

    Two of 100,000 ids share a hash once in billions of questions; feedback that is then called known is logged anyway.

    Args:
        size: how many ids, 1 or more.
    """

    def __init__(self, size: int) -> None:
        self._hashes = np.full(size, hash(""), np.int64)  # written, so that the memory is really there
        self._next = 0

    def add(self, request_id: str) -> None:
        """Remember an id, and forget the oldest."""
        self._hashes[self._next] = hash(request_id)
        self._next = (self._next + 1) % len(self._hashes)

    def __contains__(self, request_id: str) -> bool:
        """Return whether the id is one of the last; nobody's is empty."""
        return bool(request_id) and bool((self._hashes == hash(request_id)).any())
