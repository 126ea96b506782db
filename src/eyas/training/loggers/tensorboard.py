"""TensorBoard: event files in the run's folder, written without TensorFlow or torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eyas.artifacts.card import CARD, hash_file
from eyas.image_header import read_header
from eyas.training.loggers.base import Destination, LoggedRow, RunInfo, Status

FOLDER = "tensorboard"


class TensorBoardLogger:
    """Writes a run's events; `tensorboard --logdir runs` shows all runs below a folder.

    TensorBoard keeps no files: those that lie in the run's folder anyway are listed with their hashes.
    """

    def __init__(self) -> None:
        self._writer: Any = None
        self._anew = False
        self._last = (0, 0.0)  # step and time

    def start(self, run: RunInfo, known: Destination | None) -> tuple[Destination, bool]:
        """Open a further event file; see `RunLogger.start`."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = run.folder / FOLDER
        self._anew = not any(folder.glob("events.out.tfevents.*"))
        self._writer = EventFileWriter(str(folder))
        self._last = (0, run.started)
        return Destination(f"{run.name}/{FOLDER}", str(folder)), self._anew

    def describe(self, run: RunInfo) -> None:
        """Write the recipe, once, and the facts."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        if self._anew:
            values = {name: value if isinstance(value, bool | int | float) else str(value)
                for name, value in run.recipe.items()}  # fmt: skip
            self._add(hparams_pb(values, trial_id=run.name, start_time_secs=run.started))
            self._text("recipe", _table(run.recipe))
        self._text("environment and data", _table(run.facts))
        self._writer.flush()

    def metrics(self, rows: Sequence[LoggedRow]) -> None:
        """Write numbers as scalars."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for row in rows:
            self._last = (row.step, row.time)
            self._add(Summary(value=[Summary.Value(tag=tag, simple_value=v) for tag, v in row.values.items()]))
        self._writer.flush()

    def image(self, name: str, path: Path, step: int, time: float) -> None:
        """Show the image, as the file has it."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        data = path.read_bytes()
        height, width = read_header(data).size
        shown = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        self._last = (step, time)
        self._add(Summary(value=[Summary.Value(tag=name, image=shown)]))
        self._writer.flush()

    def artifacts(self, paths: Sequence[Path]) -> None:
        """List the files with sizes and hashes; the card as it is."""
        sizes = {path.name: f"{path.stat().st_size:,} bytes, SHA-256 {hash_file(path)}" for path in paths}
        self._text("files", _table(sizes))
        for path in paths:
            if path.name == CARD:
                self._text("card", f"```json\n{path.read_text(encoding='utf-8')}\n```")
        self._writer.flush()

    def finish(self, status: Status, time: float) -> None:
        """Write the status and close the file."""
        self._last = (self._last[0], time)
        self._text("status", status)
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _text(self, tag: str, text: str) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._add(text_pb(tag, text))

    def _add(self, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        step, time = self._last
        self._writer.add_event(Event(wall_time=time, step=step, summary=summary))


def _table(rows: Mapping[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
