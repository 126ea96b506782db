"""`eyas compile RUN`: a bundle that runs without torch, checked against the run before it is kept."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eyas.cli.rows_option import add_rows
from eyas.errors import UserError
from eyas.export.options import describe_options, parse_options
from eyas.text import say

if TYPE_CHECKING:
    from eyas.artifacts.bundle import Bundle
    from eyas.export.auto import Trial
    from eyas.export.target import Sides

HELP = "compile a run into a bundle that runs without PyTorch, and validate it against the run"
TARGET_HELP = (
    "onnx, openvino, tensorrt or tensorrt-rtx, and fp32, fp16, bf16 or int8, such as openvino-int8; auto, "
    "openvino-auto or auto-int8 choose the fastest on this machine that is accurate enough (default: %(default)s)"
)
EXAMPLES: tuple[str, ...] = (
    "eyas compile runs/quickstart --out bundles/fp32",
    "eyas compile runs/quickstart --target openvino-int8 --max-drop 1 --out bundles/int8",
    "eyas compile runs/quickstart --target auto --out bundles/best",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("run", metavar="RUN", help="the folder of a trained run")
    add("--target", default="onnx-fp32", metavar="RUNTIME-PRECISION", help=TARGET_HELP)
    add("--precision", help=argparse.SUPPRESS)  # of a target in two words, as in earlier releases
    add("--max-drop", type=float, metavar="AP",
        help="accuracy allowance in points of AP (of 100) below the run (default: depends on the precision; auto: "
        "0.5)")  # fmt: skip
    add("--size", metavar="PIXELS",
        help="input size: 640 (square), 640x480 (width x height), or 320-960 for a range (default: the run's "
        "own)")  # fmt: skip
    add("--batch", default="1", metavar="N", help="batch size: 1, or 1-16 for a range (default: 1)")
    add("--nms", choices=("host", "graph", "none"),
        help="where overlapping boxes are suppressed (default: host, or none if the network predicts one box per "
        "object)")  # fmt: skip
    add("--candidates", type=int, metavar="N", help="candidate boxes per image that leave the graph (default: 300)")
    add("--data", metavar="ROOT", help="dataset for validation and calibration (default: the run's own)")
    add_rows(parser)
    add("--split", metavar="NAME", help="split for validation (default: the run's own)")
    add("--measure", type=int, default=500, metavar="N",
        help="most images to measure mAP on; 0 skips it (default: %(default)s)")  # fmt: skip
    add("--calibrate", type=int, default=128, metavar="N",
        help="int8: images to calibrate on if the run has no quantization (default: %(default)s)")  # fmt: skip
    add("--weight-bits", type=int, choices=(7, 8),
        help="int8: bits per weight; 7 where 8 would overflow (default: what suits this machine)")  # fmt: skip
    add("--threads", type=int, metavar="N", help="engine threads for the timing (default: the engine's own choice)")
    add("--out", metavar="FOLDER", help="the bundle's folder (default: bundles/RUN-TARGET-PRECISION)")
    builder = parser.add_argument_group("builder options", describe_options())
    builder.add_argument("--option", action="append", default=[], metavar="NAME=VALUE",
        help="one of these; may be given several times")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Compile, tell each step and what the bundle promises; return 0."""
    batch = parse_range(args.batch, "batch")
    from eyas.export.auto import candidates, compile_auto
    from eyas.export.bundle import compile_run
    from eyas.export.graph import CANDIDATES
    from eyas.export.settings import BuildSettings
    from eyas.export.target import parse_target
    from eyas.terminal import open_console

    runtime, precision = parse_target(args.target, args.precision)
    pairs = candidates(runtime, precision) if "auto" in (runtime, precision) else []
    if pairs and args.option:
        raise UserError("Builder options need a single target.", where="option", fix="name the target with --target")
    settings = BuildSettings(
        target=pairs[0][0] if pairs else runtime,
        precision=pairs[0][1] if pairs else precision,
        size=parse_size(args.size),
        batch=batch or (1, 1),
        nms=args.nms,
        candidates=CANDIDATES if args.candidates is None else args.candidates,
        data=args.data,
        split=args.split,
        rows=args.rows,
        measured=args.measure,
        options={} if pairs else parse_options(runtime, args.option),
        budget=None if args.max_drop is None else args.max_drop / 100,
        calibrated=args.calibrate,
        weight_bits=args.weight_bits,
        threads=args.threads,
    )
    console = open_console(stderr=True)

    def tell(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    if pairs:
        bundle, trials = compile_auto(args.run, args.out, settings, pairs=pairs, tell=tell)
        show_trials(trials, bundle)
    else:
        bundle = compile_run(args.run, args.out, settings, tell=tell)
    show(bundle)
    return 0


def parse_range(text: str | None, name: str) -> tuple[int, int] | None:
    """Return (least, greatest) of "640" or "320-960", None for None.

    Raises:
        UserError: it is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if match is None:
        raise UserError(f"--{name} is '{text}'.", where=name, expected="a number, or two such as 1-16")
    least = int(match[1])
    return least, int(match[2] or least)


def parse_size(text: str | None) -> int | Sides | tuple[int, int] | None:
    """Return what "640", "640x480" or "320-960" means, None for None.

    Raises:
        UserError: it is none of these.
    """
    from eyas.export.target import Sides

    sides = re.fullmatch(r"(\d+)x(\d+)", text or "")
    if sides is not None:
        return Sides(width=int(sides[1]), height=int(sides[2]))
    try:
        size = parse_range(text, "size")
    except UserError:
        raise UserError(
            f"--size is '{text}'.", where="size", expected="a form such as 640, 640x480 or 320-960"
        ) from None
    return size if size is None or size[0] != size[1] else size[0]


def show_trials(trials: Sequence[Trial], bundle: Bundle) -> None:
    """Print the table that a choice was made from, the fastest first; what was chosen has a mark."""
    say(f"{'target':17} {'ms':>8} {'p90':>8} {'mAP':>8} {'fp32':>8}")
    chosen = bundle.manifest.latency[0].median_ms
    for trial in sorted(trials, key=lambda one: (bool(one.problem), one.median_ms)):
        target = f"{trial.target}-{trial.precision}"
        if trial.problem:
            say(f"{target:17} {trial.problem}")
        else:
            mark = "  <- chosen" if trial.median_ms == chosen else ""
            numbers = f"{trial.median_ms:8.2f} {trial.p90_ms:8.2f} {trial.map:8.4f} {trial.map_fp32:8.4f}"
            say(f"{target:17} {numbers}{mark}")


def show(bundle: Bundle) -> None:
    """Print what the bundle is and what was measured of it."""
    from eyas.runtime.trained_size import size_note, trained_size

    manifest = bundle.manifest
    sides = f"{manifest.input.width}x{manifest.input.height}"
    if manifest.sizes:
        sides += " (any from {} to {})".format(*manifest.sizes)
    megabytes = sum((bundle.folder / name).stat().st_size for name in manifest.files) / 1e6
    say(f"bundle:    {bundle.folder}, {megabytes:.1f} MB")
    say(f"target:    {manifest.target}, {manifest.precision}, input {sides}, batch {manifest.batch[0]}", end="")
    say(f" to {manifest.batch[1]}" if manifest.batch[1] > manifest.batch[0] else "")
    if manifest.compute_capabilities:
        say(f"GPUs:      compute capability {', '.join(manifest.compute_capabilities)}")
    if manifest.judged == "graph":
        say("NOT RUN:   no GPU here can run the engine. The results below are for the ONNX graph it was built from.")
    if manifest.parity:
        say(
            f"parity:    boxes {manifest.parity.boxes_px:.3g} px, scores {manifest.parity.scores:.3g} "
            f"(of {100 * manifest.parity.quantile:g} % of the candidates, {manifest.parity.images} images)"
        )
    if manifest.accuracy:
        found = manifest.accuracy
        say(
            f"mAP:       {found.map:.4f}, the trained network {found.map_fp32:.4f} "
            f"({found.images} images of {found.data}, split '{found.split}')"
        )
        if note := size_note(trained_size(bundle.folder), manifest.input):
            say(f"           {note}")
    else:
        say("mAP:       not measured")
    for one in manifest.latency:
        told = ", ".join(f"{name} {version}" for name, version in one.versions.items())
        say(f"latency:   {one.median_ms:.2f} ms median, {one.p90_ms:.2f} ms p90 for a batch of {one.batch}")
        say(f"           {one.device}, {one.threads_told}, {told}")
