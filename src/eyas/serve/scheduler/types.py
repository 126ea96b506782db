"""What goes into the scheduler and what comes out of it: items, decisions, batches and events."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple


class Lane(IntEnum):
    """The kind of a request. Lanes share a worker by weight, so none starves."""

    INTERACTIVE = 0  # somebody waits for the answer
    STREAM = 1  # a frame of a video: of frames that wait, only the newest of a stream is worth anything
    BATCH = 2  # offline work, in the gaps that the others leave


class Reason(Enum):
    """Why an item was refused, or ended without an answer."""

    OVERLOAD = "overload"  # refused: the answer would come after the deadline
    QUEUE_FULL = "queue full"  # refused: too many wait already
    UNKNOWN_MODEL = "unknown model"  # refused: nobody registered it, or it was retired
    NO_WORKER = "no worker"  # refused: no worker serves the model at the moment
    DEADLINE = "deadline"  # refused or dropped: the deadline has passed, or can't be met any more
    SUPERSEDED = "superseded"  # dropped: a newer frame of the same stream has come
    CLIENT = "client"  # cancelled by the one who asked
    WORKER_LOST = "worker lost"  # failed: its worker died under it
    ERROR = "error"  # failed: the worker reported that the batch went wrong
    NONE = ""  # served


class Outcome(Enum):
    """How an admitted item ended; each ends exactly once."""

    SERVED = "served"
    DROPPED = "dropped"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Item:
    """One image to be processed.

    Attributes:
        id: unique among the items that have not ended.
        model: which model version, as it was registered.
        lane: what kind of asking it is; STREAM exactly when `stream` is given.
        deadline: clock time in seconds after which the answer is worthless; None for the lane's default.
        stream: which stream a frame belongs to, unique in the server.
        payload: whatever the worker needs; never looked at.
    """

    id: Hashable
    model: str
    lane: Lane = Lane.INTERACTIVE
    deadline: float | None = None
    stream: Hashable | None = None
    payload: object = None


class Admitted(NamedTuple):
    """The item waits for a worker; exactly one event will tell its end."""

    expected: float  # clock time at which the answer is expected at the latest


class Rejected(NamedTuple):
    """The item was refused at once and is not kept; no event follows."""

    reason: Reason
    retry_after: float  # seconds after which asking again may succeed


Decision = Admitted | Rejected


@dataclass(frozen=True, slots=True, eq=False)
class ScheduledBatch:
    """The batch that one worker runs.

    Attributes:
        worker: who runs it.
        model: the model version.
        items: 1 to the batch cap of them, in the order of their answers.
        started: clock time of the dispatch.
        expected: clock time at which it should be done at the latest.
    """

    worker: str
    model: str
    items: tuple[Item, ...]
    started: float
    expected: float


class SchedulerEvent(NamedTuple):
    """The end of one admitted item."""

    item: Item
    outcome: Outcome
    reason: Reason
    arrived: float  # clock time of its admission
    ended: float  # clock time of its end
    late: bool  # served after its deadline
