"""Who may import whom: the rule of docs/architecture.md, held against the imports of every module."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest
from tests.meta.source import ROOT, Import, imports, modules

BASE = frozenset({
    "types", "boxes", "checks", "errors", "text", "terminal", "files", "letterbox", "decode", "decode_apart",
    "decode_process", "opencv_limits", "opencv_images", "image_header", "image_files", "glyphs", "chart_text",
    "draw", "path_ends", "signals", "addresses", "mlflow_store", "child_process", "renamed",
    "progress", "read_ahead",
})  # fmt: skip

# Unit (a base module or a package) -> the units it may import. Everything may import itself.
ALLOWED: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(BASE, BASE),
    "machine": BASE,
    "tensor_boxes": BASE,
    "head_output": BASE,
    "artifacts": BASE,
    "data": BASE | {"machine", "artifacts"},
    "models": BASE | {"tensor_boxes", "head_output", "artifacts", "assign", "losses"},
    "assign": frozenset({"types", "boxes", "errors", "tensor_boxes"}),
    "losses": frozenset({"types", "boxes", "errors", "tensor_boxes", "head_output", "assign"}),
    "runtime": BASE | {"machine", "artifacts"},
    "registry": BASE | {"artifacts"},
    "predict": BASE | {"machine", "artifacts", "runtime"},
    "serve": BASE | {"machine", "artifacts", "runtime", "registry"},
    "benchmark": BASE | {"machine", "artifacts", "runtime", "serve"},
    "cluster": BASE | {"machine", "artifacts", "runtime", "serve"},
    "evaluation": BASE | {"machine", "artifacts", "data", "runtime"},
    "export": BASE | {"machine", "tensor_boxes", "head_output", "artifacts", "data", "models", "evaluation", "runtime"},
    "training": BASE
    | {"machine", "tensor_boxes", "head_output", "artifacts", "data", "models", "assign", "losses", "evaluation"}
    | {"runtime"},
}
OUTERMOST = frozenset({"cli", "__main__"})  # may import everything; nobody else imports them
BRIDGE = "eyas.runtime.sessions.torch"  # the one module of runtime that may import torch and models, in functions only

# Package outside -> the units that may import it. What is not listed here may be imported by all.
OUTSIDE: Mapping[str, frozenset[str]] = {
    "torch": frozenset(
        {"tensor_boxes", "head_output", "data", "models", "assign", "losses", "evaluation", "training", "export"}
    ),
    "lightning": frozenset({"training"}),
    "pytorch_lightning": frozenset(),
    "safetensors": frozenset({"models", "training"}),
    "hotcoco": frozenset({"evaluation"}),
    "matplotlib": frozenset({"chart_text", "evaluation", "training", "data"}),
    "jsonargparse": frozenset({"training", "cli"}),
    "yaml": frozenset({"data", "training"}),
    "onnx": frozenset({"export"}),
    "onnxslim": frozenset({"export"}),
    "openvino": frozenset({"runtime", "export"}),
    "cuda": frozenset({"runtime"}),
    "timm": frozenset({"models"}),
    "torchvision": frozenset(),
    "mlflow": frozenset({"mlflow_store", "registry", "training"}),
    "sqlalchemy": frozenset({"mlflow_store"}),
    "alembic": frozenset({"mlflow_store"}),
    "tensorboard": frozenset({"training"}),
    "wandb": frozenset({"training"}),
    "pyarrow": frozenset({"predict"}),
    "ray": frozenset({"predict", "cluster"}),
    "uvicorn": frozenset({"serve"}),
    "starlette": frozenset({"serve"}),
    "grpc": frozenset({"serve", "cluster"}),
    "google": frozenset({"serve"}),  # protobuf
    "prometheus_client": frozenset({"serve"}),
    "msgspec": frozenset({"serve"}),
    "opentelemetry": frozenset({"serve"}),
    "pycocotools": frozenset(),
    "PIL": frozenset(),
}


def unit(module: str) -> str:
    """Return the unit of a module: the first name below `eyas`, "" for `eyas` itself."""
    return module.split(".")[1] if "." in module else ""


def is_ours(module: str) -> bool:
    """Return whether the module belongs to Eyas."""
    return module.partition(".")[0] == "eyas"


def violations(module: str, found: Iterable[Import]) -> list[str]:
    """Return what the module's imports break, one line each."""
    here = unit(module)
    reasons = ((each, (_inside if is_ours(each.module) else _outside)(module, here, each)) for each in found)
    return [f"{module}:{each.line} imports {each.module}: {reason}" for each, reason in reasons if reason]


def _inside(module: str, here: str, found: Import) -> str:
    """Return why the import of an Eyas module is forbidden, "" when it is not."""
    there = unit(found.module)
    if here in OUTERMOST or here == there:
        return ""
    if here == "":
        return "" if found.deferred or found.typing_only else "`eyas` itself imports its parts on first use only"
    if there in OUTERMOST or there == "":
        return f"nobody imports `eyas{'.' + there if there else ''}` but the command line"
    if module == BRIDGE and there == "models":
        return "" if found.deferred or found.typing_only else "only inside functions"
    return "" if there in ALLOWED.get(here, frozenset()) else f"`{here}` may not import `{there}`"


def _outside(module: str, here: str, found: Import) -> str:
    """Return why the import of somebody else's package is forbidden, "" when it is not."""
    package = found.module.partition(".")[0]
    if package not in OUTSIDE or found.typing_only:
        return ""
    if module == BRIDGE and package in ("torch", "safetensors"):
        return "" if found.deferred else "only inside functions"
    if here in OUTERMOST:
        return "" if found.deferred else "the command line imports heavy packages inside functions only"
    return "" if here in OUTSIDE[package] else f"`{here}` may not import {package}"


def cycle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Return one circle of the graph, first node repeated at its end; [] when there is none."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for target in graph.get(node, ()):
            if circle := walk(target, [*path, node]):
                return circle
        done.add(node)
        return []

    return next((circle for node in graph if (circle := walk(node, []))), [])


def module_imports(name: str, path: Path) -> list[Import]:
    """Return the imports of a module of the package."""
    return imports(path.read_text(encoding="utf-8"), name, modules(), package=path.name == "__init__.py")


@cache
def import_graph() -> dict[str, set[str]]:
    """Return module -> the Eyas modules it imports at run time, itself excepted."""
    known = modules()
    return {
        name: {each.module for each in module_imports(name, path) if each.module in known and not each.typing_only}
        - {name}
        for name, path in known.items()
    }


@pytest.mark.parametrize("name", modules())
def test_module_imports_only_what_its_layer_may(name: str) -> None:
    broken = violations(name, module_imports(name, modules()[name]))
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("name", modules())
def test_module_belongs_to_a_layer(name: str) -> None:
    assert unit(name) in {"", *ALLOWED, *OUTERMOST}, f"{name}: add its layer here and in docs/architecture.md"


def test_there_is_no_circle_of_imports() -> None:
    graph = {name: targets for name, targets in import_graph().items() if name != "eyas"}
    assert not cycle(graph), " -> ".join(cycle(graph))


def test_layers_themselves_have_no_circle() -> None:
    assert not cycle({here: there - BASE for here, there in ALLOWED.items()})


def test_architecture_page_shows_the_same_table() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert documented_layers(page) == ALLOWED


def documented_layers(page: str) -> dict[str, frozenset[str]]:
    """Return the table of the architecture page, unit -> the units it may import; "base" there stands for them all."""
    table: dict[str, frozenset[str]] = {}
    for row in re.findall(r"^\|(.+)\|(.+)\|.*\|$", page, flags=re.M):
        units, allowed = (set(re.findall(r"`(\w+)`", cell)) | (BASE if "base" in cell else set()) for cell in row)
        if units <= set(ALLOWED):
            table.update(dict.fromkeys(units, frozenset(allowed)))
    return table


# What follows shows that the rules above can fail.


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("eyas.models.zoo", "from eyas.training import recipe"),
        ("eyas.models.zoo", "def build():\n    import eyas.training.fit"),
        ("eyas.models.zoo", "from ..train import fit"),
        ("eyas.losses.giou", "from eyas.models.zoo import build"),
        ("eyas.runtime.nms", "import torch"),
        ("eyas.runtime.nms", "def f():\n    from torch import nn"),
        ("eyas.runtime.detector", "from eyas.tensor_boxes import iou"),
        ("eyas.runtime.sessions.torch", "import torch"),
        ("eyas.runtime.sessions.torch", "from eyas.models.zoo import build"),
        ("eyas.runtime.sessions.torch", "def f():\n    import lightning"),
        ("eyas.evaluation.coco", "from lightning.pytorch import Trainer"),
        ("eyas.data.index", "from eyas.cli.main import main"),
        ("eyas.data.index", "import eyas"),
        ("eyas.data.index", "from eyas import load"),
        ("eyas.boxes", "import torch"),
        ("eyas.boxes", "from eyas.data.index import DatasetIndex"),
        ("eyas.cli.train", "import torch"),
        ("eyas", "from eyas.training import train"),
    ],
)
def test_a_forbidden_import_is_found(module: str, code: str) -> None:
    known = {*modules(), "eyas.training.recipe", "eyas.training.fit", "eyas.models.zoo"}
    assert violations(module, imports(code, module, known))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("eyas.training.fit", "import torch\nfrom lightning.pytorch import Trainer\nfrom eyas.models import zoo"),
        ("eyas.runtime.sessions.torch", "def f():\n    import torch\n    from eyas.models import zoo"),
        ("eyas.runtime.nms", "import numpy\nfrom eyas.boxes import iou"),
        ("eyas.evaluation.coco", "from eyas.runtime.postprocess import select"),
        ("eyas.cli.train", "def run():\n    import torch\n    from eyas.training import train"),
        ("eyas", "def __getattr__(name):\n    from eyas.training import train"),
    ],
)
def test_an_allowed_import_passes(module: str, code: str) -> None:
    assert violations(module, imports(code, module, {*modules(), "eyas.models.zoo"})) == []


def test_a_circle_is_found() -> None:
    assert cycle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert cycle({"a": ["b", "c"], "b": ["c"], "c": []}) == []
