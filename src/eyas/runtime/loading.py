"""Opening a model from disk: checks that its bytes are what its card says, then picks the engine."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from eyas.artifacts.card import CARD
from eyas.artifacts.hints import refuse_file
from eyas.artifacts.layout import MANIFEST
from eyas.artifacts.run import Run
from eyas.decode import MAX_PIXELS
from eyas.errors import UserError, suggest
from eyas.runtime.detector import Detector
from eyas.runtime.sessions import torch as torch_session
from eyas.runtime.sessions.base import Session
from eyas.types import Thresholds

if TYPE_CHECKING:
    from eyas.artifacts.manifest import Manifest

# Engine -> what opens a run with it: (run, device) -> session. The first one is what "auto" takes.
RUN_SESSIONS: Mapping[str, Callable[[Run, str], Session]] = MappingProxyType({"torch": torch_session.open_run})

# A bundle's target -> (module, class) of its engine, imported when a bundle asks for it: an engine costs time to load.
BUNDLE_SESSIONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "onnxruntime": ("eyas.runtime.sessions.onnxruntime", "OnnxRuntimeSession"),
        "openvino": ("eyas.runtime.sessions.openvino", "OpenVinoSession"),
        "tensorrt": ("eyas.runtime.sessions.tensorrt", "TensorRtSession"),
        "tensorrt-rtx": ("eyas.runtime.sessions.tensorrt", "TensorRtSession"),
    }
)
Change = Callable[[Thresholds], Thresholds]


def load(
    path: str | Path,
    *,
    session: str = "auto",
    device: str = "auto",
    thresholds: Thresholds | Change | None = None,
    size: int | None = None,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    spin: bool = True,
) -> Detector:
    """Return a detector of the trained run or of the compiled bundle in a folder.

    Args:
        path: the run's or the bundle's folder.
        session: the engine: "torch" for a run, the bundle's own for a bundle, or "auto" for the right one.
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        thresholds: what a prediction must pass, or a function that gives it for the model's own; None takes these.
        size: side of the network's square input in pixels, a multiple of 32; None takes the model's own.
        threads: CPU threads of a bundle's engine; None lets the engine choose.
        max_pixels: images with more pixels are refused before they are decoded.
        spin: whether the engine's threads may keep a core busy while they wait; False where cores are shared.

    Raises:
        UserError: the folder is missing, is no run and no bundle, its bytes were changed, the engine or device is not
            here, or the size is not one that the network takes.
    """
    folder = Path(path)
    if not folder.exists():
        near = suggest(folder.name, _neighbours(folder))
        raise UserError(
            f"There is no run at {folder}{near}.", expected="a folder written by 'eyas train' or 'eyas compile'"
        )
    refuse_file(folder)
    if (folder / MANIFEST).is_file():
        return _load_bundle(folder, session, device, thresholds, size, threads, max_pixels, spin)
    if threads is not None:
        raise UserError(
            "threads applies only to bundles; a run uses PyTorch's.", fix="set OMP_NUM_THREADS, or compile the run"
        )
    run = Run.read(folder)
    config = run.config
    if not run.verify():
        warnings.warn(f"{folder} has no {CARD}: its weights can't be checked for changes.", stacklevel=2)
    config = replace(config, thresholds=_chosen(thresholds, config.thresholds))
    if size is not None:
        config = replace(config, input=replace(config.input, height=size, width=size))
    opener = RUN_SESSIONS[_session_name(session)]
    return Detector(
        opener(Run(folder, config), device), config.classes, config.input, config.thresholds, max_pixels=max_pixels
    )


def _load_bundle(
    folder: Path,
    session: str,
    device: str,
    thresholds: Thresholds | Change | None,
    size: int | None,
    threads: int | None,
    max_pixels: int,
    spin: bool,
) -> Detector:
    """Return a detector of a bundle; see `load`."""
    from eyas.artifacts.bundle import Bundle

    manifest = Bundle.read(folder).manifest
    if session not in ("auto", manifest.target):
        raise UserError(
            f"The bundle was compiled for {manifest.target}, not for '{session}'.",
            where="session",
            fix="compile the run for that target",
        )
    if threads is not None and threads < 1:
        raise UserError(f"threads is {threads}.", expected="a whole number from 1", where="threads")
    if size is not None:
        manifest = manifest.for_size(size)
    if manifest.details.get("weight_bits") == 8 and manifest.target in ("onnxruntime", "openvino"):
        _warn_of_saturation(folder)
    return Detector(
        open_bundle(folder, manifest, threads, device, spin=spin),
        manifest.classes,
        manifest.input,
        _chosen(thresholds, manifest.thresholds),
        max_pixels=max_pixels,
    )


def _chosen(thresholds: Thresholds | Change | None, own: Thresholds) -> Thresholds:
    if thresholds is None:
        return own
    return thresholds if isinstance(thresholds, Thresholds) else thresholds(own)


def _warn_of_saturation(folder: Path) -> None:
    """Warn where a bundle whose INT8 weights have 8 bits gives other answers than where it was judged."""
    from eyas.machine.processor import bytes_saturate, processor

    if bytes_saturate(processor()):
        warnings.warn(
            f"The weights of {folder} have 8 bits, and this CPU has neither VNNI nor AMX: products may overflow and "
            "distort the detections. Compile the run on this machine, or with --weight-bits 7.",
            stacklevel=4,
        )


def open_bundle(
    folder: Path, manifest: Manifest, threads: int | None = None, device: str = "auto", *, spin: bool = True
) -> Session:
    """Return the engine of a bundle whose manifest was read and verified.

    Raises:
        UserError: the engine is not installed, can't open the file, or doesn't know the device.
    """
    module, name = BUNDLE_SESSIONS[manifest.target]
    options: dict[str, str | bool] = {} if device == "auto" else {"device": device}
    if manifest.target == "onnxruntime" and not spin:  # the others' threads sleep while they wait
        options["spin"] = False
    return vars(import_module(module))[name](folder, manifest, threads, **options)  # type: ignore[no-any-return]


def _session_name(session: str) -> str:
    """Return the engine that the word means."""
    if session == "auto":
        return next(iter(RUN_SESSIONS))
    if session not in RUN_SESSIONS:
        raise UserError(
            f"Unknown session '{session}'{suggest(session, RUN_SESSIONS)}.",
            where="session",
            expected="auto or one of " + ", ".join(RUN_SESSIONS),
        )
    return session


def _neighbours(folder: Path) -> list[str]:
    return [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
