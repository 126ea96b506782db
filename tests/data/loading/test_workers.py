"""Worker processes: started without a fork, sharing memory, asked what they do, never waited for without end."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.makers import Counting, Memory, surroundings

from eyas.data.loading import worker_group as workers
from eyas.data.loading.batch import Batch
from eyas.data.loading.batch_arrays import BatchArrays, Maker, Room, Task
from eyas.data.loading.shared import SharedBlock
from eyas.data.loading.workers import Pipe
from eyas.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
LONG = 300.0  # seconds of patience with a machine that is busy; nothing here takes them
TASKS: list[Task] = [(3, numbers, False) for numbers in ((0, 1), (2,), (3, 4), (5,), (6,))]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no workers")


@pytest.fixture
def piped() -> Iterator[Callable[..., Pipe]]:
    """Return what makes a pipe with workers; all are closed at the end."""
    made: list[Pipe] = []

    def make(maker: Maker, workers: int = 1, worker_seconds: float = 600.0) -> Pipe:
        made.append(Pipe(maker, workers, None, 12, worker_seconds))
        return made[-1]

    yield make
    for each in made:
        each.close()


def labels(batch: Batch) -> list[int]:
    return [int(label) for label in batch.labels]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    """Return whether a process has ended (one that nobody has collected has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_batches_come_in_order_and_workers_stay(piped: Callable[..., Pipe], workers: int) -> None:
    many = piped(Counting(), workers)
    pids: set[int] = set()
    for _ in range(2):
        got = [(batch, labels(batch)) for batch in many.run(TASKS)]
        assert [numbers[:2] for _, numbers in got] == [[number, 3] for number in range(7)]
        assert all(torch.equal(batch.images, torch.full((1, 2, 2, 3), numbers[0])) for batch, numbers in got)
        pids |= {numbers[2] for _, numbers in got}
    assert len(pids) == max(workers, 1)
    assert (os.getpid() in pids) == (workers == 0)


def test_what_a_broken_off_iteration_left_is_dropped(piped: Callable[..., Pipe]) -> None:
    many = piped(Counting(), 2)
    first = many.run(TASKS)
    assert labels(next(first))[0] == 0
    assert [labels(batch)[0] for batch in many.run(TASKS[1:])] == [2, 3, 4, 5, 6]
    with pytest.raises(RuntimeError, match="iterated again"):
        next(first)
    again = many.run(TASKS)
    next(again)
    many.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(again)


def test_a_batch_can_be_kept_and_written_to_after_its_worker_is_gone(piped: Callable[..., Pipe]) -> None:
    many = piped(Counting(), 1)
    kept = list(many.run(TASKS))
    many.close()
    kept[1].images.add_(1)
    assert [int(batch.images.sum()) for batch in kept[:3]] == [0, 24, 24]


def test_nothing_is_left_open(piped: Callable[..., Pipe]) -> None:
    list(piped(Counting(), 2).run(TASKS))  # imports open files of their own
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    many = piped(Counting(), 2)
    pids = {labels(batch)[2] for batch in many.run(TASKS)}
    many.close()
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert all(gone(pid) for pid in pids)
    forgotten = Pipe(Counting(), 2, None, 12)
    pids = {labels(batch)[2] for batch in forgotten.run(TASKS)}
    del forgotten
    gc.collect()
    assert all(gone(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_arrays_and_caches_are_mapped_not_copied(piped: Callable[..., Pipe]) -> None:
    size = 256 << 20
    block = SharedBlock()
    for _ in range(4):
        block.append(np.full(size // 4, 2, np.uint8).data)
    memory = Memory(np.ones(size, np.uint8), block)
    [batch] = piped(memory, 1).run([(0, (0,), False)])
    total, copied, _ = labels(batch)
    assert total == 3 * size
    assert copied < size / 2  # numpy and OpenCV take 20 MB


def test_workers_hold_no_torch_and_start_no_threads(piped: Callable[..., Pipe]) -> None:
    [batch] = piped(surroundings).run([(0, (0,), False)])
    assert labels(batch) == [0, 2, 1, 1, 1]  # one thread makes batches, one listens


# ----------------------------------------------------------------------------------------------- workers that fail


def test_a_worker_that_gives_nothing_is_named_with_what_it_does_and_ends_the_run(
    piped: Callable[..., Pipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "sleeps"
    many = piped(Counting(at=2, how="sleep", marker=str(marker)), 2, worker_seconds=LONG)
    batches = many.run(TASKS)
    assert [labels(next(batches))[0] for _ in range(2)] == [0, 1]
    wait_for(marker.exists)
    monkeypatch.setattr(workers, "STACK_SECONDS", LONG)
    for member in many._workers.members:  # type: ignore[union-attr]
        member.patience = 1.0
    with pytest.warns(UserWarning, match=r"worker 2 .* has sent nothing") as told, pytest.raises(UserError) as error:
        next(batches)
    assert "batch 2 of epoch 3" in str(told[0].message) and "the run ends after 1 s" in str(told[0].message)
    assert "a_known_place" in str(told[0].message) and "a_known_place" in error.value.problem
    assert "data.worker_seconds" in error.value.fix
    assert many._workers is None
    assert labels(next(many.run(TASKS)))[0] == 0  # and the next iteration has new workers


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_of_a_worker_that_can_not_answer_the_system_is_asked(
    piped: Callable[..., Pipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "stops"
    many = piped(Counting(at=1, how="stop", marker=str(marker)))
    batches = many.run(TASKS)
    next(batches)
    [member] = many._workers.members  # type: ignore[union-attr]
    wait_for(lambda: "State:\tT" in Path(f"/proc/{member.pid}/status").read_text(encoding="ascii"))
    member.patience = 0.2
    monkeypatch.setattr(workers, "STACK_SECONDS", 0.3)
    with pytest.warns(UserWarning), pytest.raises(UserError, match="sent nothing") as error:
        next(batches)
    assert "process state: stopped" in error.value.problem


@pytest.mark.parametrize(
    ("how", "problem", "fix"),
    [
        ("kill", r"worker 1 \(process \d+\) was killed \(SIGKILL\)\.", "out of memory: use fewer workers"),
        ("segfault", r"was killed \(SIGSEGV\)\. It was here:\n(.|\n)*string_at(.|\n)*_fail", "data.workers=0"),
        ("exit", r"exited on its own \(exit code 7\)", "data.workers=0"),
        ("memory", "out of memory", "use fewer workers"),
        ("mendable", "A thing is missing.", "put it there"),
    ],
)
def test_the_end_of_a_worker_is_told(piped: Callable[..., Pipe], how: str, problem: str, fix: str) -> None:
    many = piped(Counting(at=1, how=how))
    batches = many.run(TASKS)
    assert labels(next(batches))[0] == 0
    with pytest.raises(UserError, match=problem) as error:
        next(batches)
    assert fix in error.value.fix
    assert many._workers is None


def test_a_fault_of_the_code_comes_with_its_traceback(piped: Callable[..., Pipe]) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)makers\.py.*ValueError: a fault of the code"):
        list(piped(Counting(at=0, how="fault")).run(TASKS))


def test_what_can_not_be_sent_is_refused_with_a_way_out(piped: Callable[..., Pipe]) -> None:
    def local(epoch: int, numbers: tuple[int, ...], closing: bool, room: Room) -> Iterator[BatchArrays]:
        return Counting()(epoch, numbers, closing, room)

    for maker in (local, lambda *task: local(*task)):
        with pytest.raises(UserError, match="can't be sent to a loader worker") as error:
            next(piped(maker).run(TASKS))
        assert "importable module" in error.value.fix


def test_interruptions_are_the_trainers_affair(piped: Callable[..., Pipe], capfd: pytest.CaptureFixture[str]) -> None:
    many = piped(Counting(), 2)
    batches = many.run([(0, (number,), False) for number in range(40)])
    first = next(batches)
    for number in (signal.SIGINT, signal.SIGTERM):
        for member in many._workers.members:  # type: ignore[union-attr]
            os.kill(member.pid, number)
    assert [labels(batch)[0] for batch in batches] == list(range(1, 40))
    assert labels(first)[0] == 0
    many.close()
    restarted = many.run(TASKS)
    young = workers.LoaderWorkers(Counting(), 2, LONG)
    for member in young.members:
        os.kill(member.pid, signal.SIGINT)  # so early that it has imported nothing yet
        member.give(0, TASKS[0])
        assert len(list(member.batches(0))) == 2
    young.close()
    assert len(list(restarted)) == 7
    assert capfd.readouterr().err == ""


# ------------------------------------------------------------------------------------- the process that starts them

KILLED = """
import sys
from tests.data.makers import Counting
from eyas.data.loading.worker_group import LoaderWorkers
workers = LoaderWorkers(Counting(at=0, how="sleep", marker=sys.argv[1]), 2, 600.0)
for member in workers.members:
    member.give(0, (0, (0,), False))
print(*(member.pid for member in workers.members), flush=True)
sys.stdin.read()
"""


def test_workers_end_with_a_process_that_was_killed(tmp_path: Path) -> None:
    marker = tmp_path / "sleeps"
    command = [sys.executable, "-c", KILLED, str(marker)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        wait_for(marker.exists)
        assert len(pids) == 2 and not any(gone(pid) for pid in pids)
        process.kill()
    wait_for(lambda: all(gone(pid) for pid in pids))


USED = """
import asyncio, gc, os, sys, tempfile
import grpc.aio, mlflow, torch
from eyas.data.loading.workers import Pipe
from tests.data.makers import collecting

async def call():
    channel = grpc.aio.insecure_channel("127.0.0.1:1")
    circle = [channel]
    circle.append(circle)  # only a collection destroys gRPC's poller: in a fork it would wait for a thread for ever
    try:
        await channel.unary_unary("/none/none")(b"", timeout=1)
    except grpc.aio.AioRpcError:
        pass

gc.disable()
asyncio.run(call())
mlflow.set_tracking_uri("sqlite:///" + tempfile.mkdtemp() + "/mlflow.db")
client = mlflow.MlflowClient()
client.log_metric(client.create_run(client.create_experiment("tried")).info.run_id, "loss", 1.0)
torch.set_num_threads(4)
torch.nn.functional.conv2d(torch.rand(4, 16, 128, 128), torch.rand(16, 16, 3, 3)).sum()
assert sys.platform != "linux" or len(os.listdir("/proc/self/task")) > 4
many = Pipe(collecting, 2, None, 12)
for _ in range(2):
    tasks = [(0, numbers, False) for numbers in ((0, 1), (2,), (3, 4))]
    print(*(int(batch.labels[0]) for batch in many.run(tasks)), flush=True)
many.close()
"""


def test_a_process_with_threads_of_grpc_mlflow_and_openmp_has_workers() -> None:
    done = run_script([sys.executable, "-c", USED])
    assert done.stdout.splitlines() == ["0 1 2 3 4"] * 2, done.stderr


SCRIPT = """
import pathlib, sys, tempfile
print("runs")
from tests.data.scenes import dataset
from eyas.data.loading.loader import train_loader
from eyas.data.augment.config import AugmentPolicy
from eyas.types import InputSpec
{policy}
index = dataset(pathlib.Path(tempfile.mkdtemp()), 8)
loader = train_loader(index, InputSpec(32, 32, margin=0), policy, batch_size=4, workers=2)
print(len(list(loader)), len(list(loader)))
"""
OWN = "class Own(AugmentPolicy): pass\npolicy = Own()"


def run_script(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script that finds the tests and the sources as this process does."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=LONG, env=environment)


@pytest.mark.parametrize("way", ["file", "input"])
def test_a_script_needs_no_guard(tmp_path: Path, way: str) -> None:
    text = SCRIPT.format(policy="policy = AugmentPolicy()")
    (tmp_path / "script.py").write_text(text, encoding="utf-8")
    done = run_script([sys.executable, {"file": str(tmp_path / "script.py"), "input": "-"}[way]], text)
    assert (done.stdout, done.returncode) == ("runs\n2 2\n", 0), done.stderr
    assert done.stderr == ""


def test_what_only_the_script_has_is_refused_with_a_way_out() -> None:
    done = run_script([sys.executable, "-c", SCRIPT.format(policy=OWN)])
    assert (done.stdout, done.returncode) == ("runs\n", 1)
    assert "can't be unpickled in a loader worker" in done.stderr and "'Own'" in done.stderr
    assert "importable module" in done.stderr


# ------------------------------------------------------------------------------------------------- tasks without end


def test_tasks_are_asked_for_as_they_are_handed_out_and_the_first_before_a_batch_is_wanted(
    piped: Callable[..., Pipe],
) -> None:
    asked: list[int] = []

    def tasks() -> Iterator[Task]:
        for number in itertools.count():
            asked.append(number)
            yield 0, (number,), False

    many = piped(Counting(), 2)
    batches = many.run(tasks())
    assert asked == [0, 1, 2, 3]  # two for each worker
    assert [labels(next(batches))[0] for _ in range(6)] == list(range(6))
    assert asked == list(range(9))
    alone = piped(Counting(), 0).run(tasks())
    assert len(asked) == 9
    assert labels(next(alone))[0] == 0 and len(asked) == 10


@pytest.mark.parametrize("workers", [0, 1])
def test_blocks_have_room_for_a_multiple_of_boxes(workers: int) -> None:
    padded = Pipe(Counting(), workers, None, 12, box_multiple=8)
    [batch] = padded.run([(0, (5,), False)])
    padded.close()
    assert labels(batch)[:2] == [5, 0] and batch.boxes.shape == (3, 4)
    assert batch.block is not None
    assert batch.block.columns()[2].tolist() == [*labels(batch), 0, 0, 0, 0, 0]
