"""Weights & Biases: online where there is a key, else into files in the run's folder that can be sent later."""

from __future__ import annotations

import netrc
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from eyas.artifacts.layout import WEIGHTS
from eyas.training.loggers.base import Destination, LoggedRow, RunInfo, Status

PROJECT = "eyas"
OFFLINE = "offline"
HOST = "https://api.wandb.ai"
KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
# What the user has set is kept. Standard output is ours, and errors are reported to nobody unasked.
_DEFAULTS = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
_PATIENCE = 30.0  # seconds for W&B to answer at the start; others are served meanwhile
_EXIT_CODES: Mapping[Status, int] = MappingProxyType({"finished": 0, "interrupted": 130, "failed": 1})


class WandbLogger:
    """Writes a run with W&B's client, whose environment variables are heeded: WANDB_PROJECT, WANDB_MODE, ..."""

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, run: RunInfo, known: Destination | None) -> tuple[Destination, bool]:
        """Begin the run, or go on with it; one that was kept offline is new to the server. See `RunLogger.start`."""
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        import wandb

        mode = pick_mode()
        anew = known is None or (known.where == OFFLINE) != (mode == OFFLINE)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=known.id if known is not None else secrets.token_hex(4),
            name=run.name,
            dir=str(run.folder),
            mode=mode,  # type: ignore[arg-type]  # one that the environment names is checked by wandb
            resume="allow" if mode != OFFLINE else None,
            reinit="create_new",  # another run of this process is none of ours
            settings=wandb.Settings(console="off", silent=True, init_timeout=_PATIENCE),
        )
        return Destination(self._run.id, OFFLINE if mode == OFFLINE else self._run.url or mode), anew

    def describe(self, run: RunInfo) -> None:
        """Write recipe and facts as the run's config."""
        self._run.config.update({"recipe": dict(run.recipe), "facts": dict(run.facts)}, allow_val_change=True)

    def metrics(self, rows: Sequence[LoggedRow]) -> None:
        """Write numbers; the client takes them at once and brings them over by itself."""
        for row in rows:
            self._run.log({**row.values, "_timestamp": row.time}, step=row.step)

    def image(self, name: str, path: Path, step: int, time: float) -> None:
        """Show the image at its step."""
        import wandb

        self._run.log({name: wandb.Image(str(path)), "_timestamp": time}, step=step)

    def artifacts(self, paths: Sequence[Path]) -> None:
        """Keep the files as one artifact, a version of the run's model."""
        import wandb

        kept = wandb.Artifact(f"run-{self._run.id}", "model" if any(path.name == WEIGHTS for path in paths) else "run")
        for path in paths:
            kept.add_file(str(path), policy="immutable", skip_cache=True)  # as it lies there, without a copy elsewhere
        self._run.log_artifact(kept)

    def finish(self, status: Status, time: float) -> None:
        """End the run, which waits until the server has everything."""
        self._run.summary["status"] = status
        self._end(status)

    def close(self) -> None:
        """End this part of the run; the client has one at a time of a run."""
        if self._run is not None:
            self._end("interrupted")

    def _end(self, status: Status) -> None:
        run, self._run = self._run, None
        if status == "interrupted":
            run.mark_preempting()
        run.finish(exit_code=_EXIT_CODES[status])


def pick_mode() -> str:
    """Return what WANDB_MODE says, else "online" where there is a key for the server, else "offline"."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    if any(os.environ.get(key) for key in KEYS):
        return "online"
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or HOST).netloc
    with suppress(OSError, netrc.NetrcParseError):
        if netrc.netrc(os.environ.get("NETRC") or None).authenticators(host):
            return "online"
    return OFFLINE
