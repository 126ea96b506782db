"""Training on a GPU beside YOLO11: images a second, where a step's time goes, and that the quick ways compute the same.

    python benchmarks/training_gpu.py prepare gpu-kit               # with internet: all that is needed, in one folder
    python3 gpu-kit/benchmarks/training_gpu.py run --out results    # on the GPU machine: at most 8 minutes
    python benchmarks/training_gpu.py page results/results.json     # puts the tables into training_gpu.md

    python benchmarks/training_gpu.py run --device cpu --quick --out results    # the same code path in a minute or two

`run` does one part after another, each in processes of its own with a limit of time; a part that fails or no longer
fits the time is told with the reason, and the rest goes on. After each part results.json and results.md are written
anew, so that what was measured is there however the run ends. Images are made on the spot unless --data names a set.
The peer is the package `ultralytics` (AGPL-3.0), run as published and installed apart; without it its rows are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training_gpu_checks import killed, same_losses
from training_gpu_kit import environment, install, prepare
from training_gpu_report import page, report
from training_gpu_runs import PartError, Setting, child, eyas_rate, finish, json_lines, peer_rate

KINDS = ("eager", "padded", "graphed")
ABOUT = """
import json, platform, sys, torch, lightning, typing, dataclasses
from eyas.training.recipe import DataRecipe, TrainerRecipe
import eyas.cli.train, eyas.training.fit
cuda = torch.cuda.is_available()
fields = {f"{n}.{f.name}": str(f.type) for n, r in (("data", DataRecipe), ("trainer", TrainerRecipe))
          for f in dataclasses.fields(r)}
print(json.dumps({"python": sys.version.split()[0], "torch": torch.__version__, "lightning": lightning.__version__,
    "device": torch.cuda.get_device_name(0) if cuda else "", "cuda": cuda, "processor": platform.machine(),
    "fields": fields}))
"""
SHAPES = "import sys; from eyas.data.shapes import make_shapes; n = [int(word) for word in sys.argv[2:]]; \
make_shapes(sys.argv[1], train=n[0], val=n[1], size=n[2], seed=n[3])"


@dataclass
class Bench:
    """One run of the benchmark: what it was asked, where it works, what it has found.

    Attributes:
        args: the command line.
        work: a folder that is gone afterwards.
        end: when all must be done, of time.monotonic().
        env, peer_env: environments of Eyas's and of the peer's processes.
        data: the data set.
        results: what was found.
    """

    args: argparse.Namespace
    work: Path
    end: float
    env: Mapping[str, str]
    peer_env: Mapping[str, str]
    data: Path = Path()
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> Mapping[str, str]:
        """Return the recipe's fields that this Eyas has, with their types."""
        fields: Mapping[str, str] = self.results["machine"]["fields"]
        return fields

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()

    def has(self, name: str, value: str = "") -> None:
        """Raise a PartError if this Eyas has no such field, or not that value of it."""
        if name not in self.fields or (value and f"'{value}'" not in self.fields[name].replace('"', "'")):
            raise PartError(f"this Eyas has no {name}{f' {value}' if value else ''}")

    def kinds(self) -> list[str]:
        """Return the kinds of step that can be had here."""
        known = [kind for kind in KINDS if f"'{kind}'" in self.fields.get("trainer.step", "").replace('"', "'")]
        return [kind for kind in known if kind != "graphed" or self.args.device == "cuda"]

    def setting(self, model: str) -> Setting:
        """Return what is trained: "n" or "s", as the targets name them, or something tiny."""
        size, batch = (64, 4) if self.args.quick else {"n": (320, 64), "s": (640, 32)}[model]
        name = "p" if self.args.quick and model == "n" else model
        return Setting(
            name, size, batch, f"yolo11{model}", self.data, self.args.device, self.args.seconds, self.env,
            self.peer_env, self.args.peer_python or sys.executable,
        )  # fmt: skip

    def log(self, name: str) -> Path:
        """Return where a process's output goes."""
        return self.work / f"{name}.log"


def machine(bench: Bench) -> dict[str, Any]:
    """Say on what it runs, and whether Eyas can be imported."""
    (about,) = json_lines(finish([sys.executable, "-c", ABOUT], bench.env, 120, bench.log("machine")))
    if bench.args.device == "cuda" and not about["cuda"]:
        raise SystemExit("PyTorch sees no GPU here: nothing was measured; --device cpu --quick tries the code path")
    about["cores"] = os.cpu_count()
    about["tiny"] = bench.args.quick
    about["load"] = round(os.getloadavg()[0], 1)
    return {**about, "device": about["device"] or f"CPU ({about['processor']}), {os.cpu_count()} cores"}


def data(bench: Bench) -> dict[str, Any]:
    """Take the data set, or make one by several processes at once; and write it in the peer's form."""
    kit = Path(__file__).resolve().parent.parent / "data"
    given = bench.args.data or (kit if (kit / "annotations").is_dir() and not bench.args.quick else None)
    start = time.monotonic()
    bench.data = Path(given) if given else made_shapes(bench)
    yolo = bench.work / "yolo"
    command = [sys.executable, "-m", "eyas", "data", "convert", str(bench.data), str(yolo), "--to", "yolo"]
    finish(command, bench.env, 120, bench.log("convert"))
    made = "given" if given else f"{bench.args.images} images of {bench.args.side} px of eyas data shapes"
    return {"set": made, "seconds": time.monotonic() - start}


def made_shapes(bench: Bench) -> Path:
    """Return a data set of coloured shapes in the COCO form, made in parts."""
    root = bench.work / "shapes"
    parts = min(os.cpu_count() or 1, max(1, bench.args.images // 64))
    numbers = [bench.args.images // parts, 1 + bench.args.images // parts // 10, bench.args.side]

    def make(part: int) -> None:
        command = [sys.executable, "-c", SHAPES, str(root / str(part)), *map(str, numbers), str(part)]
        finish(command, {**bench.env, "OMP_NUM_THREADS": "1"}, 120, bench.log(f"shapes-{part}"))

    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(make, range(parts)))
    for split in ("train", "val"):
        joined: dict[str, Any] = {"images": [], "annotations": []}
        for path in (root / split, root / "annotations"):
            path.mkdir(exist_ok=True)
        for part in range(parts):
            add_part(joined, root / str(part), root / split, split)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(joined), encoding="utf-8")
    return root


def add_part(joined: dict[str, Any], part: Path, folder: Path, split: str) -> None:
    """Add one part of a data set to the others: its images move to their folder, their numbers go on from the last."""
    found = json.loads((part / "annotations" / f"instances_{split}.json").read_text(encoding="utf-8"))
    images, boxes = len(joined["images"]), len(joined["annotations"])
    joined["categories"] = found["categories"]
    for image in found["images"]:
        name = f"{part.name}-{image['file_name']}"
        (part / split / image["file_name"]).rename(folder / name)
        joined["images"].append({**image, "id": images + image["id"], "file_name": name})
    for each in found["annotations"]:
        joined["annotations"].append({**each, "id": boxes + each["id"], "image_id": images + each["image_id"]})


def steps(bench: Bench, model: str, kinds: Sequence[str]) -> dict[str, Any]:
    """Measure the bare step of these kinds; each that came to an end counts."""
    known = "trainer.step" in bench.fields
    possible = [kind for kind in kinds if kind in ("eager", "compiled", *bench.kinds())]
    why = "CUDA graphs need a GPU" if known else "this Eyas has no such step"
    left_out = {kind: {"failed": why} for kind in kinds if kind not in possible}
    setting, log = bench.setting(model), bench.log(f"steps-{model}-{'-'.join(kinds)}")
    command = child(
        "training_gpu_steps.py", "--data", setting.data, "--model", setting.model, "--size", setting.size, "--batch",
        setting.batch, "--device", setting.device, "--kinds", ",".join(possible), "--seconds", bench.args.seconds / 4,
    )  # fmt: skip
    problem = ""
    try:
        finish(command, bench.env, min(bench.left(), 150), log)
    except PartError as error:
        problem = str(error)
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    found = {line.pop("kind"): line for line in json_lines(text) if "kind" in line}
    if problem and not found:
        raise PartError(problem)
    broken = {kind: {"failed": problem or "not measured"} for kind in possible if kind not in found}
    return {**found, **broken, **left_out}


def trainer(bench: Bench, model: str, options: Mapping[str, str] | None) -> dict[str, Any]:
    """Measure `eyas train` with these options; None stands for what is meant to be quickest."""
    if options is None:
        options = {"--data.cache": "decoded" if bench.args.device == "cpu" else "gpu"}
    for name, value in options.items():
        bench.has(name.removeprefix("--"), value)
    workers = {"--data.workers": 1} if bench.args.quick else {}
    found = eyas_rate(bench.setting(model), {**workers, **options}, min(bench.left(), 90))
    return {**found, "options": " ".join(f"{name} {value}" for name, value in options.items())}


def peer(bench: Bench, model: str, cache: str) -> dict[str, Any]:
    """Measure the peer."""
    setting = bench.setting(model)
    try:
        log = bench.log(f"peer-import-{model}-{cache}")
        finish([setting.peer_python, "-c", "import ultralytics"], bench.peer_env, 60, log)
    except PartError as error:
        raise PartError(f"the peer is not installed: {error}") from None
    return peer_rate(setting, bench.work / "yolo" / "data.yaml", cache, min(bench.left(), 90))


def check_losses(bench: Bench) -> dict[str, Any]:
    """Compare the losses of each kind of step."""
    bench.has("trainer.step")
    precisions = ("32-true",) if bench.args.device == "cpu" else ("32-true", "bf16-mixed")
    count = 20 if bench.args.quick else 50
    return same_losses(bench.setting("n"), bench.kinds(), precisions, count, min(bench.left(), 120))


def check_images(bench: Bench) -> dict[str, Any]:
    """Compare the images of the GPU's cache with the CPU's."""
    if bench.args.device == "cpu":
        raise PartError("images that lie on a GPU need one; tests/data/device compares them on the processor")
    setting = bench.setting("n")
    command = child(
        "training_gpu_checks.py", "images", "--data", setting.data, "--size", setting.size, "--batch", setting.batch,
        "--device", setting.device,
    )  # fmt: skip
    (found,) = json_lines(finish(command, bench.env, min(bench.left(), 60), bench.log("images")))
    return found


def check_killed(bench: Bench) -> dict[str, Any]:
    """Kill and resume runs of each kind of step."""
    kinds = bench.kinds() or ["eager"]
    count, kills = (12, 1) if bench.args.quick else (60, bench.args.kills)
    with_field = "trainer.step" in bench.fields
    return killed(bench.setting("n"), kinds, count, kills, min(bench.left(), 150), step_field=with_field)


Part = tuple[str, float, Callable[[Bench], dict[str, Any]]]


def parts(quick: bool) -> list[Part]:
    """Return the parts in the order of their worth: name, seconds that must be left to begin it, what it does."""
    files = {"--data.cache": "none"}
    eager = {**files, "--trainer.step": "eager"}
    listed: list[Part] = [
        ("n steps", 30, lambda bench: steps(bench, "n", KINDS)),
        ("n eyas train", 25, lambda bench: trainer(bench, "n", None)),
        ("n peer", 25, lambda bench: peer(bench, "n", "files")),
        ("s steps", 30, lambda bench: steps(bench, "s", KINDS)),
        ("s eyas train", 25, lambda bench: trainer(bench, "s", None)),
        ("s peer", 25, lambda bench: peer(bench, "s", "files")),
        ("losses", 40, check_losses),
        ("images", 20, check_images),
        ("killed", 60, check_killed),
        ("n eyas train, from files", 25, lambda bench: trainer(bench, "n", files)),
        ("n eyas train, eager, from files", 25, lambda bench: trainer(bench, "n", eager)),
        ("n peer, images in memory", 25, lambda bench: peer(bench, "n", "ram")),
        ("n compiled", 60, lambda bench: steps(bench, "n", ("compiled",))),
    ]
    left_out = {"s steps", "s eyas train", "s peer", "n peer, images in memory", "n compiled"} if quick else set()
    return [("machine", 0, machine), ("data", 0, data), *(part for part in listed if part[0] not in left_out)]


def run(args: argparse.Namespace) -> None:
    """Do all parts, writing what was found after each."""
    end = time.monotonic() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    root = Path(__file__).resolve().parent.parent
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eyas-gpu-")))
        for name in ("eyas", "peer"):
            if (root / "wheels" / name).is_dir():
                install(root / "wheels" / name, work / "site" / name)
        env = environment([root / "src", root / "benchmarks", work / "site" / "eyas"])
        bench = Bench(args, work, end, env, environment([work / "site" / "peer"]))
        chosen = [part for part in parts(args.quick) if not args.parts or part[0] in ("machine", "data", *args.parts)]
        for name, needed, function in chosen:
            started_at = time.monotonic()
            if bench.left() < needed and not args.quick:
                found = {"skipped": f"{bench.left():.0f} s are left, it takes {needed:.0f}"}
            else:
                found = attempt(bench, function)
            bench.results[name] = {**found, "took": round(time.monotonic() - started_at, 1)}
            print(f"{name}: {json.dumps(bench.results[name])[:300]}", flush=True)
            write(args.out, bench.results)
            if name in ("machine", "data") and "failed" in found:
                raise SystemExit(f"{name}: {found['failed']}")
    print((args.out / "results.md").read_text(encoding="utf-8"))


def attempt(bench: Bench, function: Callable[[Bench], dict[str, Any]]) -> dict[str, Any]:
    """Return what a part found, or why it did not."""
    try:
        return function(bench)
    except PartError as error:
        return {"failed": str(error)}
    except Exception as error:  # whatever a part runs into, the parts after it are done
        return {"failed": f"{type(error).__name__}: {error}"}


def write(out: Path, results: Mapping[str, Any]) -> None:
    """Write what was found so far, whole files each time."""
    for name, text in (("results.json", json.dumps(results, indent=2) + "\n"), ("results.md", report(results))):
        partial = out / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(out / name)


def main() -> None:
    """Prepare, run, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("prepare", help="put all that a run needs into a new folder")
    verb.add_argument("folder", type=Path)
    verb.add_argument("--data", type=Path, help="a COCO data set to take along; else shapes are made on the spot")
    verb.add_argument("--no-peer", action="store_true")
    verb = verbs.add_parser("run", help="measure")
    verb.add_argument("--out", type=Path, default=Path("training-gpu"))
    verb.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    verb.add_argument("--quick", action="store_true", help="everything tiny: that the code path works, no figures")
    verb.add_argument("--data", help="a data set in any form that Eyas reads, with the splits train and val")
    verb.add_argument("--images", type=int, help="how many are made (4000)")
    verb.add_argument("--minutes", type=float, default=7.5)
    verb.add_argument("--seconds", type=float, help="for how long a trainer's steady rate is measured (12)")
    verb.add_argument("--kills", type=int, default=2, help="of each run that is killed and resumed")
    verb.add_argument("--parts", nargs="*", metavar="PART", help="only these: " + ", ".join(p[0] for p in parts(False)))
    verb.add_argument("--peer-python", help="a Python that has the package ultralytics, if it is another one")
    verb = verbs.add_parser("page", help="put a run's tables into training_gpu.md")
    verb.add_argument("results", type=Path)
    args = parser.parse_args()
    if args.verb == "prepare":
        print(f"{args.folder}: {prepare(args.folder, args.data, not args.no_peer):.1f} MiB")
    elif args.verb == "page":
        page(json.loads(args.results.read_text(encoding="utf-8")))
    else:
        args.images = args.images or (48 if args.quick else 4000)
        args.seconds = args.seconds or (2.0 if args.quick else 12.0)
        args.side = 128 if args.quick else 640
        run(args)


if __name__ == "__main__":
    main()
