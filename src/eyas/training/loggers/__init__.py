"""The trackers that a run can be sent to beside its own CSV files: one file each, and a row in `LOGGERS`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from eyas.errors import UserError, missing_extra, suggest
from eyas.training.loggers.base import RunLogger
from eyas.training.loggers.mlflow import MlflowLogger
from eyas.training.loggers.tensorboard import TensorBoardLogger
from eyas.training.loggers.wandb import WandbLogger


@dataclass(frozen=True)
class LoggerKind:
    """A tracker that Eyas knows.

    Attributes:
        open: makes the logger; loads and reaches nothing yet.
        packages: what must be installed.
        extra: the extra that installs it.
    """

    open: Callable[[], RunLogger]
    packages: tuple[str, ...]
    extra: str


LOGGERS: Mapping[str, LoggerKind] = MappingProxyType(
    {
        "mlflow": LoggerKind(MlflowLogger, ("mlflow", "sqlalchemy", "alembic"), "mlflow"),
        "tensorboard": LoggerKind(TensorBoardLogger, ("tensorboard",), "tensorboard"),
        "wandb": LoggerKind(WandbLogger, ("wandb",), "wandb"),
    }
)


def split_names(given: Iterable[str]) -> tuple[str, ...]:
    """Return the names in what was given, each once: ["mlflow,wandb", "mlflow"] is ("mlflow", "wandb")."""
    names = (name.strip() for text in given for name in text.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def check_loggers(names: Iterable[str]) -> None:
    """Raise a UserError unless each name is a logger's, and what it needs is installed."""
    for name in names:
        if name not in LOGGERS:
            raise UserError(
                f"There is no logger '{name}'{suggest(name, LOGGERS)}.",
                expected="of " + ", ".join(LOGGERS) + "; metrics.csv and steps.csv are always written",
                where="--logger",
            )
        for package in LOGGERS[name].packages:
            if importlib.util.find_spec(package) is None:
                raise missing_extra(package, LOGGERS[name].extra)
