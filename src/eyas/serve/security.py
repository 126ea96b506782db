"""Who may come in: API keys (kept as hashes, compared in constant time), the admin's token, the host's names."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eyas.errors import UserError
from eyas.serve.errors import ServeError

# Asked without a key by probes, and by a person who opens the page; they tell nothing of models or requests.
OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json"})
_PORTS = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443"}
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "testserver"})


@dataclass(frozen=True)
class Keys:
    """The keys that let a client in.

    Attributes:
        hashes: SHA-256 of each key, hexadecimal -> the client's name. Empty lets everybody in.
    """

    hashes: Mapping[str, str] = field(default_factory=dict)

    def client(self, headers: Mapping[str, str]) -> str:
        """Return the name of the client with these headers or metadata, "" where everybody is let in.

        Raises:
            ServeError: there are keys, and theirs is none of them.
        """
        if not self.hashes:
            return ""
        key = _key_of(headers)
        given, found = hash_key(key), ""
        for known, name in self.hashes.items():  # all of them: the time tells nothing
            if hmac.compare_digest(known, given):
                found = name
        if not found or not key:
            words = "An API key is needed: 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
            raise ServeError("unauthenticated", words)
        return found


EVERYBODY = Keys()


def hash_key(key: str) -> str:
    """Return the key's SHA-256. Keys are 256 random bits, so a plain hash can't be searched."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key(name: str) -> tuple[str, str]:
    """Return a new key and the line that goes into the file of keys."""
    key = secrets.token_urlsafe(32)
    return key, f"{name}:{hash_key(key)}"


def read_keys(path: Path) -> Keys:
    """Return the keys of a file: a line each, NAME:SHA256, # begins a comment.

    Raises:
        UserError: the file can't be read, holds no key, or a line is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"The keys can't be read: {error.strerror}.", where=str(path)) from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        match = re.fullmatch(r"([\w.@-]+):([0-9a-f]{64})", text)
        if text and match is None:
            raise UserError(
                "A line of the key file is malformed.",
                where=f"{path}, line {number}",
                expected="NAME:SHA256 of the key",
                fix="create a key and its line with: eyas serve --new-key NAME",
            )
        if match:
            found[match[2]] = match[1]
    if not found:
        raise UserError("The key file is empty: no request could be authorized.", where=str(path))
    return Keys(found)


def _key_of(headers: Mapping[str, str]) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key", "")


def check_token(token: str, headers: Mapping[str, str]) -> str:
    """Return the admin's name for the logs; refuse who has not the token."""
    if not hmac.compare_digest(hash_key(_key_of(headers)), hash_key(token)):
        raise ServeError("unauthenticated", "The admin token is needed: 'Authorization: Bearer TOKEN'.")
    return "admin"


def check_host(header: str | None, allowed: frozenset[str]) -> None:
    """Refuse a Host header that is not ours: a name that a stranger's DNS points to this machine, for example.

    The names that are allowed are in lower case, without ports; if there are none, all are.
    """
    host = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(?::\d{1,5})?", header or "")
    if host is None:
        raise ServeError("invalid", "The Host header is malformed.")
    if allowed and host[1].strip("[]").lower() not in allowed:
        raise ServeError("forbidden", "This server does not answer to that host name.")


def check_origin(method: str, path: str, headers: Mapping[str, str], allowed: frozenset[str]) -> None:
    """Refuse what a page of another site sends, by what its browser says of it; programs say nothing.

    A page may send a request to any address without asking, and only can't read the answer. What its browser tells
    with the request, no page can change: `Sec-Fetch-Site` and `Origin`. Our own page is where the browser says so, or
    where the origin's host is the one that was asked, here or at the proxy before us.

    Args:
        method: OPTIONS changes nothing and tells nothing.
        path: a link may lead to the page.
        headers: lower-case names.
        allowed: origins whose pages may send requests; "*" for all.

    Raises:
        ServeError: a page of another site sent it.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if method == "OPTIONS" or (origin is None and site is None):
        return
    if "*" in allowed or (origin is not None and origin.lower() in allowed):
        return
    if site == "same-origin" or (origin is None and site == "none"):
        return
    if origin is None:
        if method == "GET" and path == "/" and headers.get("sec-fetch-mode") == "navigate":
            return
    elif site in (None, "none") and _host_of(origin) in _own_hosts(origin, headers):
        return
    raise ServeError("forbidden", "Pages of other origins may not use this server; see --allow-origin.")


def _host_of(origin: str) -> str:
    """Return the host and port of an origin, without the port that its scheme has anyway; "" for "null"."""
    scheme, _, host = origin.lower().partition("://")
    return host.removesuffix(_PORTS.get(scheme, " "))


def _own_hosts(origin: str, headers: Mapping[str, str]) -> set[str]:
    """Return the hosts that the request was sent to: ours, and that of a proxy, which no page can make up."""
    end = _PORTS.get(origin.partition("://")[0].lower(), " ")
    forwarded = re.search(r'(?:^|[;,\s])host="?([^";,\s]+)', headers.get("forwarded", ""), re.IGNORECASE)
    given = (headers.get("host", ""), headers.get("x-forwarded-host", "").partition(",")[0].strip())
    hosts = {*given, forwarded[1] if forwarded else ""} - {""}
    return {host.lower().removesuffix(end) for host in hosts}


def checked_origin(text: str) -> str:
    """Return an origin whose pages may send requests, in lower case.

    Raises:
        UserError: it is none.
    """
    if text not in ("*", "null") and not re.fullmatch(
        r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[\w.-]+)(:\d{1,5})?", text.lower()
    ):
        raise UserError(
            f"'{text}' is not an origin.", expected="scheme and host, such as https://example.org, null, or * for all"
        )
    return text.lower()
