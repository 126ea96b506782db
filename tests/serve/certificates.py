"""Certificates for tests, made by the openssl command."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from eyas.serve.server_settings import Tls


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files."""

    authority: Path
    certificate: Path
    key: Path
    client_certificate: Path
    client_key: Path

    def server(self, *, mutual: bool) -> Tls:
        """Return the server's settings."""
        return Tls(self.certificate, self.key, self.authority if mutual else None)


def make_certificates(folder: Path, name: str = "127.0.0.1") -> Certificates:
    """Make an authority, a server's certificate for the name (an address), and a client's."""
    if shutil.which("openssl") is None:
        pytest.skip("the command openssl is not installed: no certificates can be made")

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    run(*new, "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem", "-days", "30")
    (folder / "ext").write_text(f"subjectAltName=IP:{name}\n", "utf-8")
    for each in ("server", "client"):
        run(*new, "-subj", f"/CN={each}", "-keyout", f"{each}.key", "-out", f"{each}.csr")
        run("x509", "-req", "-in", f"{each}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-extfile", "ext", "-days", "30", "-out", f"{each}.pem")  # fmt: skip
    files = ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")
    return Certificates(*(folder / file for file in files))
