"""What a detector is in the Open Inference Protocol: its tensors, its parameters, and its metadata.

Its input is told in `eyas.serve.oip.images`. Its outputs, padded to the largest number found D: "boxes" FP32 [N, D, 4]
(xyxy pixels of the image), "scores" FP32 [N, D], "labels" INT64 [N, D] (-1 where padded), "num_detections" INT64 [N].
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from eyas.errors import suggest
from eyas.serve.api import Answer, Engine, Lane, ModelStatus, Options, Request
from eyas.serve.engine.routing import find
from eyas.serve.errors import ServeError, quoted
from eyas.serve.limits import check_model
from eyas.serve.oip.images import BYTES, IMAGES, Images
from eyas.serve.request_options import class_names, suppression

OUTPUTS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "boxes": ("FP32", (-1, -1, 4)),
    "scores": ("FP32", (-1, -1)),
    "labels": ("INT64", (-1, -1)),
    "num_detections": ("INT64", (-1,)),
}
EXTENSIONS = ("binary_tensor_data", "parameters", "schedule_policy", "sequence")
INPUTS: tuple[dict[str, Any], ...] = (
    {"name": IMAGES, "datatype": BYTES, "shape": [-1]},
    {"name": IMAGES, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
)
Parameter = bool | int | float | str
PARAMETERS: Mapping[str, tuple[type, ...]] = {
    "confidence": (int, float),
    "iou": (int, float),
    "suppression": (str,),
    "classes": (str,),
    "max_detections": (int,),
    "timeout": (int,),  # microseconds; 0 is Triton's "none"
    "priority": (int,),
    "sequence_id": (int, str),
}
LANES: Mapping[int, Lane] = {0: "interactive", 1: "interactive", 2: "stream", 3: "batch"}  # by priority, 0 the default
# What clients of Triton add on their own; nothing here depends on it.
_IGNORED = frozenset(
    {"sequence_start", "sequence_end", "triton_enable_empty_final_response", "binary_data_output", "headers"}
)


@dataclass(frozen=True)
class InferRequest:
    """An inference request, whatever transport brought it.

    Attributes:
        id: the client's id, "" for none.
        images: of its input.
        outputs: name of each that is wanted -> whether it is sent as raw bytes; empty for all.
        parameters: of the request.
        binary: whether outputs that are not named come as raw bytes.
    """

    id: str
    images: Images
    outputs: Mapping[str, bool] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    binary: bool = False


def check_output(name: str, classification: bool) -> None:
    """Refuse an output that a detector does not have; `classification` is whether its classes are to be ranked."""
    if classification:
        raise ServeError("invalid", "The classification extension does not apply to a detector.")
    if name not in OUTPUTS:
        raise ServeError("invalid", f"There is no output {quoted(name)}; the outputs are {', '.join(OUTPUTS)}.")


def to_request(
    infer: InferRequest, *, model: str, version: str, request_id: str, headers: Mapping[str, str], stream: str = ""
) -> Request:
    """Return the engine's request.

    Args:
        infer: the protocol's request.
        model, version: from the path or the message.
        request_id: the id to use where the client gave none.
        headers: the client's headers, lower-case names.
        stream: id of the connection, which a sequence_id belongs to.

    Raises:
        ServeError: a parameter is none of a detector's.
    """
    given = parameters(infer.parameters)
    sequence, timeout = str(given.get("sequence_id") or ""), given.get("timeout")
    priority, most = int(given.get("priority", 0)), given.get("max_detections")
    if priority not in LANES:
        raise ServeError("invalid", "The priority must be 0 or 1 (interactive), 2 (stream) or 3 (batch).")
    options = Options(
        confidence=_float(given.get("confidence")),
        iou=_float(given.get("iou")),
        suppression=suppression(str(given["suppression"])) if "suppression" in given else None,
        classes=class_names(str(given.get("classes", ""))),
        max_detections=None if most is None else int(most),
    )
    return Request(
        id=infer.id or request_id,
        model=model,
        version=version,
        images=infer.images,
        options=options,
        timeout=float(timeout) / 1e6 if timeout else None,
        lane=LANES[priority],
        stream=f"{stream}/{sequence}" if sequence and sequence != "0" else "",
        headers=headers,
    )


def parameters(given: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Return the parameters that are ours, each of the right type; an unknown one is refused."""
    found: dict[str, Parameter] = {}
    for name, value in given.items():
        if name in _IGNORED:
            continue
        if name not in PARAMETERS:
            raise ServeError("invalid", f"Unknown parameter {quoted(name)}{suggest(name[:64], PARAMETERS)}.")
        if isinstance(value, bool) or not isinstance(value, PARAMETERS[name]):
            raise ServeError("invalid", f"The parameter '{name}' has the wrong type.")
        if name == "timeout" and not 0 <= float(value) <= 1e15:
            raise ServeError("invalid", "The timeout is out of range; it is in microseconds.")
        found[name] = value
    return found


def _float(value: Parameter | None) -> float | None:
    try:
        return None if value is None else float(value)
    except OverflowError:
        return float("inf")  # refused with the other values out of range


def to_tensors(answer: Answer, wanted: Collection[str]) -> Iterator[tuple[str, str, npt.NDArray[Any]]]:
    """Yield name, datatype and little-endian array of the outputs that are wanted, in that order; all if none is."""
    found, size = answer.detections, max(map(len, answer.detections), default=0)
    boxes = np.zeros((len(found), size, 4), "<f4")
    scores = np.zeros((len(found), size), "<f4")
    labels = np.full((len(found), size), -1, "<i8")
    for row, each in enumerate(found):
        boxes[row, : len(each)] = each.boxes
        scores[row, : len(each)] = each.scores
        labels[row, : len(each)] = each.labels
    numbers = np.array([len(each) for each in found], "<i8")
    arrays = {"boxes": boxes, "scores": scores, "labels": labels, "num_detections": numbers}
    for name in wanted or OUTPUTS:
        yield name, OUTPUTS[name][0], arrays[name]


def find_model(engine: Engine, name: str, version: str = "") -> ModelStatus:
    """Return the version that the name stands for: the given one, else the default, else the newest ready one.

    Raises:
        ServeError: there is none.
    """
    check_model(name, version)
    return find(name, version, engine.models())


def model_metadata(engine: Engine, name: str, version: str = "") -> dict[str, Any]:
    """Return the metadata document of a model."""
    status = find_model(engine, name, version)
    told: dict[str, Any] = {"accepts": list(INPUTS)}
    if status.manifest is not None:
        told |= {"classes": list(status.manifest.classes), "version": status.key.version}
    return {
        "name": name,
        "versions": [each.key.version for each in engine.models() if each.key.name == name and each.state == "ready"],
        "platform": "eyas" if status.manifest is None else f"eyas_{status.manifest.target}",
        "inputs": [INPUTS[0]],  # one entry an input, or clients would send two
        "outputs": [
            {"name": output, "datatype": kind, "shape": list(shape)} for output, (kind, shape) in OUTPUTS.items()
        ],
        "parameters": told,
    }


def server_metadata() -> dict[str, Any]:
    """Return the metadata document of the server."""
    from importlib.metadata import version

    return {"name": "eyas", "version": version("eyas"), "extensions": list(EXTENSIONS)}


def repository_index(engine: Engine, *, ready: bool = False) -> list[dict[str, str]]:
    """Return the models as the repository extension lists them; `ready` leaves out those that are not."""
    states = {"ready": "READY", "loading": "LOADING", "draining": "UNLOADING"}
    return [
        {
            "name": each.key.name,
            "version": each.key.version,
            "state": states.get(each.state, "UNAVAILABLE"),
            "reason": each.reason,
        }
        for each in engine.models()
        if each.state == "ready" or not ready
    ]


def check_load(model: str, version: str, parameters: Collection[str]) -> None:
    """Refuse to load or unload by anything else than a version: an artefact in the request itself is never loaded."""
    unknown = sorted(set(parameters) - {"version", "unload_dependents"})
    if unknown:
        raise ServeError("invalid", f"The parameter {quoted(unknown[0])} is not served: name a version only.")
    check_model(model, version)
