"""Which version answers a request, and which others see a copy of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from eyas.artifacts.model_key import ModelKey
from eyas.errors import suggest
from eyas.serve.api import ModelStatus, Request
from eyas.serve.errors import ServeError

CHAMPION = "champion"


@dataclass(frozen=True)
class Route:
    """Where a request goes.

    Attributes:
        key: the version that answers it.
        shadows: versions that get a copy, whose answers nobody waits for.
    """

    key: ModelKey
    shadows: tuple[ModelKey, ...] = ()


class Router(Protocol):
    """Decides for each request, at its arrival; what it decided holds for the request's life."""

    def route(self, request: Request, statuses: Sequence[ModelStatus]) -> Route:
        """Return where the request goes.

        Args:
            request: what has arrived.
            statuses: all versions that the server knows of, sorted. The same object comes again until one changes.

        Raises:
            ServeError: no version of them may answer it.
        """
        ...


class AliasRouter:
    """Takes the request at its word: a version, an "@alias", or the model's default, which is its champion."""

    def route(self, request: Request, statuses: Sequence[ModelStatus]) -> Route:
        """Return where the request goes; see `Router.route`."""
        return Route(resolve(request.model, request.version, statuses))


@dataclass(frozen=True)
class Split:
    """How the requests of one model that name no version are shared out.

    Attributes:
        weights: version or "@alias" -> share; numbers from 0, not all 0. None: the default answers. The default also
            stands in for a version that can't answer at the moment.
        sticky: the header by whose value requests are shared out, so that one client sees one version; the stream,
            and where there is none the request's id, stand in for a header that is missing.
        header: a header that names the version or "@alias" for its request; "" for none.
        shadows: versions or "@aliases" that see copies; one that can't answer at the moment sees none.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    sticky: str = ""
    header: str = ""
    shadows: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitRouter:
    """Shares requests out by weight, header and stream; models without a split go by their aliases.

    Attributes:
        splits: model -> how it is shared out; "" for every model that is not named.
    """

    splits: Mapping[str, Split] = field(default_factory=dict)

    def route(self, request: Request, statuses: Sequence[ModelStatus]) -> Route:
        """Return where the request goes; see `Router.route`."""
        name = model_name(request.model, statuses)
        split = self.splits.get(name) or self.splits.get("")
        if split is None or request.version:
            return Route(resolve(name, request.version, statuses))
        version = request.headers.get(split.header, "") if split.header else ""
        if version:
            key = resolve(name, version, statuses)  # the client's own word: what is not there is told
        else:
            key = _able(name, self._draw(name, request, split), statuses) or resolve(name, "", statuses)
        shadows = dict.fromkeys(_able(name, shadow, statuses) for shadow in split.shadows)
        return Route(key, tuple(shadow for shadow in shadows if shadow is not None and shadow != key))

    def _draw(self, name: str, request: Request, split: Split) -> str:
        """Return the version for a request: the same one for the same client, in proportion to the weights."""
        if not split.weights:
            return ""
        unit = request.headers.get(split.sticky) or request.stream or request.id
        digest = hashlib.blake2b(f"{name}\0{unit}".encode(errors="replace"), digest_size=8).digest()
        left = int.from_bytes(digest, "big") / 2**64 * sum(split.weights.values())
        for version, weight in split.weights.items():
            left -= weight
            if left < 0:
                return version
        return list(split.weights)[-1]


def _able(name: str, version: str, statuses: Sequence[ModelStatus]) -> ModelKey | None:
    """Return what `resolve` does, None where it raises."""
    try:
        return resolve(name, version, statuses)
    except ServeError:
        return None


def model_name(name: str, statuses: Sequence[ModelStatus]) -> str:
    """Return the model's name, for "" that of the only model.

    Raises:
        ServeError: there is no such model, or there are several and none was named.
    """
    names = dict.fromkeys(status.key.name for status in statuses)
    if name in names:
        return name
    if not name and len(names) == 1:
        return next(iter(names))
    if not names:
        raise ServeError("unavailable", "No model is loaded.", retry_after=1.0)
    if not name:
        raise ServeError("invalid", f"Several models are served: name one of {', '.join(names)}.")
    raise unknown(name, "", (status.key for status in statuses))


def unknown(name: str, version: str, known: Iterable[ModelKey]) -> ServeError:
    """Return what is told of a model, a version or an "@alias" that is not among those that are known.

    Args:
        name: the model's.
        version: "" where none was asked for.
        known: what there is.
    """
    names = dict.fromkeys(key.name for key in known)
    if not name:
        return ServeError("not_found", "No model is named.")
    if name not in names:
        return ServeError("not_found", f"There is no model '{name[:100]}'{suggest(name[:100], names)}.")
    what = f"alias '{version[1:100]}'" if version.startswith("@") else f"version '{version[:100]}'" * bool(version)
    return ServeError("not_found", f"The model '{name}' has no {what or 'version that could be loaded'}.")


def resolve(name: str, version: str, statuses: Sequence[ModelStatus]) -> ModelKey:
    """Return the version that a model's name and a version, an "@alias" or "" mean.

    Raises:
        ServeError: there is no such model, version or alias, or the version can't answer at the moment.
    """
    name = model_name(name, statuses)
    versions = [status for status in statuses if status.key.name == name]
    if not version:
        found = next((status for status in versions if status.default), None)
        if found is None:
            raise ServeError("unavailable", f"No version of '{name}' is ready.", retry_after=1.0)
        return _usable(found).key
    alias = version[1:] if version.startswith("@") else ""
    for status in versions:
        if (alias in status.aliases) if alias else status.key.version == version:
            return _usable(status).key
    raise unknown(name, version, (status.key for status in statuses))


def _usable(status: ModelStatus) -> ModelStatus:
    """Return the status if requests may go there, also to a version that is loaded when it is asked for."""
    if status.state == "ready" or status.on_demand:
        return status
    what = f"Version {status.key.version} of '{status.key.name}'"
    if status.state == "unloaded":
        raise ServeError("not_found", f"{what} is not loaded.")
    raise ServeError("unavailable", f"{what} is {status.state}.", retry_after=1.0)
