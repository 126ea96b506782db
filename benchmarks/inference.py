"""What Eyas adds to the engines: JPEG bytes to boxes, their own tools, cold starts, precisions, streaming.

    python benchmarks/inference.py [pipeline tools start precision stream] [--work FOLDER] [--s RUN] [--n RUN]

Everything is on one thread unless said otherwise, and by turns: two things that are compared stand beside each other in
every round, and the median of the rounds' ratios counts. On a machine that others use too, wall times say little; the
processor time (`cpu`) is measured beside them, and the limits are held against it. `starved` is the part of the
processor time asked for that others had.

Without --s and --n untrained networks are used. Their confidence threshold, like everyone's here, is set so that 100
(box, class) pairs an image enter suppression. Keeps benchmarks/results/inference.json, a section each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
import onnxruntime
import openvino
from inference_models import bundle, clip_in, images_in, untrained_run

from eyas.artifacts.manifest import Manifest
from eyas.benchmark.stage_timer import now, since
from eyas.draw import annotate
from eyas.machine.processor import processor
from eyas.runtime.detector import Detector
from eyas.runtime.loading import load
from eyas.runtime.postprocess import select
from eyas.runtime.preprocess import Preprocessor

RESULTS = Path(__file__).parent / "results" / "inference.json"
ENTERING = 100  # (box, class) pairs that enter suppression
Numbers = dict[str, Any]


class Bench:
    """Where things lie, and how long is measured."""

    def __init__(self, work: Path, runs: Mapping[str, Path | None], source: Path | None, rounds: int) -> None:
        self.work, self.rounds = work, rounds
        self.runs = {name: path or self._untrained(name) for name, path in runs.items()}
        self.images = images_in(work / "images", source)
        self.data = [path.read_bytes() for path in self.images]

    def _untrained(self, name: str) -> Path:
        folder = self.work / f"run-{name}"
        return folder if folder.is_dir() else untrained_run(folder, name)

    def bundle(self, name: str, target: str, precision: str, margin: int | None = None) -> Path:
        """Return the bundle of a run."""
        folder = self.work / (f"{name}-{target}-{precision}" + ("" if margin is None else f"-margin{margin}"))
        return bundle(self.runs[name], folder, target, precision, self.images, margin)

    def detector(self, name: str, target: str, precision: str, margin: int | None = None) -> Detector:
        """Return a detector on one thread, whose threshold lets 100 pairs into suppression."""
        found = load(self.bundle(name, target, precision, margin), threads=1)
        scores = [np.sort(found.session.run(self.frame(found, i))[1].ravel())[-ENTERING] for i in range(4)]
        limits = replace(found.thresholds, confidence=max(0.0, float(np.median(scores))))
        return Detector(found.session, found.classes, found.input, limits)

    def frame(self, detector: Detector, number: int = 0) -> Any:
        """Return one of the images as the network takes it, uint8 [1, H, W, 3]."""
        image = detector.read(self.data[number % len(self.data)])
        return cv2.resize(image, (detector.input.width, detector.input.height))[None].copy()


def by_turns(ways: Mapping[str, Callable[[], object]], rounds: int, each: int = 1) -> dict[str, Numbers]:
    """Return every way's median milliseconds of wall and processor time, and its ratio to the first in a round.

    Args:
        ways: what is compared, by name; called once before, to fill its buffers.
        rounds: how often each has its turn.
        each: calls a turn.
    """
    for way in ways.values():
        way()
    costs = {name: [] for name in ways}  # type: ignore[var-annotated]
    for number in range(rounds):
        names = list(ways) if number % 2 == 0 else list(ways)[::-1]
        for name in names:
            start = now()
            for _ in range(each):
                ways[name]()
            costs[name].append(since(start))
    first = costs[next(iter(ways))]
    found = {}
    for name, own in costs.items():
        found[name] = {
            "wall_ms": round(1000 * median(one.wall for one in own) / each, 3),
            "cpu_ms": round(1000 * median(one.cpu for one in own) / each, 3),
            "wall_ratio": round(median(a.wall / b.wall for a, b in zip(own, first, strict=True)), 4),
            "cpu_ratio": round(median(a.cpu / b.cpu for a, b in zip(own, first, strict=True)), 4),
            "starved": round(median(one.starved or 0.0 for one in own), 3),
        }
    return found


def bare_openvino(folder: Path) -> Callable[[Any], Callable[[], object]]:
    """Return what makes the bare inference call on an image: the same file and options, nothing of ours."""
    options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    hint = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}[Manifest.read(folder).precision]
    model = openvino.Core().compile_model(folder / "model.xml", "CPU", {**options, "INFERENCE_PRECISION_HINT": hint})
    request = model.create_infer_request()

    def on(frame: Any) -> Callable[[], object]:
        request.set_input_tensor(openvino.Tensor(frame, shared_memory=True))
        return request.infer

    return on


def pipeline(bench: Bench) -> Numbers:
    """JPEG bytes to boxes against the bare inference call of the same OpenVINO model."""
    cases = (("s", None, 1.06), ("n", None, 1.10), ("s", 0, 1.06), ("n", 0, 1.10))
    return {
        f"{name}, margin {'of the run' if margin is None else margin}": pipeline_of(bench, name, margin, limit)
        for name, margin, limit in cases
    }


def pipeline_of(bench: Bench, name: str, margin: int | None, limit: float) -> Numbers:
    """The same for one run. With its margin of 4 pixels an image of the input's size is resized by 0.6 %."""
    detector = bench.detector(name, "openvino", "int8", margin)
    frame = bench.frame(detector)
    turn = iter(range(10**9))
    image = detector.read(bench.data[0])
    preprocess = Preprocessor(detector.input)
    boxes, scores = detector.session.run(frame)
    placed = preprocess([image])[1][0]
    ways = {
        "bare inference call": bare_openvino(bench.bundle(name, "openvino", "int8", margin))(frame),
        "JPEG bytes to boxes": lambda: detector(bench.data[next(turn) % len(bench.data)]),
        "session.run": lambda: detector.session.run(frame),
    }
    stages = {
        "decode": lambda: detector.read(bench.data[next(turn) % len(bench.data)]),
        "preprocess": lambda: preprocess([image]),
        "post-process": lambda: select(boxes[0], scores[0], placed, 480, 640, detector.classes, detector.thresholds),
    }
    rows = by_turns(ways, bench.rounds)
    alone = by_turns(stages, bench.rounds, each=4)
    objects = len(detector(bench.data[0]))
    around = {stage: row["cpu_ms"] for stage, row in alone.items()}
    found = {"limit": limit, "objects": objects, "ways": rows, "stages_cpu_ms": around}
    show(f"pipeline, YOLO-NAS {name.upper()} INT8, margin {detector.input.margin} (limit {limit})", rows)
    print(f"  stages, processor ms: {around}; {objects} objects")
    return found


def tools(bench: Bench) -> Numbers:
    """Our session against the engine's own benchmark tool on the same file; at least 0.95 of its throughput."""
    return {"openvino": openvino_tool(bench), "onnxruntime": onnxruntime_loop(bench)}


def openvino_tool(bench: Bench) -> Numbers:
    """benchmark_app against session.run.

    The tool is a process of its own: its processor time an image is that of a long run less that of a short one,
    divided by the images between.
    """
    folder = bench.bundle("n", "openvino", "int8")
    command = [str(Path(sys.executable).with_name("benchmark_app")), "-m", str(folder / "model.xml"), "-d", "CPU"]
    command += ["-hint", "none", "-nstreams", "1", "-nthreads", "1", "-api", "sync", "-infer_precision", "f32"]
    detector = bench.detector("n", "openvino", "int8")
    frame = bench.frame(detector)
    few, many = 10, 90

    def tool(num: int) -> tuple[float, float]:
        before = os.times()
        done = subprocess.run([*command, "-niter", str(num)], capture_output=True, text=True, check=True)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        speed = re.search(r"Throughput:\s*([\d.]+) FPS", done.stdout)
        assert speed, done.stdout
        return used, float(speed[1])

    ratios, walls, rates = [], [], []
    for _ in range(max(3, bench.rounds // 10)):
        short, _ = tool(few)
        start = now()
        for _ in range(many - few):
            detector.session.run(frame)
        ours = since(start)
        used, speed = tool(many)
        theirs = (used - short) / (many - few)
        ratios.append(theirs / (ours.cpu / (many - few)))
        walls.append((many - few) / ours.wall / speed)
        rates.append((1 / theirs, (many - few) / ours.cpu))
    found = {
        "tool": "benchmark_app",
        "tool_per_cpu_second": round(median(a for a, _ in rates), 2),
        "ours_per_cpu_second": round(median(b for _, b in rates), 2),
        "throughput_ratio_cpu": round(median(ratios), 4),
        "throughput_ratio_wall": round(median(walls), 4),
        "limit": 0.95,
    }
    print(f"OpenVINO, nano INT8: {found}")
    return found


def onnxruntime_loop(bench: Bench) -> Numbers:
    """session.run against ONNX Runtime's leanest loop (bound buffers): its wheel has no benchmark tool."""
    return {kind: onnxruntime_loop_of(bench, kind) for kind in ("fp32", "int8")}


def onnxruntime_loop_of(bench: Bench, precision: str) -> Numbers:
    """The same for one precision."""
    folder = bench.bundle("n", "onnx", precision)
    detector = bench.detector("n", "onnx", precision)
    frame = bench.frame(detector)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    bare = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    binding = bare.io_binding()
    binding.bind_cpu_input("images", frame)
    for name in ("boxes", "scores"):
        binding.bind_output(name, "cpu")
    ways = {
        "bound run loop": lambda: bare.run_with_iobinding(binding),
        "session.run": lambda: detector.session.run(frame),
    }
    rows = by_turns(ways, bench.rounds)
    show(f"ONNX Runtime, nano {precision}", rows)
    return {"tool": "run_with_iobinding", "ways": rows, "limit": 0.95,
            "throughput_ratio_cpu": round(1 / rows["session.run"]["cpu_ratio"], 4)}  # fmt: skip


def start(bench: Bench) -> Numbers:
    """Fresh processes: the import, the help, the first detection with a cached OpenVINO model."""
    folder = bench.bundle("s", "openvino", "int8")
    image = str(bench.images[0])
    python = [sys.executable, "-c"]
    commands = {
        "python alone": [*python, "pass"],
        "import eyas": [*python, "import eyas"],
        "eyas --help": [sys.executable, "-m", "eyas", "--help"],
        "first detection": [*python, f"import eyas; print(len(eyas.load({str(folder)!r})({image!r})))"],
    }
    limits = {"import eyas": 0.15, "eyas --help": 0.4, "first detection": 1.5}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(1 + max(7, bench.rounds // 4)):
        for name, command in commands.items():
            before, began = os.times(), time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            wall, after = time.perf_counter() - began, os.times()
            used = after.children_user + after.children_system - before.children_user - before.children_system
            if number:  # the first one compiles the model into the cache
                times[name].append((wall, used))
    found = {
        name: {
            "wall_s": round(median(wall for wall, _ in own), 3),
            "least_wall_s": round(min(wall for wall, _ in own), 3),
            "cpu_s": round(median(used for _, used in own), 3),
            "limit_s": limits.get(name),
        }
        for name, own in times.items()
    }
    for name, row in found.items():
        print(f"{name:20} {row}")
    return found


def precision(bench: Bench) -> Numbers:
    """YOLO-NAS S in each precision, one thread, against float32 in the same engine."""
    found: Numbers = {}
    for target, kinds in (("openvino", ("fp32", "bf16", "int8")), ("onnx", ("fp32", "int8"))):
        sessions = {kind: load(bench.bundle("s", target, kind), threads=1) for kind in kinds}
        frame = bench.frame(sessions["fp32"])
        ways = {kind: partial(one.session.run, frame) for kind, one in sessions.items()}
        rows = by_turns(ways, max(5, bench.rounds // 3))
        faster = {kind: round(1 / rows[kind]["cpu_ratio"], 3) for kind in kinds}
        found[target] = {"ways": rows, "times_faster_cpu": faster}
        show(f"YOLO-NAS S, {target}", rows)
        for one in sessions.values():
            one.close()
    return found


class Elsewhere:
    """An engine that computes on another device for as long as it is told, and always gives the same answer."""

    name = description = "elsewhere"

    def __init__(self, detector: Detector, frame: Any, seconds: float) -> None:
        self._answer, self._seconds = detector.session.run(frame), seconds

    def run(self, images: Any) -> Any:
        """Wait, as for a GPU."""
        time.sleep(self._seconds)
        return self._answer

    def close(self) -> None:
        """Nothing is held."""


def stream(bench: Bench) -> Numbers:
    """A video, read, detected in and drawn: Detector.stream against one step after the other."""
    clip = clip_in(bench.work, bench.images)
    here = bench.detector("n", "openvino", "int8")
    waiting = Elsewhere(here, bench.frame(here), 0.027)
    there = Detector(waiting, here.classes, here.input, here.thresholds)
    cases = {"nano INT8 on the same cores": here, "an engine elsewhere, 27 ms": there}
    return {title: stream_of(clip, detector, title, max(3, bench.rounds // 10)) for title, detector in cases.items()}


def stream_of(clip: Path, detector: Detector, title: str, rounds: int) -> Numbers:
    """The same for one detector."""

    def one_after_the_other() -> int:
        capture, num = cv2.VideoCapture(str(clip)), 0
        while True:
            good, frame = capture.read()
            if not good:
                break
            image = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
            annotate(image, detector(image))
            num += 1
        capture.release()
        return num

    frames = one_after_the_other()
    ways = {
        "one after the other": one_after_the_other,
        "detector.stream": lambda: sum(1 for _ in detector.stream(clip, draw=True)),
    }
    rows = by_turns(ways, rounds)
    show(f"a video of {frames} frames, 1280 x 720, {title}", rows)
    return {"frames": frames, "ways": rows, "gain_wall": round(1 / rows["detector.stream"]["wall_ratio"], 3)}


def show(title: str, rows: Mapping[str, Numbers]) -> None:
    """Print a table."""
    print(f"{title}\n  {'':24}{'wall ms':>10}{'cpu ms':>10}{'wall ratio':>12}{'cpu ratio':>12}{'starved':>9}")
    for name, row in rows.items():
        cells = f"{row['wall_ms']:10.2f}{row['cpu_ms']:10.2f}{row['wall_ratio']:12.3f}{row['cpu_ratio']:12.3f}"
        print(f"  {name:24}{cells}{row['starved']:9.0%}")


SECTIONS: Mapping[str, Callable[[Bench], Numbers]] = {
    "pipeline": pipeline, "tools": tools, "start": start, "precision": precision, "stream": stream,
}  # fmt: skip


def main() -> None:
    """Measure what was asked for, and keep it."""
    cv2.setNumThreads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=[])
    parser.add_argument("--work", type=Path, help="where runs and bundles are kept between calls (default: nowhere)")
    parser.add_argument("--s", type=Path, help="a run of YOLO-NAS S (default: untrained)")
    parser.add_argument("--n", type=Path, help="a run of the nano row (default: untrained)")
    parser.add_argument("--source", type=Path, help="a folder of JPEG images (default: made-up ones)")
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(args.work or Path(temporary), {"s": args.s, "n": args.n}, args.source, args.rounds)
        held = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
        cpu = processor()
        held["machine"] = {"name": cpu.name, "cores": cpu.cores, "sets": dict(cpu.instruction_sets)}
        held["versions"] = {"openvino": openvino.__version__, "onnxruntime": onnxruntime.__version__}
        for name in args.sections or SECTIONS:
            held[name] = SECTIONS[name](bench)
            RESULTS.write_text(json.dumps(held, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
