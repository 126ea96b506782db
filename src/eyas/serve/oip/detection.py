"""What a detector is in the Open Inference Protocol: its tensors, its parameters, and its metadata.

Input "images": UINT8 [N, H, W, 3] (images of any one size) or BYTES [N] (JPEG, PNG, WebP files). Outputs, padded to
the largest number found D: "boxes" FP32 [N, D, 4] (xyxy pixels of the image), "scores" FP32 [N, D], "labels" INT64
[N, D] (-1 where padded), "num_detections" INT64 [N].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from eyas.errors import suggest
from eyas.serve.api import Answer, Engine, ModelStatus, Options, Request
from eyas.serve.engine.routing import find
from eyas.serve.errors import ServeError
from eyas.serve.limits import check_model, lane_of
from eyas.serve.oip.tensors import BYTES, MAX_ITEMS, Array, InferRequest, Parameter, Tensor, quoted
from eyas.types import Suppression, UInt8Array

IMAGES = "images"
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
PARAMETERS = ("confidence", "iou", "suppression", "classes", "max_detections", "timeout", "priority", "sequence_id")
# What clients of Triton add on their own; nothing here depends on it.
_IGNORED = frozenset(
    {"sequence_start", "sequence_end", "triton_enable_empty_final_response", "binary_data_output", "headers"}
)


def to_request(
    infer: InferRequest,
    *,
    model: str,
    version: str,
    request_id: str,
    headers: Mapping[str, str],
    stream: str = "",
    most: int = MAX_ITEMS,
) -> Request:
    """Return the engine's request.

    Args:
        infer: the protocol's request.
        model, version: from the path or the message.
        request_id: the id to use where the client gave none.
        headers: the client's headers, lower-case names.
        stream: id of the connection, which a sequence_id belongs to.
        most: most images.

    Raises:
        ServeError: inputs, outputs or parameters are not a detector's.
    """
    found = parameters(infer.parameters)
    for output in infer.outputs:
        if output.name not in OUTPUTS:
            known = ", ".join(OUTPUTS)
            raise ServeError("invalid", f"There is no output {quoted(output.name)}; the outputs are {known}.")
    sequence = str(found.get("sequence_id") or "")
    timeout = found.get("timeout") or None  # microseconds; 0 is Triton's "none"
    return Request(
        id=infer.id or request_id,
        model=model,
        version=version,
        images=images(infer.inputs, most),
        options=_options(found),
        timeout=None if timeout is None else float(timeout) / 1e6,
        lane=lane_of(int(found.get("priority", 0))),
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
        kinds = {"confidence": (int, float), "iou": (int, float), "suppression": (str,), "classes": (str,)}
        allowed: tuple[type, ...] = kinds.get(name, (int, str) if name == "sequence_id" else (int,))
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise ServeError("invalid", f"The parameter '{name}' has the wrong type.")
        if name == "timeout" and not 0 <= float(value) <= 1e15:
            raise ServeError("invalid", "The timeout is out of range: it counts microseconds.")
        found[name] = value
    return found


def _options(found: Mapping[str, Parameter]) -> Options:
    confidence, iou, most = found.get("confidence"), found.get("iou"), found.get("max_detections")
    return Options(
        confidence=None if confidence is None else _float(confidence),
        iou=None if iou is None else _float(iou),
        suppression=suppression(str(found["suppression"])) if "suppression" in found else None,
        classes=class_names(str(found["classes"])) if "classes" in found else None,
        max_detections=None if most is None else int(most),
    )


def _float(value: Parameter) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")  # refused with the other values out of range


def suppression(text: str) -> Suppression:
    """Return the named suppression."""
    for known in get_args(Suppression):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise ServeError("invalid", "suppression is one of " + ", ".join(get_args(Suppression)) + ".")


def class_names(text: str) -> tuple[str, ...] | None:
    """Return the names in a comma-separated list; None for an empty one, which means all classes."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) or None


def images(inputs: tuple[Tensor, ...], most: int) -> tuple[bytes | UInt8Array, ...]:
    """Return the images of the one input; more than so many are refused."""
    names = [tensor.name for tensor in inputs]
    if names != [IMAGES]:
        raise ServeError("invalid", f"A detector has one input, '{IMAGES}'; given: {quoted(', '.join(names)[:60])}.")
    tensor = inputs[0]
    if tensor.datatype == BYTES:
        if len(tensor.shape) not in (1, 2) or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
            raise ServeError("invalid", f"'{IMAGES}' of BYTES has the shape [N], a file each.")
        return tensor.items
    if tensor.datatype != "UINT8" or tensor.array is None:
        raise ServeError("invalid", f"'{IMAGES}' is UINT8 or BYTES, not {tensor.datatype}.")
    if len(tensor.shape) != 4 or tensor.shape[3] != 3 or 0 in tensor.shape:
        raise ServeError("invalid", f"'{IMAGES}' of UINT8 has the shape [N, height, width, 3].")
    if tensor.shape[0] > most:
        raise ServeError("too_large", f"{tensor.shape[0]} images in a request; at most {most} are allowed.")
    return tuple(tensor.array)


def to_tensors(answer: Answer, infer: InferRequest) -> tuple[Tensor, ...]:
    """Return the output tensors that were asked for, in that order."""
    found, size = answer.detections, max((len(each) for each in answer.detections), default=0)
    count = len(found)
    boxes = np.zeros((count, size, 4), np.float32)
    scores = np.zeros((count, size), np.float32)
    labels = np.full((count, size), -1, np.int64)
    for row, each in enumerate(found):
        boxes[row, : len(each)], scores[row, : len(each)], labels[row, : len(each)] = (
            each.boxes,
            each.scores,
            each.labels,
        )
    numbers = np.array([len(each) for each in found], np.int64)
    arrays: dict[str, Array] = {"boxes": boxes, "scores": scores, "labels": labels, "num_detections": numbers}
    names = dict.fromkeys(output.name for output in infer.outputs) or OUTPUTS
    return tuple(Tensor(name, OUTPUTS[name][0], arrays[name].shape, arrays[name]) for name in names)


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
    versions = [each.key.version for each in engine.models() if each.key.name == name and each.state == "ready"]
    document: dict[str, Any] = {
        "name": name,
        "versions": versions,
        "platform": "eyas" if status.manifest is None else f"eyas_{status.manifest.target}",
        "inputs": [INPUTS[0]],  # one entry an input, or clients would send two
        "outputs": [
            {"name": output, "datatype": kind, "shape": list(shape)} for output, (kind, shape) in OUTPUTS.items()
        ],
    }
    document["parameters"] = {"accepts": list(INPUTS)}
    if status.manifest is not None:
        document["parameters"] |= {"classes": list(status.manifest.classes), "version": status.key.version}
    return document


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
