"""`eyas serve BUNDLE...`: bundles behind REST and gRPC."""

from __future__ import annotations

import argparse
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.errors import UserError
from eyas.text import say

if TYPE_CHECKING:
    from eyas.cluster.settings import ClusterSettings
    from eyas.serve.engine.routing import Router
    from eyas.serve.observe.events import EventSettings
    from eyas.serve.server_settings import ServerSettings, Tls

HELP = "serve bundles over REST and gRPC, batching within a latency goal"
EXAMPLES: tuple[str, ...] = (
    "eyas serve bundles/quickstart",
    "eyas serve bundles/quickstart --port 8080 --grpc-port 8081 --slo 100 --workers 1",
    "eyas serve shapes=bundles/quickstart --events events --access-log access.jsonl",
    "eyas serve --registry registry --model shapes@champion",
    "eyas serve --registry registry --weights @champion=9,@challenger=1 --sticky X-User --shadow @challenger",
    "eyas serve --new-key ann",
)
TOKEN = "EYAS_ADMIN_TOKEN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", nargs="*",
        help="folders of bundles, or NAME=FOLDER; a repeated name adds its next version")  # fmt: skip
    add("--on", choices=("here", "ray"), default="here", help="ray: replicas on the nodes of a Ray cluster")
    add("--registry", metavar="PLACE",
        help="serve and follow the aliases of a registry: a folder, or the address of an MLflow server (default with "
        "--model: $EYAS_REGISTRY, else ./registry)")  # fmt: skip
    add("--model", action="append", default=[], metavar="NAME",
        help="serve only this model of the registry: NAME with all its aliases, NAME@champion, or NAME:3, which stays "
        "fixed")  # fmt: skip
    _add_shares(parser)
    where = parser.add_argument_group("network")
    where.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s, this machine only)")
    where.add_argument("--port", type=int, default=8000, help="REST port; 0 takes a free one (default: %(default)s)")
    where.add_argument(
        "--grpc-port", type=int, default=8001, help="gRPC port; 0 takes a free one (default: %(default)s)"
    )
    where.add_argument("--no-grpc", action="store_true", help="disable gRPC")
    where.add_argument("--admin-port", type=int, help="REST port for load, unload and aliases (default: none)")
    where.add_argument("--admin-grpc-port", type=int, help="gRPC port for load and unload (default: none)")
    work = parser.add_argument_group("execution")
    work.add_argument("--workers", default="auto", metavar="N", help="worker processes per model (default: auto)")
    work.add_argument("--min-workers", type=int, default=1, metavar="N",
        help="with auto: minimum number of workers (default: %(default)s)")  # fmt: skip
    work.add_argument("--threads", type=int, metavar="N", help="processor threads per worker (default: measured)")
    work.add_argument("--slo", type=float, metavar="MS", help="latency goal in milliseconds (default: from the model)")
    work.add_argument("--max-batch", type=int, default=8, metavar="N", help="largest batch (default: %(default)s)")
    work.add_argument("--memory", type=int, default=0, metavar="MIB",
        help="memory for the workers of all models; above it the least recently used model is unloaded until a "
        "request needs it (default: no limit)")  # fmt: skip
    work.add_argument("--worker-memory", type=int, default=2048, metavar="MIB",
        help="memory that a worker may use beyond its size after warm-up; 0: no limit (default: 2048)")  # fmt: skip
    work.add_argument("--batch-seconds", type=float, default=30.0, metavar="S",
        help="replace a worker that takes longer for a batch (default: %(default)s)")  # fmt: skip
    work.add_argument("--start-seconds", type=float, default=120.0, metavar="S",
        help="give up on a worker that takes longer to start (default: %(default)s)")  # fmt: skip
    work.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default: auto)")
    work.add_argument("--in-process", action="store_true", help="run workers as threads instead of processes")
    work.add_argument("--grace", type=float, default=30.0, metavar="S",
        help="seconds to finish accepted requests on shutdown (default: %(default)s)")  # fmt: skip
    work.add_argument("--pre-stop", type=float, default=0.0, metavar="S",
        help="seconds between 'not ready' and refusing requests on shutdown (default: %(default)s)")  # fmt: skip
    work.add_argument("--seconds", type=float, metavar="S", help="shut down after this time, for trials")
    _add_cluster(parser)
    _add_access(parser.add_argument_group("access and logging"))


def _add_access(who: argparse._ArgumentGroup) -> None:
    who.add_argument("--keys", metavar="FILE", help="require an API key; each line of the file is NAME:SHA256")
    who.add_argument("--new-key", metavar="NAME", help="print a new key and its line for --keys, then exit")
    who.add_argument("--tls-cert", metavar="FILE", help="PEM certificate")
    who.add_argument("--tls-key", metavar="FILE", help="PEM private key")
    who.add_argument("--client-ca", metavar="FILE", help="require client certificates signed by this authority (mTLS)")
    who.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="host name to answer to")
    who.add_argument("--allow-origin", action="append", default=[], metavar="ORIGIN",
        help="let pages of other origins use the server: https://example.org, or * for all")  # fmt: skip
    who.add_argument("--allow-urls", action="store_true", help="fetch images from https URLs of public addresses")
    who.add_argument("--access-log", metavar="FILE", help="log one JSON line per request; - for standard error")
    who.add_argument("--events", metavar="DIR", help="folder of the event log: requests, detections and feedback")
    who.add_argument("--keep-images", type=float, default=0.0, metavar="SHARE",
        help="fraction of images stored with the events, 0 to 1 (default: 0)")  # fmt: skip
    who.add_argument("--keep-days", type=float, default=7.0, metavar="DAYS", help="days to keep them (default: 7)")
    who.add_argument("--telemetry", action="store_true", help="record OpenTelemetry spans")


def _add_shares(parser: argparse.ArgumentParser) -> None:
    shares = parser.add_argument_group("routing between versions")
    shares.add_argument("--weights", action="append", default=[], metavar="SHARES",
        help="split requests that name no version: [MODEL:]@champion=9,@challenger=1")  # fmt: skip
    shares.add_argument("--sticky", default="", metavar="HEADER",
        help="send requests with the same value of this header to the same version")  # fmt: skip
    shares.add_argument("--version-header", default="", metavar="HEADER",
        help="let this header choose the version: 2, or @challenger")  # fmt: skip
    shares.add_argument("--shadow", action="append", default=[], metavar="VERSION",
        help="send copies of the requests to this version and log its detections as events: "
        "[MODEL:]@challenger")  # fmt: skip
    shares.add_argument("--routes", metavar="FILE", help="JSON file with all of these settings for each model")


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    cluster = parser.add_argument_group("with --on ray")
    cluster.add_argument("--replicas", default="1:4", metavar="MIN:MAX",
        help="number of replicas, by queue delay and demand (default: %(default)s)")  # fmt: skip
    cluster.add_argument("--replica-cpus", type=float, default=1.0, metavar="N",
        help="processors per replica, may be fractional (default: %(default)s)")  # fmt: skip
    cluster.add_argument("--replica-gpus", type=float, default=0.0, metavar="N",
        help="GPUs per replica, may be fractional (default: %(default)s)")  # fmt: skip
    cluster.add_argument("--replica-models", type=int, default=4, metavar="N",
        help="model versions loaded per replica (default: %(default)s)")  # fmt: skip
    cluster.add_argument("--retries", type=int, default=2, metavar="N",
        help="retries on other replicas when one is lost (default: %(default)s)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve until a signal."""
    if args.new_key:
        from eyas.serve.security import new_key

        key, line = new_key(args.new_key)
        say(f"key (shown once):       {key}\nline for --keys:        {line}")
        return 0
    from eyas.serve.engine.settings import MIB, EngineSettings

    if args.workers != "auto" and not (args.workers.isdecimal() and int(args.workers) > 0):
        raise UserError(f"--workers is '{args.workers}'.", expected="auto, or a number from 1")
    engine = EngineSettings(
        in_process=args.in_process,
        workers=None if args.workers == "auto" else int(args.workers),
        min_workers=args.min_workers,
        threads=args.threads,
        device=args.device,
        goal=None if args.slo is None else args.slo / 1000.0,
        max_batch=args.max_batch,
        memory_limit=args.memory * MIB,
        worker_memory=args.worker_memory * MIB,
        batch_seconds=args.batch_seconds,
        start_seconds=args.start_seconds,
    )
    router = _router(args)
    from eyas.serve.launch import Registered, serve

    registered = None
    if args.registry is not None or args.model:
        registered = Registered(args.registry, tuple(args.model))
    if args.on == "ray":
        from eyas.cluster.launch import serve_on_ray

        if router is not None:
            raise UserError("Weighted routing is not supported on a cluster.", fix="leave out its options")
        serve_on_ray(args.bundle, _settings(args), engine, _cluster(args), registered=registered, seconds=args.seconds)
        return 0
    serve(args.bundle, _settings(args), engine, registered=registered, router=router, seconds=args.seconds)
    return 0


def _cluster(args: argparse.Namespace) -> ClusterSettings:
    from eyas.cluster.settings import ClusterSettings

    if args.admin_port is not None or args.admin_grpc_port is not None:
        raise UserError(
            "The admin API is not supported on a cluster: the command names the models.",
            fix="leave out the admin ports",
        )
    least, _, most = args.replicas.partition(":")
    if not least.isdecimal() or not (most or least).isdecimal():
        raise UserError(f"--replicas is '{args.replicas}'.", expected="MIN:MAX, or a number")
    return ClusterSettings(
        min_replicas=int(least),
        max_replicas=int(most or least),
        cpus=args.replica_cpus,
        gpus=args.replica_gpus,
        models=args.replica_models,
        retries=args.retries,
    )


def _router(args: argparse.Namespace) -> Router | None:
    from eyas.serve.engine.routing import Router, read_routes, splits_of

    splits = splits_of(args.weights, args.shadow, args.sticky, args.version_header)
    if args.routes and splits:
        raise UserError(
            "--routes can't be combined with other routing options.",
            fix="leave out --weights, --shadow, --sticky and --version-header",
        )
    if args.routes:
        splits = read_routes(Path(args.routes))
    return Router(splits) if splits else None


def _settings(args: argparse.Namespace) -> ServerSettings:
    from eyas.serve.security import Keys, checked_origin, read_keys
    from eyas.serve.server_settings import ServerSettings

    token = os.environ.get(TOKEN, "")
    if not token and (args.admin_port is not None or args.admin_grpc_port is not None):
        token = secrets.token_urlsafe(24)
        say(f"Admin token of this run: {token}  (set {TOKEN} to choose it)")
    return ServerSettings(
        host=args.host,
        port=args.port,
        grpc_port=None if args.no_grpc else args.grpc_port,
        admin_port=args.admin_port,
        admin_grpc_port=args.admin_grpc_port,
        admin_token=token,
        keys=read_keys(Path(args.keys)) if args.keys else Keys(),
        tls=_tls(args),
        hosts=frozenset(name.lower() for name in args.allow_host),
        origins=frozenset(map(checked_origin, args.allow_origin)),
        urls=args.allow_urls,
        access_log=args.access_log,
        events=_events(args),
        telemetry=args.telemetry,
        pre_stop=args.pre_stop,
        grace=args.grace,
    )


def _tls(args: argparse.Namespace) -> Tls | None:
    from eyas.serve.server_settings import Tls

    if (args.tls_cert is None) != (args.tls_key is None) or (args.client_ca and not args.tls_cert):
        raise UserError("TLS needs a certificate and its private key.", fix="give both --tls-cert and --tls-key")
    if args.tls_cert is None:
        return None
    return Tls(Path(args.tls_cert), Path(args.tls_key), Path(args.client_ca) if args.client_ca else None)


def _events(args: argparse.Namespace) -> EventSettings | None:
    from eyas.serve.observe.events import EventSettings

    if args.events is None:
        if args.keep_images:
            raise UserError("--keep-images needs an event log.", fix="add --events DIR")
        return None
    if not 0.0 <= args.keep_images <= 1.0 or args.keep_days <= 0.0:
        raise UserError("--keep-images must be from 0 to 1 and --keep-days above 0.")
    return EventSettings(Path(args.events), images=args.keep_images, keep_seconds=args.keep_days * 86_400.0)
