"""What becomes of admitted items: the ends that a failed batch has in store, and the counts of who waits."""

from __future__ import annotations

from eyas.serve.scheduler.latency import Profile
from eyas.serve.scheduler.queues import Entry
from eyas.serve.scheduler.request_lifecycle import Lobby
from eyas.serve.scheduler.settings import SchedulerConfig
from eyas.serve.scheduler.types import Item, Lane, Outcome, Reason
from eyas.serve.scheduler.worker_state import Pool


class Hall:
    """A lobby with one model."""

    def __init__(self) -> None:
        config = SchedulerConfig(retries=1, frames_in_flight=1)
        self.pool = Pool(config)
        self.pool.register("m", ["w"], Profile(0.01, 0.001), 1.0, 8, 1.0)
        self.model = self.pool.models["m"]
        self.lobby = Lobby(self.pool, config)

    def enter(self, name: str, deadline: float = 9.0, stream: str | None = None) -> Entry:
        """Admit an item and return its entry."""
        lane = Lane.INTERACTIVE if stream is None else Lane.STREAM
        item = Item(name, "m", None, lane, deadline, stream)
        line = self.pool.queue(self.model, None).lines[lane]
        self.lobby.admit(0.0, self.model, line, item, deadline, 0.1)
        entry = self.lobby.ledger.get(name)
        assert entry is not None
        return entry

    def dispatch(self, entry: Entry) -> Entry:
        """Give an entry to a worker."""
        assert entry.line.head() is entry
        entry.line.pop()
        entry.attempts += 1
        self.lobby.depart(entry)
        return entry

    def ends(self) -> dict[object, tuple[Outcome, Reason]]:
        """Return how the items ended since the last call."""
        return {each.item.id: (each.outcome, each.reason) for each in self.lobby.ledger.take_events()}


def test_of_a_failed_batch_each_item_has_the_end_that_is_its_own() -> None:
    hall = Hall()
    again, tired, late = hall.enter("again"), hall.enter("tired"), hall.enter("late", 0.5)
    frame = hall.enter("frame", stream="s")
    batch = tuple(map(hall.dispatch, (again, tired, late, frame)))
    hall.enter("next frame", stream="s")
    tired.attempts = 2
    waits = hall.enter("waits")
    hall.lobby.failed(1.0, batch, Reason.WORKER_LOST)
    assert hall.ends() == {
        "tired": (Outcome.FAILED, Reason.WORKER_LOST),
        "late": (Outcome.DROPPED, Reason.DEADLINE),
        "frame": (Outcome.DROPPED, Reason.SUPERSEDED),
    }
    assert waits.line.head() is again  # before those that came later
    assert hall.lobby.waiting == 3
    assert hall.lobby.lanes[Lane.STREAM] == 1


def test_a_parked_frame_is_not_counted_until_it_lines_up() -> None:
    hall = Hall()
    first = hall.dispatch(hall.enter("first", stream="s"))
    second = hall.enter("second", stream="s")
    assert (second.parked, hall.lobby.waiting) == (True, 0)
    hall.lobby.landed(first)
    hall.lobby.end(1.0, first, Outcome.SERVED, Reason.NONE)
    assert not second.parked
    assert hall.lobby.waiting == 1
    hall.lobby.withdraw(1.0, second, Outcome.CANCELLED, Reason.CLIENT)
    assert (hall.lobby.waiting, hall.model.open) == (0, 0)
    assert hall.ends()["second"] == (Outcome.CANCELLED, Reason.CLIENT)
