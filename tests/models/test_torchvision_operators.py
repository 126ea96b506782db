"""A torchvision that doesn't fit the installed torch can be imported after `let_torchvision_load`, and not before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# What torchvision does when it is imported: load its compiled half, or else describe operators that are not there.
PACKAGE = """
import torch
try:
    torch.ops.load_library(__file__.replace("__init__.py", "_C.so"))
except OSError:
    pass
for name in ("nms", "qnms"):
    torch.library.register_fake(f"torchvision::{name}")(lambda dets, scores, iou_threshold: dets)
"""
DEFINE = "from eyas.models.torchvision_operators import let_torchvision_load as d; d(); d()\n"


def imported(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter with a torchvision whose compiled half can't be loaded."""
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(PACKAGE, "utf-8")
    (package / "_C.so").write_bytes(b"of another torch")
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("code", "fine"),
    [
        ("import torchvision", False),
        (f"{DEFINE}import torchvision", True),
        ("import eyas.training\nassert 'torch' not in sys.modules\nimport torchvision", True),
    ],
    ids=["without", "with", "training"],
)
def test_a_torchvision_that_does_not_fit_can_be_imported(code: str, fine: bool, tmp_path: Path) -> None:
    done = imported(code, tmp_path)
    assert (done.returncode == 0) is fine, done.stderr
    assert fine or "operator torchvision::nms does not exist" in done.stderr


def test_it_is_asked_for_once_and_others_are_not_in_the_way(tmp_path: Path) -> None:
    done = imported(
        f"{DEFINE}import torchvision\nd()\nassert not any('Torchvision' in str(f) for f in sys.meta_path)", tmp_path
    )
    assert done.returncode == 0, done.stderr
