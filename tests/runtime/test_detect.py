"""What `detect` leaves on disk: names, images, videos, COCO results, YOLO txt; what it refuses; ids of another file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.runtime.fakes import RED, colour_detector, make_image, write_jpeg, write_video

from eyas.decode import read_image
from eyas.draw import annotate
from eyas.errors import UserError
from eyas.runtime import detect as detect_module
from eyas.runtime.detect import DetectReport, detect
from eyas.runtime.detection_formats import from_yolo_txt
from eyas.runtime.like import ImageIds
from eyas.runtime.sources import Source
from eyas.runtime.writers import CocoFile, read_ids


def run(source: Source, out: Path, **options: object) -> DetectReport:
    return detect(colour_detector()[0], source, out=out, **options)  # type: ignore[arg-type]


def files(folder: Path) -> list[str]:
    """Return the names of all files below the folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_annotated_images_keep_their_names(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPEG", "deep/a.jpg"):
        write_jpeg(tmp_path / "in" / name)
    for name in ("c.png", "d.bmp", "e.webp", "f.tiff"):
        cv2.imwrite(str(tmp_path / "in" / name), make_image()[..., ::-1])
    report = run(tmp_path / "in", tmp_path / "out")
    assert files(tmp_path / "out") == ["a.jpg", "b.JPEG", "c.png", "d.bmp", "deep/a.jpg", "e.webp", "f.tiff"]
    assert [result.name for result in report.results] == files(tmp_path / "out")
    assert report.counts == {"red": 7} and not report.problems
    for path in (tmp_path / "out").rglob("*.*"):
        drawn = read_image(path)
        assert drawn.shape == (64, 96, 3)
        assert np.abs(drawn[25, 25].astype(int) - RED).max() < 40  # still RGB
        assert np.abs(drawn.astype(int) - make_image()).max() > 60  # and a box was drawn


def test_kinds_that_we_do_not_write_become_jpegs(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.ppm"), make_image())
    run([tmp_path / "a.ppm", make_image()], tmp_path / "out")
    assert files(tmp_path / "out") == ["a.ppm.jpg", "array_000001.png"]


def test_equal_names_from_different_folders_both_stay(tmp_path: Path) -> None:
    for folder in ("one", "two", "three"):
        write_jpeg(tmp_path / folder / "a.jpg")
    write_jpeg(tmp_path / "three" / "A.jpg")
    report = run([tmp_path / "one", tmp_path / "two" / "a.jpg", tmp_path / "three"], tmp_path / "out", save_txt=True)
    assert files(tmp_path / "out") == [
        "A-3.jpg", "a-2.jpg", "a-4.jpg", "a.jpg", "labels/A-3.txt", "labels/a-2.txt", "labels/a-4.txt", "labels/a.txt",
    ]  # fmt: skip
    assert len({result.written for result in report.results}) == 4


def test_txt_files_of_images_that_differ_in_their_suffix_only(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "in" / "a.jpg")
    cv2.imwrite(str(tmp_path / "in" / "a.png"), make_image(red=None))
    run(tmp_path / "in", tmp_path / "out", save_txt=True, save_images=False)
    assert files(tmp_path / "out") == ["labels/a-2.txt", "labels/a.txt"]
    assert (tmp_path / "out/labels/a-2.txt").read_text() == ""
    found = from_yolo_txt((tmp_path / "out/labels/a.txt").read_text(), ("red", "blue"), 64, 96)
    np.testing.assert_allclose(found.boxes, [[10, 10, 40, 30]], atol=1.01)


def test_a_video_in_a_video_out(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", num=10, fps=7.0)
    report = run(clip, tmp_path / "out", save_txt=True, save_json="r.json", batch=3)
    assert report.results[0].frames == 10 and report.counts == {"red": 10}
    assert files(tmp_path / "out") == ["clip.mp4", *(f"labels/clip/{i:06d}.txt" for i in range(10)), "r.json"]
    capture = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 7.0 and capture.get(cv2.CAP_PROP_FRAME_COUNT) == 10
    good, frame = capture.read()
    assert good and frame.shape == (64, 96, 3)
    entries = json.loads((tmp_path / "out" / "r.json").read_text())
    assert [entry["frame"] for entry in entries] == list(range(10))
    assert [entry["image_id"] for entry in entries] == list(range(1, 11))


def test_a_video_of_odd_size(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", num=4, height=65, width=97)
    run(clip, tmp_path / "out")
    capture = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4


def test_a_video_that_breaks_off_leaves_what_came_before(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", num=40).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    report = run([tmp_path / "cut.avi", write_jpeg(tmp_path / "a.jpg")], tmp_path / "out")
    frames = report.results[0].frames
    capture = cv2.VideoCapture(str(tmp_path / "out" / "cut.mp4"))
    assert 5 < frames < 40 and capture.get(cv2.CAP_PROP_FRAME_COUNT) == frames
    assert report.problems[0][0] == "cut.avi" and f"after {frames} of 40" in report.problems[0][1]
    assert report.results[1].name == "a.jpg"


def test_an_interrupted_video_is_kept(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", num=30)
    seen = 0

    def interrupt(frame: object, found: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(clip, tmp_path / "out", save_json="r.json", on_frame=interrupt)
    assert files(tmp_path / "out") == ["clip.mp4", "r.json"]
    assert cv2.VideoCapture(str(tmp_path / "out/clip.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert len(json.loads((tmp_path / "out/r.json").read_text())) == 5


def test_coco_results_number_the_images(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "a.jpg", make_image(red=None))
    write_jpeg(tmp_path / "b.jpg")
    report = run([tmp_path / "a.jpg", tmp_path / "b.jpg"], tmp_path / "out", save_json=tmp_path / "x" / "r.json")
    assert report.json == tmp_path / "x" / "r.json"
    [entry] = json.loads((tmp_path / "x" / "r.json").read_text())
    assert (entry["image_id"], entry["category_id"], entry["file_name"]) == (2, 1, "b.jpg")
    np.testing.assert_allclose(entry["bbox"], [10, 10, 30, 20], atol=1.01)


def test_nothing_found_is_an_empty_list(tmp_path: Path) -> None:
    run(make_image(red=None), tmp_path / "out", save_json="r.json", save_images=False)
    assert json.loads((tmp_path / "out" / "r.json").read_text()) == []


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """A COCO annotation file of a.jpg and deep/b.jpg; "blue" comes first there."""
    path = tmp_path / "truth.json"
    images = [{"id": 41, "file_name": "a.jpg"}, {"id": 42, "file_name": "deep/b.jpg"}]
    categories = [{"id": 8, "name": "blue"}, {"id": 9, "name": "red"}, {"id": 10, "name": "green"}]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": []}))
    return path


def test_coco_results_take_the_ids_of_an_annotation_file(tmp_path: Path, annotations: Path) -> None:
    write_jpeg(tmp_path / "in" / "a.jpg")
    write_jpeg(tmp_path / "in" / "deep" / "b.jpg")
    run(tmp_path / "in", tmp_path / "out", save_json="r.json", like=annotations)
    entries = json.loads((tmp_path / "out" / "r.json").read_text())
    assert [(entry["image_id"], entry["category_id"]) for entry in entries] == [(41, 9), (42, 9)]


@pytest.mark.parametrize(
    ("given", "written"), [("0001", "0001"), (2**63, 2**63), (-7, -7), (3.0, 3), ("a/b", "a/b"), (0, 0)]
)
def test_coco_results_keep_ids_as_they_are(given: object, written: object, tmp_path: Path, annotations: Path) -> None:
    truth = json.loads(annotations.read_text())
    truth["images"][0]["id"] = given
    truth["categories"][1]["id"] = given
    annotations.write_text(json.dumps(truth))
    run(write_jpeg(tmp_path / "in" / "a.jpg"), tmp_path / "out", save_json="r.json", like=annotations)
    entry = json.loads((tmp_path / "out" / "r.json").read_text())[0]
    assert (entry["image_id"], entry["category_id"]) == (written, written)
    assert type(entry["image_id"]) is type(written)


@pytest.mark.parametrize("given", [None, True, 1.5, [1], {"id": 1}, float("nan")])
def test_ids_that_are_none(given: object, tmp_path: Path, annotations: Path) -> None:
    truth = json.loads(annotations.read_text())
    truth["images"][0]["id"] = given
    annotations.write_text(json.dumps(truth))
    with pytest.raises(UserError, match=r"The id of 'a\.jpg' is not valid"):
        run(write_jpeg(tmp_path / "in" / "a.jpg"), tmp_path / "out", save_json="r.json", like=annotations)


def test_annotation_files_that_do_not_fit(tmp_path: Path, annotations: Path) -> None:
    with pytest.raises(UserError, match=r"c\.jpg is not among the images"):
        run(write_jpeg(tmp_path / "c.jpg"), tmp_path / "out", save_json="r.json", like=annotations)
    assert files(tmp_path / "out") == []
    annotations.write_text('{"images": [], "categories": [{"id": 1, "name": "red"}]}')
    with pytest.raises(UserError, match="no category for the model's class 'blue'"):
        run(make_image(), tmp_path / "out", save_json="r.json", like=annotations)
    annotations.write_text("[]")
    with pytest.raises(UserError, match="not a COCO annotation file"):
        run(make_image(), tmp_path / "out", save_json="r.json", like=annotations)


def test_sources_are_never_overwritten(tmp_path: Path) -> None:
    path = write_jpeg(tmp_path / "in" / "a.jpg")
    before = path.read_bytes()
    with pytest.raises(UserError, match="would overwrite a source"):
        run(tmp_path / "in", tmp_path / "in")
    with pytest.raises(UserError, match="would overwrite a source"):
        run(path, tmp_path / "in")
    assert path.read_bytes() == before


def test_what_an_earlier_run_left_is_not_looked_at_again(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "a.jpg")
    assert len(run(tmp_path, tmp_path / "detections").results) == 1
    assert len(run(tmp_path, tmp_path / "detections").results) == 1
    assert len(run(tmp_path / "detections", tmp_path / "other").results) == 1
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "other" / "a.jpg").unlink()
    with pytest.raises(UserError, match="contains nothing but the output"):
        run(tmp_path, tmp_path / "detections")


def test_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="is a file"):
        run(make_image(), tmp_path / "out")


def test_everything_that_can_be_checked_is_checked_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect_module, "load", lambda *_, **__: pytest.fail("loaded"))
    path = write_jpeg(tmp_path / "in" / "a.jpg")
    for source, out in ((tmp_path / "nowhere", tmp_path / "out"), (path, tmp_path / "in")):
        with pytest.raises(UserError):
            detect("runs/none", source, out=out)


def test_unreadable_images_are_skipped_and_told(tmp_path: Path) -> None:
    good = write_jpeg(tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.png").touch()
    report = run(tmp_path, tmp_path / "out")
    assert [result.name for result in report.results] == ["good.jpg"]
    assert [name for name, _ in report.problems] == ["cut.jpg", "empty.png"]
    assert files(tmp_path / "out") == ["good.jpg"]


def test_annotating_leaves_the_image_alone() -> None:
    image = make_image()
    found = colour_detector()[0](image)
    drawn = annotate(image, found)
    np.testing.assert_array_equal(image, make_image())
    assert (drawn != image).any()
    np.testing.assert_array_equal(annotate(image, found[:0]), image)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_ids_of_a_file_whose_class_names_were_made_readable(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    text = json.dumps({"images": [{"id": 7, "file_name": "c.jpg"}], "categories": [{"id": 5, "name": "x\ud83d"}]})
    file.write_bytes(text.encode(encoding))
    assert read_ids(file, ("x\ufffd",)) == ({"c.jpg": 7}, [5])


def test_results_go_to_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    results = CocoFile(pipe, [], ("cat",))
    results.close()
    assert json.loads(os.read(reader, 100)) == [] and pipe.is_fifo()
    os.close(reader)


def test_namesakes_in_folders_stay_apart() -> None:
    ids = ImageIds({"cam1/0001.jpg": 1, "cam2/0001.jpg": 2, "b.jpg": 3}, "truth.json")
    assert ids.find(Path("/data/cam2/0001.jpg")) == 2
    assert ids.find("cam1/0001.jpg") == 1
    assert ids.find("/elsewhere/b.jpg") == 3
    with pytest.raises(UserError, match=r"0001\.jpg matches several .*: cam1/0001\.jpg, cam2/0001\.jpg"):
        ids.find("0001.jpg")
    with pytest.raises(UserError, match="is not among the images"):
        ids.find("cam1/0002.jpg")


def test_two_images_never_get_one_id() -> None:
    ids = ImageIds({"0001.jpg": 7}, "truth.json")
    assert ids.find("cam1/0001.jpg") == 7
    assert ids.find("cam1/0001.jpg") == 7  # the same image
    with pytest.raises(UserError, match=r"cam1/0001\.jpg and cam2/0001\.jpg both match the image 0001\.jpg"):
        ids.find("cam2/0001.jpg")
    with pytest.raises(UserError, match="both match"):
        ids.find("cam1/0001.jpg", once=True)


def test_windows_paths_of_annotation_files() -> None:
    assert ImageIds({"a.jpg": 1}, "").find("C:\\x\\a.jpg") == 1
