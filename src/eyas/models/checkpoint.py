"""Checkpoints of YOLO-NAS as SuperGradients writes and publishes them: their weights, and what they say of themselves.

No code that a file may carry is run (`eyas.models.inert`). The code of YOLO-NAS is Apache-2.0, **the published weights
are not**: their licence forbids commercial use and making other models from them. Eyas neither ships nor needs them.
"""

from __future__ import annotations

import json
import re
import shlex
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyas.errors import UserError, shorten
from eyas.models.detection_net import DetectionNet
from eyas.models.inert import Content, ForeignCodeError
from eyas.models.infer import FIRST_HEADS, infer_spec, name_of
from eyas.models.processing import classes_of
from eyas.models.records import DEEPEST, Record, TensorRecord, plain
from eyas.models.spec import YoloNasSpec
from eyas.models.weights import load_state, read_state
from eyas.models.zoo import build

NESTS = ("ema_net", "net", "state_dict")  # the averaged weights first: they are the ones that were evaluated
WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")  # what training in parallel, and torch.compile, put before names
SUFFIXES = (".pth", ".pt", ".ckpt")  # of what torch.save writes
PUBLISHED = re.compile(r"yolo_nas_[sml]_coco(?![a-zA-Z0-9_])")  # how the published files are named
PUBLISHED_LICENCE = "YOLO-NAS's published weights: for non-commercial use only"
# The order of the published weights' classes: the 80 of COCO.
COCO_CLASSES = tuple(
    """person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,
    bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,
    snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,
    fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,
    potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,
    refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush""".replace("\n    ", "").split(",")
)
CONSTANTS = (".id_tensor", ".proj_conv")  # written by some versions; no weights


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        path: the file.
        state: the weights, under the plain names.
        nest: under which name they lay in the file, "" for the top.
        said: the file's `processing_params`: "class_names", "image_processor", "iou", "conf"; {} where it has none.
        trained: whether the file also holds what only a training leaves: an optimizer's state, a number of epochs.
    """

    path: Path
    state: dict[str, Tensor]
    nest: str = ""
    said: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = False

    @property
    def num_classes(self) -> int:
        """Return how many classes the weights tell apart."""
        return next(len(self.state[name]) for name in FIRST_HEADS if name in self.state)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names that the file has, () if it has none.

        Raises:
            UserError: their number is not that of the weights' classes.
        """
        names = classes_of(self.said, str(self.path))
        if names and len(names) != self.num_classes:
            raise UserError(
                f"The checkpoint lists {len(names)} class names, but its weights have {self.num_classes} classes.",
                where=str(self.path),
                fix="give the right names with --classes FILE",
            )
        return names

    @property
    def published(self) -> bool:
        """Return whether these are the published weights: by the file's name, COCO's 80 classes, and no training."""
        return bool(PUBLISHED.match(self.path.name)) and self.num_classes == len(COCO_CLASSES) and not self.trained

    def spec(self) -> str | YoloNasSpec:
        """Return the name of the network, or its spec where it has none; both are found from the tensors' shapes."""
        spec = infer_spec(self.state, str(self.path))
        return name_of(spec) or spec

    def network(self) -> DetectionNet:
        """Return the network with its weights, fused where they are.

        Raises:
            UserError: tensors are missing, of another shape, or unknown; the first few are named.
        """
        spec = self.spec()
        return load_state(self.state, build(spec, self.num_classes), str(self.path))


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what a checkpoint holds, whichever way its weights are nested.

    Args:
        path: a file of `torch.save`, or the same tensors as `.safetensors`.

    Raises:
        UserError: the file is missing, is no checkpoint, names what no data needs, or holds no weights.
    """
    if path.suffix == ".safetensors":
        return Checkpoint(path, _plain_names(read_state(path)))
    if not path.is_file():
        raise UserError(f"There is no file {path.name}.", where=str(path.parent))
    if not zipfile.is_zipfile(path):
        return _read_old(path)
    try:
        content = Content(path)
        root = _module_state(content.root)
        nest, records = _weights_in(root, path, TensorRecord)
        said = plain(root.get("processing_params")) if isinstance(root, Mapping) else None
        state = _plain_names(content.tensors(_without_other_nets(records, path)))
    except ForeignCodeError as error:
        raise _foreign(path, str(error)) from None
    except (ValueError, OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        raise _damaged(path) from None
    return Checkpoint(path, state, nest, said if isinstance(said, dict) else {}, _was_trained(root))


def _read_old(path: Path) -> Checkpoint:
    """Return what a file holds that PyTorch wrote before its version 1.6, which is no archive."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise nearly anything
        code = re.search(r"(?:GLOBAL|type|class) ([\w.]+\.[\w.]+)", str(error))
        raise (_foreign(path, code[1]) if code else _damaged(path)) from None
    nest, state = _weights_in(content, path, Tensor)
    said = content.get("processing_params") if isinstance(content, Mapping) else None
    state = _plain_names(_without_other_nets(state, path))
    return Checkpoint(path, state, nest, said if isinstance(said, dict) else {}, _was_trained(content))


def _was_trained(content: Any) -> bool:
    return isinstance(content, Mapping) and any(name in content for name in ("optimizer_state_dict", "epoch"))


def _foreign(path: Path, name: str) -> UserError:
    """Return the error for a file that names a function or class which no data needs."""
    if name == "TorchScript":
        return UserError(
            f"{path.name} is a TorchScript program, not a checkpoint; reading it would run code.",
            where=str(path),
            fix="use the checkpoint that it was made from",
        )
    plain_file = path.with_name(f"{path.stem}-weights.pth")
    # What is kept is the weights under every name that they may have, or all of a plain state dict.
    program = (
        "import torch; "
        f'c = torch.load({json.dumps(str(path))}, map_location="cpu", weights_only=False); '
        'c = {"net": c} if hasattr(c, "state_dict") else c; '
        'k = {n: c[n] for n in ("ema_net", "net", "state_dict") if n in c} or c; '
        'k = {n: v.state_dict() if hasattr(v, "state_dict") else v for n, v in k.items()}; '
        f"torch.save(k, {json.dumps(str(plain_file))})"
    )
    return UserError(
        f"{path.name} contains more than weights: reading it would run code ({name}), so it is refused.",
        where=str(path),
        expected="a checkpoint of tensors, numbers, strings, lists and dicts",
        fix=f"if you trust the file, save only its weights: python -c {shlex.quote(program)}",
    )


def _damaged(path: Path) -> UserError:
    """Return the error for a file that can't be read."""
    return UserError(
        f"{path.name} is not a supported checkpoint, or it is damaged.",
        where=str(path),
        expected="a .pth file written by torch.save, or .safetensors",
        fix="download or copy the file again",
    )


def _module_state(content: Any) -> Any:
    """Return the state dict of a whole network that was saved as it was; other content is returned as it is."""
    if not isinstance(content, Record) or not isinstance(content.state, dict) or "_modules" not in content.state:
        return content
    found: dict[str, Any] = {}
    stack: list[tuple[str, Any, int]] = [("", content, 0)]
    while stack:
        above, module, depth = stack.pop()
        state = module.state if isinstance(module, Record) else None
        if not isinstance(state, dict) or depth > DEEPEST:
            continue
        for kind in ("_parameters", "_buffers"):
            own = state.get(kind)
            found |= {f"{above}{name}": value for name, value in own.items() if value} if isinstance(own, dict) else {}
        inner = state.get("_modules")
        for name, child in inner.items() if isinstance(inner, dict) else ():
            stack.append((f"{above}{name}.", child, depth + 1))
    return found


def _weights_in(content: Any, path: Path, kind: type[Any]) -> tuple[str, Mapping[str, Any]]:
    """Return (name, state dict) within what a checkpoint holds; its values are of the kind."""
    if isinstance(content, Mapping):
        for nest in (*NESTS, ""):
            inner = _module_state(content.get(nest)) if nest else content
            if isinstance(inner, Mapping) and inner and all(isinstance(each, kind) for each in inner.values()):
                return nest, inner
    found = shorten([str(name) for name in content], 12) if isinstance(content, Mapping) else type(content).__name__
    raise UserError(
        f"{path.name} contains no weights that Eyas can read; it has: {found or 'nothing'}.",
        where=str(path),
        expected="tensors by name, at the top level or under one of " + ", ".join(NESTS),
    )


def _without_other_nets(state: Mapping[Any, Any], path: Path) -> dict[str, Any]:
    """Return the part of a state dict that is the network, without a name that stands before all of it.

    Of several, as a training module has its network and the average of it, the average is taken.
    """
    named = {WRAPPERS.sub("", str(name)): value for name, value in state.items()}
    above = sorted({name.removesuffix(head) for name in named for head in FIRST_HEADS if name.endswith(f".{head}")})
    if not above or any(head in named for head in FIRST_HEADS):
        return named
    averaged = [name for name in above if name.split(".")[0] in ("ema_net", "ema", "ema_model")]
    if len(above) > 1 and len(averaged) != 1:
        raise UserError(
            f"{path.name} contains several networks: {shorten([name.rstrip('.') for name in above])}.",
            where=str(path),
            expected="one network",
            fix="save the weights of one network under 'net'",
        )
    prefix = averaged[0] if averaged else above[0]
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


def _plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {WRAPPERS.sub("", name): tensor for name, tensor in state.items() if not name.endswith(CONSTANTS)}
