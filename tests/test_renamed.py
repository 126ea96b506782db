"""Names of one release ago are understood, and told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eyas.artifacts.dataset import FIELDS, OLD_FIELDS, DatasetRecord
from eyas.artifacts.measured import Accuracy, Parity
from eyas.cli.main import VERBS, load_verb, verb_parser
from eyas.data.augment.config import AugmentPolicy
from eyas.errors import UserError
from eyas.predict.parts import Part, from_line, to_line
from eyas.renamed import KEYS, OPTIONS, renamed_arguments, with_new_keys, with_new_options, with_old_keys


@pytest.mark.parametrize(("command", "old"), [(command, old) for command, row in OPTIONS.items() for old in row])
def test_an_old_option_is_the_new_one_and_is_told(command: str, old: str) -> None:
    new = OPTIONS[command][old]
    with pytest.warns(FutureWarning, match=f"{old} is now {new}"):
        assert with_new_options(command, ["a", old, f"{old}=0.5", "--", old]) == ["a", new, f"{new}=0.5", "--", old]
    assert command in VERBS and new in verb_parser(command, load_verb(command)).format_help()


def test_the_options_of_other_commands_are_theirs() -> None:
    assert with_new_options("train", ["--no-pictures"]) == ["--no-pictures"]


def test_a_report_has_its_keys_under_both_names() -> None:
    report = {"splits": {"train": {"images": 3}}, "rows": [{"images": 4, "x": 1}], "worst_images": []}
    assert with_old_keys(report) == {
        "splits": {"train": {"images": 3, "pictures": 3}},
        "rows": [{"images": 4, "pictures": 4, "x": 1}],
        "worst_images": [],
        "worst_pictures": [],
    }
    assert with_new_keys({old: new for new, old in KEYS.items()}) == {new: new for new in KEYS}
    assert with_new_keys([1]) == [1]


def test_a_function_takes_the_old_argument() -> None:
    @renamed_arguments(pictures="images")
    def count(images: int = 0) -> int:
        return images

    with pytest.warns(FutureWarning, match=r"count\(pictures=...\) is now images="):
        assert count(pictures=3) == 3  # type: ignore[call-arg]
    assert count(images=4) == 4


def test_parts_of_an_old_manifest_are_read() -> None:
    assert Parity.model_validate({"boxes_px": 0.1, "scores": 0.0, "quantile": 1.0, "pictures": 2}).images == 2
    fields = {"map": 0.5, "map_fp32": 0.5, "data": "d", "split": "val"}
    assert Accuracy.model_validate({**fields, "pictures": 7}) == Accuracy.model_validate({**fields, "images": 7})
    with pytest.raises(ValueError, match="extra"):
        Accuracy.model_validate({**fields, "images": 7, "frames": 7})


def test_an_old_record_of_a_data_set_is_read(tmp_path: Path) -> None:
    for fields in (FIELDS, OLD_FIELDS):
        (tmp_path / "list.csv").write_text(",".join(fields) + "\ntrain,a.jpg,7,0f\n")
        assert DatasetRecord.read(tmp_path / "list.csv").rows == (("train", "a.jpg", "7", "0f"),)


def test_a_part_of_an_old_plan_is_known_by_its_line() -> None:
    line = '{"index": 3, "kind": "pictures", "path": "/d", "root": "/d", "count": 2, "names": ["a.jpg", "b.jpg"]}\n'
    assert from_line(line) == Part(3, "images", "/d", "/d", count=2, names=("a.jpg", "b.jpg"))
    assert to_line(from_line(line)) == line


def test_an_old_word_of_a_recipe_is_told() -> None:
    with pytest.warns(FutureWarning, match="within: picture is now within: image"):
        assert AugmentPolicy(mosaic=0.0, within="picture") == AugmentPolicy(mosaic=0.0, within="image")
    with pytest.raises(UserError, match="A mosaic of four images"):
        AugmentPolicy(mosaic=0.5, within="image")


def test_a_user_reads_a_line_without_a_place_in_the_code() -> None:
    command = [sys.executable, "-m", "eyas", "compile", "nowhere", "--target", "onnx-int8", "--budget", "5"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120).stderr.splitlines()
    assert told[0].startswith("warning: --budget is now --max-drop") and "nowhere" in told[1]
