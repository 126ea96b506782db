"""Choosing target and precision by measurement: every candidate is built, timed and judged; the fastest good one stays.

What is faster can't be told from a network's size: on one CPU bfloat16 wins for one activation and INT8 for another.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime

from eyas.artifacts.bundle import Bundle
from eyas.artifacts.measured import Latency
from eyas.errors import UserError
from eyas.export.bundle import compile_run, free_folder, images_of, open_run, seal, staging
from eyas.export.settings import BuildSettings, Tell
from eyas.export.target import TARGETS, target_info
from eyas.export.timing import caller, interleaved, latency
from eyas.machine.gpus import gpus
from eyas.machine.processor import processor
from eyas.runtime.loading import open_bundle

BUDGET = 0.005  # of mAP (0..1) below the trained network
# What is tried on a machine without an NVIDIA GPU. Half precision is left out where a CPU only emulates it: ONNX
# Runtime's float16, and OpenVINO's float16 hint, are slower there than float32.
CPU_CANDIDATES: tuple[tuple[str, str], ...] = (
    ("onnx", "fp32"),
    ("onnx", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)

# What is tried besides where an NVIDIA GPU is here: engines of GPUs, in the types that these are fast in.
GPU_CANDIDATES: tuple[tuple[str, str], ...] = (
    ("tensorrt", "fp16"),
    ("tensorrt", "int8"),
    ("tensorrt-rtx", "fp16"),
    ("tensorrt-rtx", "int8"),
    ("onnx", "fp16"),
)


@dataclass(frozen=True)
class Trial:
    """A candidate and what was measured of its file.

    Attributes:
        target, precision: what was built.
        median_ms, p90_ms: milliseconds a batch; NaN if it could not be built.
        map: COCO mAP of the file; NaN if it could not be built.
        map_fp32: of the trained network on the same images.
        problem: why it could not be built, one line; "" if it was.
    """

    target: str
    precision: str
    median_ms: float = float("nan")
    p90_ms: float = float("nan")
    map: float = float("nan")
    map_fp32: float = float("nan")
    problem: str = ""


def candidates(target: str = "auto", precision: str = "auto") -> list[tuple[str, str]]:
    """Return the (target, precision) pairs that this machine can build and run.

    Args:
        target: a target, or "auto" for all.
        precision: a precision, or "auto" for all.

    Raises:
        UserError: nothing is left.
    """
    if target != "auto":
        target_info(target, "fp32")
    sets = processor().instruction_sets
    bfloat16 = sets.get("AVX-512 BF16") or sets.get("AMX BF16")
    tried = (*(GPU_CANDIDATES if gpus() else ()), *CPU_CANDIDATES)
    found = [
        pair
        for pair in tried
        if target in ("auto", pair[0])
        and precision in ("auto", pair[1])
        and (pair[1] != "bf16" or precision == "bf16" or bfloat16)
        and (pair != ("onnx", "fp16") or "CUDAExecutionProvider" in onnxruntime.get_available_providers())
        and importlib.util.find_spec(TARGETS[pair[0]].package[0]) is not None
    ]
    if not found:
        raise UserError(
            f"There are no candidates for the target '{target}-{precision}' on this machine.",
            expected="among " + ", ".join(f"{one}-{kind}" for one, kind in tried),
            fix='pip install "eyas[openvino]" for more candidates, or name the target',
        )
    return found


def choose(trials: Sequence[Trial], budget: float = BUDGET) -> Trial:
    """Return the fastest trial whose mAP is at most `budget` below the trained network's.

    Raises:
        UserError: there is none.
    """
    good = [trial for trial in trials if not trial.problem and trial.map >= trial.map_fp32 - budget]
    if not good:
        raise UserError(
            f"No candidate is within {100 * budget:g} mAP of the trained network.",
            expected="; ".join(f"{t.target}-{t.precision}: {t.problem or f'mAP {t.map:.4f}'}" for t in trials),
            fix="allow more with --max-drop",
        )
    return min(good, key=lambda trial: trial.median_ms)


def compile_auto(
    run: str | Path,
    out: str | Path | None = None,
    settings: BuildSettings | None = None,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    tell: Tell = lambda _: None,
) -> tuple[Bundle, tuple[Trial, ...]]:
    """Build every candidate, keep the fastest that is good enough, and return it with the table it was chosen from.

    Args:
        run: the run's folder.
        out: the bundle's folder, new or empty; by default `bundles/RUN-auto`.
        settings: as for `compile_run`; target and precision are not used, and the budget is `BUDGET` for all of them
            where it names none.
        pairs: the candidates; None for `candidates()`.
        tell: called with a line for each step.

    Raises:
        UserError: the run can't be used, or no candidate is good enough; no bundle is left then.
    """
    trained = open_run(Path(run))  # what is no run fails once, not with every candidate
    settings = (settings or BuildSettings()).for_run(trained.run.config)
    if settings.measured == 0:
        raise UserError("Choosing a target needs mAP.", fix="measure on at least some images", where="measured")
    pairs = candidates() if pairs is None else pairs
    folder = free_folder(Path(run), out or Path("bundles") / f"{Path(run).resolve().name}-auto", settings)
    images = images_of(trained, settings)
    with staging(folder) as work:
        built: dict[tuple[str, str], Bundle] = {}
        failed: list[Trial] = []
        known: float | None = None  # the trained network is measured once
        for pair in pairs:
            tell(f"candidate: {pair[0]}-{pair[1]}")
            # No gate at the mAP here, and no clock: what is chosen is judged by both, and the table shows all.
            own = replace(settings, target=pair[0], precision=pair[1], budget=1.0, timed=False)
            try:
                built[pair] = compile_run(
                    trained, work / "-".join(pair), own, tell=tell, images=images, known_map=known
                )
            except UserError as error:
                failed.append(Trial(*pair, problem=error.problem))
                continue
            if (found := built[pair].manifest.accuracy) is not None:
                known = found.map_fp32
        tell("timing them in turns")
        times = _timed(built, settings.threads)
        trials = (*(_trial(pair, bundle, times[pair]) for pair, bundle in built.items()), *failed)
        best = choose(trials, BUDGET if settings.budget is None else settings.budget)
        bundle = built[best.target, best.precision]
        manifest = bundle.manifest.model_copy(
            update={"name": folder.name, "latency": (times[best.target, best.precision],)}
        )
        chosen = replace(settings, target=best.target, precision=best.precision)
        seal(Bundle(bundle.folder, manifest), trained, chosen)
        if folder.is_dir():
            folder.rmdir()  # it was empty
        shutil.move(bundle.folder, folder)
    return Bundle(folder, manifest), trials


def _timed(built: dict[tuple[str, str], Bundle], threads: int | None) -> dict[tuple[str, str], Latency]:
    sessions = {pair: open_bundle(bundle.folder, bundle.manifest, threads) for pair, bundle in built.items()}
    times = interleaved({pair: caller(sessions[pair], bundle.manifest) for pair, bundle in built.items()})
    for session in sessions.values():
        session.close()
    return {pair: latency(times[pair], bundle.manifest, threads) for pair, bundle in built.items()}


def _trial(pair: tuple[str, str], bundle: Bundle, time: Latency) -> Trial:
    found = bundle.manifest.accuracy
    assert found is not None
    return Trial(*pair, time.median_ms, time.p90_ms, found.map, found.map_fp32)
