"""The weights that a timm backbone starts from: where they come from, what their licence allows, and loading them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from eyas.artifacts.card import hash_file
from eyas.errors import UserError, shorten
from eyas.models.backbones.timm_library import PREFIX, import_timm, pyramid_of, weights_config
from eyas.models.backbones.timm_net import TimmBackbone
from eyas.models.checkpoint import read_checkpoint
from eyas.models.detection_net import DetectionNet

PRETRAINED = "pretrained"
RANDOM = "random"
WHERE = "model.backbone_weights"
# Licences by the names that timm has for them. What is in neither has terms of its own, or none that are known.
FREE = re.compile(r"apache-2\.0|mit(-0)?|bsd-[23]-clause|isc|cc0-1\.0|cc-by-4\.0|unlicense", re.IGNORECASE)
NOT_FOR_SALE = re.compile(
    r"cc-by-nc|non-?commercial|research[ -]only|for research|(apple-)?amlr|seer-license", re.IGNORECASE
)
ROW = re.compile(r"(.*?\.)\d+\.")  # of a tensor's name: the list of layers that it is in
COUNT = ".num_batches_tracked"
UNKNOWN = ("", "unknown", "other")


@dataclass(frozen=True)
class BackboneWeights:
    """Which weights a timm backbone starts from, and what timm says of them.

    Attributes:
        name: timm's name of them, with its tag where it is known: "resnet18.a1_in1k".
        origin: where they come from: "hf-hub:OWNER/NAME", of the Hugging Face Hub; an address; or a file.
        made_by: address of who made them, "" where timm does not say.
        licence: its name as timm has it, "" where nothing says it.
        remarks: what timm has to say of them beside.
        file: the local file that they are read from, None where timm fetches them.
    """

    name: str
    origin: str
    made_by: str
    licence: str
    remarks: str
    file: Path | None

    @property
    def forbidden(self) -> bool:
        """Return whether licence or remarks forbid selling what is made from the weights."""
        return bool(NOT_FOR_SALE.search(f"{self.licence} {self.remarks}"))

    def licence_line(self) -> str:
        """Return what the card says: the licence, the weights and their origin."""
        licence = "unknown" if self.licence in UNKNOWN else self.licence
        made_by = f", made by {self.made_by}" if self.made_by else ""
        return f"{licence} (timm's {self.name} from {self.origin}{made_by})"

    def as_parent(self) -> dict[str, str]:
        """Return how the card of a run that starts from them names them."""
        said = {"kind": "backbone", "name": self.name, "licence": self.licence_line()}
        if self.file is None:
            return {**said, "path": self.origin}
        return {**said, "path": str(self.file.resolve()), "sha256": hash_file(self.file)}

    def warning(self) -> str:
        """Return what must be known before something is sold that is made from the weights, "" if nothing must."""
        whose = f"the weights of timm's {self.name} ({self.origin})"
        if self.forbidden:
            return (
                f"LICENCE: {whose} are under '{self.licence}': MODELS TRAINED FROM THEM MAY NOT BE SOLD or used "
                "commercially. Training continues. For a product, start from weights with a free licence; "
                "docs/pretrained.md lists some."
            )
        if self.licence in UNKNOWN:
            return (
                f"LICENCE: the licence of {whose} is unknown. Training continues. Find it out before you sell a model "
                "trained from them."
            )
        if not FREE.fullmatch(self.licence):
            return (
                f"LICENCE: {whose} have their own terms: '{self.licence}'. Training continues. Read them before you "
                "sell a model trained from them."
            )
        return ""


def backbone_weights(backbone: str, weights: str) -> BackboneWeights | None:
    """Return what a timm backbone starts from; None for random weights. Nothing is fetched or read.

    Args:
        backbone: "timm:NAME", NAME perhaps with a tag of timm's weights.
        weights: "pretrained" for timm's, "random", or a file (.safetensors, .pth, .pt, .ckpt).

    Raises:
        UserError: timm is missing, has no such model, or has no weights of it; the model is no pyramid; no such file.
    """
    name = backbone.removeprefix(PREFIX)
    pyramid_of(name)
    config = weights_config(name)
    full = f"{config.architecture or name.partition('.')[0]}.{config.tag}" if config.tag else name
    remarks = " ".join([config.description or "", *(config.notes or ())]).strip()
    said = (config.origin_url or "", config.license or "", remarks)
    if weights == RANDOM:
        return None
    if weights != PRETRAINED:
        if not Path(weights).is_file():
            raise UserError(
                f"There are no weights at {weights}.",
                where=WHERE,
                expected=f"{PRETRAINED}, {RANDOM}, or a file with the weights of timm's {name.partition('.')[0]}",
            )
        # Which of timm's weights a file holds, if any, only who names the tag knows.
        return BackboneWeights(name, weights, *(said if "." in name else ("", "", "")), Path(weights))
    if not config.has_weights:
        raise UserError(
            f"timm has no weights for {name}.",
            where=WHERE,
            expected="a model listed by timm.list_models(pretrained=True)",
            fix=f"give your own file with --{WHERE} FILE, or start from random weights: --{WHERE} {RANDOM}",
        )
    url = config.url[0] if isinstance(config.url, tuple | list) else config.url
    return BackboneWeights(full, f"hf-hub:{config.hf_hub_id}" if config.hf_hub_id else url, *said, None)


def load_backbone(net: DetectionNet, weights: BackboneWeights) -> str:
    """Load the weights that a network's backbone starts from into it; return a line on what was done.

    Args:
        net: one with a backbone of timm; changed in place.
        weights: what `backbone_weights` returned for that backbone.

    Raises:
        UserError: the weights can't be fetched or read, or are of another architecture.
    """
    assert isinstance(net.backbone, TimmBackbone)
    name, features = net.spec.backbone.removeprefix(PREFIX), net.backbone.net
    state = _fetched(name, weights) if weights.file is None else _read(weights.file, features, name)
    features.load_state_dict(state)
    return f"the backbone starts from timm's {weights.name} ({weights.origin}): {len(state)} tensors"


def _fetched(name: str, weights: BackboneWeights) -> Mapping[str, Tensor]:
    """Return the state of timm's weights, which it takes from its cache or fetches."""
    pyramid = pyramid_of(name)
    try:
        with torch.random.fork_rng(devices=()):  # the weights it would have had at first are drawn and let go
            net = import_timm().create_model(name, pretrained=True, features_only=True, out_indices=pyramid.indices)
    except Exception as error:  # of the hub's client, the network, the disk and the file's reader
        text = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"The weights of timm's {weights.name} can't be downloaded: {type(error).__name__}: {text}",
            where=weights.origin,
            expected="access to the Hugging Face Hub, or these weights in its cache",
            fix=f"download model.safetensors of {weights.origin} on a machine with network access, and give it: "
            f"--{WHERE} model.safetensors (or start from random weights: --{WHERE} {RANDOM})",
        ) from None
    state: Mapping[str, Tensor] = net.state_dict()
    return state


def _read(path: Path, net: nn.Module, name: str) -> dict[str, Tensor]:
    """Return the state of a model's features from a file of the whole model's weights, or of the features alone."""
    given, own = read_checkpoint(path).state, net.state_dict()
    names = {_plain(key): key for key in given}
    # Counts of batches mean nothing here, and some files leave them out.
    counts = {key: tensor for key, tensor in own.items() if key.endswith(COUNT)}
    wanted = {key: tensor for key, tensor in own.items() if key not in counts}
    found = {key: given[names[_plain(key)]] for key in wanted if _plain(key) in names}
    fitting = {key: tensor for key, tensor in found.items() if tensor.shape == wanted[key].shape}
    if absent := [key for key in wanted if key not in fitting]:
        first = absent[0]
        why = f"is {list(found[first].shape)}, not {list(wanted[first].shape)}" if first in found else "is missing"
        raise _other(path, name, f"{len(fitting)} of {len(wanted)} tensors match; {first} {why}")
    if more := _further_layers(given, name):
        raise _other(
            path, name, f"its {len(wanted)} tensors match, but the file has further layers: {shorten(more, 2)}"
        )
    return counts | fitting


def _further_layers(given: Iterable[str], name: str) -> list[str]:
    """Return tensors of a file that would be of further layers in a row that the model has: of a deeper model."""
    with torch.device("meta"):
        whole = import_timm().create_model(name.partition(".")[0]).state_dict()
    known = {_plain(key) for key in whole}
    rows = {match[1] for key in known if (match := ROW.match(key))}
    others = [key for key in given if _plain(key) not in known and not key.endswith(COUNT)]
    return [key for key in others if (match := ROW.match(_plain(key))) and match[1] in rows]


def _other(path: Path, name: str, why: str) -> UserError:
    """Return the error for a file of another model."""
    return UserError(
        f"The weights do not belong to timm's {name}: {why}.",
        where=str(path),
        expected=f"the tensors of timm's {name}, under timm's names",
        fix=f"name the model that the file belongs to (--model.backbone {PREFIX}NAME), or use timm's own file of "
        f"{name}",
    )


def _plain(name: str) -> str:
    return re.sub(r"^(model|body)\.", "", name).replace("_", ".")
