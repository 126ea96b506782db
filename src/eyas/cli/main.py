"""The command `eyas`: finds the verb, imports its module only, and turns errors into messages and exit codes.

A verb is a module `eyas.cli.VERB` with `HELP` (one line), `EXAMPLES` (command lines), `add_arguments(parser)` and
`run(args) -> exit code`. A row in `VERBS` makes it known.

Exit codes: 0 done; 1 done, and something is wrong with what was looked at; 2 what was given can't be used;
130 interrupted from the keyboard; 129 and 143 asked to end by SIGHUP and SIGTERM; 141 the reader of our output went
away.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, NoReturn

from eyas.errors import UserError, missing_extra, suggest
from eyas.files import FULL
from eyas.renamed import with_new_options
from eyas.signals import Stopped
from eyas.text import printable, say

# Verb -> (module, one line). Help is printed from this table: no verb's module is imported for it. A verb may have two
# words; the longer one is meant: who benches a model in a folder named "serve" writes ./serve.
VERBS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "quickstart": ("eyas.cli.quickstart", "the whole workflow on synthetic images: train, evaluate, detect"),
        "data": ("eyas.cli.data", "check, convert, split, pack and show a dataset"),
        "train": ("eyas.cli.train", "train a detector on a dataset"),
        "track": ("eyas.cli.track", "send a run to MLflow, TensorBoard or W&B, or resend what they missed"),
        "import": ("eyas.cli.import_", "import a YOLO-NAS checkpoint of SuperGradients as a run, without training"),
        "compile": ("eyas.cli.compile", "compile a run into a bundle that runs without PyTorch"),
        "evaluate": ("eyas.cli.evaluate", "measure a run on a dataset: COCO metrics and a report"),
        "bench": ("eyas.cli.bench", "compare models: latency, throughput, memory, time per stage"),
        "bench serve": ("eyas.cli.bench_serve", "measure a server under load: capacity, answers on time, latency"),
        "detect": ("eyas.cli.detect", "detect objects in images, videos or a camera stream"),
        "predict": ("eyas.cli.predict", "detect on many images, into one file; resumes if interrupted"),
        "registry": ("eyas.cli.registry", "manage bundles by name, version and alias, such as champion"),
        "serve": ("eyas.cli.serve", "serve bundles over REST and gRPC, batching within a latency goal"),
        "doctor": ("eyas.cli.doctor", "show the available runtimes and devices, and what to install for more"),
        "lineage": ("eyas.cli.lineage", "show what an artefact was made from, and verify that nothing was changed"),
    }
)

# Package that only an extra installs -> that extra.
EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "torch": "train",
        "lightning": "train",
        "safetensors": "train",
        "hotcoco": "train",
        "jsonargparse": "train",
        "matplotlib": "train",
        "yaml": "train",
        "onnx": "compile",
        "onnxscript": "compile",
        "onnxslim": "compile",
        "mlflow": "registry",
        "sqlalchemy": "registry",
        "alembic": "registry",
        "tensorboard": "tensorboard",
        "wandb": "wandb",
        "pyarrow": "predict",
        "ray": "cluster",
        "uvicorn": "serve",
        "starlette": "serve",
        "httptools": "serve",
        "grpc": "serve",
        "google": "serve",
        "prometheus_client": "serve",
    }
)

# What the libraries below us read once, when they are loaded; set here since the program, not the package, decides.
_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "OPENCV_FFMPEG_LOGLEVEL": "-8",  # a broken video is told of once, by us, and not a line a block
        "OPENCV_LOG_LEVEL": "SILENT",
    }
)

# What threads of PyTorch do that wait for one another: look a thousand times, then sleep. That takes a fifth to a
# quarter less time than to sleep at once where the cores are free, and does not collapse where they are not
# (benchmarks/cpu_threads.md).
# GNU's OpenMP takes the count before the policy; others know the policy alone, and sleep. Whoever sets one of the two
# has decided.
_WAITING: Mapping[str, str] = MappingProxyType({"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"})

# What the operating system refuses for the user's reasons, not for ours.
_USER_ERRNOS = frozenset({
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
}) | FULL  # fmt: skip


@dataclass(frozen=True)
class Verb:
    """What a verb's module gives: its help, its examples, its arguments and its work."""

    help: str
    examples: tuple[str, ...]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An argument parser that raises a UserError, with the nearest known option where one was mistyped."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)  # an abbreviation changes its meaning when an option is added
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise the message as a UserError."""
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        options = re.findall(r"--[a-z][\w.-]*", self.format_help())
        near = suggest(unknown[1].partition("=")[0], options) if unknown else ""
        raise UserError(f"{message}{near}", fix=f"run '{self.prog} --help'")


def load_verb(name: str) -> Verb:
    """Return the verb, importing its module.

    Raises:
        UserError: there is no such verb (the nearest one is suggested).
    """
    if name not in VERBS:
        raise UserError(
            f"Unknown command '{name}'{suggest(name, VERBS)}.",
            expected="one of " + ", ".join(VERBS),
            fix="run 'eyas --help'",
        )
    module = vars(import_module(VERBS[name][0]))
    return Verb(module["HELP"], tuple(module["EXAMPLES"]), module["add_arguments"], module["run"])


def split_verb(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the verb that a command line begins with, of two words where there is such a verb, and the rest."""
    length = 2 if " ".join(words[:2]) in VERBS else 1
    return " ".join(words[:length]), list(words[length:])


def verb_parser(name: str, verb: Verb) -> argparse.ArgumentParser:
    """Return the parser of one verb: description, options, examples."""
    examples = "\n".join(f"  {line}" for line in verb.examples)
    description = f"{verb.help[:1].upper()}{verb.help[1:].rstrip('.')}."
    parser = Parser(prog=f"eyas {name}", description=description, epilog=f"examples:\n{examples}")
    verb.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the Python traceback of an error")
    return parser


def overview() -> str:
    """Return what `eyas --help` prints."""
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {name:<{width}}  {line}" for name, (_, line) in VERBS.items())
    return (
        "usage: eyas [--help] [--version] [--debug] COMMAND ...\n\n"
        "Real-time object detectors made for the device they run on.\n\n"
        f"commands:\n{rows}\n\n"
        "options:\n"
        "  -h, --help  this text; 'eyas COMMAND --help' tells more of one command\n"
        "  --version   the version\n"
        "  --debug     show the Python traceback of an error\n\n"
        "A first try, offline and in a few minutes:  eyas quickstart"
    )


def dispatch(arguments: Sequence[str]) -> int:
    """Do what the command line says and return the exit code; errors are raised."""
    rest = list(arguments)
    while rest and rest[0] == "--debug":
        rest.pop(0)
    if not rest or rest[0] in ("-h", "--help", "help"):
        if rest[:1] == ["help"] and len(rest) > 1:
            return dispatch([*rest[1:], "--help"])
        say(overview())
        return 0
    if rest[0] in ("--version", "-V"):
        from importlib.metadata import version

        say(f"eyas {version('eyas')}")
        return 0
    if rest[0].startswith("-"):
        raise UserError(
            f"Unknown option '{rest[0]}'{suggest(rest[0], ('--help', '--version', '--debug'))}.",
            expected="a command first, then its options",
            fix="run 'eyas --help'",
        )
    name, rest = split_verb(rest)
    verb = load_verb(name)
    return verb.run(verb_parser(name, verb).parse_args(with_new_options(name, rest)))


def _report(message: str, debug: bool) -> None:
    if debug:
        say(traceback.format_exc(), stderr=True, end="")
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    print(f"{red}{printable(message)}{plain}", file=sys.stderr)


def _debug_wanted(arguments: Sequence[str]) -> bool:
    given = list(arguments)
    return "--debug" in (given[: given.index("--")] if "--" in given else given)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Return a warning as a line for the user; the place in the code matters to programmers only."""
    if issubclass(category, UserWarning | FutureWarning):
        return f"warning: {printable(str(message))}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n" + (f"  {line}\n" if line else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: what follows the program's name; None takes it from `sys.argv`.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    debug = _debug_wanted(given)
    warnings.formatwarning = _format_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the terminal's encoding lacks is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not os.environ.keys() & _WAITING:
        os.environ.update(_WAITING)
    try:
        code = dispatch(given)
        sys.stdout.flush()  # so that a reader that went away is noticed here and not at exit
        return code
    except UserError as error:
        _report(str(error), debug)
        return 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        _report(str(missing_extra(package, EXTRAS[package])), debug)
        return 2
    except KeyboardInterrupt:
        _report("Interrupted.", debug)
        return 130
    except Stopped as stopped:
        with contextlib.suppress(OSError):  # of a terminal that is gone
            _report(str(stopped), debug)
        return 128 + stopped.number
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it ends; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in _USER_ERRNOS:
            raise
        # Of a copy that fails the second name is the one that was written to.
        where = error.filename2 if error.errno in FULL and error.filename2 else error.filename
        _report(str(UserError(f"{error.strerror}.", where=str(where or ""))), debug)
        return 2


if __name__ == "__main__":
    sys.exit(main())
