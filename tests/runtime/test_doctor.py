"""The doctor: what it reads of processors, GPUs and runtimes, and that a broken one is told and not fatal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eyas.cli.main import main
from eyas.machine.cores import usable_cores
from eyas.machine.gpus import Gpu, gpus
from eyas.machine.processor import Processor, instruction_sets, processor
from eyas.runtime import doctor
from eyas.runtime.doctor import advise, examine, runtime

XEON = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16\n"
EPYC = "processor\t: 0\nflags\t\t: fpu avx avx2 fma\n"
ORIN = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\n"


def cpu(text: str) -> Processor:
    """Return a processor with the instruction sets of a /proc/cpuinfo."""
    return Processor("a CPU", "x86_64", 4, 16.0, instruction_sets(text))


def nothing() -> tuple[doctor.Runtime, ...]:
    return tuple(doctor.Runtime(name, None, (), "", known.install) for name, known in doctor.KNOWN.items())


def test_instruction_sets_are_read_by_whole_words() -> None:
    found = instruction_sets(XEON)
    assert found["AVX-512 VNNI"] and found["AMX INT8"] and not found["AVX VNNI"] and not found["AMX FP16"]
    assert instruction_sets(EPYC) == dict.fromkeys(found, False) | {"AVX2": True}
    assert instruction_sets(ORIN)["dot product"] and not instruction_sets(ORIN)["I8MM"]
    assert instruction_sets("") == {}


@pytest.mark.parametrize(("text", "word"), [(XEON, "AMX"), (EPYC, "neither VNNI nor AMX"), (ORIN, "int8")])
def test_advice_on_precision_follows_the_processor(text: str, word: str) -> None:
    assert any(word in line for line in advise(cpu(text), (), nothing()))


def test_advice_names_what_is_missing_for_a_gpu() -> None:
    gpu = Gpu("NVIDIA L4", "8.9", "23034 MiB", "580.1")
    lines = "\n".join(advise(cpu(EPYC), (gpu,), nothing()))
    assert "eyas[tensorrt]" in lines and "eyas[openvino]" in lines and "eyas[train]" in lines


def test_gpus_are_what_the_driver_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA L4, 8.9, 23034 MiB, 580.95'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert gpus() == (Gpu("NVIDIA L4", "8.9", "23034 MiB", "580.95"),)
    program.write_text("#!/bin/sh\necho 'no driver'; exit 9\n", encoding="utf-8")
    assert gpus() == ()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it crashed the process (SIGSEGV)"),
        ("import gone_with_the_wind", "ModuleNotFoundError: No module named 'gone_with_the_wind'"),
        ("raise ImportError('libnvinfer.so.10: cannot open')", "ImportError: libnvinfer.so.10: cannot open"),
        ("print('noise')", ""),
    ],
)
def test_a_runtime_that_crashes_is_told(code: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.probe("TensorRT") == ((), told)


def test_a_runtime_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text("import time; time.sleep(600)")
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.probe("TensorRT", seconds=0.2) == ((), "it did not respond within 0.2 s")


def test_a_runtime_that_is_here_names_its_devices() -> None:
    assert "CPU" in runtime("ONNX Runtime").devices


def test_a_runtime_that_is_not_here_names_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda _: None)
    assert runtime("OpenVINO") == doctor.Runtime("OpenVINO", None, (), "", 'pip install "eyas[openvino]"')


def test_processor_of_this_machine() -> None:
    assert processor().cores == usable_cores() >= 1
    assert processor().name


def test_the_command_prints_everything_and_fails_for_a_broken_runtime(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "probe", lambda name: ((), "ImportError: gone") if name == "OpenVINO" else (("X",), ""))
    assert not examine().healthy
    assert main(["doctor"]) == 1
    assert "OpenVINO is broken (ImportError: gone)" in " ".join(capsys.readouterr().out.split())
    assert main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in told["runtimes"]] == list(doctor.KNOWN)
    assert told["processor"]["instruction_sets"] == dict(processor().instruction_sets)
