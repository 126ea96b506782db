"""Surgery: replacing modules by their type, and cutting a smaller network's weights out of a larger one's."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eyas.errors import UserError, shorten
from eyas.models.backbones import backbone_row
from eyas.models.heads import HEADS
from eyas.models.neck import neck_widths
from eyas.models.spec import StageSpec, YoloNasSpec
from eyas.models.widths import LayerWidths, Layout, Parts, below

State = Mapping[str, Tensor]
Rules = Mapping[type[nn.Module], Callable[[Any], nn.Module]]

IGNORED = frozenset({"bits"})  # fields of a spec that say nothing of the weights


def replace_modules(
    net: nn.Module, rules: Rules, wanted: Callable[[str, nn.Module], bool] = lambda *_: True
) -> nn.Module:
    """Return a copy of a network in which modules are replaced; the one that is given stays as it is.

    A module that a rule is for is a whole: it is replaced or left, and nothing inside it is looked at. One that stands
    in several places is replaced by one.

    Args:
        net: the network, or a part of one.
        rules: a type -> what makes the replacement of a module of it (of the nearest type, where several have rules).
            It is given the copy's module, and may use its parts.
        wanted: says of each module that a rule is for, by its name and itself, whether it is to be replaced.
    """
    done: dict[nn.Module, nn.Module] = {}

    def operate(name: str, module: nn.Module) -> nn.Module:
        if module in done:
            return done[module]
        done[module] = module
        rule = next((rules[kind] for kind in type(module).__mro__ if kind in rules), None)
        if rule is not None:
            done[module] = rule(module) if wanted(name, module) else module
        else:
            for own, child in module.named_children():
                module.register_module(own, operate(f"{name}.{own}" if name else own, child))
        return done[module]

    return operate("", copy.deepcopy(net))


def slice_state(state: State, big: YoloNasSpec, small: YoloNasSpec) -> dict[str, Tensor]:
    """Return a smaller network's weights, cut out of a larger one's: of everything the first.

    Of each layer the first channels are kept; of an input that is put together from several tensors, the first of each;
    of a stage the first bottlenecks; of a kernel of 5 the middle 3 x 3; of a box's bins the first of each side. So
    where the larger network's other weights are zero, both give the same answers.

    Args:
        state: the larger network's weights, trained or fused; with any number of classes, which stays.
        big: their spec.
        small: the spec wanted: nowhere wider, deeper, of larger kernels or of other kinds than `big`.

    Returns:
        copies: changing them leaves the larger network's alone.

    Raises:
        UserError: the smaller network is no part of the larger one, or the weights are not `big`'s; what stands against
            it is named.
    """
    against = list(_against(big, small, ""))
    if against:
        raise UserError(
            f"The smaller network is not part of the larger one: {shorten(against)}.",
            expected="no wider, deeper, no larger kernels and the same kinds of blocks",
        )
    whole, wanted = layout_of(big), layout_of(small)
    cut = {}
    for name, tensor in state.items():
        layer = name
        while layer and layer not in whole:
            layer = layer.rpartition(".")[0]
        if not layer:
            raise UserError(f"The weights do not belong to the larger network: it has no {name}.", where="weights")
        if layer in wanted:
            depthwise = name[len(layer) :].startswith(".depthwise.")
            cut[name] = _cut(name, tensor, whole[layer], wanted[layer], depthwise)
    return cut


def layout_of(spec: YoloNasSpec) -> Layout:
    """Return the channels of every layer of a network, by the layer's name."""
    backbone, (_, p3, p4, p5) = backbone_row(spec.backbone), (stage.channels for stage in spec.neck)
    return {
        **below("backbone", backbone.widths(spec)),
        **below("neck", neck_widths(spec, backbone.channels(spec))),
        **below("heads", HEADS[spec.head].widths(spec, (p3, p4, p5))),
    }


def _against(big: YoloNasSpec | StageSpec, small: YoloNasSpec | StageSpec, above: str) -> Iterator[str]:
    """Yield what keeps the network or stage `small` from being a part of `big`."""
    for entry in dataclasses.fields(big):
        theirs, ours, name = getattr(big, entry.name), getattr(small, entry.name), above + entry.name
        if entry.name in IGNORED or entry.name.endswith("_bits"):
            continue
        pairs = zip(theirs, ours, strict=True) if isinstance(theirs, tuple) else [(theirs, ours)]
        for number, (has, wants) in enumerate(pairs, 1):
            label = f"{name} {number}" if isinstance(theirs, tuple) else name
            if isinstance(has, StageSpec):
                yield from _against(has, wants, f"{label}, ")
            elif (wants > has) if type(has) is int else (wants != has):
                yield f"{label} is {wants}, not {has}"


def _cut(name: str, tensor: Tensor, whole: LayerWidths, wanted: LayerWidths, depthwise: bool) -> Tensor:
    """Return the part of a tensor of a layer that the smaller network has.

    Args:
        name: for the error.
        tensor: a scalar; [out]; or [out, in, k, k], of which only the first is to be cut if it is a depthwise one's.
        whole, wanted: the layer's channels in both networks.
        depthwise: whether it is of a depthwise convolution, which has as many outputs as inputs.
    """
    outs = (whole.ins, wanted.ins) if depthwise else (whole.outs, wanted.outs)
    ins = (None, None) if depthwise else (whole.ins, wanted.ins)
    for dim, (theirs, ours) in enumerate((outs, ins)[: min(tensor.dim(), 2)]):
        if theirs is None or ours is None:
            continue
        if tensor.shape[dim] != sum(theirs.values()):
            raise UserError(
                f"The weights do not belong to the larger network: {name} is {list(tensor.shape)}.",
                where="weights",
                expected=f"{sum(theirs.values())} channels",
            )
        tensor = tensor.index_select(dim, _kept(theirs, ours).to(tensor.device))
    size = tensor.shape[-1] if tensor.dim() == 4 else 0
    if size > wanted.kernel:
        edge = (size - wanted.kernel) // 2
        tensor = tensor[:, :, edge:-edge, edge:-edge]
    return tensor.clone(memory_format=torch.contiguous_format)


def _kept(theirs: Parts, ours: Parts) -> Tensor:
    """Return which of the larger network's channels the smaller one has: the first of each part, int64."""
    starts, position = {}, 0
    for label, count in theirs.items():
        starts[label], position = position, position + count
    return torch.cat([torch.arange(starts[label], starts[label] + count) for label, count in ours.items()])
