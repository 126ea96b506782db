"""`eyas predict SOURCE... --bundle B --out FILE`: detect on everything there, and go on where it was stopped."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.text import printable, say

if TYPE_CHECKING:
    from eyas.predict.run import PredictReport

HELP = "detect on folders, archives, videos and parquet files, into one file; resumes if interrupted"
EXAMPLES: tuple[str, ...] = (
    "eyas predict images/ --bundle bundles/quickstart --out results.parquet",
    "eyas predict clip.mp4 --bundle bundles/quickstart --out clip.jsonl --conf 0.4",
    "eyas predict data/shapes/val --bundle bundles/quickstart --out val.coco.json "
    "--like data/shapes/annotations/instances_val.json",
)
SHOWN = 20  # images that can't be read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("source", metavar="SOURCE", nargs="+",
        help="images, folders (searched recursively), globs, videos, .tar archives, .parquet files")  # fmt: skip
    add("--bundle", required=True, metavar="FOLDER", help="the folder of the bundle")
    add("--out", required=True, type=Path, metavar="FILE",
        help="results.parquet, results.jsonl or results.json (COCO); with --shard, a folder")  # fmt: skip
    add("--format", choices=("parquet", "jsonl", "coco"), help="output format (default: by the name of --out)")
    add("--shard", type=int, metavar="N", help="write a folder of files with N images each")
    add("--conf", type=float, metavar="X", help="minimum score, 0 to 1 (default: the bundle's)")
    add("--iou", type=float, metavar="X", help="IoU above which the lower-scoring box of a class is dropped")
    add("--nms", choices=("class_wise", "class_agnostic", "soft", "none"),
        help="suppression: drop overlapping boxes of the same class or of any class, lower their scores, or "
        "none")  # fmt: skip
    add("--classes", metavar="A,B", help="only these classes, comma-separated")
    add("--batch", type=int, default=1, metavar="N", help="images per batch (default: 1)")
    add("--column", metavar="NAME", help="parquet: the column with encoded images or their paths")
    add("--like", metavar="FILE", help="take image and category ids for COCO results from this annotation file")
    add("--root", action="append", default=[], metavar="FOLDER",
        help="further folders that links and paths in parquet files may point into, besides the source "
        "itself")  # fmt: skip
    add("--workers", type=int, metavar="N", help="worker processes; 0 uses this process only (default: one per core)")
    add("--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default: auto)")
    add("--on", choices=("here", "ray"), default="here", help="ray: on the nodes of a Ray cluster")
    add("--max-unreadable", type=int, default=1000, metavar="N",
        help="unreadable images to skip before giving up (default: %(default)s)")  # fmt: skip
    add("--max-pixels", type=int, metavar="N", help="skip images with more pixels than this (default: 179 million)")
    add("--restart", action="store_true", help="start over instead of resuming")
    add("--overwrite", action="store_true", help="replace an existing output")


def run(args: argparse.Namespace) -> int:
    """Predict, show progress, tell what could not be read; return 1 if nothing could, else 0."""
    report = _predict(args)
    for name, problem in report.problems[:SHOWN]:
        say(f"can't be read: {printable(name, one_line=True)}: {problem}")
    if report.unreadable > SHOWN:
        say(f"… and {report.unreadable - SHOWN} more")
    again = f", {report.before} of them earlier" if report.before else ""
    lost = f", {report.unreadable} of them can't be read" if report.unreadable else ""
    say(f"{report.images} images{again}{lost}: {report.out}")
    return 0 if report.unreadable < report.images else 1


def _predict(args: argparse.Namespace) -> PredictReport:
    """Call the library, with a progress bar on a terminal."""
    from eyas.decode import MAX_PIXELS
    from eyas.predict.run import PredictProgress, predict
    from eyas.progress import ProgressBar

    with ProgressBar("predicting") as bar:

        def show(step: PredictProgress) -> None:
            rate = f"{(step.done - step.before) / bar.seconds:.1f} images/s" if bar.seconds > 0.5 else ""
            bar.update(step.done, step.total, note=rate)

        return predict(
            args.source,
            args.bundle,
            args.out,
            format=args.format,
            shard=args.shard,
            confidence=args.conf,
            iou=args.iou,
            suppression=args.nms,
            classes=None if args.classes is None else [name.strip() for name in args.classes.split(",")],
            batch=args.batch,
            column=args.column,
            like=args.like,
            workers=args.workers,
            device=args.device,
            max_pixels=MAX_PIXELS if args.max_pixels is None else args.max_pixels,
            max_unreadable=args.max_unreadable,
            roots=args.root,
            restart=args.restart,
            overwrite=args.overwrite,
            on=args.on,
            on_progress=show if bar.shown else None,
        )
