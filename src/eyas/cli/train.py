"""`eyas train`: a labelled folder of images becomes a run."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eyas.cli.rows_option import add_rows
from eyas.signals import StopSignals
from eyas.text import say

STARTED = time.monotonic()  # of the command, nearly: --minutes count from here
HELP = "train a detector on a dataset"
DEFAULTS = "All recipe fields, with the defaults of a bare recipe; --print-recipe shows those of a named one."
EXAMPLES = (
    "eyas train --data data/shapes --recipe quick --out runs/first",
    "eyas train --data data/shapes --model n --size 320 --epochs 2 --batch 8",
    "eyas train --data data/shapes --weights runs/quickstart --model p --size 256 --epochs 2 --optim.lr 5e-4",
    "eyas train --data data/shapes --recipe quick --trainer.epochs 2 --augment.mosaic 0.5 --out runs/mosaic",
    "eyas train --data data/shapes --model p --size 256 --minutes 10 --out runs/ten-minutes",
    "eyas train --data data/shapes --recipe quick --logger mlflow,tensorboard --out runs/tracked",
    "eyas train --data data/shapes --model.backbone timm:resnet18 --model.backbone_weights random --out runs/backbone",
    "eyas train --data data/shapes --recipe quick --epochs 2 --teacher runs/quickstart --out runs/taught",
    "eyas train --resume runs/first",
    "eyas train --recipe scratch --print-recipe",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the everyday options, and one for each field of the recipe."""
    from eyas.training.field_help import sections
    from eyas.training.recipe import Recipe

    parser.add_argument("--data", metavar="ROOT", help="dataset: a COCO, YOLO or Pascal VOC folder")
    add_rows(parser)
    parser.add_argument("--recipe", default="", help="scratch, finetune, yolo_nas_coco or quick")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: a new one in runs/)")
    parser.add_argument("--model", metavar="NAME", help="p, n, s, m or l: from under 1 to 42 million parameters")
    parser.add_argument("--weights", metavar="RUN", help="start from a run, .safetensors or YOLO-NAS checkpoint")
    parser.add_argument("--weights-classes", metavar="FILE",
        help="class names of --weights, one per line, if the file does not include them")  # fmt: skip
    parser.add_argument("--teacher", metavar="RUN",
        help="teacher for distillation: a run, .safetensors or YOLO-NAS checkpoint")  # fmt: skip
    parser.add_argument("--size", type=int, metavar="PIXELS", help="input side in pixels, a multiple of 32")
    parser.add_argument("--epochs", type=int, help="training epochs")
    parser.add_argument("--minutes", type=float,
        help="time limit for the whole command, instead of --epochs; the schedule is planned for it")  # fmt: skip
    parser.add_argument("--hours", type=float, help="the same in hours")
    parser.add_argument("--batch", type=int, metavar="IMAGES", help="images per step")
    parser.add_argument("--logger", metavar="NAME", action="append", default=[],
        help="also send the run to these trackers, comma-separated: mlflow,wandb or tensorboard")  # fmt: skip
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML or JSON of recipe fields, as in recipe.json")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="resume a stopped run exactly where it stopped")
    parser.add_argument("--print-recipe", action="store_true", help="print the resolved recipe as YAML and exit")
    parser.usage = "eyas train --data ROOT [--recipe NAME] [--out DIR] [options] [--RECIPE.FIELD VALUE ...]"
    for section in sections(Recipe()):
        if section.name:
            group = parser.add_argument_group(f"recipe: {section.name}", section.summary)
        else:
            group = parser.add_argument_group("recipe", DEFAULTS)
        for field in section.fields:
            default = "none" if field.default in (None, "", {}) else field.default
            text = f"{field.text.rstrip('.')} (default: {default})".replace("%", "%%")
            group.add_argument(f"--{field.name}", dest=f"field:{field.name}", metavar="VALUE", help=text)


def run(args: argparse.Namespace) -> int:
    """Resolve the recipe and train, or resume."""
    import yaml

    from eyas.data.yaml_file import load_yaml
    from eyas.errors import UserError
    from eyas.training.config_overrides import override, read_config
    from eyas.training.fit import fit, resume
    from eyas.training.loggers import split_names
    from eyas.training.recipes import named

    if args.resume is not None:
        names = ("data", "rows", "recipe", "out", "model", "weights", "weights_classes", "teacher", "size", "batch",
            "config", "minutes", "hours", "logger")  # fmt: skip
        ignored = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name)]
        ignored += [f"--{key.removeprefix('field:')}" for key in given_fields(args)]
        if ignored:
            raise UserError(
                f"--resume uses the run's own recipe; {', '.join(ignored)} can't be changed.",
                fix=f"leave them out, or start a new run with --weights {args.resume}",
            )
        return end(lambda signals: resume(args.resume, epochs=args.epochs, signals=signals, started=STARTED))
    recipe = named(args.recipe or ("finetune" if args.weights else "scratch"))
    changes: dict[str, Any] = read_config(args.config) if args.config else {}
    short = {
        "data.root": args.data, "model.name": args.model, "model.weights": args.weights,
        "model.weights_classes": args.weights_classes, "distill.teacher": args.teacher, "data.size": args.size,
        "trainer.epochs": args.epochs,
        "data.batch_size": args.batch, "data.rows": args.rows, "trainer.minutes": minutes_of(args),
        "trainer.logger": split_names(args.logger) or None,
    }  # fmt: skip
    changes |= {name: value for name, value in short.items() if value is not None}
    changes |= {
        key.removeprefix("field:"): load_yaml(value, f"--{key.removeprefix('field:')}")
        for key, value in given_fields(args).items()
    }
    recipe = override(recipe, changes)
    if args.print_recipe:
        say(yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False), end="")
        return 0
    if recipe.trainer.minutes and "trainer.epochs" in changes:
        told = f"--epochs {recipe.trainer.epochs} is ignored: the time limit is {recipe.trainer.minutes:g} minutes"
        say(told, stderr=True)
    return end(lambda signals: fit(recipe, args.out, signals=signals, started=STARTED))


def minutes_of(args: argparse.Namespace) -> float | None:
    """Return the time that was given, in minutes; None if none was.

    Raises:
        UserError: it was given twice, or is none.
    """
    from eyas.errors import UserError

    if args.minutes is not None and args.hours is not None:
        raise UserError("Both --minutes and --hours are given.", where="--minutes, --hours", fix="give only one")
    minutes: float | None = args.minutes if args.hours is None else 60 * args.hours
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UserError(f"The time limit is {minutes:g} minutes.", where="--minutes", expected="a number above 0")
    return minutes


def end(work: Callable[[StopSignals], Path]) -> int:
    """Train, print the run's folder unless a signal ended it, and return the exit code."""
    from eyas.training.parallel import first_process

    with StopSignals() as signals:
        folder = work(signals)
    if not signals.number and first_process():
        say(folder)
    return signals.exit_code


def given_fields(args: argparse.Namespace) -> dict[str, str]:
    """Return the recipe fields that stand on the command line, by their names in the namespace."""
    return {key: value for key, value in vars(args).items() if key.startswith("field:") and value is not None}
