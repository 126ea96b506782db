"""From a run to a bundle: export, quantize, build, judge. Everything happens in a folder aside, which becomes the
bundle only when every gate was passed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

from eyas.artifacts.bundle import Bundle
from eyas.artifacts.card import hash_file, now, this_version
from eyas.artifacts.manifest import Manifest, oldest_version
from eyas.artifacts.quantization import Quantization, check_listed
from eyas.artifacts.run import RunConfig
from eyas.errors import UserError, missing_extra
from eyas.export.build import Build, BuildPlan, BuiltFiles, TrainedRun
from eyas.export.builders.onnx import export_graph, opset_of
from eyas.export.gates import letterboxed, sample_images
from eyas.export.images import BuildImages, find_images
from eyas.export.node_names import module_of
from eyas.export.quantize.executed import check_int8
from eyas.export.quantize.ptq import quantization_of
from eyas.export.quantize.qdq import quantize, weight_bits
from eyas.export.settings import BuildSettings, Tell
from eyas.export.target import TARGETS, Sides
from eyas.export.validate import judge
from eyas.files import writing
from eyas.machine.processor import processor
from eyas.runtime.trained_size import TRAINED_SIZE
from eyas.types import DETECT, InputSpec


def compile_run(
    run: str | Path | TrainedRun,
    out: str | Path | None = None,
    settings: BuildSettings | None = None,
    *,
    tell: Tell = lambda _: None,
    images: BuildImages | None = None,
    known_map: float | None = None,
) -> Bundle:
    """Compile a run and return the bundle, which passed every gate.

    Args:
        run: the run's folder, or what `open_run` returned for it.
        out: the bundle's folder, new or empty; by default `bundles/RUN-TARGET-PRECISION`.
        settings: what to compile for.
        tell: called with a line for each step.
        images: those that the settings name, where they were found already.
        known_map: the trained network's mAP on the images it is judged on, where that was measured already.

    Raises:
        UserError: the run or the settings can't be used, or a gate was not passed; no bundle is left then.
    """
    settings = settings or BuildSettings()
    check_machine(settings.target)
    trained = run if isinstance(run, TrainedRun) else open_run(Path(run))
    plan = trained.plan(settings)
    if other := other_size(trained.run.config.input, plan):
        tell(other)
    folder = free_folder(trained.run.folder, out, settings)
    build = Build(trained, plan, images or images_of(trained, settings), tell)
    with staging(folder) as work:
        bundle = work / "bundle"
        bundle.mkdir()
        tell("exporting the graph")
        graph, details = make_graph(build)
        tell(f"building for {settings.target} in {settings.precision}")
        built = run_builder(graph, plan, bundle)
        built = replace(built, details={**details, **built.details})
        unjudged = Bundle(bundle, new_manifest(folder.name, bundle, built, opset_of(graph), trained.run.config, plan))
        manifest = judge(build, unjudged, built.emulation, known_map)
        if licence := seal(Bundle(bundle, manifest), trained, plan.settings):
            tell(f"licence of the weights that the run started from: {licence}")
        if folder.is_dir():
            folder.rmdir()  # it was empty
        bundle.replace(folder)
    return Bundle(folder, manifest)


def open_run(folder: Path) -> TrainedRun:
    """Return the run in a folder, whose bytes are those of its card.

    Raises:
        UserError: it is no run, a file was changed, or it carries a quantization that its card does not list.
    """
    trained = TrainedRun.read(folder)
    trained.run.verify()
    check_listed(folder)
    return trained


def images_of(trained: TrainedRun, settings: BuildSettings) -> BuildImages | None:
    """Return the images to calibrate and to judge on; None where nothing needs them and the run's own are not here."""
    named = (settings.data, settings.split, settings.rows)
    try:
        return find_images(trained.run.folder, *named)
    except UserError:
        calibrates = settings.precision == "int8" and trained.quantization is None
        if settings.measured != 0 or calibrates or any(one is not None for one in named):
            raise
        return None


def check_machine(target: str) -> None:
    """Refuse a machine that lacks what the target is built with, before anything expensive.

    Raises:
        UserError: the package is not installed, or the target needs a GPU and there is none.
    """
    package, extra = TARGETS[target].package
    if target.startswith("tensorrt"):
        from eyas.export.builders import tensorrt

        tensorrt.check_machine(target)
    elif find_spec(package) is None:
        raise missing_extra(package, extra)


def run_builder(graph: onnx.ModelProto, plan: BuildPlan, out_dir: Path) -> BuiltFiles:
    """Build the target's files from the graph into a folder.

    Raises:
        UserError: what the target needs is not installed, or the build failed.
    """
    info = plan.info
    try:
        built: BuiltFiles = vars(import_module(info.module))["build"](graph, plan, out_dir)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != info.package[0]:
            raise
        raise missing_extra(*info.package) from None
    return built


def other_size(trained: InputSpec, plan: BuildPlan) -> str:
    """Return one line if the bundle takes other sizes than the run was trained at, "" if not."""
    own, at = f"{trained.width} x {trained.height}", f"{plan.input.width} x {plan.input.height}"
    if own == at and plan.sizes is None:
        return ""
    taken = at if plan.sizes is None else f"{plan.sizes[0]} to {plan.sizes[1]}"
    mean = "not measured" if plan.settings.measured == 0 else f"measured at {at}, like the trained network"
    return f"trained at {own}, built for {taken}: another size costs accuracy; mAP is {mean}"


def free_folder(run: Path, out: str | Path | None, settings: BuildSettings) -> Path:
    """Return the bundle's folder.

    Raises:
        UserError: it holds something already.
    """
    named = Path(out) if out else Path("bundles") / f"{run.resolve().name}-{settings.target}-{settings.precision}"
    if named.exists() and not (named.is_dir() and not any(named.iterdir())):
        raise UserError(f"{named} exists already.", fix="choose another --out, or remove it first", where="out")
    return named


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder`, which is removed at the end whatever happens."""
    work = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with writing(folder, "no output was left"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(work, ignore_errors=True)
        try:
            work.mkdir()
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def make_graph(build: Build) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Return the graph that the target's builder gets, and what is to be told of it."""
    graph, settings, info = export_graph(build.trained, build.plan), build.plan.settings, build.plan.info
    if settings.precision != "int8":
        return graph, {}
    quantization = build.trained.quantization or calibrated(graph, build)
    bits = settings.weight_bits or weight_bits(info.engine, processor())
    build.tell(f"quantizing: {quantization.made.get('method', 'as the run says')}, weights of at most {bits} bits")
    quantized = quantize(graph, quantization.narrowed(bits), info.engine)
    quantized.model.producer_name = graph.producer_name
    return quantized.model, {
        "convolutions": check_int8(quantized, info.engine),
        "kept_in_float": [module_of(name) for name in quantized.kept],
        "weight_bits": bits,
        "quantization": dict(quantization.made),
    }


def calibrated(graph: onnx.ModelProto, build: Build) -> Quantization:
    """Return the quantization of the exported graph from the dataset's images."""
    plan, images = build.plan, build.images
    assert images is not None, "a build that calibrates looked for them"
    chosen = sample_images(images.calibrate, plan.settings.calibrated)
    build.tell(f"calibrating on {len(chosen)} images of the split '{images.calibrate.split}'")
    return quantization_of(graph, (letterboxed([one], plan.input, plan.settings.batch[0]) for one in chosen))


def new_manifest(
    name: str, bundle: Path, built: BuiltFiles, opset: int, config: RunConfig, plan: BuildPlan
) -> Manifest:
    """Return the manifest of files that were just built and not yet measured."""
    settings, nms = plan.settings, plan.settings.nms
    assert nms is not None, "BuildSettings.for_run has set it"
    thresholds = config.thresholds
    if nms != "none" and thresholds.suppression == "none":
        thresholds = replace(thresholds, suppression=DETECT.suppression)  # it was asked for, though not needed
    return Manifest(
        version=oldest_version(nms),
        name=name,
        classes=config.classes,
        input=plan.input,
        batch=settings.batch,
        sizes=plan.sizes,
        candidates=settings.candidates,
        nms=nms,
        nms_iou=thresholds.iou if nms == "graph" else None,
        thresholds=thresholds,
        target=plan.info.engine,
        precision=settings.precision,  # type: ignore[arg-type]  # target_info refuses others
        files={one: hash_file(bundle / one) for one in sorted(built.files)},
        entry=built.entry,
        opset=opset,
        details={**built.details, TRAINED_SIZE: [config.input.height, config.input.width]},
        compute_capabilities=built.compute_capabilities,
        judged="graph" if built.emulation else "file",
        created=now(),
        eyas=this_version(),
    )


def seal(bundle: Bundle, trained: TrainedRun, settings: BuildSettings) -> str:
    """Write the bundle's manifest, and its card: its files, and the run it was made from.

    Returns:
        what the run's card says of the licence of the weights it started from, "" where it says nothing.
    """
    recipe = {
        **{name: value for name, value in vars(settings).items() if name not in ("data", "options")},
        "size": str(settings.size) if isinstance(settings.size, Sides) else settings.size,
        "data": str(settings.data) if settings.data else "",
        "options": dict(settings.options),
    }
    card = trained.card
    licence = str(card.recipe.get("licence", "")) if card is not None else ""
    bundle.seal(
        parents=[card.as_parent(trained.run.folder)] if card is not None else [],
        recipe={**recipe, "licence": licence} if licence else recipe,
    )
    return licence
