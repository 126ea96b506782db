"""Which image of an annotation file an image is: what `--like` asks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eyas.errors import UserError, shorten
from eyas.path_ends import PathEnds
from eyas.types import Id


class ImageIds:
    """Gives each image the id of the image whose file name its path ends like, and no two images the same.

    Args:
        ids: file name -> image id.
        where: the annotation file, for messages.
    """

    def __init__(self, ids: Mapping[str, Id], where: str) -> None:
        self._names = list(ids)
        self._ids = list(ids.values())
        self._ends = PathEnds(self._names)
        self._owners: dict[int, str] = {}
        self._where = where

    def find(self, path: str | Path, *, once: bool = False) -> Id:
        """Return the image id of an image: "cam1/0001.jpg" is never "cam2/0001.jpg".

        Args:
            path: the image's, as much of it as is known.
            once: who asks for the same path again means another image; else the same one, or another frame of it.

        Raises:
            UserError: no image has its name, several fit alike, or the one that fits is another image's.
        """
        text = path.as_posix() if isinstance(path, Path) else path
        fitting = self._ends.find(text)
        if not fitting:
            raise UserError(f"{text} is not among the images of the annotation file.", where=self._where)
        if len(fitting) > 1:
            raise UserError(
                f"{text} matches several images of the annotation file: "
                f"{shorten([self._names[number] for number in fitting], 3)}.",
                where=self._where,
                expected="a path that ends with one of its file names",
                fix="give the folder that these names are relative to",
            )
        known = fitting[0] in self._owners
        other = self._owners.setdefault(fitting[0], text)
        if other != text or (known and once):
            raise UserError(
                f"{other} and {text} both match the image {self._names[fitting[0]]} of the annotation file.",
                where=self._where,
                expected="one image per annotated image",
                fix="give the folder that the file names are relative to, or sort the images by folder",
            )
        return self._ids[fitting[0]]
