"""`eyas data`: exit codes, what is printed, and what lands in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data.cases import coco_root, edit_coco, yolo_root

from eyas.cli.data import COMMANDS, EXAMPLES
from eyas.cli.main import main
from eyas.data.formats import load_splits
from eyas.data.shapes import make_shapes
from eyas.decode import read_image


def test_check_exits_0_on_warnings_and_1_on_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = coco_root(tmp_path / "in")
    assert main(["data", "check", str(root), "--json", str(tmp_path / "check.json")]) == 0
    assert "warning rare class in train" in capsys.readouterr().out
    assert json.loads((tmp_path / "check.json").read_text())["errors"] is False
    assert main(["data", "check", str(root), "--chart", str(tmp_path / "check.png")]) == 0
    capsys.readouterr()
    assert read_image(tmp_path / "check.png").std() > 20
    (root / "train" / "a.jpg").write_bytes(b"")
    assert main(["data", "check", str(root), "--json", str(tmp_path / "check.json")]) == 1
    assert "error unreadable image in train" in capsys.readouterr().out
    assert json.loads((tmp_path / "check.json").read_text())["errors"] is True


def test_check_exits_2_when_it_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = yolo_root(tmp_path, "0 0.5 0.5 7 0.5\n")
    assert main(["data", "check", str(root)]) == 2
    assert "a.txt:1: a coordinate is not a fraction" in capsys.readouterr().err


def test_convert_tells_what_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = edit_coco(coco_root(tmp_path / "in"), lambda d: d["annotations"][0].update(iscrowd=1))
    edit_coco(root, lambda d: d["annotations"][1].update(bbox=[35, 5, 20, 20]))
    assert main(["data", "convert", str(root), str(tmp_path / "out"), "--to", "yolo"]) == 0
    out = capsys.readouterr().out
    assert "1 crowd boxes left out" in out
    assert "1 boxes clipped to the image" in out
    assert len(load_splits(tmp_path / "out")["train"].boxes) == 1


def test_split_and_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(make_shapes(tmp_path / "in", train=8, val=2, size=96))
    assert main(["data", "split", root, str(tmp_path / "s"), "--val", "0.3", "--no-group", "--link"]) == 0
    assert "val: 3 images" in capsys.readouterr().out
    assert main(["data", "pack", root, str(tmp_path / "p"), "--size", "64", "--quality", "50"]) == 0
    assert "10 images: " in capsys.readouterr().out
    assert max(max(i.sizes.max(axis=0)) for i in load_splits(tmp_path / "p").values()) == 64
    assert main(["data", "pack", root, str(tmp_path / "p"), "--size", "64", "--quality", "50"]) == 0
    assert "10 of them already packed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chek", "x"], "invalid choice: 'chek'"),
        ([], "COMMAND"),
        (["check", "gone"], "There is no gone"),
        (["convert", "gone", "out", "--to", "cocoo"], "invalid choice: 'cocoo'"),
        (["shapes", "out", "--train", "0"], "Can't generate 0 training"),
        (["split", "gone", "out", "--val", "2"], "fractions val 2"),
    ],
)
def test_mistakes_exit_2_with_a_message(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_in_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert any(example.startswith(f"eyas data {name} ") for example in EXAMPLES)
    with pytest.raises(SystemExit) as caught:
        main(["data", name, "--help"])
    assert caught.value.code == 0
    assert f"eyas data {name} " in capsys.readouterr().out.split("examples:")[1]
