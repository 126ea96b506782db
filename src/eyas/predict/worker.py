"""The process that does the parts which its parent, `eyas.predict.pool`, sends."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from eyas.child_process import Parent, limit_memory
from eyas.predict.job import Job
from eyas.predict.parts import from_line
from eyas.predict.work import Predictor, PredictSettings

OUT_OF_MEMORY = 77  # the exit code that says so


def main(parent: Parent) -> None:
    """Answer messages until the parent goes away.

    The parent sends what `Pool` has given once, then {"part", "without"} again and again; it gets "ready", then the
    number of images of the part that are done, and {"images", "unreadable", "file"} of each part that is saved.
    """
    messages = iter(parent)
    with suppress(BrokenPipeError), parent.telling():
        first = next(messages)
        predictor = Predictor(PredictSettings(**first["settings"]), first["threads"], first["device"])
        job = Job(Path(first["out"]))
        limit_memory(first["memory"])
        parent.send("ready")
        for message in messages:
            part = from_line(message["part"])
            without = message["without"] and {int(at): why for at, why in message["without"].items()}
            saved = job.save(part, predictor.run(part, parent.send, without=without))
            parent.send(vars(saved))


if __name__ == "__main__":
    try:
        main(Parent())
    except MemoryError:  # the part is done again in a new process, one image at a time
        sys.exit(OUT_OF_MEMORY)
