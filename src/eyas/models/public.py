"""Reading the published YOLO-NAS checkpoints (S, M, L) without running any code that they may carry.

The code of YOLO-NAS is Apache-2.0, **the published weights are not**: their licence forbids commercial use and making
other models from them. Read it before you use what `load_public` returns; Eyas neither ships nor needs such weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eyas.errors import UserError
from eyas.models.weights import load_state, read_state
from eyas.models.yolo_nas import YoloNas
from eyas.models.zoo import build, resolve

PUBLIC_NAMES = ("yolo_nas_s", "yolo_nas_m", "yolo_nas_l")
NESTS = ("ema_net", "net", "state_dict")  # the averaged weights first: they are the ones that were evaluated
FIRST_HEAD = "heads.head1.cls_pred.weight"  # [classes, width]; the width tells the sizes apart
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


class PublicModel(NamedTuple):
    """A network from a published checkpoint.

    Attributes:
        name: "yolo_nas_s", "yolo_nas_m" or "yolo_nas_l".
        net: the network, with the checkpoint's weights; fused if the checkpoint was.
    """

    name: str
    net: YoloNas


def load_public(path: Path) -> PublicModel:
    """Return the network that a published YOLO-NAS checkpoint holds; its size is found from the tensors' shapes.

    The published weights are licensed for non-commercial use only.

    Args:
        path: a `.pth` or `.pt` file, or the same tensors as `.safetensors`.

    Raises:
        UserError: the file is missing, holds code, or its tensors are not those of S, M or L; the first few are named.
    """
    state = read_checkpoint(path)
    name = detect_size(state, str(path))
    net = build(name, len(state[FIRST_HEAD]))
    return PublicModel(name, load_state(state, net, str(path)))


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the weights in a checkpoint, under the plain names, whichever way they are nested.

    Only tensors and plain containers are read (`weights_only=True`); a pickle that would run code is refused.

    Raises:
        UserError: the file is missing, is no checkpoint, holds code, or holds no weights.
    """
    if path.suffix == ".safetensors":
        return _plain_names(read_state(path))
    if not path.is_file():
        raise UserError(f"There is no file {path.name}.", where=str(path.parent))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise _refusal(path, str(error)) from None
    return _plain_names(_weights_in(content, path))


def _refusal(path: Path, message: str) -> UserError:
    """Return the error for a file that `torch.load` did not read."""
    code = re.search(r"(?:GLOBAL|type|class) ([\w.]+\.[\w.]+)", message)
    if code:
        return UserError(
            f"{path.name} holds more than weights: reading it would run code ({code[1]}), so it is refused.",
            where=str(path),
            expected="a checkpoint of tensors, numbers, strings, lists and dicts",
            fix="if you trust the file, save its weights alone: torch.save({'net': checkpoint['net']}, 'weights.pth')",
        )
    return UserError(
        f"{path.name} is not a checkpoint that can be read, or it is damaged.",
        where=str(path),
        expected="a .pth file of torch.save, or .safetensors",
        fix="get the file again",
    )


def _weights_in(content: Any, path: Path) -> Mapping[str, Tensor]:
    """Return the state dict within what a checkpoint holds."""
    if isinstance(content, Mapping):
        for nest in (*NESTS, None):
            inner = content if nest is None else content.get(nest)
            if isinstance(inner, Mapping) and inner and all(isinstance(each, Tensor) for each in inner.values()):
                return inner
    found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    raise UserError(
        f"{path.name} holds no weights that Eyas knows; it has: {found or 'nothing'}.",
        where=str(path),
        expected="tensors by name, at the top or under one of " + ", ".join(NESTS),
    )


def _plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the `module.` that data-parallel training writes before each name."""
    return {re.sub(r"^(module\.)+", "", name): tensor for name, tensor in state.items() if not name.endswith(CONSTANTS)}


def detect_size(state: Mapping[str, Tensor], where: str = "weights") -> str:
    """Return the name of the published size that the weights are of.

    Raises:
        UserError: the first head's width is none of the three, or other tensors don't fit the size; they are named.
    """
    head = state.get(FIRST_HEAD)
    if head is None or head.dim() != 4:
        raise UserError(
            f"The weights are not YOLO-NAS's: there is no {FIRST_HEAD}.",
            where=where,
            expected="the tensors of YOLO-NAS S, M or L",
        )
    widths = {name: resolve(name).head_widths[0] for name in PUBLIC_NAMES}
    for name, width in widths.items():
        if width == head.shape[1]:
            return name
    raise UserError(
        f"The weights are of no published size: {FIRST_HEAD} has {head.shape[1]} input channels.",
        where=where,
        expected=" or ".join(f"{width} ({name})" for name, width in widths.items()),
    )
