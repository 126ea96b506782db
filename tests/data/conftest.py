"""Images that the tests of loading share; nobody changes them."""

from __future__ import annotations

import pytest
from tests.data.scenes import dataset

from eyas.data.index import DatasetIndex


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    """Return 43 images of three shapes, one larger than four times a frame of 64."""
    return dataset(tmp_path_factory.mktemp("images"), 43, sizes=((60, 80), (90, 50), (300, 400)))
