"""A trained run: its `config.json`, and the verification of its files against its card."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyas import renamed
from eyas.artifacts import layout
from eyas.artifacts.card import CARD, Card
from eyas.artifacts.hints import refuse_file
from eyas.checks import check_class_names, check_whole, shown
from eyas.errors import UserError
from eyas.files import read_json, write_json
from eyas.types import DETECT, InputSpec, Thresholds, checked_fields

FORMAT_VERSION = 2  # the newest that is read; of the field "version", see `Run.write`


@dataclass(frozen=True)
class RunConfig:
    """The content of a run's `config.json`: everything needed to build the network and feed it.

    Attributes:
        model: the model's kind and spec, as `{"kind": "yolo_nas", "name": "n", "spec": {...}}`.
        classes: class names, in label order.
        input: the input contract.
        thresholds: what `detect` uses unless told otherwise.
    """

    model: dict[str, Any]
    classes: tuple[str, ...]
    input: InputSpec = field(default_factory=InputSpec)
    thresholds: Thresholds = DETECT


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run lie, whether they are there yet or not.

    Attributes:
        folder: the run's folder.
    """

    folder: Path

    @property
    def settings(self) -> Path:
        """Return where architecture, classes and input contract stand."""
        return self.folder / layout.CONFIG

    @property
    def recipe(self) -> Path:
        """Return where the settings of its training stand."""
        return self.folder / layout.RECIPE

    @property
    def weights(self) -> Path:
        """Return the path of the weights to evaluate, deploy or train further."""
        return self.folder / layout.WEIGHTS

    @property
    def checkpoint(self) -> Path:
        """Return the path of the state that a resumed run continues from."""
        return self.folder / layout.CHECKPOINT

    @property
    def previous_checkpoint(self) -> Path:
        """Return where the state before that one lies."""
        return self.folder / layout.PREVIOUS_CHECKPOINT

    @property
    def checkpoint_hashes(self) -> Path:
        """Return the path of the hashes of the saved files."""
        return self.folder / layout.CHECKPOINT_HASHES

    @property
    def origin(self) -> Path:
        """Return where it stands what the run began with."""
        return self.folder / layout.ORIGIN

    @property
    def images(self) -> Path:
        """Return where the images and labels are listed that the run began with."""
        old = self.folder / renamed.IMAGE_LIST
        return old if old.is_file() else self.folder / layout.IMAGES

    @property
    def environment(self) -> Path:
        """Return where it stands what the run was trained on and with."""
        return self.folder / layout.ENVIRONMENT

    def seal(self, *, parents: Iterable[dict[str, str]], recipe: dict[str, Any]) -> Card:
        """Write the card of a run that is finished and return it; see `Card.write`."""
        files = [name for name in (layout.CONFIG, layout.RECIPE, layout.WEIGHTS) if (self.folder / name).is_file()]
        return Card.write(self.folder, "run", files, parents=parents, recipe=recipe)

    def verify(self) -> bool:
        """Verify a run's settings and weights against its card.

        Returns:
            False where there is no card: nothing could be checked.

        Raises:
            UserError: a file was changed or is missing, or the card does not speak of it.
        """
        if not (self.folder / CARD).is_file():
            return False
        Card.verify(self.folder, needed=[path.name for path in (self.settings, self.weights) if path.exists()])
        return True

    def trained_weights(self) -> Path:
        """Return where the weights are.

        Raises:
            UserError: there are none yet.
        """
        if not self.weights.is_file():
            raise UserError(
                f"The run has no {layout.WEIGHTS}: training stopped before the end of the first epoch.",
                where=str(self.folder),
                fix=f"eyas train --resume {self.folder}",
            )
        return self.weights


@dataclass(frozen=True)
class Run(RunFolder):
    """A run whose settings are known: read from its folder, or about to be written there.

    Attributes:
        folder: where it lies.
        config: its settings.
    """

    config: RunConfig

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Return the run in `folder`.

        Raises:
            UserError: the folder is no run, one made by a newer Eyas, or its settings are not what a run has.
        """
        refuse_file(folder)
        return cls(folder, _read_config(RunFolder(folder).settings))

    def write(self) -> None:
        """Write `config.json` into the run's folder, in the oldest format whose readers know all that it says.

        That is 2 where nothing is to be suppressed, else 1.
        """
        version = 2 if self.config.thresholds.suppression == "none" else 1
        fields: dict[str, Any] = {
            "format": layout.RUN_FORMAT,
            "version": version,
            **dataclasses.asdict(self.config),
        }
        write_json(self.settings, fields)


def _read_config(path: Path) -> RunConfig:
    """Return what `config.json` says; see `Run.read`."""
    if not path.is_file():
        raise UserError(
            f"{path.parent} is not a run: it has no {layout.CONFIG}.",
            expected="a folder that 'eyas train' wrote",
            fix="give the run's folder, for example runs/quickstart",
        )
    fields = read_json(path, max_bytes=layout.MAX_BYTES, strict=True)
    if not isinstance(fields, dict) or fields.pop("format", None) != layout.RUN_FORMAT:
        raise UserError(
            f"{layout.CONFIG} is not a run's configuration.",
            where=str(path),
            expected=f'"format": "{layout.RUN_FORMAT}"',
        )
    version = fields.pop("version", None)
    check_whole("The format version", version, 0, 10**6, str(path))
    if version > FORMAT_VERSION:
        raise UserError(
            f"The run was made by a newer Eyas (format {version}; this one reads {FORMAT_VERSION}).",
            where=str(path),
            fix="pip install --upgrade eyas",
        )
    fields = checked_fields(RunConfig, fields, str(path))
    for name, kind in (("model", dict), ("classes", list), ("input", dict), ("thresholds", dict)):
        if name not in fields:
            raise UserError(f"{layout.CONFIG} lacks the field '{name}'.", where=str(path))
        if not isinstance(fields[name], kind):
            raise UserError(f"The field '{name}' is {shown(fields[name])}.", where=str(path))
    check_class_names(fields["classes"], str(path))
    return RunConfig(
        model=fields["model"],
        classes=tuple(fields["classes"]),
        input=InputSpec(**checked_fields(InputSpec, fields["input"], f"{path}, input")),
        thresholds=Thresholds(**checked_fields(Thresholds, fields["thresholds"], f"{path}, thresholds")),
    )
