"""A model that is used at another size than it was trained at: one line says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from eyas.artifacts.layout import MANIFEST
from eyas.artifacts.run import Run, RunConfig
from eyas.errors import UserError
from eyas.export.bundle import other_size
from eyas.runtime.trained_size import size_note, trained_size
from eyas.types import InputSpec

SMALL = InputSpec(height=192, width=192)


def test_a_run_tells_its_size(tmp_path: Path) -> None:
    Run(tmp_path, RunConfig(model={}, classes=("a",), input=replace(SMALL, width=256))).write()
    assert trained_size(tmp_path) == (192, 256)


@pytest.mark.parametrize("told", ["640", [640], [640, "640"], [1, 2, 3]])
def test_a_manifest_that_tells_no_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: object
) -> None:
    class Told:
        details = {"trained_size": told}  # noqa: RUF012

    (tmp_path / MANIFEST).write_text("{}")
    monkeypatch.setattr("eyas.runtime.trained_size.Manifest.read", lambda *_, **__: Told)
    with pytest.raises(UserError, match="trained_size is"):
        trained_size(tmp_path)


@pytest.mark.parametrize(
    ("trained", "used", "note"),
    [
        (None, SMALL, ""),
        ((192, 192), SMALL, ""),
        ((640, 640), SMALL, "trained at 640 x 640, measured at 192 x 192: another size costs accuracy"),
        ((192, 256), SMALL, "trained at 256 x 192, measured at 192 x 192: another size costs accuracy"),
    ],
)
def test_one_line(trained: tuple[int, int] | None, used: InputSpec, note: str) -> None:
    assert size_note(trained, used) == note


def test_a_build_tells_what_it_takes_and_where_it_is_measured() -> None:
    large = InputSpec(height=960, width=960)
    assert other_size(SMALL, SMALL, None, 500) == ""
    assert other_size(SMALL, large, (320, 960), 500) == (
        "trained at 192 x 192, built for 320 to 960: another size costs accuracy; "
        "mAP is measured at 960 x 960, like the trained network"
    )
    assert other_size(SMALL, SMALL, (96, 256), 0).endswith(
        "built for 96 to 256: another size costs accuracy; mAP is not measured"
    )
    assert "built for 960 x 960" in other_size(SMALL, large, None, 500)
