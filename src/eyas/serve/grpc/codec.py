"""The Open Inference Protocol's messages over gRPC: what they hold, in both directions."""

from __future__ import annotations

from collections.abc import Mapping

from eyas.serve.api import Answer
from eyas.serve.errors import ServeError, quoted
from eyas.serve.grpc.protocol import inference_pb2 as pb
from eyas.serve.limits import Limits
from eyas.serve.oip.detection import InferRequest, Parameter, check_output, to_tensors
from eyas.serve.oip.images import (
    BYTES,
    IMAGES,
    MAX_RANK,
    MAX_TENSORS,
    Images,
    check_names,
    checked_shape,
    from_files,
    from_raw,
    from_values,
)


def has_numbers(message: pb.ModelInferRequest) -> bool:
    """Return whether an input has its numbers one by one, which takes long to read."""
    return any(entry.HasField("contents") and entry.datatype != BYTES for entry in message.inputs[:MAX_TENSORS])


def parse_request(message: pb.ModelInferRequest, limits: Limits) -> InferRequest:
    """Return what the message asks.

    Raises:
        ServeError: whatever is wrong with it.
    """
    if max(len(message.inputs), len(message.outputs), len(message.raw_input_contents)) > MAX_TENSORS:
        raise ServeError("invalid", f"A request has at most {MAX_TENSORS} inputs and outputs.")
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise ServeError("invalid", f"There are {len(raw)} raw contents for {len(message.inputs)} inputs.")
    check_names([entry.name for entry in message.inputs])
    images = _images(message.inputs[0], raw[0] if raw else None, limits)
    for output in message.outputs:
        check_output(output.name, "classification" in output.parameters)
    outputs = {output.name: True for output in message.outputs}
    return InferRequest(message.id, images, outputs, _parameters(message.parameters), binary=True)


def _images(entry: pb.ModelInferRequest.InferInputTensor, raw: bytes | None, limits: Limits) -> Images:
    shape = checked_shape(entry.datatype, entry.shape[: MAX_RANK + 1], limits)
    if any(key.startswith("shared_memory") for key in entry.parameters):
        raise ServeError("invalid", "Shared memory is not supported.")
    typed = {field.name: values for field, values in entry.contents.ListFields()}
    if raw is not None:
        if typed:
            raise ServeError("invalid", f"The input '{IMAGES}' has both typed and raw contents.")
        return from_raw(entry.datatype, shape, raw)
    wanted = "bytes_contents" if entry.datatype == BYTES else "uint_contents"
    if typed.keys() - {wanted}:
        raise ServeError("invalid", f"The contents of '{IMAGES}' are not those of {entry.datatype}.")
    values = typed.get(wanted, ())
    return from_files(shape, values) if entry.datatype == BYTES else from_values(shape, values)


def _parameters(given: Mapping[str, pb.InferParameter]) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for name, value in given.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is None:
            raise ServeError("invalid", f"The parameter {quoted(name)} has no value.")
        found[name] = getattr(value, kind)
    return found


def to_message(answer: Answer, infer: InferRequest) -> pb.ModelInferResponse:
    """Return the answer's message; tensors are raw."""
    message = pb.ModelInferResponse(
        model_name=answer.model.name, model_version=answer.model.version, id=infer.id or answer.id
    )
    for name, datatype, array in to_tensors(answer, infer.outputs):
        message.outputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_output_contents.append(array.tobytes())
    return message
