"""gRPC on a real socket: the protocol, its refusals as statuses, streams, health, the admin's port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from tests.serve.fake import FakeEngine, encoded, make_image
from tests.serve.running import Running, running

from eyas.serve.grpc.protocol import health_pb2 as health
from eyas.serve.grpc.protocol import inference_pb2 as pb
from eyas.serve.grpc.service import HEALTH, INFERENCE
from eyas.serve.limits import Limits
from eyas.serve.security import Keys, hash_key

TOKEN = "a token of the admin's"
FILE, IMAGE = encoded(), make_image()
LIMITS = Limits(body=200_000, images=4, idle_seconds=1.0)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(FakeEngine, limits=LIMITS, admin_grpc_port=0, admin_token=TOKEN) as started:
        yield started


@pytest.fixture(scope="module")
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.addresses.grpc) as made:
        yield made


def call(channel: grpc.Channel, method: str, message: Any, answer: Any, service: str = INFERENCE, **more: Any) -> Any:
    serializer = type(message).SerializeToString
    made = channel.unary_unary(f"/{service}/{method}", serializer, answer.FromString)
    return made(message, timeout=more.pop("timeout", 60), **more)


def infer(channel: grpc.Channel, message: pb.ModelInferRequest, **more: Any) -> pb.ModelInferResponse:
    answer: pb.ModelInferResponse = call(channel, "ModelInfer", message, pb.ModelInferResponse, **more)
    return answer


def files(*items: bytes, model: str = "shapes", **more: Any) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model, **more)
    entry = message.inputs.add(name="images", datatype="BYTES", shape=[len(items)])
    entry.contents.bytes_contents.extend(items)
    return message


def pixels(image: Any = IMAGE, shape: Any = None, data: bytes | None = None) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="shapes")
    message.inputs.add(name="images", datatype="UINT8", shape=shape or [1, *image.shape])
    message.raw_input_contents.append(image.tobytes() if data is None else data)
    return message


def arrays(answer: pb.ModelInferResponse) -> dict[str, Any]:
    kinds = {"FP32": "<f4", "INT64": "<i8"}
    pairs = zip(answer.outputs, answer.raw_output_contents, strict=True)
    return {entry.name: np.frombuffer(raw, kinds[entry.datatype]).reshape(entry.shape) for entry, raw in pairs}


def test_files_and_pixels_give_the_same(channel: grpc.Channel) -> None:
    for message in (files(FILE), pixels()):
        answer = infer(channel, message)
        found = arrays(answer)
        assert (answer.model_name, answer.model_version, len(answer.id)) == ("shapes", "2", 32)
        assert found["boxes"].tolist() == [[[8, 4, 40, 24]]] and found["labels"].tolist() == [[0]]
        assert found["num_detections"].tolist() == [1]


def test_typed_contents_and_chosen_outputs(channel: grpc.Channel) -> None:
    message = pb.ModelInferRequest(model_name="shapes", model_version="1", id="mine")
    entry = message.inputs.add(name="images", datatype="UINT8", shape=[1, *IMAGE.shape])
    entry.contents.uint_contents.extend(IMAGE.ravel().tolist())
    message.outputs.add(name="labels")
    message.parameters["confidence"].double_param = 0.95
    answer = infer(channel, message)
    assert (answer.id, answer.model_version, [each.name for each in answer.outputs]) == ("mine", "1", ["labels"])
    assert arrays(answer)["labels"].shape == (1, 0)


def spoiled(change: Any) -> pb.ModelInferRequest:
    message = pixels()
    change(message)
    return message


def typed(*values: int) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="shapes")
    message.inputs.add(name="images", datatype="UINT8", shape=[1, 1, 1, 3]).contents.uint_contents.extend(values)
    return message


def both(message: pb.ModelInferRequest) -> None:
    message.inputs[0].contents.uint_contents.append(1)


def wrong_field(message: pb.ModelInferRequest) -> None:
    del message.raw_input_contents[:]
    message.inputs[0].contents.fp32_contents.append(1.0)


BAD = {
    "huge dims": pixels(shape=[1, 2**62, 2**62, 3]),
    "overflow": pixels(shape=[2**62, 4, 4, 3]),
    "negative": pixels(shape=[-1, 48, 64, 3]),
    "zero": pixels(shape=[0, 48, 64, 3], data=b""),
    "too short": pixels(data=b"\0" * 5),
    "channels": pixels(shape=[1, 48, 48, 4]),
    "more raw": spoiled(lambda message: message.raw_input_contents.append(b"")),
    "raw and typed": spoiled(both),
    "another field": spoiled(wrong_field),
    "a value beyond its type": typed(0, 256, 0),
    "too few values": typed(0, 0),
    "twice": spoiled(lambda message: message.inputs.append(message.inputs[0])),
    "no input": pb.ModelInferRequest(model_name="shapes"),
    "datatype": spoiled(lambda message: setattr(message.inputs[0], "datatype", "STRING")),
    "float": spoiled(lambda message: setattr(message.inputs[0], "datatype", "FP16")),
    "name": spoiled(lambda message: setattr(message.inputs[0], "name", "a\0" * 50_000)),
    "shared memory": spoiled(
        lambda message: setattr(message.inputs[0].parameters["shared_memory_region"], "string_param", "x")
    ),
    "output": spoiled(lambda message: message.outputs.add(name="masks")),
    "parameter": spoiled(lambda message: setattr(message.parameters["x"], "bool_param", True)),
    "empty parameter": spoiled(lambda message: message.parameters["iou"].SetInParent()),
    "id": spoiled(lambda message: setattr(message, "id", "a\n" * 500)),
    "no image": files(b"no image"),
    "empty image": files(b""),
    "too many": files(*[FILE] * 5),
}


@pytest.mark.parametrize("name", BAD)
def test_whatever_is_wrong_is_the_clients_fault(channel: grpc.Channel, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, BAD[name])
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()


@pytest.mark.parametrize("name", ["gone", "", "../shapes", "a" * 1_000, "a" * 100_000, "nul\0"])
def test_an_unknown_model_is_not_found(channel: grpc.Channel, name: str) -> None:
    for method, message, answer in (
        ("ModelReady", pb.ModelReadyRequest(name=name), pb.ModelReadyResponse),
        ("ModelMetadata", pb.ModelMetadataRequest(name=name), pb.ModelMetadataResponse),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, method, message, answer)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    if name:  # an empty name stands for the default model
        with pytest.raises(grpc.RpcError) as caught:
            infer(channel, files(FILE, model=name))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_message_that_is_too_large_or_none_is_refused(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, files(b"\0" * 400_000))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    raw = channel.unary_unary(f"/{INFERENCE}/ModelInfer")
    with pytest.raises(grpc.RpcError) as caught:
        raw(b"\xff\xff\xff", timeout=60)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{INFERENCE}/Nothing")(b"", timeout=60)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_metadata_of_server_and_model(channel: grpc.Channel) -> None:
    server = call(channel, "ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
    assert server.name == "eyas" and "binary_tensor_data" in server.extensions
    model = call(channel, "ModelMetadata", pb.ModelMetadataRequest(name="shapes"), pb.ModelMetadataResponse)
    assert list(model.versions) == ["1", "2"] and model.platform == "eyas_onnxruntime"
    assert [(each.name, each.datatype) for each in model.inputs] == [("images", "BYTES")]
    assert [each.name for each in model.outputs] == ["boxes", "scores", "labels", "num_detections"]


@pytest.fixture
def held(server: Running) -> Iterator[Any]:
    engine: Any = server.server.engine
    engine.hold = server.call(asyncio.Event)
    yield engine
    server.call(engine.hold.set)
    engine.hold = None


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.3])
def test_the_clients_deadline_is_kept(channel: grpc.Channel, held: Any, seconds: float) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, files(FILE), timeout=seconds)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_timeout_parameter_is_kept(channel: grpc.Channel, held: Any) -> None:
    message = files(FILE)
    message.parameters["timeout"].int64_param = 50_000
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, message)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert held.seen[-1].timeout == 0.05


def test_a_cancelled_call_frees_its_place(server: Running, channel: grpc.Channel, held: Any) -> None:
    before, seen = held.cancelled, len(held.seen)
    method = channel.unary_unary(f"/{INFERENCE}/ModelInfer", pb.ModelInferRequest.SerializeToString)
    future = method.future(files(FILE))
    while len(held.seen) == seen:
        server.call(asyncio.sleep, 0.02)
    future.cancel()
    for _ in range(500):
        if held.cancelled > before:
            break
        server.call(asyncio.sleep, 0.02)
    assert held.cancelled == before + 1


def test_overload_is_told_with_the_time_to_come_back(server: Running, channel: grpc.Channel) -> None:
    engine: Any = server.server.engine
    engine.welcome = False
    try:
        with pytest.raises(grpc.RpcError) as caught:
            infer(channel, files(FILE))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ("retry-after", "2") in [tuple(pair) for pair in caught.value.trailing_metadata()]
        ready = call(channel, "ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse)
        status = call(channel, "Check", health.HealthCheckRequest(), health.HealthCheckResponse, HEALTH)
        assert not ready.ready and status.status == health.HealthCheckResponse.NOT_SERVING
        assert call(channel, "ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse).live
    finally:
        engine.welcome = True


def test_health_of_server_and_models(channel: grpc.Channel) -> None:
    for name in ("", INFERENCE, "shapes"):
        found = call(channel, "Check", health.HealthCheckRequest(service=name), health.HealthCheckResponse, HEALTH)
        assert found.status == health.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "Check", health.HealthCheckRequest(service="x"), health.HealthCheckResponse, HEALTH)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    watch = channel.unary_stream(
        f"/{HEALTH}/Watch", health.HealthCheckRequest.SerializeToString, health.HealthCheckResponse.FromString
    )(health.HealthCheckRequest(service="gone"))
    assert next(iter(watch)).status == health.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


def stream(channel: grpc.Channel, messages: Any) -> Any:
    method = channel.stream_stream(
        f"/{INFERENCE}/ModelStreamInfer",
        pb.ModelInferRequest.SerializeToString,
        pb.ModelStreamInferResponse.FromString,
    )
    return method(messages)


def test_a_stream_answers_each_message_in_order(channel: grpc.Channel) -> None:
    messages = [files(FILE, id="a"), files(b"no", id="b"), files(FILE, id="c")]
    answers = list(stream(channel, iter(messages)))
    assert [answer.infer_response.id for answer in answers] == ["a", "b", "c"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    assert answers[1].error_message.startswith("unprocessable")


def test_a_newer_message_of_a_sequence_overtakes(server: Running, channel: grpc.Channel, held: Any) -> None:
    messages = [files(FILE, id=str(number)) for number in range(3)]
    for message in messages:
        message.parameters["sequence_id"].int64_param = 5
        message.parameters["priority"].int64_param = 2
    answers = stream(channel, iter(messages))
    first = [next(answers) for _ in range(2)]
    server.call(held.hold.set)
    assert [answer.error_message.partition(":")[0] for answer in first] == ["cancelled", "cancelled"]
    assert next(answers).error_message == ""


def test_an_idle_stream_ends(channel: grpc.Channel) -> None:
    waiting = iter(lambda: __import__("time").sleep(5), 1)  # never a message
    with pytest.raises(grpc.RpcError) as caught:
        next(stream(channel, waiting))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_metadata_of_any_bytes_is_taken(channel: grpc.Channel) -> None:
    odd = (("x-bin", b"\xff\xfe\0"), ("traceparent", "~!not a trace"), ("a" * 300, "b"))
    assert infer(channel, files(FILE), metadata=odd).outputs


def test_the_repository_is_on_the_admins_port_only(server: Running, channel: grpc.Channel) -> None:
    ask = pb.RepositoryIndexRequest()
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "RepositoryIndex", ask, pb.RepositoryIndexResponse)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with grpc.insecure_channel(server.addresses.admin_grpc) as admin:
        with pytest.raises(grpc.RpcError) as caught:
            call(admin, "RepositoryIndex", ask, pb.RepositoryIndexResponse)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        token = (("authorization", f"Bearer {TOKEN}"),)
        for load in (
            pb.RepositoryModelUnloadRequest(model_name="shapes"),
            pb.RepositoryModelLoadRequest(model_name="shapes"),
        ):
            load.parameters["version"].string_param = "1"
            name = "RepositoryModelUnload" if "Unload" in type(load).__name__ else "RepositoryModelLoad"
            call(admin, name, load, getattr(pb, f"{name}Response"), metadata=token)
            listed = call(admin, "RepositoryIndex", ask, pb.RepositoryIndexResponse, metadata=token).models
            expected = "UNAVAILABLE" if "Unload" in name else "READY"
            assert [(each.version, each.state) for each in listed] == [("1", expected), ("2", "READY")]


def test_a_key_is_asked_for() -> None:
    keys = Keys({hash_key("right"): "ann"})
    with running(FakeEngine, keys=keys) as server, grpc.insecure_channel(server.addresses.grpc) as channel:
        for metadata in ((), (("x-api-key", "wrong"),), (("bin-bin", b"\xff\xfe"),)):
            with pytest.raises(grpc.RpcError) as caught:
                infer(channel, files(FILE), metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(grpc.RpcError) as caught:
                next(channel.stream_stream(f"/{INFERENCE}/ModelStreamInfer")(iter([b""]), metadata=metadata))
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert infer(channel, files(FILE), metadata=(("authorization", "Bearer right"),)).outputs
        assert call(channel, "ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse).live
