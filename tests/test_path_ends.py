"""Files found by the ends of foreign paths: the longest end wins, and a tie is told, never broken."""

from __future__ import annotations

import pytest

from eyas.path_ends import PathEnds, path_parts

KNOWN = ["/d/cam1/0001.jpg", "/d/cam2/0001.jpg", "/d/b.jpg", "/d/x/b.jpg", "/d/odd\\name.jpg"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/elsewhere/cam1/0001.jpg", [0]),
        ("C:\\data\\cam2\\0001.jpg", [1]),
        ("\\\\server\\share\\cam2\\0001.jpg", [1]),
        ("../cam1/./0001.jpg", [0]),
        ("0001.jpg", [0, 1]),
        ("cam3/0001.jpg", [0, 1]),
        ("x/b.jpg", [3]),
        ("d/b.jpg", [2]),
        ("odd\\name.jpg", [4]),
        ("name.jpg", []),
        ("001.jpg", []),
        ("", []),
    ],
)
def test_the_longest_end_wins(path: str, found: list[int]) -> None:
    assert PathEnds(KNOWN).find(path) == found


def test_a_known_path_that_fits_as_a_whole_wins() -> None:
    ends = PathEnds(["0001.jpg", "cam1/0001.jpg"])
    assert ends.find("/images/0001.jpg") == [0]
    assert ends.find("/images/cam1/0001.jpg") == [1]


def test_parts_of_a_path_of_any_system() -> None:
    assert path_parts("C:\\x\\a.jpg") == ("C:", "x", "a.jpg")
    assert path_parts("/content/drive/../x//a.jpg") == ("content", "drive", "x", "a.jpg")
