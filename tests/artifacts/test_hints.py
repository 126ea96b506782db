"""A file where a folder belongs: what it is, and the command that makes it one, which runs as it is printed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from tests.models.foreign import narrow_net, trained

import eyas
from eyas.artifacts.layout import run_of
from eyas.cli.main import main
from eyas.data.formats.class_names import read_class_names
from eyas.errors import UserError
from eyas.models.importing import import_checkpoint


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint whose name has blanks and a quote."""
    monkeypatch.chdir(tmp_path)
    torch.save(trained(narrow_net().state_dict()), "it's best.pth")
    Path("data").mkdir()
    Path("data/a.jpg").write_bytes(b"x")
    return tmp_path


VERBS = {
    "detect": ["detect", "{}", "data"],
    "evaluate": ["evaluate", "{}", "--data", "data"],
    "compile": ["compile", "{}"],
    "compile for the fastest": ["compile", "{}", "--target", "auto"],
    "registry": ["registry", "add", "{}", "--name", "m", "--registry", "registry"],
    "compile to one file": ["compile", "{}", "--measure", "0"],
    "bench": ["bench", "{}", "--seconds", "0.1"],
    "serve": ["serve", "{}"],
    "predict": ["predict", "data", "--bundle", "{}", "--out", "out.jsonl"],
    "lineage": ["lineage", "{}"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_checkpoint_is_to_be_imported_first_by_a_command_that_runs(
    verb: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format("it's best.pth") for word in VERBS[verb]]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "must be imported first" in told
    command = told.partition("fix:")[2].strip()
    for part in command.split(" && "):
        assert shlex.split(part)[0] == "eyas"
        if verb in ("detect", "serve"):
            assert main(shlex.split(part)[1:]) == 0, part
    assert verb not in ("detect", "serve") or (folder / "runs" / "it's best" / "config.json").is_file()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".safetensors"])
def test_loading_a_checkpoint_says_so_in_python(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"x")
    with pytest.raises(UserError, match=r"must be imported first[\s\S]*eyas import .*--out runs/a"):
        eyas.load(path)


def test_the_offered_folder_is_a_free_one(folder: Path) -> None:
    (folder / "runs" / "it's best").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        eyas.load("it's best.pth")
    assert shlex.split(caught.value.fix)[-1] == "runs/it's best-2"


def test_files_of_a_run_and_of_a_bundle_name_their_folder(folder: Path) -> None:
    run = import_checkpoint("it's best.pth", "runs/a")
    with pytest.raises(UserError, match=r"a file inside a run[\s\S]*folder: runs/a"):
        eyas.load(run / "model.safetensors")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").write_bytes(b"x")
    with pytest.raises(UserError, match="a file inside a run"):
        eyas.load(run / "checkpoints" / "last.ckpt")
    assert run_of(run / "checkpoints" / "last.ckpt") == run
    Path("bundle").mkdir()
    for name in ("manifest.json", "model.onnx"):
        Path("bundle", name).write_bytes(b"{}")
    with pytest.raises(UserError, match="a file inside a bundle"):
        eyas.load("bundle/model.onnx")


@pytest.mark.parametrize("name", ["a.onnx", "a.engine", "a.txt", "a"])
def test_other_files_are_no_checkpoints(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError) as caught:
        eyas.load(tmp_path / name)
    assert "must be imported first" not in str(caught.value)
    assert ("graph" in str(caught.value)) is (name in ("a.onnx", "a.engine"))


def test_another_tools_config_is_no_run(tmp_path: Path) -> None:
    for text in ('{"architectures": []}', "[]", "not json"):
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        assert run_of(tmp_path / "a.safetensors") is None


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"cat\ndog\n", ("cat", "dog")), (b"\xef\xbb\xbfcat\r\n red car \r\n\r\n", ("cat", "red car")),
        ("Läufer".encode(), ("Läufer",)), (b"yes\n010\n1.50\n", ("yes", "010", "1.50")),
        (b"", None), (b"a\n\nb\n", None), (b"\xff\xfea\0", None),
    ],
)  # fmt: skip
def test_names_are_lines_of_text(content: bytes, names: tuple[str, ...] | None, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    if names is None:
        with pytest.raises(UserError):
            read_class_names(tmp_path / "names.txt")
    else:
        assert read_class_names(tmp_path / "names.txt") == names
