"""That the quick ways compute what the plain ones do: losses of each kind of step, images, and runs that were killed.

    python benchmarks/training_gpu_checks.py images --data data/shapes --size 320 --batch 16 --device cuda

As a script it compares the images of `data.cache gpu` with those of the CPU; the other checks start `eyas train` and
are functions that `training_gpu.py` calls.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from training_gpu_runs import PartError, Setting, finish, read_steps, started, tail, train_command

WEIGHTS = "last.safetensors"
# `eyas train` with algorithms that give the same bits each time: without them two runs on a GPU differ by themselves.
DETERMINISTIC = """
import sys, torch
torch.use_deterministic_algorithms(True, warn_only=True)
torch.backends.cudnn.benchmark = False
from eyas.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def deterministic(command: Sequence[str]) -> list[str]:
    """Return the command of `python -m eyas` so that it gives the same bits each time."""
    return [command[0], "-c", DETERMINISTIC, *command[3:]]


def losses(folder: Path) -> dict[int, float]:
    """Return step -> loss of a run."""
    with (folder / "steps.csv").open(newline="", encoding="utf-8") as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file)}


def same_losses(
    setting: Setting, kinds: Sequence[str], precisions: Sequence[str], steps: int, limit: float
) -> dict[str, Any]:
    """Train a few fixed-seed steps in each kind of step and precision, all at once, and compare with the eager one.

    Returns:
        precision -> kind -> the largest relative difference of a loss, or why there is none.
    """
    with tempfile.TemporaryDirectory(prefix="eyas-") as name, ThreadPoolExecutor(len(kinds) * len(precisions)) as pool:

        def run(kind: str, precision: str) -> dict[int, float]:
            folder = Path(name) / f"{kind}-{precision}"
            options = {
                "--trainer.max_steps": steps, "--trainer.step": kind, "--trainer.precision": precision,
                "--data.workers": 1, "--trainer.val_every": 100_000,
            }  # fmt: skip
            finish(train_command(setting, folder, options), setting.env, limit, folder.with_suffix(".log"))
            return losses(folder)

        runs = {(k, p): pool.submit(run, k, p) for p in precisions for k in kinds}
        found: dict[str, Any] = {"steps": steps}
        for precision in precisions:
            plain = runs["eager", precision].result()
            row: dict[str, Any] = {"eager": {"first": plain[min(plain)], "last": plain[max(plain)]}}
            for kind in kinds:
                if kind == "eager":
                    continue
                try:
                    other = runs[kind, precision].result()
                    worst = max(abs(other[step] - loss) / abs(loss) for step, loss in plain.items())
                    row[kind] = {"first": other[min(other)], "last": other[max(other)], "largest_difference": worst}
                except PartError as error:
                    row[kind] = {"failed": str(error)}
            found[precision] = row
    return found


def killed(
    setting: Setting, kinds: Sequence[str], steps: int, kills: int, limit: float, *, step_field: bool = True
) -> dict[str, Any]:
    """Kill runs of each kind of step at random steps, resume them, and compare with one left alone: the same bits?

    Returns:
        kind -> at which steps it was killed, and whether the weights and losses are those of the undisturbed run.
    """
    end = time.monotonic() + limit
    env = {**setting.env, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # without it cuBLAS is not deterministic
    points = {kind: sorted(random.sample(range(1, steps), kills)) for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="eyas-") as name, ThreadPoolExecutor(2 * len(kinds)) as pool:

        def command(folder: Path, kind: str) -> list[str]:
            options: dict[str, object] = {
                "--trainer.max_steps": steps, "--data.workers": 1, "--trainer.save_minutes": 0.0001,
                "--trainer.val_every": 100_000, **({"--trainer.step": kind} if step_field else {}),
            }  # fmt: skip
            return deterministic(train_command(setting, folder, options))

        def alone(kind: str) -> Path:
            folder = Path(name) / f"{kind}-alone"
            finish(command(folder, kind), env, end - time.monotonic(), folder.with_suffix(".log"))
            return folder

        def disturbed(kind: str) -> Path:
            folder = Path(name) / f"{kind}-killed"
            first = command(folder, kind)
            again = deterministic([*first[:1], "-m", "eyas", "train", "--resume", str(folder)])
            log = folder.with_suffix(".log")
            for number, point in enumerate(points[kind]):
                run_until(again if number else first, env, folder, point, end, log)
            finish(again, env, end - time.monotonic(), log)
            return folder

        runs = {kind: (pool.submit(alone, kind), pool.submit(disturbed, kind)) for kind in kinds}
        found: dict[str, Any] = {}
        for kind, (one, other) in runs.items():
            try:
                found[kind] = {"killed_at": points[kind], **compared(one.result(), other.result())}
            except PartError as error:
                found[kind] = {"failed": str(error)}
    return found


def run_until(command: Sequence[str], env: Mapping[str, str], folder: Path, step: int, end: float, log: Path) -> None:
    """Start a run and kill it as soon as its saved state has come to a step or beyond it."""
    with started(command, env, log) as process:
        while time.monotonic() < end:
            if saved_step(folder) >= step:
                time.sleep(random.uniform(0, 0.2))  # rows come every ten steps: anywhere between two
                return
            if process.poll() == 0:
                return  # it was quicker than the one who looked
            if process.poll() is not None:
                raise PartError(f"exit code {process.returncode}: {tail(log)}")
            time.sleep(0.05)
    raise PartError(f"it did not come to step {step}: {tail(log)}")


def saved_step(folder: Path) -> int:
    """Return how far a run is, 0 before its first saved state."""
    if not (folder / "checkpoints" / "last.ckpt").exists():
        return 0
    rows = read_steps(folder / "steps.csv")
    return rows[-1][0] if rows else 0


def compared(one: Path, other: Path) -> dict[str, bool]:
    """Return whether two runs have the same weights and losses."""
    digests = {hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest() for folder in (one, other)}
    return {"same_weights": len(digests) == 1, "same_losses": losses(one) == losses(other)}


def images(data: str, size: int, batch: int, device: str, batches: int) -> dict[str, Any]:
    """Compare the first training batches of `data.cache gpu` with those that the CPU makes."""
    from eyas.training.config_overrides import override
    from eyas.training.data import DetectionData
    from eyas.training.recipes import scratch

    found: dict[str, list[float]] = {"mean_difference": [], "above_8": [], "boxes": []}
    sides = []
    for cache in ("none", "gpu"):
        fields = {"data.root": data, "data.size": size, "data.batch_size": batch, "data.cache": cache,
                  "trainer.accelerator": device}  # fmt: skip
        recipe = override(scratch(), fields)
        loader = iter(DetectionData(recipe.data, recipe.augment).train_dataloader())
        sides.append([next(loader) for _ in range(batches)])
    for plain, quick in zip(*sides, strict=True):
        difference = (plain.images.cpu().int() - quick.images.cpu().int()).abs()
        found["mean_difference"].append(float(difference.float().mean()))
        found["above_8"].append(float((difference > 8).float().mean()))
        same = plain.boxes.shape == quick.boxes.shape
        found["boxes"].append(float((plain.boxes - quick.boxes.cpu()).abs().max()) if same else float("inf"))
    return {"batches": batches, **{name: max(values) for name, values in found.items()}}


def main() -> None:
    """Compare images, and print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=("images",))
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--batches", type=int, default=4)
    args = parser.parse_args()
    print(json.dumps(images(args.data, args.size, args.batch, args.device, args.batches)), flush=True)


if __name__ == "__main__":
    main()
