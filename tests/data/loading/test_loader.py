"""The loaders: the same batches for all workers, ranks and interruptions; broken images are named and replaced."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from tests.data.given import Tasks
from tests.data.scenes import all_same, broken_dataset, dataset, extent, index_of, same

from eyas.data.augment.config import AugmentPolicy
from eyas.data.index import DatasetIndex
from eyas.data.loading import cache as cache_module
from eyas.data.loading.batch import Batch
from eyas.data.loading.cache import CacheKind, ImageCache
from eyas.data.loading.eval_loader import eval_loader
from eyas.data.loading.loader import TrainLoader, train_loader
from eyas.data.loading.source import Images
from eyas.data.loading.workers import tasks_ahead
from eyas.errors import UserError
from eyas.types import InputSpec

SPEC = InputSpec(64, 64, margin=0)
POLICY = AugmentPolicy(mixup=0.5, swap=0.2, gamma=0.2, min_area=4.0)


def loader_of(index: DatasetIndex, *, batch_size: int = 4, workers: int = 0, **options: object) -> TrainLoader:
    return train_loader(index, SPEC, POLICY, batch_size=batch_size, seed=5, workers=workers, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def epochs(index: DatasetIndex) -> list[list[Batch]]:
    """Return two epochs made without workers: what all other ways must give too."""
    loader = loader_of(index)
    return [list(loader), list(loader)]


def test_batches_have_the_promised_form(epochs: list[list[Batch]]) -> None:
    assert len(epochs[0]) == 10
    for batch in epochs[0]:
        assert batch.images.shape == (4, 64, 64, 3)
        assert batch.images.dtype == torch.uint8 and batch.boxes.dtype == torch.float32
        assert all(t.dtype == torch.int64 for t in (batch.labels, batch.counts, batch.indices, batch.sizes))
        assert len(batch.boxes) == len(batch.labels) == int(batch.counts.sum())
        assert (batch.boxes >= 0).all() and (batch.boxes <= 64).all()
        assert (batch.boxes[:, 2:] - batch.boxes[:, :2] >= POLICY.min_size).all()
        assert set(batch.labels.tolist()) <= {0, 1}  # 2 is always a crowd
        assert not batch.placements.any()
    assert sum(len(batch.boxes) for batch in epochs[0]) > 80


def test_every_sample_and_epoch_has_random_numbers_of_its_own(tmp_path: Path) -> None:
    # Forty times the same image: whatever differs comes from the random numbers.
    copies = dataset(tmp_path, 40, same=True)
    loader = loader_of(copies, batch_size=8, workers=2)
    first, second = ([image.numpy().tobytes() for batch in loader for image in batch.images] for _ in range(2))
    loader.close()
    assert len(first) == 40
    assert len({*first, *second}) == 80
    other = train_loader(copies, SPEC, POLICY, batch_size=8, seed=6)
    assert not {image.numpy().tobytes() for batch in other for image in batch.images} & {*first, *second}


# Eight batches that share images, or three, or two.
@pytest.mark.parametrize(("batch_size", "workers"), [(4, 0), (12, 1), (20, 0), (20, 2)])
def test_resume_at_every_batch_of_two_epochs(index: DatasetIndex, workers: int, batch_size: int) -> None:
    plain = loader_of(index, batch_size=batch_size)
    whole = [*plain, *plain]
    stopped, resumed = (loader_of(index, batch_size=batch_size, workers=workers) for _ in range(2))
    states = [stopped.state_dict()]
    for _ in range(2):
        states += [stopped.state_dict() for _ in stopped]
    stopped.close()
    for given, state in enumerate(states[:-1]):
        resumed.load_state_dict(state)
        assert same(next(iter(resumed)), whole[given])
    resumed.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 3, 7, 10])
def test_resume_in_mid_epoch_gives_the_remaining_batches(
    index: DatasetIndex, epochs: list[list[Batch]], workers: int, stop: int
) -> None:
    loader = loader_of(index, workers=workers)
    batches = iter(loader)
    for _ in range(stop):
        next(batches)
    state = loader.state_dict()  # the workers are ahead by some batches: these don't count
    loader.close()
    resumed = loader_of(index, workers=2 - workers)
    resumed.load_state_dict(state)
    assert resumed.state_dict()["consumed"] == stop % 10
    assert all_same(list(resumed), epochs[0][stop:] if stop < 10 else epochs[1])
    if stop < 10:
        assert all_same(list(resumed), epochs[1])  # and the next epoch is whole
    resumed.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_that_was_broken_off_goes_on_unless_it_is_rewound(
    index: DatasetIndex, epochs: list[list[Batch]], workers: int
) -> None:
    loader = loader_of(index, workers=workers)
    for _ in zip(range(3), loader, strict=False):
        pass
    assert all_same(list(loader), epochs[0][3:])
    assert all_same(list(loader), epochs[1])
    loader.set_epoch(0)
    assert all_same(list(loader), epochs[0])
    loader.close()


# --------------------------------------------------------------------------------------------------- ends of epochs


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    return Tasks(monkeypatch)


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_live_through_three_epochs_with_evaluation_and_know_no_ends(
    index: DatasetIndex, tasks: Tasks, workers: int
) -> None:
    evaluation = eval_loader(index, SPEC, batch_size=8, workers=workers)
    loader = loader_of(index, workers=workers, epochs=3, close_at_epoch=2, before_end=evaluation.prepare)
    plain = loader_of(index, close_at_epoch=2)
    expected = list(eval_loader(index, SPEC, batch_size=8))
    for epoch in range(3):
        batches = iter(loader)
        for number, other in enumerate(plain):
            before = len(tasks.given)
            assert same(next(batches), other)
            assert loader.state_dict()["consumed"] == number + 1 and loader.state_dict()["epoch"] == epoch
            assert all(task[0] <= 2 for task in tasks.given[before:])  # nothing is made for a fourth epoch
        # All of the next epoch that the workers may be ahead is theirs before the last batch of this one is worked on.
        assert [task for task in tasks.given if task[0] == epoch + 1][:1] == (
            [(epoch + 1, tuple(range(8)), epoch == 1)] * (epoch < 2)
        )
        # And so are the first batches of the evaluation.
        assert tasks.given.count((0, (0,), False)) == epoch + 1
        before = len(tasks.given)
        assert all_same(list(evaluation), expected)
        assert len(tasks.given) - before == 6 - 2 * workers
    assert tasks.started == 2 * workers
    loader.close()
    evaluation.close()


def test_what_was_made_ahead_is_dropped_when_another_place_is_gone_to(
    index: DatasetIndex, epochs: list[list[Batch]], tasks: Tasks
) -> None:
    loader = loader_of(index, workers=2)
    assert all_same(list(loader), epochs[0])
    assert (1, tuple(range(8)), False) in tasks.given
    state = loader.state_dict()
    loader.set_epoch(0)
    assert all_same(list(loader), epochs[0])
    loader.load_state_dict(state)
    assert all_same(list(loader), epochs[1])
    assert tasks.started == 2
    loader.close()  # with two tasks of the third epoch in each worker


def test_a_run_whose_length_is_unknown_or_exceeded_goes_on(index: DatasetIndex, epochs: list[list[Batch]]) -> None:
    loader = loader_of(index, workers=1, epochs=1)
    assert all_same(list(loader), epochs[0])
    assert all_same(list(loader), epochs[1])
    loader.close()


def test_two_iterations_at_a_time_are_refused(index: DatasetIndex) -> None:
    loader = loader_of(index)
    first = iter(loader)
    next(first)
    next(iter(loader))
    with pytest.raises(RuntimeError, match="iterated again"):
        next(first)


@pytest.mark.parametrize("kind", ["jpeg", "decoded"])
def test_caches_change_nothing(index: DatasetIndex, epochs: list[list[Batch]], kind: CacheKind) -> None:
    loader = loader_of(index, cache=kind, workers=1)
    assert all_same(list(loader), epochs[0])
    loader.close()


def test_cached_files_are_not_read_again(tmp_path: Path) -> None:
    small = dataset(tmp_path, 8)
    loader = loader_of(small, cache="jpeg")
    first = list(loader)
    for path in tmp_path.iterdir():
        path.unlink()
    loader.set_epoch(0)
    assert all_same(list(loader), first)


def test_a_cache_that_does_not_fit_is_refused(index: DatasetIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "available_memory", lambda: 1000)
    two = index.subset(np.tile(np.arange(43), 12))  # more than one block of images
    with pytest.raises(UserError, match="does not fit into memory") as error:
        list(loader_of(two, cache="decoded"))
    assert "cache=jpeg" in error.value.fix
    with pytest.raises(UserError, match="Unknown cache"):
        loader_of(index, cache="disk")


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_make_the_same_samples(index: DatasetIndex, epochs: list[list[Batch]], world_size: int) -> None:
    ranks = [
        list(loader_of(index, batch_size=4 // world_size, rank=r, world_size=world_size)) for r in range(world_size)
    ]
    for number, batch in enumerate(epochs[0]):
        parts = [rank[number] for rank in ranks]
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part.boxes for part in parts]), batch.boxes)


def test_policy_changes_at_the_closing_epoch(index: DatasetIndex) -> None:
    closed = loader_of(index, close_at_epoch=1)
    plain = train_loader(index, SPEC, POLICY.closing(), batch_size=4, seed=5)
    first, second = list(closed), list(closed)
    expected_first, expected_second = list(plain), list(plain)
    assert not all_same(first, expected_first)
    assert all_same(second, expected_second)
    own = loader_of(index, close_at_epoch=0, closing_policy=AugmentPolicy.none())
    assert next(iter(own)).placements.any(dim=1).all()  # plain letterbox: no image is augmented


def test_without_augmentation_training_sees_what_evaluation_sees(index: DatasetIndex) -> None:
    none = train_loader(index, SPEC, AugmentPolicy.none(), batch_size=4, seed=1)
    seen = {}
    for batch in eval_loader(index, SPEC, batch_size=8):
        for row, i in enumerate(batch.indices.tolist()):
            seen[i] = (batch.images[row], batch.truth(row), batch.placements[row], batch.sizes[row])
    for batch in none:
        for row, i in enumerate(batch.indices.tolist()):
            image, (boxes, labels), placement, size = seen[i]
            assert torch.equal(batch.images[row], image)
            assert torch.allclose(batch.truth(row)[0], boxes, atol=1e-3)
            assert torch.equal(batch.truth(row)[1], labels)
            assert torch.equal(batch.placements[row], placement) and torch.equal(batch.sizes[row], size)


def test_fewer_images_than_a_batch_fill_it(tmp_path: Path) -> None:
    loader = loader_of(dataset(tmp_path, 3), batch_size=8)
    (batch,) = list(loader)
    assert sorted(np.bincount(batch.indices).tolist()) == [2, 3, 3]
    assert len({image.numpy().tobytes() for image in batch.images}) == 8  # repeated, but augmented anew


def test_large_jpegs_are_decoded_small_and_boxes_follow(tmp_path: Path) -> None:
    image = np.zeros((1201, 1603, 3), np.uint8)
    box = [300, 200, 900, 700]
    image[200:700, 300:900] = 255
    (tmp_path / "0.jpg").write_bytes(simplejpeg.encode_jpeg(image, quality=95))
    large = index_of(tmp_path, ["0.jpg"], np.array([box], np.float32), [(1201, 1603)], boxes_each=1)
    images = Images(large, SPEC, 1.5, ImageCache(large))
    source = images.get(0)
    assert source.image.shape == (151, 201, 3)  # an eighth
    assert source.size == (1201, 1603)
    assert np.abs(extent(source.image[..., 0] > 127) - source.boxes[0]).max() <= 1
    assert images.get(0) is source
    images.forget()
    assert images.get(0) is not source
    policy = dataclasses.replace(AugmentPolicy.none(), scale=(0.9, 0.9))
    batch = next(iter(train_loader(large, SPEC, policy, batch_size=1)))
    assert batch.sizes.tolist() == [[1201, 1603]]
    assert np.abs(extent(batch.images[0, ..., 0].numpy() > 200) - batch.boxes[0].numpy()).max() <= 1.5


def test_bad_boxes_do_not_reach_the_trainer(tmp_path: Path) -> None:
    made = dataset(tmp_path, 1)
    boxes = np.array([[10, 10, 40, 40], [np.nan, 0, 9, 9], [30, 30, 20, 40], [-20, 10, 30, 90], [200, 0, 220, 9]])
    bad = index_of(tmp_path, ["0000.jpg"], boxes.astype(np.float32), [(60, 80)], boxes_each=5)
    bad = dataclasses.replace(bad, crowd=np.zeros(5, bool))
    source = Images(bad, SPEC, None, ImageCache(made)).get(0)
    assert source.boxes.tolist() == [[10, 10, 40, 40], [0, 10, 30, 60]]


def test_batches_on_their_way_hold_no_more_than_half_of_the_memory(
    index: DatasetIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1 << 30
    assert tasks_ahead(2, free // 20, free) == 2
    assert tasks_ahead(2, free // 6, free) == 1
    with pytest.raises(UserError, match="2048 MiB of memory for batches") as error:
        tasks_ahead(2, free, free)
    assert "fewer workers" in error.value.fix
    # What the loader asks for: 8 batches of 4 share their images.
    asked: list[int] = []
    monkeypatch.setattr(
        "eyas.data.loading.workers.tasks_ahead", lambda _, task_bytes, free: asked.append(task_bytes) or 1
    )
    loader_of(index, workers=1)
    eval_loader(index, SPEC, batch_size=4, workers=1)
    assert asked == [8 * 4 * 64 * 64 * 3, 4 * 64 * 64 * 3]


# ------------------------------------------------------------------------------------------------- broken images


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_once_and_replaced(tmp_path: Path, workers: int) -> None:
    index = broken_dataset(tmp_path, 120, [17])
    loader = loader_of(index, batch_size=8, workers=workers)
    with pytest.warns(UserWarning, match="can't be read") as caught:
        epochs = [list(loader), list(loader)]
    loader.close()
    assert [str(index.path(17)) in str(warning.message) for warning in caught] == [True]
    assert loader.skipped.paths() == (index.path(17),)
    assert "1 of 120" in loader.skipped.summary()
    for number, epoch in enumerate(epochs):
        assert [len(batch) for batch in epoch] == [8] * 15
        used = [i for batch in epoch for i in batch.indices.tolist()]
        assert 17 not in used and len(set(used)) == 119
        order = loader.order.order(number).tolist()
        assert used[order.index(17)] == order[(order.index(17) + 1) % 120]
        assert any(17 in batch.skipped for batch in epoch)


def test_the_stand_in_is_the_same_for_all_workers_and_after_resume(tmp_path: Path) -> None:
    index = broken_dataset(tmp_path, 120, [17])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = list(loader_of(index, batch_size=8))
        shared = loader_of(index, batch_size=8, workers=2)
        assert all_same(list(shared), alone)
        shared.close()
        stopped = loader_of(index, batch_size=8)
        for _ in zip(range(14), stopped, strict=False):
            pass
    resumed = loader_of(index, batch_size=8)
    resumed.load_state_dict(stopped.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told of before the interruption, so not again
        assert all_same(list(resumed), alone[14:])
    assert "1 of 120" in resumed.skipped.summary()


@pytest.mark.parametrize("workers", [0, 1])
def test_more_than_one_percent_broken_stops_with_the_list(tmp_path: Path, workers: int) -> None:
    index = broken_dataset(tmp_path, 120, [3, 50, 99])
    loader = loader_of(index, batch_size=8, workers=workers)
    with pytest.warns(UserWarning), pytest.raises(UserError, match="2 of 120 images can't be read") as error:
        list(loader)
    loader.close()
    assert sum(str(index.path(i)) in str(error.value) for i in (3, 50, 99)) >= 2
    assert "eyas data check" in error.value.fix


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_broken_images_is_a_plain_error(tmp_path: Path, workers: int) -> None:
    index = broken_dataset(tmp_path, 4, [0, 1, 2, 3])
    loader = loader_of(index, workers=workers)
    with pytest.raises(UserError, match="4 consecutive images can't be read") as error:
        list(loader)
    loader.close()
    assert "Traceback" not in str(error.value)
    assert error.value.fix == "check the dataset: eyas data check"
