"""The run, and the bundles that several tests look at; nobody changes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.export.made import spare_export, write_data, write_run

from eyas.artifacts.bundle import Bundle
from eyas.export.bundle import compile_run
from eyas.export.settings import BuildSettings


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset `shapes` and the run `tiny`."""
    folder = tmp_path_factory.mktemp("compile")
    write_run(folder / "tiny", write_data(folder / "shapes"))
    return folder


@pytest.fixture(scope="session")
def bundle(place: Path) -> Bundle:
    """The run for ONNX Runtime in float32, for one to four images at once."""
    return compile_run(place / "tiny", place / "plain", BuildSettings(batch=(1, 4)))


@pytest.fixture(scope="session")
def ir_bundle(place: Path, bundle: Bundle) -> Bundle:
    """The run for OpenVINO in float32, for one to four images at once, from the graph of the other bundle."""
    pytest.importorskip("openvino")
    with pytest.MonkeyPatch.context() as patch:
        graph = bundle.folder / "model.onnx"
        spare_export(patch, graph)
        patch.setenv("EYAS_CACHE", str(place / "cache"))
        return compile_run(place / "tiny", place / "ir", BuildSettings(target="openvino", batch=(1, 4), measured=0))
