"""`eyas detect` with a real, tiny network: what it prints and leaves, and every kind of odd or broken image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.runtime.fakes import make_image, write_jpeg, write_run, write_video

from eyas.cli import detect as verb
from eyas.cli.main import main
from eyas.decode import read_image
from eyas.progress import ProgressBar
from eyas.runtime.detect import DetectReport
from eyas.runtime.outputs import Result


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> list[str]:
    """Return the names of all files below the folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_images_and_a_video(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jpeg(folder / "in" / "a.jpg")
    write_jpeg(folder / "in" / "deep" / "b.jpg")
    write_video(folder / "clip.mp4", num=4)
    assert main(["detect", "run", "in", "clip.mp4", "--save-json", "--save-txt", "--batch", "2"]) == 0
    assert files(folder / "detections") == [
        "a.jpg", "clip.mp4", "deep/b.jpg", "labels/a.txt",
        *(f"labels/clip/{i:06d}.txt" for i in range(4)), "labels/deep/b.txt", "results.json",
    ]  # fmt: skip
    text = capsys.readouterr().out
    for part in ("a.jpg", "deep/b.jpg", "clip.mp4", "red", "images: detections", "results:  detections/results.json"):
        assert part in text
    entries = json.loads((folder / "detections" / "results.json").read_text())
    lines = sum(len(path.read_text().splitlines()) for path in (folder / "detections" / "labels").rglob("*.txt"))
    assert len(entries) == lines > 0


def test_thresholds_classes_and_another_folder(folder: Path) -> None:
    write_jpeg(folder / "a.jpg")

    def results(*options: str) -> list[dict[str, float]]:
        assert main(["detect", "run", "a.jpg", "--out", "o", "--no-images", "--save-json", "r.json", *options]) == 0
        assert files(folder / "o") == ["r.json"]
        return list(json.loads((folder / "o" / "r.json").read_text()))

    everything = results()
    least = sorted(entry["score"] for entry in everything)[len(everything) // 2]
    assert {entry["score"] for entry in results("--conf", str(least))} == {
        entry["score"] for entry in everything if entry["score"] >= least
    }
    assert {entry["category_id"] for entry in everything} == {1, 2}
    assert {entry["category_id"] for entry in results("--classes", "blue")} == {2}
    assert len(results("--classes", "red, blue")) == len(everything)
    assert len(results("--iou", "0.1")) < len(everything)
    assert len(results("--nms", "class_agnostic")) < len(everything)
    assert results("--nms", "soft")[0] == everything[0] and results("--nms", "soft")[1:] != everything[1:]
    assert results("--size", "96") != everything


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "a.jgp"], "no file or folder a.jgp (did you mean 'a.jpg'?)"),
        (["run", "empty"], "no images or videos in the folder empty"),
        (["run", "*.png"], "The pattern *.png matches no image or video"),
        (["rum", "a.jpg"], "no run at rum (did you mean 'run'?)"),
        (["empty", "a.jpg"], "is not a run"),
        (["run", "a.jpg", "--classes", "gren,red"], "The model has no class 'gren'"),
        (["run", "a.jpg", "--classes", "rad"], "no class 'rad' (did you mean 'red'?)"),
        (["run", "a.jpg", "--conf", "2"], "confidence threshold is 2.0"),
        (["run", "a.jpg", "--batch", "0"], "batch is 0"),
        (["run", "a.jpg", "--size", "50"], "multiple of 32"),
        (["run", "a.jpg", "--out", "."], "would overwrite a source"),
        (["run", "a.jpg", "--out", "a.jpg"], "a.jpg is a file"),
        (["run", "a.jpg", "--like", "x.json"], "--like needs"),
        (["run", "a.jpg", "--like", "x.json", "--save-json"], "no file x.json"),
        (["run", "a.jpg", "--device", "warp"], "device 'warp' can't be used"),
    ],
)
def test_what_can_not_be_used_is_refused(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = write_jpeg(folder / "a.jpg").read_bytes()
    (folder / "empty").mkdir()
    assert main(["detect", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err
    assert (folder / "a.jpg").read_bytes() == before
    assert not (folder / "detections").exists() or files(folder / "detections") == []


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


IMAGE = Image.fromarray(make_image(90, 120, (20, 10, 100, 60)))
DEEP = np.full((90, 120), 40_000, np.uint16)
ODD: dict[str, Callable[[Path], object]] = {
    "grey.jpg": lambda path: IMAGE.convert("L").save(path),
    "grey.png": lambda path: IMAGE.convert("L").save(path),
    "bits.png": lambda path: IMAGE.convert("1").save(path),
    "deep_grey.png": lambda path: cv2.imwrite(str(path), DEEP),
    "deep_colour.png": lambda path: cv2.imwrite(str(path), np.stack([DEEP] * 3, -1)),
    "deep.tif": lambda path: cv2.imwrite(str(path), DEEP),
    "cmyk.jpg": lambda path: IMAGE.convert("CMYK").save(path),
    "palette.png": lambda path: IMAGE.convert("P").save(path),
    "palette.gif": lambda path: IMAGE.convert("P").save(path),
    "alpha.png": lambda path: IMAGE.convert("RGBA").save(path),
    "grey_alpha.png": lambda path: IMAGE.convert("LA").save(path),
    "turned.jpg": lambda path: IMAGE.save(path, exif=exif(6)),
    "mirrored.jpg": lambda path: IMAGE.save(path, exif=exif(2)),
    "progressive.jpg": lambda path: IMAGE.save(path, progressive=True),
    "still.webp": lambda path: IMAGE.save(path),
    "one.png": lambda path: IMAGE.resize((1, 1)).save(path),
    "one.jpg": lambda path: IMAGE.resize((1, 1)).save(path),
    "thin.png": lambda path: IMAGE.resize((3000, 1)).save(path),
    "tall.png": lambda path: IMAGE.resize((2, 4000)).save(path),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_detected_on(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    ODD[name](folder / name)
    image = read_image(folder / name)
    assert main(["detect", "run", name, "--save-txt"]) == 0
    [drawn, _] = files(folder / "detections")
    assert drawn.startswith("labels/") or read_image(folder / "detections" / drawn).shape == image.shape
    written = [one for one in files(folder / "detections") if not one.endswith(".txt")]
    assert [read_image(folder / "detections" / one).shape for one in written] == [image.shape]
    for line in next((folder / "detections" / "labels").glob("*.txt")).read_text().splitlines():
        _, x, y, width, height, score = map(float, line.split())
        assert x - width / 2 >= -1e-4 and x + width / 2 <= 1 + 1e-4
        assert y - height / 2 >= -1e-4 and y + height / 2 <= 1 + 1e-4
        assert 0 < score <= 1


def test_a_turned_image_gives_upright_boxes(folder: Path) -> None:
    IMAGE.save(folder / "turned.png", exif=exif(6))
    upright = IMAGE.transpose(Image.Transpose.ROTATE_270)
    upright.save(folder / "upright.png")
    assert main(["detect", "run", "turned.png", "upright.png", "--save-txt"]) == 0
    assert read_image(folder / "detections" / "turned.png").shape == (120, 90, 3)
    labels = folder / "detections" / "labels"
    assert (labels / "turned.txt").read_text() == (labels / "upright.txt").read_text() != ""


def truncated(path: Path) -> None:
    data = write_jpeg(path, make_image(300, 400)).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def bomb(path: Path) -> None:
    """Write an image of 20000 x 20000 pixels: a few kB as a file, 1.2 GB as pixels."""
    Image.new("1", (20_000, 20_000)).save(path)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated.jpg": (truncated, "truncated or damaged"),
    "empty.jpg": (lambda path: path.touch(), "empty"),
    "empty.png": (lambda path: path.touch(), "empty"),
    "text.jpg": (lambda path: path.write_text("not an image at all"), "not a supported image"),
    "cut.png": (lambda path: (IMAGE.save(path), path.write_bytes(path.read_bytes()[:60])), "damaged"),
    "bomb.png": (bomb, "400 million pixels"),
    "empty.mp4": (lambda path: path.touch(), "can't be opened"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_told_and_when_all_are_the_code_is_1(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = BROKEN[name]
    (folder / "in").mkdir()
    make(folder / "in" / name)
    assert main(["detect", "run", "in"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert name in text and message in text and "Nothing could be read" in text
    assert files(folder / "detections") == []
    write_jpeg(folder / "in" / "good.jpg")
    assert main(["detect", "run", "in"]) == 0
    assert files(folder / "detections") == ["good.jpg"]
    assert "1 of 2 sources" in " ".join(capsys.readouterr().out.split())


def test_the_cap_on_pixels_can_be_moved(folder: Path) -> None:
    write_jpeg(folder / "a.jpg", make_image(100, 100))
    assert main(["detect", "run", "a.jpg", "--max-pixels", "9999"]) == 1
    assert main(["detect", "run", "a.jpg", "--max-pixels", "10000"]) == 0


def test_an_interrupt_says_where_the_rest_lies(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(folder / "clip.mp4", num=30)
    steps = 0

    def interrupt(_bar: ProgressBar) -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressBar, "advance", interrupt)
    assert main(["detect", "run", "clip.mp4"]) == 130
    assert "detections" in capsys.readouterr().err
    assert cv2.VideoCapture("detections/clip.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_a_long_table_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    results = []
    for i in range(30):
        results.append(Result(f"{i:02d}.jpg", 1))
        results[-1].counts.update(["red"])
    verb.print_report(DetectReport(tuple(results), (), Path("out"), None, None))
    text = capsys.readouterr().out
    assert "19.jpg" in text and "20.jpg" not in text and "10 more" in text and "10 red" in text


def test_when_nothing_is_found_the_bar_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    verb.print_report(DetectReport((Result("a.jpg", 1),), (), Path("out"), None, None))
    assert "try a lower --conf" in capsys.readouterr().out
    found = Result("a.jpg", 1)
    found.counts.update(["red"])
    verb.print_report(DetectReport((found,), (), Path("out"), None, None))
    assert "--conf" not in capsys.readouterr().out
