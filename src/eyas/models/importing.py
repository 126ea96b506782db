"""A foreign checkpoint becomes a run: it detects, is evaluated, trained on and compiled like one that Eyas trained."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor

from eyas.artifacts.card import hash_file
from eyas.artifacts.run import Run, RunConfig
from eyas.errors import UserError, suggest
from eyas.models.checkpoint import COCO_CLASSES, PUBLISHED_LICENCE, SUFFIXES, Checkpoint, read_checkpoint
from eyas.models.processing import Contract, contract_of, thresholds_of
from eyas.models.weights import save_model
from eyas.models.zoo import describe
from eyas.types import InputSpec

InputChoice = Literal["file", "published"]
UNKNOWN_LICENCE = "the checkpoint does not say"


def import_checkpoint(
    path: str | Path,
    out: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    licence: str = "",
    input: InputChoice = "file",  # noqa: A002
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Make a run of a YOLO-NAS checkpoint of SuperGradients, without training, and return its folder.

    Args:
        path: the checkpoint: `.pth`, `.pt`, `.ckpt`, or `.safetensors` with the same tensors. No code in it is run.
        out: the run's folder, new or empty; runs/NAME if None.
        classes: class names, in label order; None takes the file's own.
        licence: what the card says of the weights' licence; "" for what is known of them.
        input: how images are fed: as the "file" says, or as the "published" networks are fed, whatever it says.
        tell: called with a line for each thing that is to be known, such as names that were assumed.

    Raises:
        UserError: the file can't be used, or does not name its classes; nothing is written then.
    """
    source = Path(path)
    checkpoint = _opened(source)
    if input not in get_args(InputChoice):
        raise UserError(f"The input is '{input}'{suggest(input, get_args(InputChoice))}.", expected="file or published")
    notes: list[str] = []
    names = class_names(checkpoint, classes, notes)
    contract = _contract(checkpoint, input, notes)
    thresholds = thresholds_of(checkpoint.said, str(source))
    checkpoint = replace(checkpoint, state=contract.folded(checkpoint.state))
    net = checkpoint.network()
    _check_finite(net.state_dict(), source)
    if not any(name.endswith(".branch_3x3.conv.weight") for name in net.state_dict()):
        notes.append("the network is fused: it detects and compiles, but can't be trained further")
    config = RunConfig(describe(checkpoint.spec()), names, contract.input, thresholds)
    known = licence or (PUBLISHED_LICENCE if checkpoint.published else UNKNOWN_LICENCE)
    if checkpoint.published:
        notes.append(f"note: {PUBLISHED_LICENCE}")
    folder = _claim(Path(out) if out is not None else Path("runs") / source.stem)
    try:
        run = Run(folder, config)
        save_model(net, run.weights)
        run.write()
        _seal(run, checkpoint, notes, known)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    for note in notes:
        tell(note)
    return folder


def class_names(checkpoint: Checkpoint, given: Sequence[str] | None, notes: list[str]) -> tuple[str, ...]:
    """Return the names of the checkpoint's classes: the given ones, else its own, else COCO's where there are 80.

    Args:
        checkpoint: what was read.
        given: names of the user's, None for none.
        notes: what is to be known is appended.

    Raises:
        UserError: nothing names the classes, or there are too many or too few names, or one twice.
    """
    num = checkpoint.num_classes
    if given is not None:
        names = tuple(given)
        if len(names) != num:
            raise UserError(
                f"{len(names)} class names are given, but the checkpoint has {num} classes.",
                where=str(checkpoint.path),
                expected=f"{num} names, one per line, in training order",
            )
    else:
        names = checkpoint.classes
    if not names and num == len(COCO_CLASSES):
        notes.append(
            "the checkpoint does not name its 80 classes: COCO's are assumed (person, bicycle, car, ...); if they "
            "differ, import it again with --classes FILE"
        )
        names = COCO_CLASSES
    if not names:
        raise UserError(
            f"The checkpoint does not name its {num} classes.",
            where=str(checkpoint.path),
            expected=f"a text file of {num} names, one per line, in training order",
            fix=f"eyas import {shlex.quote(str(checkpoint.path))} --classes names.txt",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(name.strip() for name in names):
        raise UserError(
            f"A class name is given twice: {twice[0]}." if twice else "A class has no name.",
            where=str(checkpoint.path),
            expected=f"{num} different names",
            fix="give the right names with --classes FILE",
        )
    return names


def _opened(path: Path) -> Checkpoint:
    """Return the checkpoint, with weights of the family; hints at what was meant where it is none."""
    if path.is_dir():
        best = sorted(path.glob("*.pth"), key=lambda one: (one.name != "ckpt_best.pth", one.name))
        raise UserError(
            f"{path} is a folder, not a checkpoint.",
            expected="a .pth file",
            fix=f"eyas import {shlex.quote(str(best[0]))}" if best else "",
        )
    if path.is_file() and path.suffix not in (*SUFFIXES, ".safetensors"):
        graph = path.suffix in (".onnx", ".engine", ".xml")
        raise UserError(
            f"{path.name} is {'a compiled graph' if graph else 'not a checkpoint'} and can't be imported.",
            where=str(path),
            expected="a checkpoint: .pth, .pt, .ckpt or .safetensors",
            fix="use the .pth file that it was exported from" if graph else "",
        )
    checkpoint = read_checkpoint(path)
    checkpoint.spec()
    return checkpoint


def _contract(checkpoint: Checkpoint, wanted: InputChoice, notes: list[str]) -> Contract:
    """Return how the network is fed; what was assumed or left out is noted."""
    processing = checkpoint.said.get("image_processor")
    if wanted == "published" or processing is None:
        why = "as requested" if wanted == "published" else "the checkpoint does not describe its input processing"
        notes.append(
            f"{why}: using the published networks' processing: RGB, longest side 636 in 640, centred, divided by 255"
        )
        return Contract(InputSpec())
    if checkpoint.said.get("multi_label_per_box") is False:
        notes.append("the checkpoint reports one class per box; Eyas reports every class above the threshold")
    return contract_of(processing, str(checkpoint.path))


def _check_finite(state: dict[str, Tensor], path: Path) -> None:
    """Raise a UserError where weights are no finite numbers."""
    bad = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise UserError(
            f"The checkpoint contains numbers that are not finite: in {bad[0]}"
            + (f" and {len(bad) - 1} more tensors." if len(bad) > 1 else "."),
            where=str(path),
            fix="use a checkpoint from before the training diverged",
        )


def _claim(folder: Path) -> Path:
    """Make the run's folder and return it.

    Raises:
        UserError: it holds something already.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists already.", fix="choose another --out, or remove it first", where="out")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _seal(run: Run, checkpoint: Checkpoint, notes: Sequence[str], licence: str) -> None:
    """Write what the run is and comes from."""
    digest = hash_file(checkpoint.path)
    run.seal(
        parents=[{"kind": "checkpoint", "path": str(checkpoint.path.resolve()), "sha256": digest}],
        recipe={
            "imported": checkpoint.path.name,
            "sha256": digest,
            "weights": checkpoint.nest or "at the top of the file",
            "licence": licence,
            "notes": list(notes),
        },
    )
