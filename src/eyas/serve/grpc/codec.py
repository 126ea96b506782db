"""The Open Inference Protocol's messages over gRPC: what they hold, in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eyas.serve.api import Answer
from eyas.serve.errors import ServeError
from eyas.serve.grpc.protocol import inference_pb2 as pb
from eyas.serve.oip.detection import to_tensors
from eyas.serve.oip.tensors import (
    BYTES,
    DATATYPES,
    MAX_ITEMS,
    MAX_RANK,
    InferRequest,
    Parameter,
    RequestedOutput,
    Tensor,
    check_datatype,
    check_shape,
    from_raw,
    from_values,
    quoted,
    to_raw,
)

MAX_TENSORS = 64
# Datatype -> the field that holds its values where they are not sent raw. FP16 comes raw only.
_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


def has_numbers(message: pb.ModelInferRequest) -> bool:
    """Return whether an input has its numbers one by one, which takes long to read."""
    return any(entry.HasField("contents") and entry.datatype != BYTES for entry in message.inputs[:MAX_TENSORS])


def parse_request(message: pb.ModelInferRequest, images: int = MAX_ITEMS) -> InferRequest:
    """Return what the message asks.

    Args:
        message: the message.
        images: most images.

    Raises:
        ServeError: whatever is wrong with it.
    """
    if max(len(message.inputs), len(message.outputs), len(message.raw_input_contents)) > MAX_TENSORS:
        raise ServeError("invalid", f"A request has at most {MAX_TENSORS} inputs and outputs.")
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise ServeError("invalid", f"There are {len(raw)} raw contents for {len(message.inputs)} inputs.")
    names = [entry.name for entry in message.inputs]
    if len(set(names)) != len(names):
        raise ServeError("invalid", "An input is given twice.")
    inputs = tuple(_tensor(entry, raw[at] if raw else None, images) for at, entry in enumerate(message.inputs))
    outputs = []
    for output in message.outputs:
        if "classification" in output.parameters:
            raise ServeError("invalid", "The classification extension makes no sense for a detector.")
        outputs.append(RequestedOutput(output.name, binary=True))
    return InferRequest(message.id, inputs, tuple(outputs), _parameters(message.parameters), binary=True)


def _tensor(entry: pb.ModelInferRequest.InferInputTensor, raw: bytes | None, images: int) -> Tensor:
    name = entry.name
    check_datatype(entry.datatype, name)
    shape = check_shape(entry.shape[: MAX_RANK + 1], name)
    if any(key.startswith("shared_memory") for key in entry.parameters):
        raise ServeError("invalid", "Shared memory is not served.")
    fields = {field.name for field, _ in entry.contents.ListFields()}
    if raw is not None:
        if fields:
            raise ServeError("invalid", f"The input {quoted(name)} has both typed and raw contents.")
        return from_raw(name, entry.datatype, shape, raw, most=images)
    wanted = _CONTENTS.get(entry.datatype)
    if fields - {wanted} or wanted is None:
        raise ServeError("invalid", f"The contents of {quoted(name)} are not those of {entry.datatype}.")
    return from_values(name, entry.datatype, shape, _values(entry.contents, wanted), most=images)


def _values(contents: pb.InferTensorContents, name: str) -> Sequence[object]:
    field = pb.InferTensorContents.DESCRIPTOR.fields_by_name[name]
    return next((value for each, value in contents.ListFields() if each.number == field.number), ())


def _parameters(given: Mapping[str, pb.InferParameter]) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for name, value in given.items():
        kind = value.WhichOneof("parameter_choice")
        if kind == "bool_param":
            found[name] = value.bool_param
        elif kind == "int64_param":
            found[name] = value.int64_param
        elif kind == "uint64_param":
            found[name] = value.uint64_param
        elif kind == "double_param":
            found[name] = value.double_param
        elif kind == "string_param":
            found[name] = value.string_param
        else:
            raise ServeError("invalid", f"The parameter {quoted(name)} has no value.")
    return found


def to_message(answer: Answer, infer: InferRequest) -> pb.ModelInferResponse:
    """Return the answer's message; tensors are raw."""
    message = pb.ModelInferResponse(
        model_name=answer.model.name, model_version=answer.model.version, id=infer.id or answer.id
    )
    for tensor in to_tensors(answer, infer):
        assert tensor.datatype in DATATYPES
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_output_contents.append(to_raw(tensor))
    return message
