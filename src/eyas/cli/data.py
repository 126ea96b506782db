"""`eyas data VERB`: check, convert, split, pack, show, describe and make datasets."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from eyas.cli.rows_option import add_rows
from eyas.text import json_text, say

HELP = "Check, convert, split, pack, show and describe COCO, YOLO and Pascal VOC datasets; generate a synthetic one."
EXAMPLES: tuple[str, ...] = (
    "eyas data info data/shapes",
    "eyas data check data/shapes --json check.json --chart check.png",
    "eyas data show data/shapes --split val --out sheet.png --count 9",
    "eyas data convert data/shapes data/shapes-yolo --to yolo",
    "eyas data split data/shapes data/shapes-split --val 0.2 --test 0.1 --seed 1",
    "eyas data pack data/shapes data/shapes-packed --size 256",
    "eyas data shapes data/shapes-small --train 40 --val 10 --size 160",
)
_FORMATS = ("coco", "yolo", "voc")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a sub-command for each piece of work."""
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (line, add, _) in COMMANDS.items():
        examples = "\n".join(f"  {example}" for example in EXAMPLES if example.startswith(f"eyas data {name} "))
        command = commands.add_parser(name, help=line, description=line, epilog=f"examples:\n{examples}")
        add(command)
        command.add_argument("--debug", action="store_true", help="show the Python traceback of an error")


def run(args: argparse.Namespace) -> int:
    """Do the sub-command's work and return the exit code: 1 when a check found errors."""
    return COMMANDS[args.command][2](args)


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", metavar="ROOT", type=Path, help="the dataset: a folder, a COCO .json or a data.yaml")
    parser.add_argument("--format", choices=_FORMATS, help="dataset format, if it can't be detected")
    add_rows(parser)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", type=Path, help="the new dataset: a new or empty folder")


def _add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size", type=int, default=640, help="training size in pixels, for the box sizes (default: 640)"
    )


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_root(parser)
    _add_size(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the report as JSON")
    parser.add_argument(
        "--chart", metavar="FILE", type=Path, help="also draw classes, box sizes and box positions as a PNG"
    )


def _check(args: argparse.Namespace) -> int:
    from eyas.data.checks.check import check_dataset
    from eyas.data.checks.report import print_report
    from eyas.files import write_json
    from eyas.terminal import open_console

    report = check_dataset(args.root, format=args.format, rows=args.rows, train_size=args.size)
    if args.json:
        write_json(args.json, report.to_dict())
    if args.chart:
        from eyas.data.checks.chart import write_chart
        from eyas.data.formats import load_splits

        write_chart(load_splits(args.root, format=args.format, rows=args.rows, fit=False), args.size, args.chart)
    print_report(report, open_console())
    return 1 if report.has_errors else 0


def _add_info(parser: argparse.ArgumentParser) -> None:
    _add_root(parser)
    _add_size(parser)
    parser.add_argument("--json", action="store_true", help="print JSON only")


def _info(args: argparse.Namespace) -> int:
    from eyas.data.checks.check import dataset_numbers
    from eyas.data.checks.report import print_numbers
    from eyas.terminal import open_console

    report = dataset_numbers(args.root, format=args.format, rows=args.rows, train_size=args.size)
    if args.json:
        say(json_text(report.to_dict(), indent=2))
    else:
        print_numbers(report, open_console())
    return 0


def _add_show(parser: argparse.ArgumentParser) -> None:
    _add_root(parser)
    parser.add_argument("--split", default="val", help="the split to show (default: val)")
    parser.add_argument("--out", metavar="FILE", type=Path, default=Path("sheet.png"), help="the PNG to write")
    parser.add_argument("--count", metavar="N", type=int, default=16, help="number of images (default: 16)")
    parser.add_argument("--columns", metavar="N", type=int, default=0, help="images per row (default: about square)")
    parser.add_argument(
        "--side", metavar="PIXELS", type=int, default=400, help="longest side of each image (default: 400)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed for the choice of images (default: 0)")


def _show(args: argparse.Namespace) -> int:
    from eyas.data.formats import load_dataset
    from eyas.data.show import dataset_sheet
    from eyas.draw import write_png

    index = load_dataset(args.root, args.split, format=args.format, rows=args.rows)
    sheet = dataset_sheet(index, count=args.count, seed=args.seed, columns=args.columns, side=args.side)
    write_png(sheet, args.out)
    say(f"{min(args.count, len(index))} of {len(index)} images of '{index.split}': {args.out}")
    return 0


def _add_convert(parser: argparse.ArgumentParser) -> None:
    _add_root(parser)
    _add_out(parser)
    parser.add_argument("--to", choices=_FORMATS, required=True, help="the new format")
    parser.add_argument("--link", action="store_true", help="hard-link the images instead of copying them")


def _convert(args: argparse.Namespace) -> int:
    from eyas.data.rewrite.convert import convert

    done = convert(args.root, args.out, args.to, link_images=args.link, format=args.format, rows=args.rows)
    _print_splits(done.images, done.boxes)
    lost = done.losses
    for count, text in (
        (lost.crowds, "crowd boxes left out: the format can't mark them"),
        (lost.empty, "boxes without area inside the image left out"),
        (lost.cut, "boxes clipped to the image"),
    ):
        if count:
            say(f"  {count:,} {text}")
    say(f"written as {args.to}: {args.out}")
    return 0


def _add_split(parser: argparse.ArgumentParser) -> None:
    _add_root(parser)
    _add_out(parser)
    parser.add_argument(
        "--val", metavar="SHARE", type=float, default=0.2, help="fraction for validation (default: 0.2)"
    )
    parser.add_argument("--test", metavar="SHARE", type=float, default=0.0, help="fraction for testing (default: none)")
    parser.add_argument(
        "--group",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep near-duplicate images in the same split; decodes every image (default: yes)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")
    parser.add_argument("--link", action="store_true", help="hard-link the images instead of copying them")


def _split(args: argparse.Namespace) -> int:
    from eyas.data.rewrite.split import SplitSettings, split_dataset

    settings = SplitSettings(args.val, args.test, args.group, args.seed, args.link)
    splits = split_dataset(args.root, args.out, settings, format=args.format, rows=args.rows)
    _print_splits({name: len(s) for name, s in splits.items()}, {name: len(s.boxes) for name, s in splits.items()})
    say(f"written: {args.out}")
    return 0


def _add_pack(parser: argparse.ArgumentParser) -> None:
    _add_root(parser)
    _add_out(parser)
    parser.add_argument("--size", type=int, default=640, help="longest side of the images in pixels (default: 640)")
    parser.add_argument("--quality", metavar="1..100", type=int, default=90, help="JPEG quality (default: 90)")


def _pack(args: argparse.Namespace) -> int:
    from eyas.data.rewrite.pack import pack_dataset

    done = pack_dataset(args.root, args.out, size=args.size, quality=args.quality, format=args.format, rows=args.rows)
    before, after = done.bytes_before / 1e6, done.bytes_after / 1e6
    resumed = f", {done.resumed:,} of them already packed" if done.resumed else ""
    say(f"{done.images:,} images{resumed}: {before:,.1f} MB before, {after:,.1f} MB after")
    say(f"written as coco: {args.out}")
    return 0


def _add_shapes(parser: argparse.ArgumentParser) -> None:
    _add_out(parser)
    parser.add_argument("--train", metavar="N", type=int, default=400, help="training images (default: 400)")
    parser.add_argument("--val", metavar="N", type=int, default=100, help="validation images (default: 100)")
    parser.add_argument("--size", type=int, default=320, help="width of the images in pixels (default: 320)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the images (default: 0)")


def _shapes(args: argparse.Namespace) -> int:
    from eyas.data.shapes import make_shapes

    make_shapes(args.out, train=args.train, val=args.val, size=args.size, seed=args.seed)
    say(f"{args.train} training and {args.val} validation images: {args.out}")
    return 0


def _print_splits(images: Mapping[str, int], boxes: Mapping[str, int]) -> None:
    for name, count in images.items():
        say(f"  {name}: {count:,} images, {boxes[name]:,} boxes")


# Sub-command -> (its line of help, adds its arguments, does its work).
_Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]
COMMANDS: Mapping[str, _Command] = MappingProxyType(
    {
        "check": ("find faults that ruin training: exit 1 on errors, 0 on warnings only", _add_check, _check),
        "info": ("print splits, classes and box sizes, without decoding", _add_info, _info),
        "show": ("draw a contact sheet of images with their boxes", _add_show, _show),
        "convert": ("write the dataset in another format", _add_convert, _convert),
        "split": ("split again: classes spread evenly, near-duplicates kept together", _add_split, _split),
        "pack": ("re-encode the images at the training size for faster loading", _add_pack, _pack),
        "shapes": ("generate a synthetic dataset of coloured shapes", _add_shapes, _shapes),
    }
)
