"""Which version answers a request, and which others see a copy of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from eyas.artifacts.model_key import ModelKey
from eyas.errors import UserError, suggest
from eyas.serve.api import ModelStatus, Request
from eyas.serve.errors import ServeError

CHAMPION = "champion"
Reference = Annotated[str, msgspec.Meta(pattern=r"^(?:@[a-z][A-Za-z0-9_-]{0,63}|[0-9]{1,18})\Z")]
Header = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{0,100}\Z")]


@dataclass(frozen=True)
class Route:
    """Where a request goes.

    Attributes:
        key: the version that answers it.
        shadows: versions that get a copy, whose answers nobody waits for.
    """

    key: ModelKey
    shadows: tuple[ModelKey, ...] = ()


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the requests of one model that name no version are shared out.

    Attributes:
        weights: version or "@alias" -> share; numbers from 0, not all 0. None: the default answers. The default also
            stands in for a version that can't answer at the moment.
        sticky: the header, in lower case, by whose value requests are shared out, so that one client sees one version;
            the stream, and where there is none the request's id, stand in for a header that is missing.
        header: a header, in lower case, that names the version or "@alias" for its request; "" for none.
        shadows: versions or "@aliases" that see copies; one that can't answer at the moment sees none.
    """

    weights: dict[Reference, Annotated[float, msgspec.Meta(ge=0.0)]] = {}
    sticky: Header = ""
    header: Header = ""
    shadows: tuple[Reference, ...] = ()

    def __post_init__(self) -> None:
        """Refuse weights that can't be shared out by."""
        if self.weights and not 0.0 < sum(self.weights.values()) < math.inf:
            raise ValueError("the weights are numbers from 0, and not all 0")


@dataclass(frozen=True)
class Router:
    """Decides for each request, at its arrival, by weight, header and stream; what it decided holds for its life.

    A request that names a version, an "@alias", or a model without a split is taken at its word.

    Attributes:
        splits: model -> how it is shared out; "" for every model that is not named.
    """

    splits: Mapping[str, Split] = field(default_factory=dict)

    def route(self, request: Request, statuses: Sequence[ModelStatus]) -> Route:
        """Return where the request goes.

        Args:
            request: what has arrived.
            statuses: all versions that the server knows of, sorted.

        Raises:
            ServeError: no version of them may answer it.
        """
        if request.version or not self.splits:
            return Route(resolve(request.model, request.version, statuses))
        name = model_name(request.model, statuses)
        split = self.splits.get(name) or self.splits.get("")
        if split is None:
            return Route(resolve(name, "", statuses))
        version = request.headers.get(split.header, "") if split.header else ""
        if version:
            key = resolve(name, version, statuses)  # the client's own word: what is not there is told
        else:
            key = _able(name, _draw(name, request, split), statuses) or resolve(name, "", statuses)
        shadows = dict.fromkeys(_able(name, shadow, statuses) for shadow in split.shadows)
        return Route(key, tuple(shadow for shadow in shadows if shadow is not None and shadow != key))


def _draw(name: str, request: Request, split: Split) -> str:
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
    try:
        return resolve(name, version, statuses)
    except ServeError:
        return None


# ----------------------------------------------------------------------------------------- how splits are written


def read_routes(path: Path) -> dict[str, Split]:
    """Return the splits of a file: {"MODEL": {"weights": {"@champion": 9, ...}, "sticky", "header", "shadows"}}.

    Raises:
        UserError: the file can't be read, or says something that makes no sense.
    """
    try:
        document = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Any]])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"The routes file can't be read: {error}.", where=str(path), expected='{"MODEL": {...}}'
        ) from None
    return {name: _split(fields, f"{path}: {name}") for name, fields in document.items()}


def splits_of(weights: Sequence[str], shadows: Sequence[str], sticky: str, header: str) -> dict[str, Split]:
    """Return the splits that the command line asks for; "" stands for every model.

    Args:
        weights: each "[MODEL:]@champion=9,@challenger=1".
        shadows: each "[MODEL:]@challenger".
        sticky: the header that one client always sends alike, "" for none.
        header: the header that chooses a version, "" for none.

    Raises:
        UserError: one of them makes no sense.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in weights:
        model, _, rest = text.rpartition(":")
        shares = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        try:
            found.setdefault(model, {})["weights"] = {name: float(share) for name, share in shares.items()}
        except ValueError:
            raise UserError(f"'{rest}' are no shares.", expected="@champion=9,@challenger=1", where=text) from None
    for text in shadows:
        model, _, rest = text.rpartition(":")
        found.setdefault(model, {}).setdefault("shadows", []).append(rest)
    if (sticky or header) and not found:
        found[""] = {}
    where = " ".join([*weights, *shadows, sticky, header])
    return {model: _split({**fields, "sticky": sticky, "header": header}, where) for model, fields in found.items()}


def _split(fields: Mapping[str, Any], where: str) -> Split:
    try:
        split = msgspec.convert(fields, Split)
    except msgspec.ValidationError as error:
        raise UserError(
            f"This is no way to share out requests: {error}.",
            where=where,
            expected=f"{', '.join(Split.__struct_fields__)}; a version is @alias or a number",
        ) from None
    return msgspec.structs.replace(split, sticky=split.sticky.lower(), header=split.header.lower())


# ---------------------------------------------------------------------------------------------- what a version means


def with_aliases(statuses: Iterable[ModelStatus], aliases: Mapping[str, Mapping[str, str]]) -> tuple[ModelStatus, ...]:
    """Return the versions, sorted, each with the aliases that point to it and whether it is its model's default.

    The default of a model is its champion, and where no alias says so the newest version that can answer.

    Args:
        statuses: the versions, without aliases.
        aliases: model -> alias -> version.
    """
    ordered = sorted(statuses, key=lambda each: each.key)
    defaults: dict[str, ModelKey] = {}
    for each in ordered:  # a version that is no number is the newest only where there is none with a number
        known = defaults.get(each.key.name)
        if _can_answer(each) and (known is None or each.key.version.isdecimal() or not known.version.isdecimal()):
            defaults[each.key.name] = each.key
    for name, pointing in aliases.items():
        if CHAMPION in pointing:
            defaults[name] = ModelKey(name, pointing[CHAMPION])
    found = []
    for each in ordered:
        pointing = aliases.get(each.key.name, {})
        names = tuple(sorted(alias for alias, version in pointing.items() if version == each.key.version))
        found.append(replace(each, aliases=names, default=defaults.get(each.key.name) == each.key))
    return tuple(found)


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


def find(name: str, version: str, statuses: Sequence[ModelStatus]) -> ModelStatus:
    """Return the version that a model's name and a version, an "@alias" or "" mean, whatever it is doing.

    "" means the default, and where there is none the newest version.

    Raises:
        ServeError: there is no such model, version or alias.
    """
    known = [each for each in statuses if each.key.name == name]
    if version.startswith("@"):
        known = [each for each in known if version[1:] in each.aliases]
    elif version:
        known = [each for each in known if each.key.version == version]
    if not known:
        raise unknown(name, version, (each.key for each in statuses))
    return max(known, key=lambda each: (each.default, each.state == "ready", each.key))


def resolve(name: str, version: str, statuses: Sequence[ModelStatus]) -> ModelKey:
    """Return what `find` does for a request that is to be answered: the version must be able to, at once or soon.

    Raises:
        ServeError: there is no such model, version or alias, or it can't answer at the moment.
    """
    name = model_name(name, statuses)
    found = find(name, version, statuses)
    if not version and not found.default:
        raise ServeError("unavailable", f"No version of '{name}' is ready.", retry_after=1.0)
    if _can_answer(found):
        return found.key
    what = f"Version {found.key.version} of '{name}'"
    if found.state == "unloaded":
        raise ServeError("not_found", f"{what} is not loaded.")
    raise ServeError("unavailable", f"{what} is {found.state}.", retry_after=1.0)


def _can_answer(status: ModelStatus) -> bool:
    return status.state == "ready" or status.on_demand


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
