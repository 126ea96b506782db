"""The bundle that the tests of prediction share; nobody changes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.serve.bundles import write_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that finds something else in every image."""
    return write_bundle(tmp_path_factory.mktemp("predict") / "bundle")
