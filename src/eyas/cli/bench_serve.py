"""`eyas bench serve URL|BUNDLE`: a server under load: what it can do, and what becomes of requests from 10 to 200 %."""

from __future__ import annotations

import argparse
import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.errors import UserError
from eyas.text import say

if TYPE_CHECKING:
    from rich.table import Table

    from eyas.benchmark.load.report import LoadReport

HELP = "measure a server under load: capacity, answers on time, latency and rejections at 10 to 200 percent of capacity"
EXAMPLES: tuple[str, ...] = (
    "eyas bench serve bundles/quickstart",
    "eyas bench serve bundles/quickstart --goal 100 --arrivals bursts --json load.json --png load.png",
)
PATH = "/v1/detect"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("server", metavar="URL|BUNDLE", help=f"a running server ({PATH} is added if the URL has no path), or a bundle "
        "to start a server for")  # fmt: skip
    add("--goal", type=float, default=250.0, metavar="MS", help="latency goal in milliseconds (default: %(default)s)")
    add("--loads", default="10,25,50,75,90,100,115,150,200", metavar="%,%",
        help="loads to offer, in percent of the capacity (default: %(default)s)")  # fmt: skip
    add("--capacity", type=float, metavar="RATE", help="requests per second that count as 100 %% (default: measured)")
    add("--arrivals", choices=("poisson", "bursts"), default="poisson", help="arrival process (default: %(default)s)")
    add("--seconds", type=float, default=10.0, metavar="S", help="seconds per load (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the arrival times (default: %(default)s)")
    add("--source", nargs="+", metavar="PATH", help="images or a folder of images (default: synthetic ones, 640 x 480)")
    add(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="header sent with each request, such as a key",
    )
    add("--insecure", action="store_true", help="do not verify an https server's certificate")
    own = parser.add_argument_group("the server started for a bundle")
    own.add_argument("--workers", default="auto", metavar="N", help="see 'eyas serve' (default: auto)")
    own.add_argument("--threads", type=int, metavar="N", help="see 'eyas serve'")
    own.add_argument("--max-batch", type=int, metavar="N", help="see 'eyas serve'")
    add("--json", metavar="FILE", help="write all numbers to a JSON file")
    add("--png", metavar="FILE", help="draw a chart")


def run(args: argparse.Namespace) -> int:
    """Measure with a progress bar, print the table, write what was asked for; return 0."""
    loads, headers = parse_loads(args.loads), parse_headers(args.header)
    if args.png is not None and not args.png.lower().endswith(".png"):
        raise UserError(f"--png is '{args.png}'.", where="png", expected="a name ending in .png")
    from eyas.benchmark.chart import save_chart
    from eyas.benchmark.load.chart import draw_load
    from eyas.benchmark.load.http import Target
    from eyas.benchmark.load.sweep import SweepPlan, measure
    from eyas.progress import ProgressBar

    plan = SweepPlan(
        args.goal / 1e3, loads, args.seconds, args.arrivals, args.capacity, max(10.0, args.goal / 100), args.seed
    )
    bodies, images = read_bodies(args.source)
    with serving(args) as (url, name), ProgressBar("starting", counted=False) as bar:
        report = measure(
            Target(url, bodies, headers, verify=not args.insecure),
            plan,
            server=name,
            images=images,
            progress=bar.update,
        )
    show(report)
    for path, write in ((args.json, report.save), (args.png, lambda path: save_chart(draw_load([report]), path))):
        if path is not None:
            write(path)
            say(f"written: {path}")
    return 0


def parse_loads(text: str) -> tuple[float, ...]:
    """Return the shares of "10,50" percent.

    Raises:
        UserError: it is no list of numbers above 0.
    """
    if not re.fullmatch(r"\d+(\.\d+)?(,\d+(\.\d+)?)*", text) or not all(float(part) > 0 for part in text.split(",")):
        raise UserError(f"--loads is '{text}'.", where="loads", expected="percentages above 0, such as 50,100,150")
    return tuple(float(part) / 100 for part in text.split(","))


def parse_headers(given: list[str]) -> dict[str, str]:
    """Return the headers of "NAME: VALUE" lines, the kind of the body among them.

    Raises:
        UserError: a line has no colon.
    """
    found = {"Content-Type": "application/octet-stream"}
    for line in given:
        name, colon, value = line.partition(":")
        if not colon:
            raise UserError(f"--header is '{line}'.", where="header", expected="'NAME: VALUE'")
        found[name.strip()] = value.strip()
    return found


def read_bodies(source: list[str] | None) -> tuple[list[bytes], str]:
    """Return the files to send and what they are, for people."""
    from eyas.benchmark.images import find_images, write_images

    with tempfile.TemporaryDirectory() as folder:
        paths = find_images(source) if source else write_images(Path(folder))
        bodies = [path.read_bytes() for path in paths]
    kind = "images" if source else "synthetic images, 640 x 480"
    return bodies, f"{len(bodies)} {kind}, {sum(map(len, bodies)) / len(bodies) / 1e3:.0f} kB"


@contextlib.contextmanager
def serving(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Give the URL to ask, and the server's name; a bundle's server is started and ended."""
    text: str = args.server
    if re.match(r"https?://", text):
        if args.workers != "auto" or args.threads or args.max_batch:
            raise UserError("--workers, --threads and --max-batch need a bundle; this server is already running.")
        rest = text.split("://", 1)[1]
        bare = "/" not in rest or (rest.endswith("/") and rest.count("/") == 1)
        yield text.rstrip("/") + PATH if bare else text, text
        return
    if not Path(text).is_dir():
        raise UserError(
            f"'{text}' is neither a URL nor a folder.", expected="http://host:port, or the folder of a bundle"
        )
    from eyas.benchmark.load.local import LocalServer

    options = [text, "--workers", args.workers, "--slo", f"{args.goal:g}"]
    options += ["--threads", str(args.threads)] if args.threads else []
    options += ["--max-batch", str(args.max_batch)] if args.max_batch else []
    with LocalServer(options) as server:
        yield server.url + PATH, Path(text).resolve().name


def show(report: LoadReport) -> None:
    """Print what was measured, the table and the notes."""
    from eyas.terminal import open_console

    console = open_console()
    cpu = report.machine
    found = f", measured with {report.clients} clients" if report.clients else ""
    line = (
        f"{report.server}: capacity {report.capacity:.1f} requests/s{found}; goal {report.goal:g} ms; {report.arrivals}"
    )
    console.print(line, markup=False, soft_wrap=True)
    console.print(f"{cpu.name}, {cpu.cores} usable cores; {report.images}", markup=False, soft_wrap=True)
    console.print(load_table(report))
    console.print(
        "on time: share of all requests answered within the goal; ms: from the scheduled sending time to the answer; "
        "lag: delay of the load generator behind its schedule",
        style="dim",
    )
    for note in report.notes:
        console.print(f"* {note}", markup=False, soft_wrap=True, style="yellow")


def load_table(report: LoadReport) -> Table:
    """Return a row for each load."""
    from eyas.terminal import open_table

    heads = ("load", "offered/s", "sent/s", "served/s", "on time", "p50 ms", "p99", "p99.9", "lag p99")
    found = open_table(*(f">{head}" for head in heads), "answers")
    for step in report.steps:
        codes = ", ".join(f"{code}: {count}" for code, count in step.codes.items())
        cells = (step.offered, step.sent, step.served)
        times = (step.p50, step.p99, step.p999, step.lag_p99)
        rates = (f"{value:.1f}" for value in cells)
        found.add_row(f"{step.load:.0%}", *rates, f"{step.goodput:.1%}", *(f"{value:.1f}" for value in times), codes)
    return found
