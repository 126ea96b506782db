"""The generated messages are what the .proto files say, and stay out of other people's way."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor

from eyas.serve.grpc import protocol
from eyas.serve.grpc.protocol import health_pb2, inference_pb2

FOLDER = Path(str(protocol.__file__)).parent
FILES = {"inference": inference_pb2.DESCRIPTOR, "health": health_pb2.DESCRIPTOR}


@pytest.mark.parametrize("name", FILES)
def test_generated_code_is_made_from_the_proto(name: str, tmp_path: Path) -> None:
    from grpc_tools import protoc

    out = tmp_path / "set"
    assert protoc.main(["", f"-I{FOLDER}", f"--descriptor_set_out={out}", f"{name}.proto"]) == 0
    made = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    kept = descriptor_pb2.FileDescriptorProto()
    FILES[name].CopyToProto(kept)
    for file in (made, kept):  # names that JSON would use are derived, and only some versions write them down
        file.ClearField("source_code_info")
        _clear_json_names(file.message_type)
    assert kept == made, f"{name}_pb2.py is not of {name}.proto: run tools/make_protocol.py"


def _clear_json_names(messages: list[descriptor_pb2.DescriptorProto]) -> None:
    for message in messages:
        for field in message.field:
            field.ClearField("json_name")
        _clear_json_names(message.nested_type)


@pytest.mark.parametrize("name", FILES)
def test_generated_code_runs_on_protobuf_6_too(name: str) -> None:
    assert "# Protobuf Python Version: 6." in (FOLDER / f"{name}_pb2.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_messages_are_in_a_pool_of_their_own(file: FileDescriptor) -> None:
    """Another package's messages of the same name, tritonclient's for example, can be loaded beside them."""
    assert file.pool is not descriptor_pool.Default()
