"""What each tracker has of a run, read with the tracker's own client, in one form for all of them."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyas.training.loggers.base import Destination

IMAGE_FILES = {"results.png": "curves"}  # the others are sheets


@dataclass
class Seen:
    """What a tracker has.

    Attributes:
        series: name of a metric -> (step, value) of every point, as they were written.
        recipe: name of a setting -> its value as text.
        facts: everything else that is told of the run, as one text.
        images: name -> bytes of each image.
        files: names of the files that are kept or named.
        status: in the tracker's own word.
        runs: how many runs the tracker has.
    """

    series: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    recipe: dict[str, str] = field(default_factory=dict)
    facts: str = ""
    images: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    files: set[str] = field(default_factory=set)
    status: str = ""
    runs: int = 0


def read_mlflow(folder: Path, place: Destination) -> Seen:
    """Read a run with MLflow's client."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=place.where)
    run = client.get_run(place.id)
    inputs = [(i.dataset.name, i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs]
    seen = Seen(recipe=dict(run.data.params), facts=f"{run.data.tags} {inputs}", status=run.info.status)
    for name in run.data.metrics:
        seen.series[name] += [(point.step, point.value) for point in client.get_metric_history(place.id, name)]
    for entry in client.list_artifacts(place.id, "images"):
        name = IMAGE_FILES.get(Path(entry.path).name, "sheets")
        seen.images[name].append(Path(client.download_artifacts(place.id, entry.path)).read_bytes())
    seen.files = {Path(entry.path).name for entry in client.list_artifacts(place.id, "run")}
    seen.runs = len(client.search_runs([run.info.experiment_id]))
    return seen


def read_tensorboard(folder: Path, place: Destination) -> Seen:
    """Read a run with TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    read = EventAccumulator(place.where, size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    read.Reload()
    seen = Seen(runs=1)
    for tag in read.Tags()["scalars"]:
        seen.series[tag] += [(event.step, event.value) for event in read.Scalars(tag)]
    for tag in read.Tags()["images"]:
        seen.images[tag] += [event.encoded_image_string for event in read.Images(tag)]
    texts = {
        tag: read.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
        for tag in read.Tags()["tensors"]
        if not tag.startswith("_hparams_")
    }
    data = HParamsPluginData.FromString(read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    for name, value in data.session_start_info.hparams.items():
        seen.recipe[name] = str(getattr(value, value.WhichOneof("kind")))
    seen.facts = texts["environment and data"]
    rows = texts.get("files", "").splitlines()[2:]
    seen.files = {row.split("|")[1].strip() for row in rows}
    assert ("card" in texts) == ("card.json" in seen.files)
    seen.status = texts.get("status", "")
    return seen


def read_wandb(folder: Path, place: Destination) -> Seen:
    """Read the files of an offline run, one for each time that the run was gone on with, with W&B's own messages."""
    seen = Seen(runs=1)
    statuses = []
    for path in sorted((folder / "wandb").glob(f"offline-run-*-{place.id}/run-{place.id}.wandb")):
        for record in wandb_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                assert record.run.run_id == place.id
            elif kind == "config":
                config = {each.key: json.loads(each.value_json) for each in record.config.update}
                seen.recipe |= {name: str(value) for name, value in config.get("recipe", {}).items()}
                seen.facts = str(config.get("facts", seen.facts))
            elif kind == "history":
                _add_history(seen, record.history.item, path.parent / "files")
            elif kind == "artifact":
                seen.files = {entry.path for entry in record.artifact.manifest.contents}
                assert all(Path(entry.local_path).is_file() for entry in record.artifact.manifest.contents)
            elif kind == "summary":
                statuses += [json.loads(each.value_json) for each in record.summary.update if each.key == "status"]
    seen.status = statuses[-1] if statuses else ""
    return seen


def _add_history(seen: Seen, items: Any, files: Path) -> None:
    """Add one step of a W&B run."""
    fields = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
    for name, value in fields.items():
        if name.endswith("/path"):
            seen.images[name.removesuffix("/path")].append((files / value).read_bytes())
        elif (
            isinstance(value, int | float)
            and not name.startswith("_")
            and name.split("/")[0] not in ("curves", "sheets")
        ):
            seen.series[name].append((fields["_step"], value))


def wandb_records(path: Path) -> Iterator[Any]:
    """Yield the records of a .wandb file: LevelDB's log format, in blocks of 32 KiB, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


READERS: Mapping[str, Callable[[Path, Destination], Seen]] = {
    "mlflow": read_mlflow,
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
}
# The trackers' words for finished, interrupted and failed.
STATUSES: Mapping[str, tuple[str, str, str]] = {
    "mlflow": ("FINISHED", "KILLED", "FAILED"),
    "tensorboard": ("finished", "interrupted", "failed"),
    "wandb": ("finished", "interrupted", "failed"),
}
