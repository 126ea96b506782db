"""A target is one word: a runtime and a precision."""

from __future__ import annotations

from pathlib import Path

import pytest

import eyas
from eyas.cli.main import main
from eyas.errors import UserError
from eyas.export.target import TARGETS, parse_target


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((f"{name}-{each}", (name, each)) for name, row in TARGETS.items() for each in row.precisions),
        ("auto", ("auto", "auto")),
        ("openvino-auto", ("openvino", "auto")),
        ("tensorrt-rtx-auto", ("tensorrt-rtx", "auto")),
        ("auto-int8", ("auto", "int8")),
    ],
)
def test_a_target_has_a_runtime_and_a_precision(text: str, expected: tuple[str, str]) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize(
    ("text", "precision", "expected"),
    [
        ("openvino", None, ("openvino", "fp32")),
        ("tensorrt-rtx", None, ("tensorrt-rtx", "fp32")),
        ("openvino", "int8", ("openvino", "int8")),
        ("auto", "int8", ("auto", "int8")),
        ("onnx", "auto", ("onnx", "auto")),
    ],
)
def test_the_two_words_of_earlier_releases_are_told(
    text: str, precision: str | None, expected: tuple[str, str]
) -> None:
    with pytest.warns(FutureWarning, match="is now target " + "-".join(expected)):
        assert parse_target(text, precision) == expected


@pytest.mark.parametrize(
    ("text", "precision", "message"),
    [
        ("openvino-int4", None, r"Unknown target 'openvino-int4' \(did you mean 'openvino-int8'\?\)"),
        ("onyx-int8", None, "did you mean 'onnx-int8'"),
        ("int8", None, "Unknown target 'int8'"),
        ("", None, "RUNTIME-PRECISION"),
        ("onnx-bf16", None, "can't be built in 'bf16'"),
        ("openvino-int8", "fp32", "the precision 'fp32' are given"),
        ("openvino", "int4", "Unknown target"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_is_no_target(text: str, precision: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_target(text, precision)


def test_a_run_is_compiled_and_measured_in_one_go(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", str(place / "tiny"), "--target", "onnx-fp32,openvino-fp32", "--seconds", "0.1"]
    assert main(command) == 0
    told = capsys.readouterr()
    assert "tiny-onnx-fp32" in told.out and "tiny-openvino-fp32" in told.out and "compiling" in told.err
    assert main([*command[:2], "--max-drop", "1"]) == 2
    assert "add --target" in capsys.readouterr().err
    assert main([*command, "--png", "chart.jpg"]) == 2
    told = capsys.readouterr()
    assert "a name ending in .png" in told.err and "compiling" not in told.err  # before anything takes time


def test_the_function_takes_the_same_words(place: Path, tmp_path: Path) -> None:
    bundle = eyas.compile(place / "tiny", "onnx-fp32", out=tmp_path / "one", measured=0)
    with pytest.warns(FutureWarning, match="target onnx with precision fp32 is now target onnx-fp32"):
        other = eyas.compile(place / "tiny", target="onnx", precision="fp32", out=tmp_path / "two", measured=0)
    assert bundle.manifest.files == other.manifest.files
