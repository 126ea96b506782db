"""How a server is started: where it listens, who may come in, how it ends."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from eyas.errors import UserError
from eyas.serve.limits import Limits
from eyas.serve.observe.events import EventSettings
from eyas.serve.security import LOOPBACK, Keys


@dataclass(frozen=True)
class Tls:
    """Files of PEM: the server's certificate and key, and the authority whose clients may come in (mTLS).

    Attributes:
        certificate, key: the server's.
        client_authority: who must have signed a client's certificate; None asks for none.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None


@dataclass(frozen=True)
class ServerSettings:
    """How the server is started.

    Attributes:
        host: the address to listen at; only this machine reaches the default.
        port: of REST; 0 takes a free one.
        grpc_port: of gRPC; None for no gRPC, 0 takes a free one.
        admin_port: of the admin's REST; None for none.
        admin_grpc_port: of the admin's gRPC; None for none.
        admin_token: what the admin must show; needed where there is an admin's port.
        keys: who may come in; none lets everybody in.
        tls: certificate and key; None for none.
        hosts: names that the server answers for, in lower case; empty: this machine's own names where it listens on
            loopback (a stranger's name that points here is refused), all elsewhere.
        origins: origins of other sites' pages that may send requests and read the answers; "*" for all.
        urls: whether images may be given as URLs.
        access_log: file of the access log, a JSON line a request; "-" for standard error, None for none.
        events: the event log; None for none.
        telemetry: whether OpenTelemetry records spans.
        limits: what a client may send.
        pre_stop: seconds between "not ready" and the end of accepting, in which a load balancer looks elsewhere.
        grace: most seconds in which accepted requests are answered, after that.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001
    admin_port: int | None = None
    admin_grpc_port: int | None = None
    admin_token: str = field(default="", repr=False)
    keys: Keys = field(default_factory=Keys, repr=False)
    tls: Tls | None = None
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    urls: bool = False
    access_log: str | None = None
    events: EventSettings | None = None
    telemetry: bool = False
    limits: Limits = field(default_factory=Limits)
    pre_stop: float = 0.0
    grace: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what would be a mistake, or a hole."""
        if (self.admin_port is not None or self.admin_grpc_port is not None) and len(self.admin_token) < 16:
            raise UserError("The admin port needs a token.", where="admin_token", expected="at least 16 characters")
        given = [self.port, self.grpc_port, self.admin_port, self.admin_grpc_port]
        ports = [port for port in given if port]
        if len(set(ports)) != len(ports) or not all(0 < port < 65_536 for port in ports):
            raise UserError("The ports must be different numbers from 1 to 65535.", where=str(ports))
        if self.grace < 0 or self.pre_stop < 0:
            raise UserError("grace and pre_stop must be at least 0 seconds.", where=f"{self.grace}, {self.pre_stop}")

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """The names that the server answers for; empty for all."""
        return self.hosts or (LOOPBACK | {self.host.lower()} if self.loopback else frozenset())


def ssl_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of HTTPS.

    Raises:
        UserError: a file is missing, or is no certificate or key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_authority is not None:
            context.load_verify_locations(tls.client_authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"TLS can't be set up: {error}.",
            where=f"{tls.certificate}, {tls.key}",
            expected="PEM files of a certificate and its private key",
        ) from None
    return context


def read_pem(path: Path) -> bytes:
    """Return the file's bytes."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"The file can't be read: {error.strerror}.", where=str(path)) from None
