"""Chaos under load for a minute: what the server answered, what it kept, what it left.

    python benchmarks/chaos.py [--seconds 110] [--calm 50] [--pause 1.5] [--seed 0] [--out benchmarks/chaos.md]

The test tests/serve/test_chaos.py does the same for some seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.serve import chaos

from eyas.machine.processor import processor


def text(report: chaos.Report, args: argparse.Namespace, load: float) -> str:
    """Return the report as Markdown."""
    done = ", ".join(f"{count} x {name.replace('_', ' ')}" for name, count in sorted(report.done.items()))
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(report.statuses.items()))
    versions = ", ".join(f"version {version}: {count}" for version, count in sorted(report.versions.items()))
    memory = [f"{before / 2**20:.1f} to {after / 2**20:.1f} MiB ({100 * (after / max(before, 1) - 1):+.1f} %)"
              for before, after in (report.front, report.workers)]  # fmt: skip
    rows = [
        ("answers of the well-behaved clients", statuses),
        ("answered by", versions),
        ("faults and bad clients", done),
        ("answers that belong to another request", len(report.wrong)),
        ("requests without exactly one line in the event log", len(report.twice)),
        ("anonymous memory of the front, medians after warm-up and at the end", memory[0]),
        (
            f"anonymous memory of the {report.lives} workers of {2 * chaos.WARM_SECONDS:g} s or older, first and last",
            memory[1],
        ),
        ("open files of the front at rest, before and after", "{} and {}".format(*report.files)),
        ("pieces of shared memory at rest, before and after", "{} and {}".format(*report.shared)),
        ("processes left after SIGTERM under load", len(report.left)),
        ("exit code of SIGTERM under load", report.code),
        ("invariants broken", "; ".join(report.faults()) or "none"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    machine = processor()
    return f"""# Chaos

`python benchmarks/chaos.py --seconds {args.seconds:g} --calm {args.calm:g} --pause {args.pause:g} --seed {args.seed}`:
the real server (`eyas serve --registry PLACE`, {chaos.WORKERS} worker processes a version) is asked by 4 clients while
workers are killed and stopped at random, the champion's alias moves, artefacts are spoiled or deleted while the alias
points to them, and other clients drip, hang up and send rubbish. At the end SIGTERM comes under load.

On {machine.name}, {machine.cores} cores, load average {load:.1f}. The last {args.calm:g} of the {args.seconds:g}
seconds bring no faults, but go on with all clients.

| | |
|---|---|
{table}

Declared ends are {", ".join(map(str, sorted(chaos.DECLARED)))}: 422 is a broken image (every 17th of the
clients is one), or one that was in two batches whose worker died; 503 and 504 are a worker that is being replaced.
Anything else, and any broken connection, breaks an invariant, as does memory that grows by more than
{chaos.GROWTH:.0%}.
"""


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=110.0)
    parser.add_argument(
        "--calm", type=float, default=50.0, help="seconds at the end without faults, to see workers grow"
    )
    parser.add_argument("--pause", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        registry = chaos.make_registry(place)
        plan = chaos.Plan(args.seconds, args.seconds / 4, args.calm, args.pause, args.seed)
        report = chaos.run(place, registry, plan)
    told = text(report, args, os.getloadavg()[0])
    print(told)
    if args.out:
        args.out.write_text(told, "utf-8")
    return 1 if report.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
