"""Weights on disk (safetensors), loading them with errors that name the tensors, and giving a head other classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from eyas.errors import UserError
from eyas.files import atomic_path
from eyas.models.detection_net import DetectionNet, head_row_of
from eyas.models.fuse import fused_where
from eyas.models.layers import PLACEHOLDER, ConvBnAct, QARepVGG, TrainingOnly
from eyas.models.public_form import State, from_public_state, to_public_state, unfold_blocks

Net = TypeVar("Net", bound=nn.Module)
# Kind of layer -> (a tensor that it has as it is trained only, one that it has when it is fused).
FORMS: Mapping[type[nn.Module], tuple[str, str]] = {
    QARepVGG: ("branch_3x3.conv.weight", f"{PLACEHOLDER}.weight"),
    ConvBnAct: ("bn.running_mean", "conv.bias"),
}
HEAD = "heads."  # begins the names of the head's tensors
SHOWN = 5  # how many names an error lists


def save_model(net: nn.Module, path: Path) -> None:
    """Write the network's weights to `path` atomically, as safetensors in the public form (`to_public_state`).

    Raises:
        UserError: the disk is full; what stood at `path` before is untouched.
    """
    # safetensors wants plain memory order; channels_last is a way to compute, not a property of the weights.
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in to_public_state(net.state_dict()).items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(state, {"format": "pt"}))


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise UserError(f"There is no file {path.name}.", where=str(path.parent)) from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path.name} can't be read as safetensors: {error}.",
            where=str(path),
            expected="a safetensors file",
        ) from None


def load_model(path: Path, net: Net) -> Net:
    """Return the network with the weights of the safetensors file at `path`; see `load_state`."""
    return load_state(read_state(path), net, str(path))


def load_state(state: State, net: Net, where: str = "weights") -> Net:
    """Return the network with these weights.

    Args:
        state: the weights, of the network as it is trained or of one that is fused, wholly or in part.
        net: a network of the same spec and number of classes, as it is trained. Weights of that form are loaded into
            it, and it is returned, also those whose blocks are fused in part (see `unfold_blocks`); weights of a fused
            network come back in a copy that is fused as far.
        where: what an error names as the place.

    Raises:
        UserError: tensors are missing, of another shape, or unknown; the first few are named.
    """
    state = unfold_blocks(from_public_state(state), net)
    target = _in_form_of(state, net)
    check_state(state, target, where)
    target.load_state_dict(state)
    return target


def _in_form_of(state: State, net: Net) -> Net:
    return fused_where(net, lambda name, part: _fused_part(state, name, part)) if _is_fused(state, net) else net


def _is_fused(state: State, net: nn.Module) -> bool:
    return any(_fused_part(state, name, part) for name, part in net.named_modules())


def _fused_part(state: State, name: str, part: nn.Module) -> bool:
    """Return whether the weights have a part of the network in its fused form."""
    if isinstance(part, TrainingOnly):
        return not any(each.startswith(f"{name}.") for each in state)
    if type(part) not in FORMS:
        return False
    trained, fused = FORMS[type(part)]
    return f"{name}.{trained}" not in state and f"{name}.{fused}" in state


def check_state(state: State, net: nn.Module, where: str) -> None:
    """Raise a UserError unless the weights have exactly the network's names and shapes."""
    own = net.state_dict()
    wrong = [
        f"{name} is {_shape(state[name])}, not {_shape(own[name])}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    for problem, names in (
        ("tensors have another shape", wrong),
        ("tensors are missing", [name for name in own if name not in state]),
        ("tensors are unknown", [name for name in state if name not in own]),
    ):
        if names:
            raise UserError(
                f"The weights don't fit the model: {len(names)} {problem}: {_first(names)}.",
                where=where,
                expected=f"the {len(own)} tensors of this model",
                fix="use the model size and the classes that the weights were made with",
            )


def transfer(
    state: State, from_classes: Sequence[str] | None, to_classes: Sequence[str], net: nn.Module
) -> tuple[str, ...]:
    """Load weights that were trained on other classes; return the names of the classes that kept their rows.

    Everything is loaded as it is but the class predictions: a class that both sides have, whatever its place, keeps its
    weights and bias, a new one keeps the net's own initialization. Names are compared without regard to case and to
    spaces, underscores and hyphens ("traffic light" is "Traffic_Light").

    Args:
        state: weights of a network as it is trained, of the net's spec, for `from_classes`.
        from_classes: class names, in label order, of the weights; None where nobody knows: no class keeps its rows.
        to_classes: class names, in label order, of the net.
        net: changed in place.

    Raises:
        UserError: the weights are fused, tensors don't fit, or the number of names is not the number of rows.
    """
    state = unfold_blocks(from_public_state(state), net)
    if _is_fused(state, net):
        raise UserError(
            "The weights belong to a fused network, which can't be trained further.",
            expected="weights written by training",
            fix="start from the run that the fused network was made from",
        )
    own, marks = net.state_dict(), head_row_of(net).class_rows
    if from_classes is not None:
        _check_names(state, from_classes, "the weights", marks)
    _check_names(own, to_classes, "the model", marks)
    rows_of = matching_rows(from_classes or (), to_classes)
    merged = dict(state)
    for name, tensor in own.items():
        if name in state and any(mark in name for mark in marks):
            rows = tensor.clone()
            if state[name].shape[1:] != rows.shape[1:]:
                continue  # a model of another size: the check below says so
            for to_row, from_row in rows_of.items():
                rows[to_row] = state[name][from_row]
            merged[name] = rows
    check_state(merged, net, "weights")
    net.load_state_dict(merged)
    return tuple(to_classes[row] for row in rows_of)


def matching_rows(from_classes: Sequence[str], to_classes: Sequence[str]) -> dict[int, int]:
    """Return for each row of `to_classes` that `from_classes` also name the row there; see `transfer` for the names."""
    source = {_plain(name): row for row, name in enumerate(from_classes)}
    return {row: source[_plain(name)] for row, name in enumerate(to_classes) if _plain(name) in source}


def with_own_head(state: State, net: DetectionNet) -> dict[str, Tensor]:
    """Return the weights with the net's own head in the place of theirs, which is of another kind."""
    own = {name: value for name, value in net.state_dict().items() if name.startswith(HEAD)}
    return {name: value for name, value in state.items() if not name.startswith(HEAD)} | own


def _check_names(state: State, classes: Sequence[str], whose: str, marks: tuple[str, ...]) -> None:
    """Raise a UserError unless there are as many names as rows in each tensor that has a row for each class."""
    for name, tensor in state.items():
        if any(mark in name for mark in marks) and len(tensor) != len(classes):
            raise UserError(
                f"{len(classes)} class names are given for {whose}, which have {len(tensor)} classes.",
                where=name,
            )


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _first(names: Iterable[str]) -> str:
    every = list(names)
    rest = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + rest
