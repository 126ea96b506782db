"""Builder's options: typed, listed in the help, and told what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eyas.cli.main import main
from eyas.errors import UserError
from eyas.export.options import (
    OPTIONS,
    TensorRtOptions,
    TensorRtRtxOptions,
    builder_options,
    describe_options,
    parse_options,
)
from eyas.export.settings import BuildSettings
from eyas.export.target import TARGETS


def test_texts_become_values_of_their_types() -> None:
    given = ["optimization_level=3", "compute_capabilities=8.6, 8.9,12.0", "latency_profile=True", "seconds=60"]
    found = parse_options("tensorrt-rtx", given)
    assert found["optimization_level"] == 3 and found["latency_profile"] is True and found["seconds"] == 60.0
    assert found["compute_capabilities"] == ("8.6", "8.9", "12.0") and len(found) == 4
    assert builder_options("tensorrt-rtx", found) == TensorRtRtxOptions(**found)
    assert parse_options("tensorrt", ["timing_cache=a=b"]) == {"timing_cache": "a=b"}
    assert parse_options("onnx", []) == {}


@pytest.mark.parametrize(
    ("target", "text", "words"),
    [
        ("tensorrt-rtx", "compute_capability=8.6", "did you mean 'compute_capabilities'"),
        ("tensorrt", "compute_capabilities=8.6", "The target 'tensorrt' has no option 'compute_capabilities'"),
        ("onnx", "device=CPU", "none: it has no options"),
        ("openvino", "devise=CPU", "did you mean 'device'"),
        ("tensorrt", "optimization_level", "name=value"),
        ("tensorrt", "optimization_level=high", "a whole number"),
        ("tensorrt", "refit=yes", "true or false"),
        ("tensorrt", "seconds=soon", "a number"),
        ("tensorrt", "seconds=0", "more than 0"),
        ("tensorrt", "workspace_mb=0", "at least 1"),
        ("tensorrt", "compatibility=amper_plus", "did you mean 'ampere_plus'"),
        ("tensorrt-rtx", "compute_capabilities=8.6,8.6", "twice"),
        ("tensorrt-rtx", "compute_capabilities=sm89", "'sm89' is not a compute capability"),
    ],
)
def test_what_is_wrong_is_told(target: str, text: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        parse_options(target, [text])
    assert words in str(error.value)


def test_an_option_that_comes_twice_is_refused() -> None:
    with pytest.raises(UserError, match="given twice"):
        parse_options("tensorrt", ["refit=true", "refit=false"])


@pytest.mark.parametrize(
    "given", [{"optimization_level": "3"}, {"optimization_level": True}, {"refit": 1}, {"timing_cache": 1}]
)
def test_values_of_another_type_are_refused_from_python_too(given: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        BuildSettings(target="tensorrt", precision="fp16", options=given)
    assert builder_options("tensorrt", {"timing_cache": None}) == TensorRtOptions()


def test_the_help_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(OPTIONS) == list(TARGETS)
    with pytest.raises(SystemExit):
        main(["compile", "--help"])
    printed = capsys.readouterr().out
    assert all(line in printed for line in describe_options().splitlines()[1:2])
    for kind in OPTIONS.values():
        assert all(name in printed for name in kind.__dataclass_fields__)


def test_a_choice_takes_no_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(tmp_path), "--target", "auto", "--option", "device=CPU"]) == 2
    assert "need a single target" in capsys.readouterr().err
