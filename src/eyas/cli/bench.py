"""`eyas bench BUNDLE...`: models side by side on this machine, by turns; a table, JSON and an image.

`eyas bench serve` measures a server; see `eyas.cli.bench_serve`.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyas.errors import UserError
from eyas.text import say

if TYPE_CHECKING:
    from rich.table import Table

    from eyas.benchmark.report import BenchReport, BenchRow

HELP = "compare models: latency, throughput, memory, time per stage"
EXAMPLES: tuple[str, ...] = (
    "eyas bench bundles/quickstart",
    "eyas bench bundles/quickstart runs/quickstart --threads 1,2 --source images/ --seconds 20",
    "eyas bench runs/quickstart --target onnx-fp32,onnx-int8,openvino-int8",
    "eyas bench bundles/quickstart --batch 1,8 --stream --json bench.json --png bench.png",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("models", metavar="BUNDLE", nargs="+", help="folders of bundles or runs (runs are measured in PyTorch); 'eyas "
        "bench serve' measures a server under load")  # fmt: skip
    add("--target", metavar="RUNTIME-PRECISION,...",
        help="first compile each run for these targets, such as onnx-fp32,openvino-int8, and measure the "
        "results")  # fmt: skip
    add("--max-drop", type=float, metavar="AP",
        help="with --target: accuracy allowance in points of AP (of 100) below the run (default: not "
        "checked)")  # fmt: skip
    add(
        "--threads",
        metavar="N,N",
        help="CPU threads for the engine, comma-separated (default: the engine's own choice)",
    )
    add("--batch", default="1", metavar="N,N", help="images per call, comma-separated (default: %(default)s)")
    add("--stream", action="store_true", help="also measure streaming, with decoding and inference overlapped")
    add("--source", nargs="+", metavar="PATH", help="images or a folder of images (default: synthetic ones, 640 x 480)")
    add("--seconds", type=float, default=10.0, metavar="S",
        help="measuring time per model, in at least 5 interleaved rounds (default: %(default)s)")  # fmt: skip
    add("--size", type=int, metavar="PIXELS", help="side of the network's square input (default: the model's own)")
    add("--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default: %(default)s)")
    add("--json", metavar="FILE", help="write all numbers to a JSON file")
    add("--png", metavar="FILE", help="draw a chart")


def run(args: argparse.Namespace) -> int:
    """Compile what is to be compiled, measure with a progress bar, print and write what was asked for; return 0."""
    threads, batch = parse_numbers(args.threads, "threads"), parse_numbers(args.batch, "batch")
    if args.png is not None and not args.png.lower().endswith(".png"):
        raise UserError(f"--png is '{args.png}'.", where="png", expected="a name ending in .png")
    if args.target is None and args.max_drop is not None:
        raise UserError("--max-drop needs a run to compile.", where="--max-drop", fix="add --target")
    from eyas.benchmark.chart import draw_report, save_chart
    from eyas.benchmark.models import bench
    from eyas.progress import ProgressBar

    with tempfile.TemporaryDirectory(prefix="eyas-bench-") as folder:
        models = args.models if args.target is None else compiled(args, Path(folder))
        with ProgressBar("starting", counted=False) as bar:
            report = bench(
                models,
                threads=threads or (None,),
                batch=batch or (1,),
                stream=args.stream,
                source=args.source,
                seconds=args.seconds,
                device=args.device,
                size=args.size,
                progress=bar.update,
            )
    show(report)
    for path, write in ((args.json, report.save), (args.png, lambda path: save_chart(draw_report(report), path))):
        if path is not None:
            write(path)
            say(f"written: {path}")
    return 0


def compiled(args: argparse.Namespace, folder: Path) -> list[str | Path]:
    """Return the models to measure: bundles as given, and of each run a bundle for each target, made in the folder.

    Raises:
        UserError: a target is unknown, or a run can't be compiled.
    """
    import eyas
    from eyas.artifacts.layout import MANIFEST
    from eyas.export.target import parse_target

    targets = ["-".join(parse_target(each)) for each in args.target.split(",")]
    models: list[str | Path] = []
    for model in map(Path, args.models):
        if (model / MANIFEST).is_file():
            models.append(model)
            continue
        for target in targets:
            say(f"compiling {model} for {target}", stderr=True)
            out = folder / str(len(models)) / f"{model.resolve().name}-{target}"
            out.parent.mkdir()
            unmeasured: dict[str, Any] = {"measured": 0} if args.max_drop is None and "auto" not in target else {}
            models.append(eyas.compile(model, target, out=out, max_drop=args.max_drop, **unmeasured).folder)
    return models


def parse_numbers(text: str | None, name: str) -> tuple[int, ...]:
    """Return the numbers of "1,2"; none for None.

    Raises:
        UserError: it is no list of whole numbers from 1.
    """
    if text is None:
        return ()
    if not re.fullmatch(r"0*[1-9]\d*(,0*[1-9]\d*)*", text):
        raise UserError(f"--{name} is '{text}'.", where=name, expected="whole numbers from 1, such as 1,2")
    return tuple(dict.fromkeys(int(part) for part in text.split(",")))


def show(report: BenchReport) -> None:
    """Print the machine, the table, the engines and the notes."""
    from eyas.terminal import open_console

    console = open_console()
    cpu = report.machine
    line = f"{cpu.name}, {cpu.cores} usable cores; {report.images}; {report.rounds} interleaved rounds"
    console.print(line, markup=False, soft_wrap=True)
    console.print(speed_table(report))
    console.print()
    console.print(stage_table(report))
    console.print()
    if any(row.stream_per_second is not None for row in report.rows):
        console.print(stream_table(report))
        console.print()
    for engine in dict.fromkeys(f"{row.name}: {row.opened.engine}" for row in report.rows):
        console.print(engine, markup=False, soft_wrap=True, style="dim")
    console.print(
        "ms: one call, from JPEG bytes to detections; ratio: per image, to the first row; CPU ms: processor time per "
        "image; MiB: growth of the process, engine included",
        style="dim",
    )
    for note in report.notes:
        console.print(f"* {note}", markup=False, soft_wrap=True, style="yellow")


def speed_table(report: BenchReport) -> Table:
    """Return latency, throughput and memory, a row for each contender."""
    found = _table("p50 ms", "p90", "p99", "img/s", "ratio", "CPU ms", "MiB")
    for row in report.rows:
        memory = "-" if row.memory is None else f"{row.memory / 2**20:.0f}"
        times = (f"{value:.2f}" for value in (row.p50, row.p90, row.p99))
        found.add_row(*_who(row), *times, f"{row.per_second:.1f}", f"{row.ratio:.2f}", f"{row.cpu_ms:.2f}", memory)
    return found


def stage_table(report: BenchReport) -> Table:
    """Return where the time of a call goes, in milliseconds and percent."""
    found = _table("decode", "preprocess", "inference", "postprocess")
    for row in report.rows:
        found.add_row(*_who(row), *(f"{ms:.2f} {share:4.0%}" for ms, share in zip(row.stages, row.shares, strict=True)))
    return found


def stream_table(report: BenchReport) -> Table:
    """Return what streaming gives, where it was measured."""
    found = _table("stream/s", "gain")
    for row in report.rows:
        if row.stream_per_second is not None and row.stream_gain is not None:
            found.add_row(*_who(row), f"{row.stream_per_second:.1f}", f"{row.stream_gain:.2f}")
    return found


def _table(*heads: str) -> Table:
    from eyas.terminal import open_table

    return open_table("model", *(f">{head}" for head in ("thr.", "batch", *heads)))


def _who(row: BenchRow) -> tuple[str, str, str]:
    from rich.markup import escape

    return escape(row.name), "auto" if row.threads is None else str(row.threads), str(row.batch)
