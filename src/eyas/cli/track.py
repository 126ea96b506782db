"""`eyas track RUN`: send a run to a tracker, or what the tracker has missed of it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.text import say

if TYPE_CHECKING:
    from eyas.training.loggers.base import Status

HELP = "send a run to MLflow, TensorBoard or W&B, or resend what they missed"
EXAMPLES: tuple[str, ...] = (
    "eyas track runs/quickstart --logger tensorboard",
    "eyas track runs/quickstart --logger mlflow,wandb",
    "eyas track runs/quickstart",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a run")
    parser.add_argument("--logger", metavar="NAME", action="append", default=[],
        help="mlflow, tensorboard or wandb, comma-separated (default: those the run was sent to)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Send what is missing; return 1 if a tracker can't be reached, else 0."""
    from eyas.artifacts.hints import refuse_file
    from eyas.training.loggers import check_loggers, split_names
    from eyas.training.tracked import loggers_of, name_in_card, status_of
    from eyas.training.tracking import Sync

    refuse_file(args.run)
    names = split_names(args.logger) or loggers_of(args.run)
    check_loggers(names)
    status = status_of(args.run)
    syncs = [Sync(name, args.run) for name in names]
    with contextlib.ExitStack() as closing:
        for sync in syncs:
            closing.callback(sync.close)
        failed = {sync.name: why for sync in syncs if (why := attempt(sync.ready, status))}
        name_in_card(args.run)  # before the card itself is sent
        for sync in syncs:
            why = failed.get(sync.name) or attempt(sync.send, status)
            if why:
                failed[sync.name] = why
                say(f"{sync.name} is missing data: {why}", stderr=True)
            elif sync.place is not None:
                say(f"{sync.name}: run {sync.place.id} at {sync.place.where}: {sync.sent} rows, images and files sent")
    return int(bool(failed))


def attempt(work: Callable[[Status], None], status: Status) -> str:
    """Do it for a run that ended so, and return why the tracker did not take it, "" if it did."""
    from eyas.training.tracking import reason

    try:
        work(status)
    except Exception as error:  # of a tracker's client: anything
        return reason(error)
    return ""
