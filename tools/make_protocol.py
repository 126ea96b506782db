"""Make the Python code of the gRPC messages from their .proto files.

    python -m venv /tmp/gen && /tmp/gen/bin/pip install "grpcio-tools==1.72.2"
    /tmp/gen/bin/python tools/make_protocol.py

Code made by protobuf 6 runs on protobuf 6 and 7, and not the other way round; hence the old grpcio-tools, in an
environment of its own. The messages get a pool of their own: in the default one they would clash with those of
tritonclient, or of another server, in the same process.
"""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "src" / "eyas" / "serve" / "grpc" / "protocol"
NAMES = ("inference", "health")


def main() -> int:
    """Write `NAME_pb2.py` and `NAME_pb2.pyi` beside each .proto file."""
    from grpc_tools import protoc

    files = [f"{name}.proto" for name in NAMES]
    failed = protoc.main(["", f"-I{FOLDER}", f"--python_out={FOLDER}", f"--pyi_out={FOLDER}", *files])
    for name in NAMES:
        path = FOLDER / f"{name}_pb2.py"
        code = path.read_text(encoding="utf-8")
        path.write_text(code.replace("_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()"), "utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
