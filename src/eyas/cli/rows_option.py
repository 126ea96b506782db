"""The option `--rows` of every verb that reads a dataset."""

from __future__ import annotations

import argparse


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Add the option; its value is for `eyas.data.formats.load_dataset`."""
    parser.add_argument(
        "--rows",
        choices=("polygon", "keypoints", "oriented"),
        help="meaning of long rows in YOLO label files, if it can't be detected",
    )
