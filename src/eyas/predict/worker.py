"""`python -m eyas.predict.worker FD BYTES PARENT`: does the parts that its parent sends, and ends with its parent."""

from __future__ import annotations

import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from eyas.child_process import die_with, limit_memory
from eyas.errors import UserError

OUT_OF_MEMORY = 77  # the exit code that says so


def main(descriptor: int, memory: int, parent: int) -> None:
    """Answer messages until the parent goes away.

    The parent sends (settings, threads, device, out) once, then (part, without) again and again; it gets ("tick", n),
    ("saved", Saved) or ("failed", error's parts or a traceback).

    Args:
        descriptor: our end of the connection to it.
        memory: the bytes that this process may take once the detector is loaded; 0 for no limit.
        parent: its process; once that is gone, nobody waits for us.
    """
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is asked to stop, and stops us
    connection: Connection[Any, Any] = Connection(descriptor)
    from eyas.predict.job import Job
    from eyas.predict.work import Predictor

    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            settings, threads, device, out = connection.recv()
            predictor, job = Predictor(settings, threads, device), Job(Path(out))
            limit_memory(memory)
            connection.send(("ready", None))
            while True:
                part, without = connection.recv()
                done = predictor.run(part, lambda number: connection.send(("tick", number)), without=without)
                connection.send(("saved", job.save(part, done)))
        except MemoryError:  # the part is done again in a new process, one image at a time
            sys.exit(OUT_OF_MEMORY)
        except UserError as error:
            connection.send(("failed", (error.problem, error.expected, error.where, error.fix)))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception:
            connection.send(("failed", traceback.format_exc()))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
