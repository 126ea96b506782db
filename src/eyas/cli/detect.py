"""`eyas detect RUN SOURCE...`: find objects in images, videos or a camera's stream, and leave images and files."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

from eyas.errors import UserError
from eyas.text import printable, say

if TYPE_CHECKING:
    from eyas.runtime.detect import DetectReport

HELP = "detect objects in images, videos or a camera stream"
EXAMPLES: tuple[str, ...] = (
    "eyas detect runs/quickstart street.jpg",
    "eyas detect runs/quickstart images/ street.jpg --out found --conf 0.4 --save-json results.json --save-txt",
    "eyas detect runs/quickstart clip.mp4 --no-images --save-json results.json",
    "eyas detect runs/quickstart 'data/shapes/val/*.jpg' --save-json results.json "
    "--like data/shapes/annotations/instances_val.json",
)
ROWS = 20  # sources in the table that is printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("model", metavar="RUN", help="the folder of a trained run or of a bundle")
    add("source", metavar="SOURCE", nargs="+",
        help="images, folders (searched recursively), globs, videos, camera numbers, http:// addresses of images or "
        "streams, rtsp://")  # fmt: skip
    add("--out", default="detections", metavar="DIR", help="output folder (default: %(default)s)")
    add("--conf", type=float, metavar="X", help="minimum score, 0 to 1 (default: the run's)")
    add(
        "--iou",
        type=float,
        metavar="X",
        help="IoU above which the lower-scoring box of a class is dropped (default: the run's)",
    )
    add("--nms", choices=("class_wise", "class_agnostic", "soft", "none"),
        help="suppression: drop overlapping boxes of the same class or of any class, lower their scores, or none "
        "(default: the run's)")  # fmt: skip
    add("--classes", metavar="A,B", help="only these classes, comma-separated")
    add("--save-json", nargs="?", const="results.json", metavar="FILE",
        help="write COCO results; a bare name is placed in --out (default name: results.json)")  # fmt: skip
    add("--like", metavar="FILE", help="take image and category ids for --save-json from this COCO annotation file")
    add("--save-txt", action="store_true", help="write YOLO txt files with scores to DIR/labels")
    add("--no-images", action="store_true", help="do not write annotated images and videos")
    add("--batch", type=int, default=1, metavar="N", help="images per batch (default: 1)")
    add("--size", type=int, metavar="PIXELS", help="side of the network's input, a multiple of 32 (default: the run's)")
    add("--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default: auto)")
    add("--max-pixels", type=int, metavar="N", help="skip images with more pixels than this (default: 179 million)")


def run(args: argparse.Namespace) -> int:
    """Detect, show progress, print what was found; return 1 if nothing could be read, else 0."""
    if args.like and not args.save_json:
        raise UserError("--like needs --save-json.", fix="add --save-json results.json")
    try:
        report = _detect(args)
    except KeyboardInterrupt:
        say(f"Interrupted; the results so far are in {args.out}", stderr=True)
        return 130
    print_report(report)
    return 0 if report.results else 1


def _detect(args: argparse.Namespace) -> DetectReport:
    """Call the library, with a progress bar on a terminal."""
    from eyas.decode import MAX_PIXELS
    from eyas.progress import ProgressBar
    from eyas.runtime.detect import detect
    from eyas.runtime.sources import count_frames, expand

    items = expand(args.source)
    with ProgressBar("detecting", count_frames(items)) as bar:
        return detect(
            args.model,
            items,
            out=args.out,
            confidence=args.conf,
            iou=args.iou,
            suppression=args.nms,
            classes=None if args.classes is None else [name.strip() for name in args.classes.split(",")],
            save_images=not args.no_images,
            save_json=args.save_json,
            like=args.like,
            save_txt=args.save_txt,
            batch=args.batch,
            device=args.device,
            size=args.size,
            max_pixels=MAX_PIXELS if args.max_pixels is None else args.max_pixels,
            on_frame=lambda _frame, _detections: bar.advance(),
        )


def print_report(report: DetectReport) -> None:
    """Print a row for each source, what was skipped and why, and where things lie."""
    from rich.markup import escape

    from eyas.terminal import open_console, open_table

    console = open_console(highlight=True)
    table = open_table("source", "frames", "objects", "of which")
    for result in report.results[:ROWS]:
        total = sum(result.counts.values())
        table.add_row(
            escape(printable(result.name, one_line=True)),
            str(result.frames),
            str(total),
            escape(counted(result.counts)),
        )
    hidden = report.results[ROWS:]
    if hidden:
        rest = sum((result.counts for result in hidden), Counter[str]())
        frames = sum(result.frames for result in hidden)
        table.add_row(f"{len(hidden)} more", str(frames), str(rest.total()), escape(counted(rest)))
    if report.results:
        console.print(table)
    for name, problem in report.problems:
        console.print(
            f"[yellow]problem with {escape(printable(name, one_line=True))}:[/] {escape(problem)}",
            soft_wrap=True,
        )
    if report.problems:
        whole = len(report.results) + sum(name not in {r.name for r in report.results} for name, _ in report.problems)
        console.print(f"[yellow]{len(report.problems)} of {whole} sources had problems.[/]")
    if not report.results:
        console.print("[red]Nothing could be read.[/]")
        return
    if not report.counts:
        console.print("Nothing was detected; try a lower --conf.", soft_wrap=True)
    if any(result.written for result in report.results):
        console.print(f"images: {escape(str(report.folder))}", soft_wrap=True)
    if report.json is not None:
        console.print(f"results:  {escape(str(report.json))}", soft_wrap=True)
    if report.labels is not None:
        console.print(f"labels:   {escape(str(report.labels))}", soft_wrap=True)


def counted(counts: Counter[str]) -> str:
    """Return "3 circle, 1 star", the most frequent first."""
    return ", ".join(f"{num} {name}" for name, num in counts.most_common())
