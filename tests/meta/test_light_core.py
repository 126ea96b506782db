"""`pip install eyas` detects without torch: the light core imports, and the command line helps, without the extras."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.meta.source import ROOT, modules
from tests.meta.test_layers import ALLOWED, OUTSIDE, unit

from eyas.cli.main import VERBS

EXTRA_PACKAGES = [*OUTSIDE, "torchmetrics", "onnx", "openvino"]
LIGHT_UNITS = {"", "__main__", "cli", "runtime", *ALLOWED["runtime"]}
BLOCK = f"import sys\nfor name in {EXTRA_PACKAGES}:\n    sys.modules[name] = None\n"  # importing one of them now fails


def run_without_extras(code: str) -> subprocess.CompletedProcess[str]:
    """Run the code in a fresh interpreter in which none of the extras' packages can be imported."""
    return subprocess.run([sys.executable, "-c", BLOCK + code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_light_core_imports_without_the_extras() -> None:
    light = [name for name in modules() if unit(name) in LIGHT_UNITS and name != "eyas.__main__"]
    assert len(light) > 10
    done = run_without_extras("".join(f"import {name}\n" for name in light))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_help_needs_no_extra(verb: str) -> None:
    code = f"from eyas.cli.main import load_verb, verb_parser\nverb_parser('{verb}', load_verb('{verb}')).format_help()"
    done = run_without_extras(code)
    assert done.returncode == 0, done.stderr


def test_an_import_of_an_extra_is_noticed() -> None:
    assert run_without_extras("import torch").returncode != 0
    assert run_without_extras("import eyas.tensor_boxes").returncode != 0
