"""Runs and bundles for `inference.py`: untrained networks will do, since speed does not depend on the weights.

The bundles are built as `eyas compile` builds them, but not judged: an untrained network has no answers to compare.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import torch
from torch import nn

from eyas.artifacts.card import hash_file
from eyas.artifacts.layout import CONFIG, WEIGHTS
from eyas.artifacts.manifest import Manifest
from eyas.artifacts.run import Run, RunConfig
from eyas.benchmark.images import write_images
from eyas.decode import read_image
from eyas.export.build import TrainedRun
from eyas.export.builders.onnx import export_graph
from eyas.export.bundle import run_builder
from eyas.export.gates import letterboxed
from eyas.export.quantize.executed import check_int8
from eyas.export.quantize.ptq import quantization_of
from eyas.export.quantize.qdq import quantize, weight_bits
from eyas.export.settings import BuildSettings
from eyas.export.target import Sides
from eyas.machine.processor import processor
from eyas.models import weights, zoo
from eyas.types import InputSpec, UInt8Array

SIZE = Sides(width=640, height=480)
CLASSES = 80
CALIBRATION = 8  # images


def untrained_run(folder: Path, name: str) -> Path:
    """Write a run of a named network with random weights, whose scores and boxes depend on the image."""
    torch.manual_seed(0)
    net = zoo.build(name, CLASSES)
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            if "_pred." in key:
                parameter += 0.1 * torch.randn_like(parameter)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the running statistics become the mean over what is seen now
        net.train()
        for _ in range(2):
            net(torch.rand(2, 3, 128, 160))
    folder.mkdir(parents=True)
    Run(folder, RunConfig(zoo.describe(name), tuple(f"class {i}" for i in range(CLASSES)), InputSpec())).write()
    weights.save_model(net.eval(), folder / WEIGHTS)
    assert (folder / CONFIG).is_file()
    return folder


def bundle(
    run: Path, out: Path, target: str, precision: str, images: Sequence[Path], margin: int | None = None
) -> Path:
    """Build the run for an engine, with an input of 640 x 480, into `out`, unless it is there already.

    `margin` takes the place of the run's own; with 0 an image of the input's size is not resized.
    """
    if (out / "manifest.json").is_file():
        return out
    out.mkdir(parents=True, exist_ok=True)
    trained = TrainedRun.read(run)
    config, plan = trained.run.config, trained.plan(BuildSettings(target=target, precision=precision, size=SIZE))
    if margin is not None:
        plan = replace(plan, input=replace(plan.input, margin=margin))
    spec, info, graph = plan.input, plan.info, export_graph(trained, plan)
    if precision == "int8":
        calibration = [read_image(path) for path in images[:CALIBRATION]]
        found = quantization_of(graph, (letterboxed([one], spec, 1) for one in calibration))
        quantized = quantize(graph, found.narrowed(weight_bits(info.engine, processor())), info.engine)
        graph = quantized.model
        print(f"  {out.name}: convolutions {check_int8(quantized, info.engine)}")
    built = run_builder(graph, plan, out)
    manifest = Manifest(
        name=out.name,
        classes=config.classes,
        input=spec,
        batch=(1, 1),
        candidates=300,
        thresholds=config.thresholds,
        target=info.engine,
        precision=precision,
        files={name: hash_file(out / name) for name in sorted(built.files)},
        entry=built.entry,
        details=dict(built.details),
        created="2026-01-01T00:00:00+00:00",
        eyas=importlib.metadata.version("eyas"),
    )
    manifest.write(out)
    return out


def jpeg_of_at_most(image: UInt8Array, kilobytes: int) -> bytes:
    """Return the BGR image as JPEG of the best quality that fits, as cameras are set to do."""
    for quality in range(95, 0, -3):
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= 1000 * kilobytes:
            break
    return data


def images_in(folder: Path, source: Path | None, kilobytes: int = 50) -> list[Path]:
    """Return JPEG images of 640 x 480 pixels, of so many kilobytes at most: the source's, resized, or made up."""
    folder.mkdir(parents=True, exist_ok=True)
    made = sorted(folder.glob("*.jpg"))
    if made:
        return made
    if source is None:
        return write_images(folder, CALIBRATION)
    for path in sorted(source.glob("*.jpg"))[:: max(1, len(list(source.glob("*.jpg"))) // 16)][:16]:
        image = cv2.resize(read_image(path)[..., ::-1], (640, 480), interpolation=cv2.INTER_AREA)
        (folder / path.name).write_bytes(jpeg_of_at_most(image, kilobytes))
    return sorted(folder.glob("*.jpg"))


def clip_in(folder: Path, images: Sequence[Path], frames: int = 48) -> Path:
    """Write the images as a video of 1280 x 720 pixels, each a few frames long, and return its path."""
    path = folder / "clip.mp4"
    if not path.is_file():
        video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (1280, 720))
        for i in range(frames):
            image = read_image(images[i // 4 % len(images)])[..., ::-1]
            video.write(cv2.resize(image, (1280, 720)))
        video.release()
    return path
