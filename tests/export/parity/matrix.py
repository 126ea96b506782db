"""Every target x precision x model row that runs without a GPU gives the trained network's answers.

Built by the functions that `eyas compile` calls, run by the sessions that `eyas.load` opens. A graph is exported once
for each row and type; what is built from it shares it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import onnx
import torch
from tests.export.made import calibrate_statistics, computes_in_bf16

from eyas.artifacts.card import Card
from eyas.artifacts.layout import CONFIG, WEIGHTS
from eyas.artifacts.manifest import Manifest
from eyas.artifacts.run import Run, RunConfig
from eyas.data.formats import load_dataset
from eyas.export.build import TrainedRun
from eyas.export.builders.onnx import opset_of
from eyas.export.bundle import new_manifest, run_builder
from eyas.export.gates import BOUNDS, Bound, letterboxed, parity, sample_images
from eyas.export.graph import CANDIDATES, deployed, load_net
from eyas.export.quantize.executed import check_int8
from eyas.export.quantize.ptq import quantization_of
from eyas.export.quantize.qdq import quantize
from eyas.export.settings import BuildSettings
from eyas.export.target import TARGETS
from eyas.models import weights, zoo
from eyas.runtime.loading import open_bundle
from eyas.runtime.sessions.torch import TorchSession
from eyas.types import FloatArray, InputSpec, Thresholds, UInt8Array

SIDE = 64
NEEDS_GPU = {"tensorrt", "tensorrt-rtx"}
TARGET_PRECISIONS = [
    (target, precision) for target, info in TARGETS.items() if target not in NEEDS_GPU for precision in info.precisions
]
# What costs most to build and has no kind of layer that another case lacks. All rows keep float32 and bfloat16; S, the
# first published one, and M, the first one whose stages are concatenated, keep INT8; P keeps everything.
_BOTH = ("onnx", "openvino")
LEFT_OUT = {
    *((row, target, "fp16") for row in ("n", "s", "m", "l") for target in _BOTH),
    *((row, target, "int8") for row in ("n", "l") for target in _BOTH),
}
# A file of tests for each, so that they are shared out among processes.
SMALL, MIDDLE, LARGE = ("p", "n"), ("s",), ("m", "l")
Case = tuple[str, str, str]  # row, target, precision
# With random weights the boxes' distributions are flat, and rounding moves a side further than in a trained network.
RANDOM_BOUNDS = {
    "fp32": BOUNDS["fp32"],
    "fp16": Bound(4.0, 0.05, 0.9, 0.05),
    "bf16": Bound(4.0, 0.05, 0.9, 0.05),
    "int8": Bound(20.0, 0.3, 0.5, 0.05),
    "really bf16": Bound(20.0, 0.2, 0.9, 0.05),
}
Graphs = Callable[[Path, BuildSettings], onnx.ModelProto]


class Shifted:
    """The reference's answers to the image after: what a session that mixes its images up would give.

    Args:
        session: the reference.
        batches: all that it will be asked.
    """

    name = description = "shifted"

    def __init__(self, session: TorchSession, batches: Sequence[UInt8Array]) -> None:
        self._session = session
        self._batches = batches
        self._count = 0

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return what the reference gives for the next batch."""
        self._count += 1
        return self._session.run(self._batches[self._count % len(self._batches)])

    def close(self) -> None:
        """Do nothing."""


def write_row(folder: Path, row: str, data: Path) -> Path:
    """Write a run of a network of the zoo and return its folder."""
    folder.mkdir()
    index = load_dataset(data, "train")
    spec = InputSpec(SIDE, SIDE)
    torch.manual_seed(0)
    net = zoo.build(row, len(index.classes))
    calibrate_statistics(net, letterboxed(sample_images(index, 6), spec, 6))
    Run(folder, RunConfig(zoo.describe(row), index.classes, spec, Thresholds(confidence=0.05))).write()
    weights.save_model(net, folder / WEIGHTS)
    Card.write(folder, "run", [CONFIG, WEIGHTS], version="0", created="2026-01-01T00:00:00+00:00")
    return folder


def build(run: Path, graph: onnx.ModelProto, data: Path, folder: Path, settings: BuildSettings) -> Manifest:
    """Build a bundle from an exported graph as `compile_run` does, but for the gates; return its manifest."""
    trained = TrainedRun.read(run)
    plan = trained.plan(settings)
    if settings.precision == "int8":
        images = sample_images(load_dataset(data, "train"), 6)
        batches = (letterboxed([one], plan.input, settings.batch[0]) for one in images)
        engine = plan.info.engine
        quantized = quantize(graph, quantization_of(graph, batches).narrowed(7), engine)  # overflows nowhere
        check_int8(quantized, engine)
        graph = quantized.model
    folder.mkdir()
    built = run_builder(graph, plan, folder)
    new_manifest("m", folder, built, opset_of(graph), trained.run.config, plan).write(folder)
    return Manifest.read(folder)


@cache
def reference(run: Path, nms: str = "host", candidates: int = CANDIDATES) -> TorchSession:
    """Return the trained network in PyTorch, in float32, with the same candidates and suppression."""
    trained = Run.read(run)
    net = deployed(load_net(trained), trained.config, nms=nms, candidates=candidates)
    return TorchSession(net, torch.device("cpu"))


def make_images(data: Path, spec: InputSpec, num: int) -> UInt8Array:
    """Return images that no range was taken from, as the network gets them."""
    return letterboxed(sample_images(load_dataset(data, "val"), 4), spec, num)


def cases(rows: Sequence[str]) -> list[Case]:
    """Return (row, target, precision) of all cases of these rows."""
    return [(row, *each) for row in rows for each in TARGET_PRECISIONS if (row, *each) not in LEFT_OUT]


def check_row(case: Case, run: Path, graphs: Graphs, data: Path, folder: Path) -> None:
    """Build the bundle of a case in `folder` and hold its answers against the trained network's."""
    _, target, precision = case
    settings = BuildSettings(target=target, precision=precision)
    manifest = build(run, graphs(run, settings), data, folder, settings)
    images = [make_images(data, manifest.input, 4)[i : i + 1] for i in range(4)]
    # A processor that computes in bf16 does so when fp16 is asked for, too; others compute both in float32.
    really_bf16 = target == "openvino" and precision in ("fp16", "bf16") and computes_in_bf16()
    bound = RANDOM_BOUNDS["really bf16" if really_bf16 else precision]
    session = open_bundle(folder, manifest, 1)
    found = parity(session, reference(run), images, bound)
    other = parity(session, Shifted(reference(run), images), images, bound)
    session.close()
    assert found.boxes_px <= bound.boxes_px and found.scores <= bound.scores
    # So that the bounds mean something: others lie further off. On random weights INT8 and bf16 are noisy.
    factor = 1 if precision == "int8" or really_bf16 else 10
    assert other.boxes_px > factor * found.boxes_px and other.scores > factor * found.scores
