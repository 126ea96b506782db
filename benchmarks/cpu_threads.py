"""What the threads of PyTorch on a CPU should do while they wait for one another: sleep, or spin a while first.

    python benchmarks/cpu_threads.py --data data/shapes --models p:256:8 --loads 0 8
    python benchmarks/cpu_threads.py --data data/shapes --models n:320:8 --loads 0 --trainers [--peer PYTHON]

Each way of waiting has a process of its own, since OpenMP reads its settings when it is loaded. The processes take
turns of a few training steps, in an order drawn anew each round, and are stopped (SIGSTOP) while another has its turn:
whatever else the machine does hits all. A load is so many processes that do nothing but count, stopped too when they
are not wanted. Where the machine can't be had alone, `--first` lets the steps go before all else (SCHED_RR, Linux).
Prints each turn as it ends, and then the medians of wall and processor time a step, and the median over the rounds of
the wall time over that of sleeping threads in the same round.

`--trainers` runs `eyas train` whole instead, from the command line, with its loader process, in short runs by turns,
and beside it YOLO11n of the package `ultralytics` if `--peer` names a Python that has it (AGPL: a program that is run,
in an environment of its own; nothing here imports it).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

SLEEP = "sleep"
# Name -> environment. In libgomp a spin count stands above the policy, which then says what more threads than cores do.
WAYS: Mapping[str, Mapping[str, str]] = {
    SLEEP: {"OMP_WAIT_POLICY": "PASSIVE"},
    "nothing set": {},
    "spin for ever": {"OMP_WAIT_POLICY": "ACTIVE"},
    **{
        f"spin {count:,}": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(count)}
        for count in (300, 1_000, 3_000, 10_000, 30_000, 100_000, 1_000_000)
    },
}
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "KMP_BLOCKTIME")
Measured = dict[tuple[int, str, int], list[tuple[float, float]]]  # (load, way, threads) -> (wall, processor) a step


def work(data: str, model: str, threads: int, first: bool) -> None:
    """Answer each number on standard input with the wall and processor seconds of so many steps, as JSON."""
    import torch
    from training_step import bare_loop

    from eyas.models.zoo import build
    from eyas.training.config_overrides import override
    from eyas.training.data import DetectionData
    from eyas.training.recipes import scratch

    name, size, batch = model.split(":")
    torch.set_num_threads(threads)
    settings = {"data.root": data, "data.size": int(size), "data.batch_size": int(batch), "data.workers": 0}
    recipe = override(scratch(), settings)
    source = DetectionData(recipe.data, recipe.augment)
    loader = iter(source.train_dataloader())
    batches = [next(loader) for _ in range(2)]
    torch.manual_seed(0)
    loop = bare_loop(build(name, len(source.classes)).to(memory_format=torch.channels_last), batches, recipe)
    next(loop)
    for thread in Path("/proc/self/task").iterdir() if first else ():
        os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(1))
    print("ready", flush=True)
    for line in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            next(loop)
        steps = int(line)
        print(json.dumps([(time.perf_counter() - start) / steps, (time.process_time() - cpu) / steps]), flush=True)


def environment(way: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return this process's environment with one way of waiting and so many threads, and nothing else of OpenMP."""
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return {**kept, **way, "OMP_NUM_THREADS": str(threads)}


@contextmanager
def stopped(command: Sequence[str], env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a process, which stops itself or is stopped by the caller, and end it at the end."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(env))
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def answer(process: subprocess.Popen[str]) -> str:
    """Return the process's next line."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a process ended early; its error stands above")
    return line


def take_turns(args: argparse.Namespace, model: str) -> Measured:
    """Return the times of every way, with each number of threads, under each load."""
    measured: Measured = defaultdict(list)
    wanted = [(way, threads) for threads in args.threads for way in args.ways if threads > 1 or way == SLEEP]
    order = random.Random(0)
    with ExitStack() as stack:
        workers = {}
        for way, threads in wanted:
            command = [sys.executable, __file__, "--work", args.data, model, str(threads), str(int(args.first))]
            workers[way, threads] = stack.enter_context(stopped(command, environment(WAYS[way], threads)))
        for process in workers.values():
            answer(process)
            process.send_signal(signal.SIGSTOP)
        counting = [sys.executable, "-c", "while True: pass"]
        busy = [stack.enter_context(stopped(counting, os.environ)) for _ in range(max(args.loads))]
        for load in args.loads:
            for number, process in enumerate(busy):
                process.send_signal(signal.SIGCONT if number < load else signal.SIGSTOP)
            for _ in range(args.rounds):
                for key in order.sample(wanted, len(wanted)):
                    process = workers[key]
                    process.send_signal(signal.SIGCONT)
                    assert process.stdin is not None
                    process.stdin.write(f"{args.steps}\n")
                    process.stdin.flush()
                    wall, cpu = json.loads(answer(process))
                    process.send_signal(signal.SIGSTOP)
                    measured[load, *key].append((wall, cpu))
                    print(f"load {load}: {key[0]}, {key[1]} threads: {wall:.3f} s, CPU {cpu:.3f} s", file=sys.stderr)
    return measured


def table(args: argparse.Namespace, model: str, measured: Measured) -> list[str]:
    """Return the rows of one model: milliseconds a step, and the ratio to sleeping threads in the same round."""
    lines = [
        f"| {model} | threads | " + " | ".join(f"load {n}: ms | CPU ms | over sleep" for n in args.loads) + " |",
        "| --- | ---: |" + " ---: | ---: | ---: |" * len(args.loads),
    ]
    for way, threads in dict.fromkeys((way, threads) for _, way, threads in measured):
        cells = []
        for load in args.loads:
            times = measured[load, way, threads]
            asleep = measured.get((load, SLEEP, max(args.threads)), times)
            ratio = statistics.median(wall / other for (wall, _), (other, _) in zip(times, asleep, strict=True))
            wall, cpu = (1000 * statistics.median(column) for column in zip(*times, strict=True))
            cells.append(f"{wall:.0f} | {cpu:.0f} | {ratio:.2f}")
        lines.append(f"| {way if threads > 1 else 'one thread'} | {threads} | " + " | ".join(cells) + " |")
    return lines


def eyas_rate(args: argparse.Namespace, model: str, threads: int, way: Mapping[str, str]) -> float:
    """Return the images a second of `eyas train` between its tenth step and its last."""
    name, size, batch = model.split(":")
    folder = Path(tempfile.mkdtemp()) / "run"
    command = [
        sys.executable, "-m", "eyas", "train", "--data", args.data, "--model", name, "--size", size, "--batch", batch,
        "--trainer.max_steps", str(args.steps), "--trainer.preflight", "false", "--trainer.accelerator", "cpu",
        "--data.workers", "1", "--trainer.sheets", "0", "--out", str(folder),
    ]  # fmt: skip
    subprocess.run(command, env=environment(way, threads), check=True, capture_output=True)
    with (folder / "steps.csv").open(newline="") as file:
        seconds = {int(row["step"]): float(row["seconds"]) for row in csv.DictReader(file)}
    shutil.rmtree(folder.parent)
    return int(batch) * (args.steps - 10) / (seconds[args.steps] - seconds[10])


PEER = """
import sys, time, ultralytics
folder, out, size, batch, steps, threads = sys.argv[1:7]
times = []
def note(trainer):
    import torch
    if not times:
        torch.set_num_threads(int(threads))
    times.append(time.perf_counter())
    if len(times) == int(steps):
        print("RATE", int(batch) * (len(times) - 10) / (times[-1] - times[9]), flush=True)
        import os
        os._exit(0)
model = ultralytics.YOLO("yolo11n.yaml")
model.add_callback("on_train_batch_end", note)
model.train(data=folder, imgsz=int(size), batch=int(batch), epochs=100, workers=1, device="cpu", project=out,
            plots=False, val=False, save=False, amp=False, pretrained=False)
"""


def peer_rate(args: argparse.Namespace, model: str, threads: int) -> float:
    """Return the images a second of YOLO11n as the package `ultralytics` trains it, after its tenth step."""
    _, size, batch = model.split(":")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "set"
        subprocess.run(
            [sys.executable, "-m", "eyas", "data", "convert", args.data, str(data), "--to", "yolo"],
            check=True, capture_output=True,
        )  # fmt: skip
        done = subprocess.run(
            [args.peer, "-c", PEER, str(data / "data.yaml"), folder, size, batch, str(args.steps), str(threads)],
            env={**environment({}, threads), "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": folder},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    return float(done.stdout.rpartition("RATE")[2])


def trainers(args: argparse.Namespace, model: str) -> list[str]:
    """Return rows with the images a second of whole trainers, in short runs by turns."""
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(args.rounds):
        for threads in args.threads:
            for way in args.ways if threads > 1 else (SLEEP,):
                rates[f"eyas train, {way}", threads].append(eyas_rate(args, model, threads, WAYS[way]))
            if args.peer:
                rates["YOLO11n (ultralytics)", threads].append(peer_rate(args, model, threads))
            print({name: values[-1] for name, values in rates.items()}, file=sys.stderr, flush=True)
    lines = [f"| {model} | threads | images/s, median | of each round |", "| --- | ---: | ---: | --- |"]
    for (name, threads), values in rates.items():
        each = " ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {name} | {threads} | {statistics.median(values):.1f} | {each} |")
    return lines


def main() -> None:
    """Measure, and print tables."""
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5] == "1")
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", nargs="+", default=["p:256:8", "n:320:8"], help="row of the zoo:side:batch")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--loads", nargs="+", type=int, default=[0, 2, 4, 8], help="busy processes beside it")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), metavar="WAY")
    parser.add_argument("--first", action="store_true", help="the steps go before all else on the machine (root)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, help="a turn's; 2 by default, 40 with --trainers")
    parser.add_argument("--trainers", action="store_true", help="whole trainers, not bare steps")
    parser.add_argument("--peer", help="a Python that has the package ultralytics")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process that was started is left
    args.steps = args.steps or (40 if args.trainers else 2)
    for model in args.models:
        lines: Any = trainers(args, model) if args.trainers else table(args, model, take_turns(args, model))
        print("\n".join(lines), f"\nload of the machine: {os.getloadavg()[0]:.1f}\n", sep="\n", flush=True)


if __name__ == "__main__":
    main()
