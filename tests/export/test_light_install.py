"""`pip install eyas` for real: the wheel in a fresh environment, without torch, gives the trained network's answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.meta.source import ROOT

import eyas
from eyas.artifacts.bundle import Bundle
from eyas.cli.main import VERBS
from eyas.types import Detections

HEAVY = ("torch", "lightning", "onnx", "hotcoco", "matplotlib", "jsonargparse", "safetensors")
DETECT = """
import importlib.util, json, sys
bundle, image, names = sys.argv[1:]
import eyas
with eyas.load(bundle, threads=1) as detector:
    found = detector(image)
    streamed = [detections for _, detections in detector.stream([image, image], draw=True)]
    told = detector.describe()
print(json.dumps({
    "package": eyas.__file__,
    "importable": [name for name in names.split(",") if importlib.util.find_spec(name)],
    "imported": [name for name in names.split(",") if name in sys.modules],
    "boxes": found.boxes.tolist(), "scores": found.scores.tolist(), "labels": found.labels.tolist(),
    "streamed": [len(each) for each in streamed], "told": told,
}))
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built in a copy of what goes into it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src" / "eyas", source / "src" / "eyas", ignore=shutil.ignore_patterns("__pycache__"))
    call([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist"), str(source)])
    [path] = (source / "dist").glob("eyas-*.whl")
    return path


@pytest.fixture(scope="session")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and what it requires, nothing else; its folder of programs."""
    environment = tmp_path_factory.mktemp("core")
    return install(environment, str(wheel))


@pytest.fixture(scope="session")
def with_openvino(core: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment on top of the core one, with what the extra `openvino` adds; its folder of programs."""
    environment = tmp_path_factory.mktemp("with_openvino")
    return install(environment, f"{wheel}[openvino]", on_top_of=core)


def install(environment: Path, requirement: str, *, on_top_of: Path | None = None) -> Path:
    """Make an environment, install a requirement into it and return its folder of programs."""
    call([sys.executable, "-m", "venv", "--without-pip", str(environment)])
    programs = environment / Path(sysconfig.get_path("scripts")).name
    if on_top_of is not None:
        [packages] = packages_of(environment)
        (packages / "core.pth").write_text("\n".join(map(str, packages_of(on_top_of.parent))), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--quiet", "--no-compile"]
    options = ["--retries", "1", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt")]
    # The programs of an environment below are not seen by the one on top, so Eyas itself is installed again.
    again = ["--ignore-installed", "--no-deps", requirement.partition("[")[0]]
    try:
        call([*pip, *options, requirement])
        if on_top_of is not None:
            call([*pip, *again])
    except AssertionError as error:
        pytest.fail(f"This test needs pip to reach a package index, or its cache:\n{error}", pytrace=False)
    return programs


def packages_of(environment: Path) -> list[Path]:
    """Return the folder into which an environment installs packages."""
    return list(environment.glob("[lL]ib*/**/site-packages"))[:1]


def run(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program without this repository on its path."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment["EYAS_CACHE"] = str(folder or ROOT / "build")
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def call(command: Sequence[str], folder: Path | None = None) -> str:
    """Run a program as `run` does and return what it printed; assert that it succeeded."""
    done = run(command, folder)
    assert done.returncode == 0, f"{' '.join(map(str, command[:6]))} ...\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    return done.stdout


@pytest.fixture(scope="session")
def street(place: Path) -> Path:
    return sorted((place / "shapes" / "val").glob("*.jpg"))[0]


@pytest.fixture(scope="session")
def expected(place: Path, street: Path) -> Detections:
    with eyas.load(place / "tiny") as detector:
        found: Detections = detector(street)
    assert len(found) > 3
    return found


def same(boxes: object, scores: object, expected: Detections) -> None:
    """Assert that the best boxes and scores are the trained network's; ties at the end of the list may trade places."""
    best = min(len(expected), 20)
    np.testing.assert_allclose(np.array(scores)[:best], expected.scores[:best], atol=1e-3)
    np.testing.assert_allclose(np.array(boxes)[:best], expected.boxes[:best], atol=0.5)


def detect(programs: Path, bundle: Path, street: Path, forbidden: Sequence[str], folder: Path) -> dict[str, object]:
    """Detect through the API in an environment; return what the script tells, after checking what it is made of."""
    arguments = [str(bundle), str(street), ",".join(forbidden)]
    told: dict[str, object] = json.loads(call([str(programs / "python"), "-c", DETECT, *arguments], folder))
    assert told["importable"] == told["imported"] == []
    assert Path(str(told["package"])).is_relative_to(programs.parent) and told["streamed"] == [len(told["scores"])] * 2  # type: ignore[arg-type]
    return told


def test_the_core_detects_through_the_api(
    core: Path, bundle: Bundle, street: Path, expected: Detections, tmp_path: Path
) -> None:
    told = detect(core, bundle.folder, street, (*HEAVY, "openvino"), tmp_path)
    same(told["boxes"], told["scores"], expected)
    assert "ONNX Runtime" in str(told["told"])


def test_the_core_s_command_line(
    core: Path, bundle: Bundle, street: Path, expected: Detections, tmp_path: Path
) -> None:
    program = str(core / "eyas")
    said = call([program, "detect", str(bundle.folder), str(street), "--save-json", "--out", "found"], tmp_path)
    found = json.loads((tmp_path / "found" / "results.json").read_text())
    boxes = np.array([one["bbox"] for one in found])
    same(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1), [one["score"] for one in found], expected)
    assert street.name in said and (tmp_path / "found" / street.name).is_file()
    doctor = json.loads(call([program, "doctor", "--json"], tmp_path))
    runtimes = {each["name"]: each["version"] for each in doctor["runtimes"]}
    assert runtimes["ONNX Runtime"] and not runtimes["PyTorch"] and not runtimes["OpenVINO"]
    assert any("eyas[train]" in line for line in doctor["advice"])
    chain = call([program, "lineage", str(bundle.folder)], tmp_path)
    assert chain.count("unchanged") == 2 and "bundle" in chain and "run" in chain
    if "bench" in VERBS:
        assert "ms" in call([program, "bench", str(bundle.folder), "--threads", "1"], tmp_path)


def test_the_core_says_what_is_missing(core: Path, bundle: Bundle, place: Path, street: Path, tmp_path: Path) -> None:
    """A bundle of OpenVINO's, a run and training each name the command that brings what they need."""
    other = Path(shutil.copytree(bundle.folder, tmp_path / "other"))
    (other / "card.json").unlink()
    bundle.manifest.model_copy(update={"target": "openvino"}).write(other)
    for arguments, extra in (
        (["detect", str(other), str(street)], "openvino"),
        (["detect", str(place / "tiny"), str(street)], "train"),
        (["train", "--data", str(place / "shapes")], "train"),
    ):
        done = run([str(core / "eyas"), *arguments], tmp_path)
        assert done.returncode == 2 and f'pip install "eyas[{extra}]"' in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "detections").exists()


def test_openvino_s_extra_is_enough_for_its_bundles(
    with_openvino: Path, ir_bundle: Bundle, street: Path, expected: Detections, tmp_path: Path
) -> None:
    made = str(ir_bundle.folder)
    told = detect(with_openvino, ir_bundle.folder, street, HEAVY, tmp_path)
    same(told["boxes"], told["scores"], expected)
    assert "OpenVINO" in str(told["told"])
    said = call([str(with_openvino / "eyas"), "detect", made, str(street), "--out", "found"], tmp_path)
    assert street.name in said and (tmp_path / "found" / street.name).is_file()
