"""Columns of a batch that are not tensors: made where the batch is made, the same after a resume."""

from __future__ import annotations

import pytest
import torch
from tests.data.makers import words
from tests.data.scenes import dataset

from eyas.data.augment.config import AugmentPolicy
from eyas.data.index import DatasetIndex
from eyas.data.loading.eval_loader import eval_loader
from eyas.data.loading.loader import TrainLoader, train_loader
from eyas.types import InputSpec

SPEC = InputSpec(64, 64, margin=0)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    """Return 43 images of three shapes."""
    return dataset(tmp_path_factory.mktemp("images"), 43, sizes=((60, 80), (90, 50), (300, 400)))


def loader_of(index: DatasetIndex, **options: object) -> TrainLoader:
    """Return a training loader that makes mosaics, and mixes half of them."""
    return train_loader(index, SPEC, AugmentPolicy(mixup=0.5), batch_size=4, seed=5, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1])
def test_they_come_with_their_images_and_after_a_resume(index: DatasetIndex, workers: int) -> None:
    made = list(loader_of(index, make_extras=words))
    for batch, plain in zip(made, loader_of(index), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch.tensors(), plain.tensors(), strict=True))
        assert plain.extras == {} and set(batch.extras) == {"shown", "words"}
        assert [shown[0] for shown in batch.extras["shown"]] == batch.indices.tolist()
        for row, seen in enumerate(batch.extras["words"]):
            assert {index.classes[label] for label in batch.truth(row)[1].tolist()} <= set(seen)
    # Four of a mosaic, and one that shines through in every other.
    assert {len(shown) for batch in made for shown in batch.extras["shown"]} == {4, 5}
    loader = loader_of(index, workers=workers, make_extras=words)
    batches = iter(loader)
    first = [next(batches) for _ in range(3)]
    state = loader.state_dict()
    loader.close()
    resumed = loader_of(index, workers=1 - workers, make_extras=words)
    resumed.load_state_dict(state)
    again = first + list(resumed)
    assert [batch.extras for batch in again] == [batch.extras for batch in made]
    assert [batch.indices.tolist() for batch in again] == [batch.indices.tolist() for batch in made]
    resumed.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_those_of_evaluation(index: DatasetIndex, workers: int) -> None:
    loader = eval_loader(index, SPEC, batch_size=16, workers=workers, make_extras=words)
    batches = list(loader)
    loader.close()
    assert [shown for batch in batches for shown in batch.extras["shown"]] == [(i,) for i in range(len(index))]
    assert [len(batch.extras["words"]) for batch in batches] == [16, 16, 11]


def test_one_of_another_length_is_a_fault(index: DatasetIndex) -> None:
    loader = loader_of(index, make_extras=lambda *_: {"words": ["a", "b"]})
    with pytest.raises(ValueError, match="'words' has 2 values for 4 images"):
        next(iter(loader))
