"""The curves of a run are drawn from its CSV files, whatever of them is there yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eyas.decode import read_image
from eyas.training.plot import plot_results, read_columns

STEPS = "step,epoch,seconds,cpu_seconds,lr,loss,class,iou,dfl\n" + "".join(
    f"{step},0,{step},{step},{step / 1e4},{9 / step},{3 / step},{4 / step},{2 / step}\n" for step in range(1, 30)
)
EPOCHS = "epoch,step,lr,loss,class,iou,dfl,AP,AP50,AP75\n1,10,0.001,3,1,1,1,,,\n2,29,0.001,2,0.5,1,0.5,0.4,0.6,0.3\n"


def drawn(folder: Path) -> np.ndarray:
    """Return the image that is drawn of the files in the folder."""
    plot_results(folder)
    return read_image(folder / "results.png")


def test_columns_are_read_with_gaps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,AP,AP50\n1,,0.5\n2\n", encoding="utf-8")
    columns = read_columns(path)
    assert columns["step"].tolist() == [1.0, 2.0]
    np.testing.assert_array_equal(columns["AP"], [np.nan, np.nan])
    np.testing.assert_array_equal(columns["AP50"], [0.5, np.nan])


@pytest.mark.parametrize("text", [None, "", "step,AP\n"])
def test_nothing_is_read_from_a_file_without_rows(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "metrics.csv").write_text(text, encoding="utf-8")
    assert read_columns(tmp_path / "metrics.csv") == {}


def test_nothing_is_drawn_before_the_first_row(tmp_path: Path) -> None:
    plot_results(tmp_path)
    assert not (tmp_path / "results.png").exists()


def test_each_panel_shows_its_own_numbers(tmp_path: Path) -> None:
    """Loss on the left, AP in the middle: what is new in a file changes that panel."""
    (tmp_path / "steps.csv").write_text(STEPS, encoding="utf-8")
    early = drawn(tmp_path)
    assert early.std() > 1  # not a blank page
    (tmp_path / "metrics.csv").write_text(EPOCHS, encoding="utf-8")
    late = drawn(tmp_path)
    assert early.shape == late.shape
    third = early.shape[1] // 3
    changed = [(early[:, i * third : (i + 1) * third] != late[:, i * third : (i + 1) * third]).mean() for i in range(3)]
    assert changed[0] > 0.001 and changed[1] > 0.01, changed


def test_a_run_that_was_never_evaluated_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "steps.csv").write_text(STEPS, encoding="utf-8")
    rows = "step,epoch,class,iou,dfl,AP,AP50,AP75\n10,1,1,1,1,,,\n"
    (tmp_path / "metrics.csv").write_text(rows, encoding="utf-8")
    assert drawn(tmp_path).std() > 1
