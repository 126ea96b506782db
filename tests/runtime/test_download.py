"""What lies at an address: images are fetched, streams are left to be streamed, the rest is told as it is."""

from __future__ import annotations

import gzip
import io
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from tests.runtime.fakes import colour_detector, make_image, write_video
from tests.serve.certificates import make_certificates

from eyas.errors import UserError
from eyas.runtime import download
from eyas.runtime.detect import detect
from eyas.runtime.download import look_up
from eyas.runtime.sources import InMemory, Live, expand
from eyas.types import Detections

JPEG = simplejpeg.encode_jpeg(make_image(), quality=97)
PAGES: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/a.jpg": (200, {"Content-Type": "image/jpeg"}, JPEG),
    "/snapshot.cgi": (200, {"Content-Type": "application/octet-stream"}, JPEG),
    "/with blanks/\u00e4 b.jpg": (200, {}, JPEG),
    "/moved": (302, {"Location": "/a.jpg"}, b""),
    "/circle": (302, {"Location": "/circle"}, b""),
    "/away": (302, {"Location": "file:///etc/passwd"}, b""),
    "/page.jpg": (200, {"Content-Type": "text/html"}, b"<html>No image here</html>"),
    "/fault": (200, {"Content-Type": "application/json"}, b'{"error": "no such camera"}'),
    "/nothing": (200, {"Content-Type": "image/jpeg"}, b""),
    "/broken": (500, {}, b"oops"),
    "/short.jpg": (200, {"Content-Length": str(len(JPEG) + 100)}, JPEG),
    "/packed.jpg": (200, {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}, gzip.compress(JPEG)),
    "/packed": (200, {"Content-Type": "application/octet-stream", "Content-Encoding": "gzip"}, gzip.compress(JPEG)),
    "/zeros.jpg": (200, {"Content-Type": "image/jpeg"}, bytes(1000)),
    "/camera": (200, {"Content-Type": "multipart/x-mixed-replace; boundary=x", "Content-Length": ""}, b"--x"),
    "/list.m3u8": (200, {"Content-Type": "application/vnd.apple.mpegurl"}, b"#EXTM3U\n"),
    "/list": (200, {"Content-Type": "text/plain"}, b"#EXTM3U\n"),
    "/clip.mp4": (200, {"Content-Type": "video/mp4"}, b"\0\0\0\x18ftypisom" + bytes(100)),
    "/clip": (200, {}, b"\0\0\0\x18ftypisom" + bytes(100)),
}


class Handler(BaseHTTPRequestHandler):
    """Answers with what `PAGES` says."""

    def do_GET(self) -> None:
        from urllib.parse import unquote

        if self.path.startswith("/secret") and self.headers["Authorization"] != "Basic bWU6YSBi":
            status, headers, body = 401, {}, b""
        else:
            path = unquote(self.path.partition("?")[0]).replace("/secret", "/a.jpg")
            status, headers, body = PAGES.get(path, (404, {}, b"not here"))
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a.jpg", "a.jpg"),
        ("/a.jpg?size=big&x=/b.png#part", "a.jpg"),
        ("/snapshot.cgi", "snapshot.cgi"),
        ("/with%20blanks/%C3%A4%20b.jpg", "\u00e4_b.jpg"),
        ("/with blanks/\u00e4 b.jpg", "\u00e4_b.jpg"),
        ("/moved", "moved"),
    ],
)
def test_an_image_is_fetched_whatever_its_address_looks_like(site: str, path: str, name: str) -> None:
    assert expand(site + path) == [InMemory(JPEG, name, site + path)]


def test_a_name_and_a_password_are_sent(site: str) -> None:
    assert look_up(site.replace("//", "//me:a%20b@") + "/secret").data == JPEG
    with pytest.raises(UserError, match="status 401"):
        look_up(site + "/secret")


@pytest.mark.parametrize("path", ["/camera", "/list.m3u8", "/list", "/clip.mp4", "/clip"])
def test_a_stream_stays_a_stream_and_a_video_a_video(site: str, path: str) -> None:
    assert expand(site + path) == [Live(site + path, path[1:], ends="clip" in path)]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/none.jpg", "status 404"),
        ("/broken", "status 500"),
        ("/circle", "redirects too often"),
        ("/away", "something other than http"),
        ("/page.jpg", "text/html, not an image"),
        ("/fault", "application/json, not an image"),
        ("/nothing", "returns nothing"),
        ("/packed.jpg", "packed"),
        ("/packed", "packed"),
        ("/zeros.jpg", "image/jpeg, which is not a supported image"),
        ("/short.jpg", "download failed|ended early"),
    ],
)
def test_whatever_else_is_there_is_told(site: str, path: str, told: str, tmp_path: Path) -> None:
    detector, _ = colour_detector()
    for call in (lambda: detector(site + path), lambda: detect(detector, site + path, out=tmp_path)):
        with pytest.raises(UserError, match=told) as error:
            call()
        assert error.value.where == site + path


def test_an_image_too_large_or_too_slow_is_refused(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_BLOCK", 100)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="more than 0 MiB"):
        patch.setattr(download, "MOST_BYTES", 500)
        look_up(site + "/a.jpg")
    monkeypatch.setattr(download, "MOST_SECONDS", 0.0)
    with pytest.raises(UserError, match="longer than 0 s"):
        look_up(site + "/a.jpg")


def test_a_public_address_does_not_redirect_into_a_private_network(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = download._guarded
    monkeypatch.setattr(download, "_guarded", lambda link, before, where: real(link, before, where) or before is None)
    with pytest.raises(UserError, match="into a private network"):
        look_up(site + "/moved")


def test_hosts_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/a.jpg"
        with pytest.raises(UserError, match="refused"):
            expand(address)
    with pytest.raises(UserError, match="download failed"):
        expand("http://no-such-host.invalid/a.jpg")
    for malformed in ("http://", "http:///a.jpg", "http://[::1/a.jpg", "http://h:99999/a.jpg"):
        with pytest.raises(UserError, match="malformed"):
            expand(malformed)


def test_a_host_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(UserError, match="in time"):
        expand(f"http://127.0.0.1:{server.getsockname()[1]}/a.jpg")


def test_a_host_that_speaks_something_else_is_left_to_the_streams() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            link, _ = server.accept()
            with link:
                link.recv(1000)
                link.sendall(b"ICY 200 OK\r\n\r\n" + bytes(100))

        threading.Thread(target=answer, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/live"
        assert expand(address) == [Live(address, "live")]


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match="secure connection"):
            look_up(f"https://127.0.0.1:{server.server_port}/a.jpg")
        server.shutdown()


def test_detections_and_files_of_an_address(site: str, tmp_path: Path) -> None:
    detector, _ = colour_detector()
    found = detector(site + "/a.jpg?x=1")
    assert isinstance(found, Detections)
    np.testing.assert_allclose(found.boxes, [[10, 10, 40, 30]], atol=1.01)
    report = detect(detector, [site + "/a.jpg?x=1", site + "/a.jpg"], out=tmp_path, save_json="r.json", save_txt=True)
    assert [result.name for result in report.results] == ["a.jpg", "a.jpg"] and not report.problems
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-2.jpg", "a.jpg", "labels", "r.json"]
    assert Image.open(io.BytesIO((tmp_path / "a.jpg").read_bytes())).size == (96, 64)


def test_a_video_at_an_address_is_used_frame_by_frame_and_ends(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "v.mp4", num=6)
    monkeypatch.setitem(PAGES, "/v.mp4", (200, {"Content-Type": "video/mp4"}, video.read_bytes()))
    detector, _ = colour_detector(seconds=0.05)
    report = detect(detector, site + "/v.mp4", out=tmp_path / "out")
    assert [(result.name, result.frames) for result in report.results] == [("v.mp4", 6)] and not report.problems
    assert (tmp_path / "out" / "v.mp4").is_file()


def test_a_damaged_image_is_told_with_its_address(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAGES, "/bad.jpg", (200, {}, JPEG[:500]))
    detector, _ = colour_detector()
    report = detect(detector, [site + "/bad.jpg", site + "/a.jpg"], out=tmp_path)
    assert [name for name, _ in report.problems] == ["bad.jpg"] and site in report.problems[0][1]
    assert [result.name for result in report.results] == ["a.jpg"]


@pytest.mark.parametrize(
    "peer", ["10.0.0.1", "168.63.129.16", "fec0::1", "64:ff9b:1::1", "::ffff:8.8.8.8", "fe80::1%lo"]
)
def test_a_public_address_leads_to_none_that_the_server_would_refuse(peer: str) -> None:
    class Link:
        class sock:
            @staticmethod
            def getpeername() -> tuple[str, int]:
                return peer, 80

    with pytest.raises(UserError, match="private network"):
        download._guarded(Link, True, "http://here/a.jpg")  # type: ignore[arg-type]
