"""`eyas import CHECKPOINT`: a checkpoint of SuperGradients becomes a run, without training."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "import a YOLO-NAS checkpoint of SuperGradients as a run, without training"
EXAMPLES: tuple[str, ...] = (
    "eyas import ckpt_best.pth --out runs/imported",
    "eyas import ckpt_best.pth --classes names.txt --out runs/renamed",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", type=Path,
        help="a .pth file written by SuperGradients' Trainer, or .safetensors; no code in it is run")  # fmt: skip
    add("--out", type=Path, metavar="RUN", help="the run's folder, new or empty (default: runs/NAME)")
    add("--classes", type=Path, metavar="FILE",
        help="class names, one per line, in training order (default: the checkpoint's own)")  # fmt: skip
    add("--input", choices=("file", "published"), default="file",
        help="process images as the file says, or as for the published networks (default: %(default)s)")  # fmt: skip
    add("--licence", default="", metavar="TEXT", help="the weights' licence, for the card (default: what is known)")


def run(args: argparse.Namespace) -> int:
    """Import, say what was assumed, print what can be done with the run; return 0."""
    import shlex

    from eyas.artifacts.run import Run
    from eyas.data.formats.class_names import read_class_names
    from eyas.models.importing import import_checkpoint
    from eyas.text import say

    classes = read_class_names(args.classes) if args.classes else None
    folder = import_checkpoint(
        args.checkpoint,
        args.out,
        classes=classes,
        licence=args.licence,
        input=args.input,
        tell=lambda line: say(line, stderr=True),
    )
    config = Run.read(folder).config
    spec = config.input
    name = config.model["name"] or "custom widths"
    limits = f"confidence {config.thresholds.confidence:g}, IoU {config.thresholds.iou:g}"
    say(f"run:     {folder}")
    say(f"model:   {name}, {len(config.classes)} classes: {', '.join(config.classes[:5])}", end="")
    say(", ..." if len(config.classes) > 5 else "")
    say(f"input:   {spec.width}x{spec.height}, margin {spec.margin}, padded {spec.pad_mode}, {limits}")
    say(f"try it:  eyas detect {shlex.quote(str(folder))} IMAGE")
    return 0
