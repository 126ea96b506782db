"""From a run to a bundle: export, quantize, build, judge. Everything happens in a folder aside, which becomes the
bundle only when every gate was passed."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from eyas.card import CARD, hash_file, read_card, verify_card, write_card
from eyas.compile.graph import CANDIDATES, deployed, load_net
from eyas.compile.onnx import Range, export, input_of, opset_of, save
from eyas.compile.pictures import Pictures, find_pictures, spread
from eyas.compile.quantize import check_int8, quantize
from eyas.compile.target import TargetInfo, run_builder, target_info
from eyas.compile.verify import (
    BOUNDS,
    check_parity,
    letterboxed,
    measure_accuracy,
    parity,
    sample_pictures,
    shapes_to_try,
)
from eyas.errors import UserError
from eyas.runfolder import read_config
from eyas.runtime.loading import open_bundle
from eyas.runtime.manifest import MANIFEST, Manifest, Parity, read_manifest, write_manifest
from eyas.runtime.sessions.base import Session
from eyas.runtime.sessions.torch import TorchSession, pick_device
from eyas.types import InputSpec, RunConfig, UInt8Array

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What to compile for, and how to judge it.

    Attributes:
        target: a key of `eyas.compile.target.TARGETS`.
        precision: "fp32", "fp16", "bf16" or "int8".
        size: side in pixels, (least, greatest), or None for the run's own.
        batch: (least, greatest) number of pictures at once.
        nms: "host", or "graph" for suppression inside.
        candidates: boxes that the graph gives a picture.
        data: the data set to judge and calibrate on; None for the run's own.
        split: the split to judge on; None for the run's own.
        compared: how many pictures the outputs are compared on.
        calibrated: how many pictures the ranges of INT8 are taken from.
        measured: how many pictures mAP is measured on at most; 0 for none, None for all.
        options: for the target's builder.
    """

    target: str = "onnx"
    precision: str = "fp32"
    size: int | Range | None = None
    batch: Range = (1, 1)
    nms: str = "host"
    candidates: int = CANDIDATES
    data: str | Path | None = None
    split: str | None = None
    compared: int = 8
    calibrated: int = 64
    measured: int | None = 500
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what can't be built, before anything expensive."""
        target_info(self.target, self.precision)
        if self.nms not in ("host", "graph"):
            raise UserError(f"nms is '{self.nms}'.", where="nms", expected="host or graph")
        if not 1 <= self.batch[0] <= self.batch[1]:
            raise UserError(f"The batch is {self.batch[0]} to {self.batch[1]}.", where="batch", expected="1, or 1-16")
        for name, least in (("candidates", 1), ("compared", 1), ("calibrated", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}.", where=name, expected=f"at least {least}")


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        folder: where it lies.
        manifest: what it says of itself.
    """

    folder: Path
    manifest: Manifest


def compile_run(
    run: str | Path, out: str | Path | None = None, settings: Settings | None = None, *, tell: Tell = lambda _: None
) -> Bundle:
    """Compile a run and return the bundle, which passed every gate.

    Args:
        run: the run's folder.
        out: the bundle's folder, new or empty; by default `bundles/RUN-TARGET-PRECISION`.
        settings: what to compile for.
        tell: called with a line for each step.

    Raises:
        UserError: the run or the settings can't be used, or a gate was not passed; no bundle is left then.
    """
    settings = settings or Settings()
    run = Path(run)
    config = read_config(run)
    if (run / CARD).is_file():
        verify_card(run)
    spec, sizes = input_of(config.input, settings.size)
    folder = free_folder(run, out, settings)
    pictures = find_pictures(run, settings.data, settings.split)
    with aside(folder) as work:
        bundle, files = work / "bundle", work / "files"
        bundle.mkdir()
        files.mkdir()
        tell("exporting the graph")
        details = write_graph(run, files / "model.onnx", settings, spec, pictures, tell)
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
        manifest = manifest.model_copy(
            update={"opset": opset_of(files / "model.onnx"), "details": {**details, **built.details}}
        )
        write_manifest(bundle, manifest)
        manifest = judge(run, bundle, read_manifest(bundle), config, settings, pictures, tell)
        write_manifest(bundle, manifest)
        seal(bundle, run, settings, manifest)
        if folder.is_dir():
            folder.rmdir()  # it was empty
        bundle.replace(folder)
    return Bundle(folder, manifest)


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
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_graph(
    run: Path,
    path: Path,
    settings: Settings,
    spec: InputSpec,
    pictures: Pictures,
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
    chosen = sample_pictures(pictures.calibrate, settings.calibrated)
    tell(f"calibrating on {len(chosen)} pictures of the split '{pictures.calibrate.split}'")
    quantized = quantize(onnx.load(path), (letterboxed([one], spec, settings.batch[0]) for one in chosen), info.engine)
    save(quantized.model, path)
    counts = check_int8(quantized, info.engine)
    return {"convolutions": counts, "kept_in_float": list(quantized.kept), "calibration_pictures": len(chosen)}


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
    return Manifest(
        name=name,
        classes=config.classes,
        input=spec,
        batch=settings.batch,
        sizes=sizes,
        candidates=settings.candidates,
        nms="graph" if settings.nms == "graph" else "host",
        nms_iou=config.thresholds.iou if settings.nms == "graph" else None,
        thresholds=config.thresholds,
        target=target_info(settings.target, settings.precision).engine,
        precision=settings.precision,  # type: ignore[arg-type]  # target_info refuses others
        files={one: hash_file(bundle / one) for one in sorted(files)},
        entry=entry,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        eyas=importlib.metadata.version("eyas"),
    )


def judge(
    run: Path, bundle: Path, manifest: Manifest, config: RunConfig, settings: Settings, pictures: Pictures, tell: Tell
) -> Manifest:
    """Return the manifest with what was measured of the bundle's own files.

    Raises:
        UserError: a gate was not passed.
    """
    net = deployed(load_net(run, config), config, nms=settings.nms, candidates=settings.candidates)
    reference = TorchSession(net, pick_device("cpu"))
    session = open_bundle(bundle, manifest)
    try:
        tell(f"comparing with the trained network on {settings.compared} pictures")
        samples = sample_pictures(pictures.judge, settings.compared)
        measured = compare(session, reference, manifest, samples)
        tell(f"largest difference: boxes {measured.boxes_px:.3g} pixels, scores {measured.scores:.3g}")
        update: dict[str, Any] = {"parity": measured}
        if settings.measured != 0:
            index = spread(pictures.judge, settings.measured)
            tell(f"measuring mAP on {len(index)} pictures of the split '{index.split}'")
            update["accuracy"] = measure_accuracy(
                session, plain(reference, run, config, settings), manifest, index, max(manifest.batch[1], 1)
            )
    finally:
        session.close()
    return manifest.model_copy(update=update)


def plain(reference: TorchSession, run: Path, config: RunConfig, settings: Settings) -> Session:
    """Return the trained network as `eyas evaluate` runs it: all candidates, greedy suppression on the host."""
    if settings.nms == "host" and settings.candidates == config.thresholds.candidates:
        return reference
    net = deployed(load_net(run, config), config, candidates=config.thresholds.candidates)
    return TorchSession(net, pick_device("cpu"))


def compare(session: Session, reference: Session, manifest: Manifest, samples: list[UInt8Array]) -> Parity:
    """Return the parity at every shape that the bundle promises; the worst one counts.

    Raises:
        UserError: it is out of bounds at one of them.
    """
    bound = BOUNDS[manifest.precision]
    found: list[Parity] = []
    for spec, num in shapes_to_try(manifest.input, manifest.sizes, manifest.batch):
        own = spec == manifest.input and num == max(manifest.batch[0], min(manifest.batch[1], 3))
        chosen = samples if own else samples[: max(num, 1)]
        batches = [letterboxed(chosen[i : i + num], spec, num) for i in range(0, len(chosen), num)]
        found.append(parity(session, reference, batches, bound))
        check_parity(found[-1], bound, f"{manifest.target} in {manifest.precision}, {num} x {spec.height}x{spec.width}")
    return Parity(
        boxes_px=max(one.boxes_px for one in found),
        scores=max(one.scores for one in found),
        quantile=bound.quantile,
        pictures=found[0].pictures,
    )


def seal(bundle: Path, run: Path, settings: Settings, manifest: Manifest) -> None:
    """Write the bundle's card: its files, and the run it was made from."""
    parents = []
    if (run / CARD).is_file():
        parents = [{"kind": "run", "path": str(run.resolve()), "sha256": read_card(run).sha256}]
    recipe = {
        **{name: value for name, value in vars(settings).items() if name not in ("data", "options")},
        "data": str(settings.data) if settings.data else "",
        "options": dict(settings.options),
    }
    write_card(
        bundle,
        "bundle",
        [MANIFEST, *manifest.files],
        version=manifest.eyas,
        created=manifest.created,
        parents=parents,
        recipe=recipe,
    )


def with_target(settings: Settings, target: str, precision: str) -> Settings:
    """Return the settings for another target and precision."""
    return replace(settings, target=target, precision=precision)
