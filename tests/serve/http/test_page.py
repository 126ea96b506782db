"""The page to try an image, in a real browser against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serve.bundles import jpeg, write_bundle
from tests.serve.http.browser import BINARY, Tab, browser
from tests.serve.started import started

from eyas.serve.security import new_key

pytestmark = pytest.mark.skipif(BINARY is None, reason="no Chromium is installed: apt-get install chromium")

FOUND = "document.querySelector('#status').textContent.includes(' found by shapes 1 ')"
ROWS = "[...document.querySelectorAll('#found tbody tr')].map(row => row.cells[0].textContent)"
STATUS = "document.querySelector('#status').textContent"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, images and a file that is none."""
    found = tmp_path_factory.mktemp("page")
    write_bundle(found / "shapes")
    (found / "red.jpg").write_bytes(jpeg(200, 0))
    (found / "both.jpg").write_bytes(jpeg(200, 100, 48, 64))
    (found / "broken.jpg").write_bytes(jpeg()[:20])
    (found / "notes.txt").write_text("no image")
    return found


@pytest.fixture(scope="module")
def tab(folder: Path) -> Iterator[Tab]:
    """The page of a server that asks for a key, before anything was done there."""
    words, line = new_key("ann")
    (folder / "keys.txt").write_text(line + "\n")
    with (
        started(folder, str(folder / "shapes"), "--workers", "1", "--keys", str(folder / "keys.txt")) as server,
        browser(folder / "profile") as found,
    ):
        found.open(server.address("REST") + "/")
        found.wait(f"{STATUS}.includes('key')")
        found.run(f"document.querySelector('#key').value = '{words}'")
        found.run("document.querySelector('#key').dispatchEvent(new Event('change'))")
        found.wait(f"{STATUS} === '' && document.querySelector('#model').options.length === 2")
        yield found


def test_a_chosen_image_shows_what_was_found(tab: Tab, folder: Path) -> None:
    tab.choose("#file", folder / "red.jpg")
    tab.wait(FOUND)
    assert tab.run(ROWS) == ["red"]
    edge = tab.run("(c => [...c.getContext('2d').getImageData(c.width / 2, c.height / 4, 1, 1).data])(canvas)")
    plain = tab.run("(c => [...c.getContext('2d').getImageData(c.width * 0.8, c.height * 0.8, 1, 1).data])(canvas)")
    assert plain[0] > 180 and max(plain[1:3]) < 20 and edge != plain  # the box's right side, and the image


def test_a_dropped_one_takes_its_place_wherever_it_falls(tab: Tab, folder: Path) -> None:
    tab.drop("h1", folder / "both.jpg")
    tab.wait(f"{FOUND} && ({ROWS}).length === 2")
    assert sorted(tab.run(ROWS)) == ["blue", "red"]
    assert tab.run("canvas.width / canvas.height") == pytest.approx(64 / 48)


def test_labels_of_several_classes_on_one_box_cover_each_other_nowhere(tab: Tab, folder: Path) -> None:
    tab.drop("#drop", folder / "both.jpg")
    tab.wait(f"{FOUND} && ({ROWS}).length === 2")
    # Each label's own colour, which no image of the test has, covers about as much as the other's.
    count = (
        "(rgb => { const c = canvas, d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;"
        "for (let i = 0; i < d.length; i += 4) n += rgb.every((v, k) => Math.abs(d[i + k] - v) < 3); return n; })"
    )
    colour = (
        "(label => { const p = document.createElement('canvas').getContext('2d'); p.fillStyle = colour(label);"
        "p.fillRect(0, 0, 1, 1); return [...p.getImageData(0, 0, 1, 1).data].slice(0, 3); })"
    )
    covered = [tab.run(f"{count}({colour}({label}))") for label in (0, 1)]
    assert min(covered) > 0.4 * max(covered) > 0, covered  # the best one's colour is that of the box, too


def test_labels_stand_within_the_image_and_beside_one_another(tab: Tab) -> None:
    stood = tab.run(
        "(() => { const placed = []; for (const [left, top] of [[0, 0], [0, 0], [30, 5], [0, 90], [0, 90], [70, 0]])"
        " place(placed, left, top, 50, 16, 100); return placed.map(each => [each.left, each.top]); })()"
    )
    assert all(0 <= top <= 84 for _, top in stood)
    pairs = [(a, b) for at, a in enumerate(stood) for b in stood[:at]]
    assert not [(a, b) for a, b in pairs if abs(a[0] - b[0]) < 50 and abs(a[1] - b[1]) < 16]
    assert stood[:3] == [[0, 0], [0, 16], [30, 32]] and stood[-1] == [70, 0], "as near to its box as there is room"


def test_what_is_no_image_is_said_and_leaves_no_boxes(tab: Tab, folder: Path) -> None:
    tab.drop("#drop", folder / "broken.jpg")
    tab.wait("document.querySelector('#status.bad') !== null")
    assert tab.run(ROWS) == [] and tab.run("getComputedStyle(canvas).display") == "none"
    tab.drop("#drop", folder / "notes.txt")
    tab.wait(f"{STATUS} === 'notes.txt is not a JPEG, PNG or WebP image.'")


def test_thresholds_are_the_models_own_until_they_are_moved(tab: Tab, folder: Path) -> None:
    tab.drop("#drop", folder / "both.jpg")
    tab.wait(f"{FOUND} && ({ROWS}).length === 2")
    assert "conf=" not in tab.run("document.querySelector('#curl').textContent")
    tab.run("conf.value = 0.5; conf.dispatchEvent(new Event('input')); conf.dispatchEvent(new Event('change'))")
    tab.wait(f"{FOUND} && ({ROWS}).length === 1")
    assert "conf=0.5" in tab.run("document.querySelector('#curl').textContent")


def test_a_phone_shows_all_of_its_width(tab: Tab) -> None:
    tab.screen(375, 700)
    assert tab.run("document.documentElement.scrollWidth") == 375


def test_nothing_is_refused_by_the_pages_own_policy(tab: Tab) -> None:
    tab.run("0")
    known = "Failed to load resource: the server responded with"  # the refusals that these tests provoke
    assert [each for each in tab.complaints if '"level": "warning"' not in each and known not in each] == []
