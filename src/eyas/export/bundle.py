"""From a run to a bundle: export, quantize, build, judge. Everything happens in a folder aside, which becomes the
bundle only when every gate was passed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from eyas.artifacts.bundle import Bundle
from eyas.artifacts.card import CARD, Card, hash_file, now, this_version
from eyas.artifacts.manifest import Manifest, oldest_version
from eyas.artifacts.quantization import Quantization, check_listed
from eyas.artifacts.run import Run, RunConfig
from eyas.errors import UserError
from eyas.export.build_result import BuiltFiles
from eyas.export.builders.onnx import export, input_of, opset_of, save
from eyas.export.gates import letterboxed, sample_images
from eyas.export.images import Images, find_images_if_any
from eyas.export.node_names import module_of
from eyas.export.quantize.executed import check_int8
from eyas.export.quantize.ptq import quantization_of
from eyas.export.quantize.qdq import quantize, weight_bits
from eyas.export.settings import Settings, Tell
from eyas.export.target import Range, Sides, TargetInfo, check_machine, run_builder, target_info
from eyas.export.validate import judge
from eyas.files import writing
from eyas.machine.processor import processor
from eyas.runtime.trained_size import TRAINED_SIZE
from eyas.types import DETECT, InputSpec


def compile_run(
    run: str | Path,
    out: str | Path | None = None,
    settings: Settings | None = None,
    *,
    tell: Tell = lambda _: None,
    known_map: float | None = None,
) -> Bundle:
    """Compile a run and return the bundle, which passed every gate.

    Args:
        run: the run's folder.
        out: the bundle's folder, new or empty; by default `bundles/RUN-TARGET-PRECISION`.
        settings: what to compile for.
        tell: called with a line for each step.
        known_map: the trained network's mAP on the images it is judged on, where that was measured already.

    Raises:
        UserError: the run or the settings can't be used, or a gate was not passed; no bundle is left then.
    """
    settings = settings or Settings()
    check_machine(settings.target)
    trained = Run.read(Path(run))
    run, config = trained.folder, trained.config
    settings = settings.for_run(config)
    trained.verify()
    check_listed(run)
    spec, sizes = input_of(config.input, settings.size)
    if other := other_size(config.input, spec, sizes, settings.measured):
        tell(other)
    folder = free_folder(run, out, settings)
    calibrates = settings.precision == "int8" and Quantization.read(run) is None
    images = find_images_if_any(
        run,
        needed=settings.measured != 0 or calibrates,
        data=settings.data,
        split=settings.split,
        rows=settings.rows,
    )
    with aside(folder) as work:
        bundle, files = work / "bundle", work / "files"
        bundle.mkdir()
        files.mkdir()
        tell("exporting the graph")
        details = write_graph(run, files / "model.onnx", settings, spec, images, tell)
        tell(f"building for {settings.target} in {settings.precision}")
        built = run_builder(
            settings.target,
            files / "model.onnx",
            bundle,
            precision=settings.precision,
            spec=spec,
            sizes=sizes,
            batches=settings.batch,
            options=settings.options,
        )
        manifest = new_manifest(folder.name, bundle, built.files, built.entry, config, spec, sizes, settings)
        _told(manifest, built, details, opset_of(files / "model.onnx"), config).write(bundle)
        unjudged = Bundle(bundle, Manifest.read(bundle))
        manifest = judge(trained, unjudged, settings, images, tell, built.stand_in, known_map)
        if licence := seal(Bundle(bundle, manifest), run, settings):
            tell(f"licence of the weights that the run started from: {licence}")
        if folder.is_dir():
            folder.rmdir()  # it was empty
        bundle.replace(folder)
    return Bundle(folder, manifest)


def other_size(trained: InputSpec, spec: InputSpec, sizes: Range | None, measured: int | None) -> str:
    """Return one line if the bundle takes other sizes than the run was trained at, "" if not."""
    own, at = f"{trained.width} x {trained.height}", f"{spec.width} x {spec.height}"
    if own == at and sizes is None:
        return ""
    taken = at if sizes is None else f"{sizes[0]} to {sizes[1]}"
    mean = "not measured" if measured == 0 else f"measured at {at}, like the trained network"
    return f"trained at {own}, built for {taken}: another size costs accuracy; mAP is {mean}"


def _told(manifest: Manifest, built: BuiltFiles, details: dict[str, Any], opset: int, config: RunConfig) -> Manifest:
    """Return the manifest with what the graph's export and the builder tell."""
    return manifest.model_copy(
        update={
            "opset": opset,
            "details": {**details, **built.details, TRAINED_SIZE: [config.input.height, config.input.width]},
            "compute_capabilities": built.compute_capabilities,
            "judged": "graph" if built.stand_in else "file",
        }
    )


def free_folder(run: Path, out: str | Path | None, settings: Settings) -> Path:
    """Return the bundle's folder.

    Raises:
        UserError: it holds something already.
    """
    named = Path(out) if out else Path("bundles") / f"{run.resolve().name}-{settings.target}-{settings.precision}"
    if named.exists() and not (named.is_dir() and not any(named.iterdir())):
        raise UserError(f"{named} exists already.", fix="choose another --out, or remove it first", where="out")
    return named


@contextmanager
def aside(folder: Path) -> Iterator[Path]:
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


def write_graph(
    run: Path,
    path: Path,
    settings: Settings,
    spec: InputSpec,
    images: Images | None,
    tell: Tell,
) -> dict[str, Any]:
    """Write the ONNX file that the target's builder gets; return what is to be told of it."""
    info = target_info(settings.target, settings.precision)
    export(
        run,
        path,
        size=settings.size,
        batch=settings.batch,
        precision=graph_precision(info, settings.precision),
        nms=settings.nms,
        candidates=settings.candidates,
    )
    if settings.precision != "int8":
        return {}
    model = onnx.load(path)
    quantization = Quantization.read(run)
    if quantization is None:
        assert images is not None, "a build that calibrates looked for them"
        quantization = calibrated(model, settings, spec, images, tell)
    bits = settings.weight_bits or weight_bits(info.engine, processor())
    tell(f"quantizing: {quantization.made.get('method', 'as the run says')}, weights of at most {bits} bits")
    quantized = quantize(model, quantization.narrowed(bits), info.engine)
    save(quantized.model, path)
    return {
        "convolutions": check_int8(quantized, info.engine),
        "kept_in_float": [module_of(name) for name in quantized.kept],
        "weight_bits": bits,
        "quantization": dict(quantization.made),
    }


def calibrated(model: onnx.ModelProto, settings: Settings, spec: InputSpec, images: Images, tell: Tell) -> Quantization:
    """Return the quantization of the exported graph from the dataset's images."""
    chosen = sample_images(images.calibrate, settings.calibrated)
    tell(f"calibrating on {len(chosen)} images of the split '{images.calibrate.split}'")
    return quantization_of(model, (letterboxed([one], spec, settings.batch[0]) for one in chosen))


def graph_precision(info: TargetInfo, precision: str) -> str:
    """Return the type of the exported graph: half precision only where the target reads it from the graph."""
    return precision if info.typed and precision != "int8" else "fp32"


def new_manifest(
    name: str,
    bundle: Path,
    files: tuple[str, ...],
    entry: str,
    config: RunConfig,
    spec: InputSpec,
    sizes: Range | None,
    settings: Settings,
) -> Manifest:
    """Return the manifest of files that were just built and not yet measured."""
    nms = settings.nms
    assert nms is not None, "Settings.for_run has set it"
    thresholds = config.thresholds
    if nms != "none" and thresholds.suppression == "none":
        thresholds = replace(thresholds, suppression=DETECT.suppression)  # it was asked for, though not needed
    return Manifest(
        version=oldest_version(nms),
        name=name,
        classes=config.classes,
        input=spec,
        batch=settings.batch,
        sizes=sizes,
        candidates=settings.candidates,
        nms=nms,
        nms_iou=thresholds.iou if nms == "graph" else None,
        thresholds=thresholds,
        target=target_info(settings.target, settings.precision).engine,
        precision=settings.precision,  # type: ignore[arg-type]  # target_info refuses others
        files={one: hash_file(bundle / one) for one in sorted(files)},
        entry=entry,
        created=now(),
        eyas=this_version(),
    )


def seal(bundle: Bundle, run: Path, settings: Settings) -> str:
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
    card = Card.read(run) if (run / CARD).is_file() else None
    licence = str(card.recipe.get("licence", "")) if card is not None else ""
    bundle.seal(
        parents=[card.as_parent(run)] if card is not None else [],
        recipe={**recipe, "licence": licence} if licence else recipe,
    )
    return licence
