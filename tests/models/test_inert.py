"""Files of torch.save are read as data: whatever a pickle asks for, nothing of it is run, and nothing outlives it."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eyas.errors import UserError
from eyas.models.checkpoint import read_checkpoint
from eyas.models.inert import Content
from eyas.models.records import Record, TensorRecord, plain

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3)}


def with_program(path: Path, program: bytes, **storages: bytes) -> Path:
    """Write an archive as torch.save does, with that pickle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", sys.byteorder)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key.removeprefix('s')}", data)
    return path


def call(name: str, argument: bytes) -> bytes:
    """Return a pickle that calls `module function` with one piece of text."""
    text = b"X" + struct.pack("<I", len(argument)) + argument
    return b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n" + text + b"\x85R."


MARK = "ran"
HOSTILE: dict[str, Callable[[str], bytes]] = {
    "os.system": lambda place: call("os system", f"touch {place}".encode()),
    "posix.system": lambda place: call("posix system", f"touch {place}".encode()),
    "eval": lambda place: call("builtins eval", f"open({place!r}, 'w')".encode()),
    "exec of Python 2": lambda place: call("__builtin__ exec", f"open({place!r}, 'w')".encode()),
    "open": lambda place: (
        b"\x80\x02cbuiltins\nopen\nX" + struct.pack("<I", len(place)) + place.encode() + b"X\x01\0\0\0w\x86R."
    ),
    "getattr": lambda place: call("builtins getattr", b"x"),
    "numpy's runstring": lambda place: call("numpy.testing._private.utils runstring", place.encode()),
    "a name from the stack": lambda place: (
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(place)]) + place.encode() + b"\x85R."
    ),
    "torch.load within": lambda place: call("torch load", place.encode()),
    "torch.hub": lambda place: call("torch.hub load", place.encode()),
    "numpy.load": lambda place: call("numpy load", place.encode()),
    "an instance by INST": lambda place: f"(S'touch {place}'\nios\nsystem\n.".encode(),
    "an object by OBJ": lambda place: f"(cos\nsystem\nS'touch {place}'\no.".encode(),
    "nested calls": lambda place: (
        b"\x80\x02ccollections\nOrderedDict\n" + call("os system", f"touch {place}".encode())[2:-1] + b"\x85R."
    ),
    "an extension's code": lambda place: b"\x80\x02\x82\x01)R.",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_call_is_made(tmp_path: Path, name: str) -> None:
    place = tmp_path / MARK
    path = with_program(tmp_path / "a.pth", HOSTILE[name](str(place)))
    with pytest.raises(UserError, match=r"would run code|damaged|contains no weights"):
        read_checkpoint(path)
    assert not place.exists()


def test_the_hostile_pickles_do_run_where_they_are_believed(tmp_path: Path) -> None:
    for name in ("os.system", "eval", "open", "an instance by INST", "nested calls"):
        place = tmp_path / name.replace(" ", "-")
        try:
            pickle.loads(HOSTILE[name](str(place)))
        except Exception as error:
            assert "posix" not in str(error), name
        assert place.exists(), f"{name} proves nothing"


def record_program(state: bytes) -> bytes:
    """Return a pickle: an object of super_gradients that is given a state."""
    return b"\x80\x02csuper_gradients.x\nThing\n)\x81" + state + b"b."


def test_a_state_is_noted_and_never_applied(tmp_path: Path) -> None:
    path = with_program(tmp_path / "a.pth", record_program(b"}X\x0c\0\0\0__setstate__K\x01s"))
    root = Content(path).root
    assert isinstance(root, Record) and root.kind == "super_gradients.x.Thing"
    assert root.state == {"__setstate__": 1}


def test_what_a_file_does_to_a_class_ends_with_the_file(tmp_path: Path) -> None:
    """BUILD with a pair sets attributes, also on a class itself; each file gets classes of its own."""
    spoil = b"\x80\x02csuper_gradients.x\nThing\nN}X\x04\0\0\0kindX\x01\0\0\0!s\x86b."
    with contextlib.suppress(ValueError):
        Content(with_program(tmp_path / "a.pth", spoil))
    good = Content(with_program(tmp_path / "b.pth", record_program(b"}"))).root
    assert good.kind == "super_gradients.x.Thing" and Record.kind == ""


# A pickle of one tensor, but for (key, offset, size, stride).
TENSOR = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0%b"
    b"X\x03\0\0\0cpuK\x06tQ%b%b%b\x89ccollections\nOrderedDict\n)RtR."
)
FAULTS = {
    "fits": (b"0", b"K\x00", b"K\x02K\x03\x86", b"K\x03K\x01\x86"),
    "beyond the end": (b"0", b"K\x01", b"K\x02K\x03\x86", b"K\x03K\x01\x86"),
    "a long stride": (b"0", b"K\x00", b"K\x02K\x03\x86", b"J\xff\xff\xff\x7fK\x01\x86"),
    "a negative offset": (b"0", b"J\xff\xff\xff\xff", b"K\x02K\x03\x86", b"K\x03K\x01\x86"),
    "one element a million times": (b"0", b"K\x00", b"J@B\x0f\x00J@B\x0f\x00\x86", b"K\x00K\x00\x86"),
    "no storage": (b"7", b"K\x00", b"K\x02K\x03\x86", b"K\x03K\x01\x86"),
    "a path": (b"/", b"K\x00", b"K\x02K\x03\x86", b"K\x03K\x01\x86"),
    "text for a shape": (b"0", b"K\x00", b"X\x01\0\0\0aK\x03\x86", b"K\x03K\x01\x86"),
    "fewer strides": (b"0", b"K\x00", b"K\x02K\x03\x86", b"K\x03\x85"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_tensor_stays_within_its_storage(tmp_path: Path, name: str) -> None:
    key, offset, size, stride = FAULTS[name]
    data = np.arange(6, dtype=np.float32).tobytes()
    path = with_program(tmp_path / "a.pth", TENSOR % (key, offset, size, stride), s0=data)

    def read() -> torch.Tensor:
        content = Content(path)
        return content.tensors({"a": content.root})["a"]

    if name == "fits":
        assert torch.equal(read(), torch.arange(6.0).reshape(2, 3))
        return
    with pytest.raises(ValueError, match=r"beyond|shape|missing|storage type"):
        read()


def test_a_packed_archive_is_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(tmp_path / "b.pth")


def test_things_that_hold_one_another_end(tmp_path: Path) -> None:
    laughs: Any = ["x"] * 8
    for _ in range(30):
        laughs = [laughs] * 8
    torch.save({"net": STATE, "processing_params": {"class_names": laughs}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(tmp_path / "a.pth")
    circle: list[Any] = []
    circle.append(circle)
    torch.save({"net": STATE, "processing_params": {"class_names": circle}}, tmp_path / "b.pth")
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(tmp_path / "b.pth")


VALUES = {
    "float64": (np.float64(0.5), 0.5), "float32": (np.float32(0.25), 0.25), "half": (np.float16(2), 2.0),
    "int64": (np.int64(-3), -3), "bool": (np.bool_(True), True), "str": (np.str_("Läufer"), "Läufer"),
    "bytes": (np.bytes_(b"ab"), b"ab"), "array": (np.arange(4.0).reshape(2, 2), [[0.0, 1.0], [2.0, 3.0]]),
    "columns first": (np.asfortranarray(np.arange(4).reshape(2, 2)), [[0, 1], [2, 3]]),
    "names": (np.array(["a", "bc"]), ["a", "bc"]), "big end": (np.array([1, 2], ">i4"), [1, 2]),
    "empty": (np.zeros((0, 3)), []),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("protocol", [2, 4])
def test_numpy_values_come_as_plain_ones(tmp_path: Path, name: str, protocol: int) -> None:
    given, expected = VALUES[name]
    torch.save({"value": given, "inner": {"list": [given]}}, tmp_path / "a.pth", pickle_protocol=protocol)
    root = plain(Content(tmp_path / "a.pth").root)
    assert root == {"value": expected, "inner": {"list": [expected]}}
    assert type(root["value"]) is type(expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_tensors_of_every_type_and_layout(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = torch.arange(24).reshape(4, 6).to(dtype)
    state = {"whole": whole, "part": whole[1:3, ::2], "turned": whole.T, "scalar": whole[1, 1], "empty": whole[:0]}
    state["parameter"] = torch.nn.Parameter(whole.clone(), requires_grad=False)
    torch.save(state, tmp_path / "a.pth")
    content = Content(tmp_path / "a.pth")
    assert all(isinstance(each, TensorRecord) for each in content.root.values())
    read = content.tensors(content.root)
    assert all(torch.equal(read[name], value) and read[name].dtype == dtype for name, value in state.items())


def test_an_archive_of_the_other_byte_order_is_turned(tmp_path: Path) -> None:
    program = io.BytesIO()
    torch.save(STATE, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        program.write(archive.read("a/data.pkl"))
    other = "big" if sys.byteorder == "little" else "little"
    with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("b/data.pkl", program.getvalue())
        archive.writestr("b/byteorder", other)
        archive.writestr("b/data/0", np.arange(6, dtype=np.float32).byteswap().tobytes())
    assert torch.equal(read_checkpoint(tmp_path / "b.pth").state["a.weight"], STATE["a.weight"])


def test_the_mend_runs_as_printed_and_keeps_the_average(tmp_path: Path) -> None:
    """The file has a class of the user's own module, which lies beside it."""
    (tmp_path / "mine.py").write_text("class Thing:\n    pass\n", encoding="utf-8")
    make = (
        "import torch, mine; s = {'a.weight': torch.arange(6.).reshape(2, 3)}; "
        "torch.save({'net': {'a.weight': torch.zeros(2, 3)}, 'ema_net': s, 'x': mine.Thing()}, \"it's a.pth\")"
    )
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path, check=True)
    with pytest.raises(UserError) as caught:
        read_checkpoint(tmp_path / "it's a.pth")
    command = caught.value.fix.partition(": ")[2].replace("python ", f"{sys.executable} ", 1)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    found = read_checkpoint(tmp_path / "it's a-weights.pth")
    assert found.nest == "ema_net" and torch.equal(found.state["a.weight"], STATE["a.weight"])
