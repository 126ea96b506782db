"""What the GPU benchmark needs on a machine without internet, in one folder: sources, wheels, the peer, images.

The machine is to have torch for its GPU, Lightning, NumPy, OpenCV, safetensors, Matplotlib, Rich, PyYAML and, for the
peer, torchvision; the other packages are small and are carried. The standard library alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LIMIT_MIB = 60
ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
# What training imports beside the packages above; versions as in constraints.txt.
EYAS = ("anyascii", "hotcoco", "jsonargparse", "simplejpeg")
PEER = ("ultralytics==8.4.190", "ultralytics-thop==2.2.3")


def prepare(folder: Path, data: Path | None, peer: bool) -> float:
    """Fill a new folder and return its size in MiB.

    Raises:
        SystemExit: it exists already, a package can't be had, or all is more than the limit.
    """
    if folder.exists():
        raise SystemExit(f"{folder} exists already: name a new folder")
    hidden = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / "benchmarks").mkdir()
    for script in sorted((ROOT / "benchmarks").glob("training_gpu*.py")):
        shutil.copy2(script, folder / "benchmarks")
    shutil.copy2(ROOT / "LICENSE", folder)
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for name in EYAS:
        pin = next(line for line in pins if line.startswith(f"{name}=="))
        download(folder / "wheels" / "eyas", pin)
    for name in PEER if peer else ():
        download(folder / "wheels" / "peer", name)
    if data is not None:
        shutil.copytree(data, folder / "data", ignore=hidden)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    if size > LIMIT_MIB:
        raise SystemExit(f"{folder} has {size:.1f} MiB, the limit is {LIMIT_MIB}: take fewer images")
    return size


def download(folder: Path, package: str) -> None:
    """Fetch a package's wheels for each version of Python, for Linux on x86-64."""
    for version in PYTHONS:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
        where = [word for name in PLATFORMS for word in ("--platform", name)]
        target = ["--python-version", version, "--implementation", "cp"]
        done = subprocess.run([*command, *where, *target, package], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{package} for Python {version} can't be had: {done.stderr.strip()[-400:]}")
        if any(path.name.endswith("-none-any.whl") for path in folder.glob(f"{wheel_name(package)}-*.whl")):
            return


def wheel_name(package: str) -> str:
    """Return how the names of a package's wheels begin."""
    return package.partition("==")[0].replace("-", "_")


def install(wheels: Path, target: Path) -> None:
    """Install a folder of wheels into a folder, those for this version of Python.

    Raises:
        SystemExit: pip refuses.
    """
    names = sorted({path.name.split("-")[0] for path in wheels.glob("*.whl")})
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    words = ["--no-cache-dir", "--find-links", str(wheels), "--target", str(target), *names]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the wheels in {wheels} can't be installed: {done.stderr.strip()[-400:]}")


def environment(folders: Sequence[Path]) -> dict[str, str]:
    """Return this process's environment with only these folders before the installed packages."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "PYTHONUNBUFFERED": "1"}
