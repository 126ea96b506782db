"""`eyas quickstart`: the whole way on made-up images, offline, in a few minutes."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "the whole workflow on synthetic images: train, evaluate, detect"
EPOCHS, TRAIN, VAL, SIZE = 12, 480, 96, 192
SHOWN = 16  # images that are detected on and drawn
EXAMPLES = (
    "eyas quickstart",
    "eyas quickstart --out try --epochs 2 --train 48 --val 16",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where to write and how long to train."""
    parser.add_argument(
        "--out", type=Path, default=Path("quickstart"), metavar="DIR", help="output folder (default: quickstart)"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"training epochs (default: {EPOCHS})")
    parser.add_argument("--train", type=int, default=TRAIN, help=f"training images to generate (default: {TRAIN})")
    parser.add_argument("--val", type=int, default=VAL, help=f"validation images to generate (default: {VAL})")


def run(args: argparse.Namespace) -> int:
    """Make images, train, evaluate, detect, and say what came of it."""
    import torch

    from eyas.data.shapes import make_shapes
    from eyas.errors import UserError
    from eyas.evaluation import evaluate
    from eyas.runtime.detect import detect
    from eyas.terminal import open_console
    from eyas.training import train

    out: Path = args.out
    run_folder, data = out / "run", out / "shapes"
    if run_folder.exists():
        raise UserError(f"{run_folder} exists already.", fix=f"choose another --out, or remove {out}")
    console = open_console(highlight=True)
    console.rule(f"1/4  generating {args.train} training and {args.val} validation images")
    make_shapes(data, train=args.train, val=args.val, size=SIZE, seed=0)
    console.rule("2/4  training a pico detector from random weights")
    torch.set_num_threads(1)  # images this small train faster on one thread than on two, which wait for each other
    seldom = {"trainer.val_every": 2}  # each evaluation takes as long as a quarter of an epoch
    train(data, recipe="quick", out=run_folder, size=SIZE, epochs=args.epochs, overrides=seldom)
    console.rule("3/4  evaluating it on the validation images")
    result = evaluate(run_folder, data, split="val", out=out / "report", progress=True)
    console.rule("4/4  detecting objects")
    detect(run_folder, sorted((data / "val").glob("*.jpg"))[:SHOWN], out=out / "detections")
    console.rule("done")
    console.print(
        f"AP {result.ap:.3f}, AP50 {result.ap50:.3f} on {result.num_images} images\n\n"
        f"results   {out / 'detections'}  images with detections\n"
        f"          {run_folder / 'results.png'}  loss and AP over time\n"
        f"          {out / 'report' / 'index.html'}  where it is right and wrong\n\n"
        "next, with your own images (COCO, YOLO or Pascal VOC):\n"
        "  eyas data check path/to/dataset\n"
        "  eyas train --data path/to/dataset --model n --size 320 --out runs/mine\n"
        "  eyas evaluate runs/mine --data path/to/dataset\n"
        "  eyas detect runs/mine path/to/images",
        highlight=False,
        soft_wrap=True,
    )
    return 0
