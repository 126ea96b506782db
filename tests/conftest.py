"""What all tests share: one thread, no screen, no fork, hypothesis without a clock, a prepared folder of artefacts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path

# Before torch, OpenCV or matplotlib are imported: small tensors gain nothing from threads, and workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("WANDB_MODE", "offline")  # nothing goes to the account of who runs the tests

import pytest
from hypothesis import HealthCheck, settings

import eyas.runtime.openvino_core  # noqa: F401  # before a test imports OpenVINO, which else would fork
from eyas.models.torchvision_operators import let_torchvision_load

let_torchvision_load()  # before a test imports Lightning, whose metrics import torchvision wherever it is installed

# A shell that starts tests in the background, or `nohup`, has them ignored, which programs inherit.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

# A loaded machine is slow, which is no fault of the code; and a failure must come back when it is run again.
settings.register_profile("eyas", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("eyas")

# Fields of a recipe that make training a matter of seconds; what is learned does not matter.
SHORT = {"trainer.max_steps": 2, "trainer.epochs": 1, "data.workers": 0, "trainer.preflight": False}

# The files that take longest, that one first: begun first, so that processes that share the tests out end together.
SLOW = (
    "meta/test_examples.py",
    "export/parity/test_small.py",
    "training/test_stop.py",
    "export/parity/test_large.py",
    "export/test_tensorrt_bundle.py",
    "export/test_light_install.py",
    "export/parity/test_middle.py",
    "export/test_openvino.py",
    "training/test_fit.py",
    "export/test_tensorrt.py",
    "export/parity/test_variants.py",
    "export/test_targets.py",
    "export/test_auto.py",
    "export/test_bundle_stream.py",
    "cli/test_detect.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first; the tests of a file stay together, in their order."""
    place = {Path(__file__).parent / name: number for number, name in enumerate(SLOW)}
    items.sort(key=lambda item: place.get(item.path, len(SLOW)))


# Where this process was forked, by us or by a package: see tests/meta/test_forks.py.
FORKS: list[str] = []
os.register_at_fork(before=lambda: FORKS.append("".join(traceback.format_stack())))


@pytest.fixture(autouse=True)
def never_forked() -> Iterator[None]:
    """Refuse a test in which the process was forked: it has threads (gRPC's, OpenMP's), which no copy has."""
    yield
    forks = FORKS.copy()
    FORKS.clear()
    assert not forks, f"this process was forked here:\n{forks[0]}"


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what engines work out for this machine out of the user's own cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        if "EYAS_CACHE" not in os.environ:
            patch.setenv("EYAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the manual's examples speak of; copy it before anything is written into it.

    data/shapes (COCO, splits train and val), runs/quickstart (really trained on it, for two steps), street.jpg,
    images/*.jpg and clip.mp4; ckpt_best.pth and average_model.pth, of a narrow network, as SuperGradients' Trainer
    writes them, for the classes in names.txt; bundles/quickstart, compiled of the run, and bundles/next, the same under
    another name; both are champion and challenger of the model `shapes` in the registry `registry`.
    """
    import eyas
    from eyas.artifacts.card import Card
    from eyas.artifacts.layout import MANIFEST
    from eyas.artifacts.manifest import Manifest
    from eyas.data.shapes import make_shapes
    from eyas.export.bundle import BuildSettings, compile_run
    from eyas.registry import open_registry

    folder = tmp_path_factory.mktemp("example")
    with contextlib.chdir(folder):
        make_shapes("data/shapes", train=12, val=6, size=128)
        eyas.train("data/shapes", recipe="quick", out="runs/quickstart", size=64, batch=4, overrides=SHORT)
        images = sorted(Path("data/shapes/val").glob("*.jpg"))
        Path("images").mkdir()
        for path in images[:3]:
            shutil.copy(path, "images")
        shutil.copy(images[-1], "street.jpg")
        write_clip(Path("clip.mp4"), images)
        write_checkpoints()
        compile_run("runs/quickstart", "bundles/quickstart", BuildSettings(measured=0))
        other = shutil.copytree("bundles/quickstart", Path("bundles/next"))
        manifest = Manifest.read(other).model_copy(update={"name": "next"})
        manifest.write(other)
        files = [MANIFEST, *manifest.files]
        Card.write(other, "bundle", files, version=manifest.eyas, created=manifest.created)
        registry = open_registry("registry")
        for bundle, alias in ((Path("bundles/quickstart"), "champion"), (other, "challenger")):
            registry.promote("shapes", registry.add(bundle, "shapes").key.version, alias)
    return folder


def write_checkpoints() -> None:
    """Write checkpoints of SuperGradients for the classes of data/shapes, and the classes' names."""
    import torch
    from tests.models.foreign import narrow_net, trained

    from eyas.data.formats import load_dataset

    names = load_dataset("data/shapes", "train").classes
    net = narrow_net(len(names))
    last = narrow_net(len(names), seed=1)
    torch.save(trained(last.state_dict(), net.state_dict(), names=names), "ckpt_best.pth")
    torch.save(trained(net.state_dict(), names=names), "average_model.pth")
    Path("names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def write_clip(path: Path, images: list[Path]) -> None:
    """Write the images as a video of 128 x 96 pixels, two frames each."""
    import cv2

    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (128, 96))
    for image in images:
        frame = cv2.resize(cv2.imread(str(image)), (128, 96))
        video.write(frame)
        video.write(frame)
    video.release()
