"""Choosing target and precision by measurement: every candidate is built, timed and judged; the fastest good one stays.

What is faster can't be told from a network's size: on one CPU bfloat16 wins for one activation and INT8 for another.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eyas.compile.bundle import Bundle, aside, compile_run, free_folder, seal
from eyas.compile.settings import Settings, Tell
from eyas.compile.target import TARGETS, target_info
from eyas.errors import UserError
from eyas.runtime.loading import open_bundle
from eyas.runtime.machine import processor
from eyas.runtime.manifest import Latency, Manifest, write_manifest

BUDGET = 0.005  # of mAP (0..1) below the trained network
ROUNDS = 5
RUNS = 8  # a round

# What is tried on a machine without an NVIDIA GPU. Half precision is left out where a CPU only emulates it: ONNX
# Runtime's float16, and OpenVINO's float16 hint, are slower there than float32.
CPU_CANDIDATES: tuple[tuple[str, str], ...] = (
    ("onnx", "fp32"),
    ("onnx", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)


@dataclass(frozen=True)
class Trial:
    """A candidate and what was measured of its file.

    Attributes:
        target, precision: what was built.
        median_ms, p90_ms: milliseconds a batch; NaN if it could not be built.
        map: COCO mAP of the file; NaN if it could not be built.
        map_fp32: of the trained network on the same pictures.
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
    found = [
        pair
        for pair in CPU_CANDIDATES
        if target in ("auto", pair[0])
        and precision in ("auto", pair[1])
        and (pair[1] != "bf16" or precision == "bf16" or bfloat16)
        and importlib.util.find_spec(TARGETS[pair[0]].package[0]) is not None
    ]
    if not found:
        raise UserError(
            f"There is nothing to choose from for the target '{target}' and the precision '{precision}' here.",
            expected="among " + ", ".join(f"{one} {kind}" for one, kind in CPU_CANDIDATES),
            fix='pip install "eyas[openvino]" for more candidates, or name target and precision',
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
            f"No candidate stays within {100 * budget:g} mAP of the trained network.",
            expected="; ".join(f"{t.target} {t.precision}: {t.problem or f'mAP {t.map:.4f}'}" for t in trials),
            fix="allow more with --budget",
        )
    return min(good, key=lambda trial: trial.median_ms)


def compile_auto(
    run: str | Path,
    out: str | Path | None = None,
    settings: Settings | None = None,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    budget: float = BUDGET,
    threads: int | None = None,
    tell: Tell = lambda _: None,
) -> tuple[Bundle, tuple[Trial, ...]]:
    """Build every candidate, keep the fastest that is good enough, and return it with the table it was chosen from.

    Args:
        run: the run's folder.
        out: the bundle's folder, new or empty; by default `bundles/RUN-auto`.
        settings: as for `compile_run`; target and precision are not used.
        pairs: the candidates; None for `candidates()`.
        budget: how far mAP may fall below the trained network's, 0..1.
        threads: of the engines while they are timed; None for their own choice.
        tell: called with a line for each step.

    Raises:
        UserError: the run can't be used, or no candidate is good enough; no bundle is left then.
    """
    settings = settings or Settings()
    if settings.measured == 0:
        raise UserError("A choice needs mAP.", fix="measure at least some pictures", where="measured")
    pairs = candidates() if pairs is None else pairs
    folder = free_folder(Path(run), out or Path("bundles") / f"{Path(run).resolve().name}-auto", settings)
    with aside(folder) as work:
        built: dict[tuple[str, str], Bundle] = {}
        failed: list[Trial] = []
        for pair in pairs:
            tell(f"candidate: {pair[0]} in {pair[1]}")
            own = replace(settings, target=pair[0], precision=pair[1])
            try:
                built[pair] = compile_run(run, work / "-".join(pair), own, tell=tell)
            except UserError as error:
                failed.append(Trial(*pair, problem=error.problem))
        trials = (*_timed(built, threads), *failed)
        best = choose(trials, budget)
        bundle = built[best.target, best.precision]
        manifest = bundle.manifest.model_copy(
            update={"name": folder.name, "latency": (_latency(best, bundle.manifest, threads),)}
        )
        write_manifest(bundle.folder, manifest)
        seal(bundle.folder, Path(run), replace(settings, target=best.target, precision=best.precision), manifest)
        if folder.is_dir():
            folder.rmdir()  # it was empty
        shutil.move(bundle.folder, folder)
    return Bundle(folder, manifest), trials


def _timed(built: dict[tuple[str, str], Bundle], threads: int | None) -> list[Trial]:
    """Return a trial for each bundle, all of them timed by turns, so that a busy moment hits every one."""
    sessions = {pair: open_bundle(bundle.folder, bundle.manifest, threads) for pair, bundle in built.items()}
    runs: dict[tuple[str, str], Callable[[], object]] = {}
    for pair, bundle in built.items():
        spec = bundle.manifest.input
        images = np.random.default_rng(0).integers(
            0, 256, (bundle.manifest.batch[0], spec.height, spec.width, 3), np.uint8
        )
        runs[pair] = lambda session=sessions[pair], images=images: session.run(images)  # type: ignore[misc]
    times = interleaved(runs)
    trials = []
    for pair, bundle in built.items():
        sessions[pair].close()
        found = bundle.manifest.accuracy
        assert found is not None
        median, p90 = (float(np.percentile(times[pair], part)) for part in (50, 90))
        trials.append(Trial(*pair, median, p90, found.map, found.map_fp32))
    return trials


def interleaved(
    runs: dict[tuple[str, str], Callable[[], object]], rounds: int = ROUNDS, each: int = RUNS
) -> dict[tuple[str, str], list[float]]:
    """Return name -> milliseconds of every call; the functions are called by turns, `each` times a round."""
    times: dict[tuple[str, str], list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, call in runs.items():
            if number == 0:
                call()  # the first call makes buffers
            for _ in range(each):
                started = time.perf_counter()
                call()
                times[name].append(1000 * (time.perf_counter() - started))
    return times


def _latency(trial: Trial, manifest: Manifest, threads: int | None) -> Latency:
    """Return the measured time as the manifest holds it."""
    package = TARGETS[trial.target].package[0]
    return Latency(
        device=processor().name,
        threads=threads or 0,
        batch=manifest.batch[0],
        size=(manifest.input.height, manifest.input.width),
        median_ms=trial.median_ms,
        p90_ms=trial.p90_ms,
        versions={package: importlib.metadata.version(package)},
    )
