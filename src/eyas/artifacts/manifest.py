"""`manifest.json` of a bundle: inputs, outputs, contents and measurements of the compiled files.

Written by `eyas.export`, read wherever a bundle is opened. Its JSON schema lies in docs/manifest.schema.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from eyas.artifacts.card import check_files, check_hash
from eyas.artifacts.hints import compile_command, refuse_file
from eyas.artifacts.layout import MANIFEST
from eyas.artifacts.measured import Accuracy, Latency, ManifestPart, Parity, Range
from eyas.checks import MAX_CLASSES, check_class_names, check_file_name, check_text, shown
from eyas.errors import UserError
from eyas.files import read_json, write_text
from eyas.types import MAX_SIDE, InputSpec, Thresholds, checked_fields

FORMAT = "eyas-bundle"
FORMAT_VERSION = 2  # the newest that is read; a bundle has the oldest whose readers know all that it says
MAX_BYTES = 16 * 2**20  # of a manifest; real ones have kilobytes

Target = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
SuppressionPlace = Literal["host", "graph", "none"]
Judged = Literal["file", "graph"]

# No network of the family comes near these; what is beyond them would only take this machine's memory or time.
MAX_BATCH = 4096
MAX_ROWS = 2_000_000  # candidates: a network of the greatest side has some 1.4 million
MAX_FRAMES = 2**31  # bytes of the least batch
MAX_WORD = 200  # characters
Word = Annotated[str, Field(max_length=MAX_WORD)]


class Manifest(ManifestPart):
    """A bundle's contract. Boxes come in network pixels, scores in 0..1; see `eyas.runtime.sessions.base`.

    Attributes:
        format, version: what kind of file this is; version 2 where nothing is to be suppressed, which readers of
            version 1 would not know, else 1.
        name: the bundle's name.
        classes: class names, in label order.
        input: how an image becomes the network's input.
        batch: least and greatest number of images at once.
        sizes: least and greatest height and width in pixels (in steps of 32), None where only the input's own runs.
        candidates: how many candidates the graph gives for an image at most.
        nms: whether the graph leaves overlapping boxes ("host" drops them), has dropped them itself ("graph"), or gives
            one box an object, so that nothing is to be dropped ("none", as `thresholds.suppression` is then, too).
        nms_iou: for "graph", the overlap above which the weaker box of a class was dropped.
        thresholds: what a detection must pass unless told otherwise.
        target: the engine.
        precision: of the layers that matter, the convolutions.
        files: relative path of each file -> SHA-256 of its bytes.
        entry: which of them the engine opens.
        opset: of the ONNX graph.
        judged: what parity and accuracy are of: "file", the entry itself; "graph", the ONNX graph that it was built
            from, on a machine that could not run the entry: the entry itself has never run.
        parity: distance from the trained network.
        accuracy: measured on a dataset, None if none was given.
        latency: what was measured, on which machines.
        compute_capabilities: GPUs that the file was built for, as "8.9", or "12.0+" for that and all newer ones; empty
            where that doesn't matter.
        details: more that the target tells of itself.
        created: ISO 8601 time, UTC.
        eyas: the version that wrote it.
    """

    format: Literal["eyas-bundle"] = "eyas-bundle"
    version: Literal[1, 2] = 1
    name: Word
    classes: tuple[str, ...] = Field(min_length=1, max_length=MAX_CLASSES)
    input: InputSpec
    batch: Range
    sizes: Range | None = None
    candidates: int = Field(ge=1, le=MAX_ROWS)
    nms: SuppressionPlace = "host"
    nms_iou: float | None = Field(default=None, ge=0, le=1)
    thresholds: Thresholds
    target: Target
    precision: Precision
    files: dict[str, str] = Field(min_length=1, max_length=1000)
    entry: str
    opset: int | None = Field(default=None, ge=1, le=1000)
    judged: Judged = "file"
    parity: Parity | None = None
    accuracy: Accuracy | None = None
    latency: tuple[Latency, ...] = Field(default=(), max_length=1000)
    compute_capabilities: tuple[Annotated[str, Field(pattern=r"^\d{1,2}\.\d\+?$")], ...] = ()
    details: dict[str, Any] = Field(default_factory=dict)
    created: Word
    eyas: Word

    @field_validator("name")
    @classmethod
    def _name_can_be_told(cls, name: str) -> str:
        return check_text("The bundle's name", name, "name", MAX_WORD)

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        check_class_names(classes, "classes")
        return classes

    @field_validator("files")
    @classmethod
    def _files_stay_inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name, value in files.items():
            check_file_name(name)
            check_hash(value)
        return files

    @field_validator("batch")
    @classmethod
    def _batches_rise(cls, value: Range) -> Range:
        return _rising(value, MAX_BATCH)

    @field_validator("sizes")
    @classmethod
    def _sizes_rise(cls, value: Range | None) -> Range | None:
        if value is not None and (_rising(value, MAX_SIDE)[0] % 32 or value[1] % 32):
            raise ValueError(f"{value[0]} to {value[1]} are not multiples of 32")
        return value

    @model_validator(mode="after")
    def _parts_agree(self) -> Manifest:
        if self.entry not in self.files:
            raise ValueError(f"the entry {shown(self.entry)} is not among the files")
        if (self.nms == "none") != (self.thresholds.suppression == "none"):
            raise ValueError(f"nms is {self.nms}, and thresholds.suppression {self.thresholds.suppression}")
        if self.version < oldest_version(self.nms):
            raise ValueError(f"nms is {self.nms}, which format {self.version} does not support")
        least = self.batch[0] * self.input.height * self.input.width * 3
        if least > MAX_FRAMES:
            raise ValueError(f"the smallest batch has {least / 2**30:.0f} GiB of pixels")
        return self

    @classmethod
    def read(cls, folder: Path, *, verify: bool = True) -> Manifest:
        """Return the manifest of the bundle in `folder`.

        Args:
            folder: the bundle.
            verify: whether to hold the files' bytes against their hashes.

        Raises:
            UserError: there is no manifest, it is not a bundle's or is not valid, it was made by a newer Eyas, or a
                file is missing, lies outside the folder or was changed.
        """
        refuse_file(folder, bundle=True)
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError(
                f"{folder.name or folder} is not a bundle: it has no {MANIFEST}.",
                where=str(folder),
                fix=compile_command(folder) or "create one with: eyas compile RUN --out FOLDER",
            )
        fields = read_json(path, max_bytes=MAX_BYTES, strict=True)
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise UserError(f"{MANIFEST} is not a bundle manifest.", where=str(path), expected=f'"format": "{FORMAT}"')
        version = fields.get("version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise UserError(
                f"The bundle was made by a newer Eyas (format {version}; this one reads {FORMAT_VERSION}).",
                where=str(path),
                fix="pip install --upgrade eyas",
            )
        for name, kind in (("input", InputSpec), ("thresholds", Thresholds)):
            if isinstance(fields.get(name), Mapping):
                checked_fields(kind, fields[name], f"{path}, {name}")
        text = _finite(fields, path)
        try:
            manifest = cls.model_validate_json(text)
        except UserError as error:
            raise UserError(
                f"{MANIFEST} is not valid: {error.problem}",
                expected=error.expected,
                where=f"{path}, {error.where}" if error.where else str(path),
                fix=error.fix or "compile the run again",
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise UserError(
                f"{MANIFEST} is not valid: {place + ': ' if place else ''}{first['msg']}.",
                where=str(path),
                fix="compile the run again",
            ) from None
        if verify:
            check_files(folder, manifest.files, "manifest")
        return manifest

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into the bundle's folder."""
        write_text(folder / MANIFEST, self.model_dump_json(indent=2) + "\n")

    def for_size(self, side: int) -> Manifest:
        """Return the manifest for a square input of `side` pixels.

        Raises:
            UserError: the bundle was not compiled for that size.
        """
        spec = replace(self.input, height=side, width=side)
        if spec == self.input:
            return self
        if self.sizes is None or not self.sizes[0] <= side <= self.sizes[1]:
            fits = f"{self.input.width}x{self.input.height}" if self.sizes is None else "{} to {}".format(*self.sizes)
            raise UserError(
                f"The bundle was not compiled for {side}-pixel inputs.",
                where="size",
                expected=fits,
                fix=f"compile the run again with --size {side} or with a range",
            )
        return self.model_copy(update={"input": spec})


def oldest_version(nms: SuppressionPlace) -> Literal[1, 2]:
    """Return the oldest format whose readers show such a bundle's boxes as they are meant."""
    return 2 if nms == "none" else 1


def _rising(value: Range, most: int) -> Range:
    if not 1 <= value[0] <= value[1] <= most:
        raise ValueError(f"{shown(value[0])} to {shown(value[1])} is not a range within 1 to {most}")
    return value


def _finite(fields: Mapping[str, Any], path: Path) -> str:
    """Return the fields as JSON text.

    Raises:
        UserError: a number is not finite, which Python's JSON takes and the standard does not.
    """
    try:
        return json.dumps(fields, allow_nan=False)
    except ValueError:
        raise UserError(
            f"{MANIFEST} is not valid: it contains NaN or an infinite number.",
            where=str(path),
            fix="compile the run again",
        ) from None


def manifest_schema() -> dict[str, Any]:
    """Return the JSON schema of `manifest.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
