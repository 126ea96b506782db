"""What goes down on the way to a bundle: the run, read once, what is built of it, and what a builder gives back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from eyas.artifacts.card import CARD, Card
from eyas.artifacts.quantization import Quantization
from eyas.artifacts.run import Run
from eyas.export.graph import load_net
from eyas.export.images import BuildImages
from eyas.export.settings import BuildSettings, Tell
from eyas.export.target import Range, TargetInfo, input_of, target_info
from eyas.types import InputSpec


@dataclass(frozen=True)
class BuildPlan:
    """What is built, of whatever run.

    Attributes:
        settings: what was asked for, `nms` set.
        input: the network's input, which a build is tuned for.
        sizes: least and greatest height and width; None for the input's own alone.
    """

    settings: BuildSettings
    input: InputSpec
    sizes: Range | None = None

    @property
    def info(self) -> TargetInfo:
        """Return the target's row."""
        return target_info(self.settings.target, self.settings.precision)

    @property
    def graph_precision(self) -> str:
        """Return the type of the exported graph: half precision only where the target reads it from the graph."""
        precision = self.settings.precision
        return precision if self.info.typed and precision != "int8" else "fp32"


@dataclass(frozen=True)
class TrainedRun:
    """A run of which each file is read when it is first needed, and once.

    Attributes:
        run: its folder and settings.
    """

    run: Run

    @classmethod
    def read(cls, folder: Path) -> TrainedRun:
        """Return the run in a folder; see `Run.read`."""
        return cls(Run.read(folder))

    @cached_property
    def net(self) -> nn.Module:
        """The network in float32 and eval mode, every BatchNorm and branch folded; nobody changes it."""
        return load_net(self.run)

    @cached_property
    def quantization(self) -> Quantization | None:
        """What the run carries, None for nothing."""
        return Quantization.read(self.run.folder)

    @cached_property
    def card(self) -> Card | None:
        """Its card, None where it has none."""
        return Card.read(self.run.folder) if (self.run.folder / CARD).is_file() else None

    def plan(self, settings: BuildSettings) -> BuildPlan:
        """Return what the settings mean for this run.

        Raises:
            UserError: the network does not take such a size, or does not give the suppression that is asked for.
        """
        return BuildPlan(settings.for_run(self.run.config), *input_of(self.run.config.input, settings.size))


@dataclass(frozen=True)
class Build:
    """A bundle in the making.

    Attributes:
        trained: of which run.
        plan: what is built of it.
        images: to calibrate and to judge on; None where nothing needs them and the run's own are not here.
        tell: called with a line for each step.
    """

    trained: TrainedRun
    plan: BuildPlan
    images: BuildImages | None
    tell: Tell


@dataclass(frozen=True)
class Emulation:
    """What is judged in the place of a file that this machine can build and can't run.

    Attributes:
        graph: what the compiled file was made of, to the last node.
        reason: why the compiled file can't be run here.
    """

    graph: onnx.ModelProto
    reason: str


@dataclass(frozen=True)
class BuiltFiles:
    """The files of a finished build, all in the folder that the builder was given.

    Attributes:
        entry: name of the file that a session opens.
        files: names of all files, the entry among them.
        details: what the build found out, ready for JSON (layer precisions, profiles, versions, warnings).
        compute_capabilities: GPUs that the file runs on, see `eyas.artifacts.bundle.Manifest`.
        emulation: set where the entry can't be run on this machine.
    """

    entry: str
    files: tuple[str, ...]
    details: dict[str, Any]
    compute_capabilities: tuple[str, ...] = ()
    emulation: Emulation | None = None
