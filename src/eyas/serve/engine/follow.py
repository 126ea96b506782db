"""Follows a registry while a server runs, and tells how that goes: in the log, in the metrics and in /readyz."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from eyas.artifacts.model_key import ModelKey
from eyas.errors import UserError, suggest
from eyas.registry.base import Model, Registry, parse_reference
from eyas.serve.api import Versions
from eyas.serve.blocking import in_thread
from eyas.serve.engine.watch import INTERVAL, Behind, Change, RegistryWatcher

_LOG = logging.getLogger("eyas.serve")


@dataclass(frozen=True)
class Wanted:
    """What of a registry is served.

    Attributes:
        follow: model -> the aliases to follow, none for all that it has; None follows every model with an alias.
        fixed: versions that stay as they are.
    """

    follow: Mapping[str, tuple[str, ...]] | None
    fixed: tuple[ModelKey, ...] = ()


def wanted_of(references: Sequence[str]) -> Wanted:
    """Return what NAME, NAME@ALIAS and NAME:VERSION mean together; none of them means the whole registry.

    Raises:
        UserError: one of them is no reference.
    """
    if not references:
        return Wanted(None)
    follow: dict[str, tuple[str, ...]] = {}
    whole: set[str] = set()
    fixed: list[ModelKey] = []
    for text in references:
        name, reference = parse_reference(text)
        if reference.startswith("@"):
            follow[name] = (*follow.get(name, ()), reference[1:])
        elif reference:
            fixed.append(ModelKey(name, reference))
        else:
            whole.add(name)
    return Wanted(follow | dict.fromkeys(whole, ()), tuple(dict.fromkeys(fixed)))


class Follower(Collector):
    """Serves what is wanted of a registry, and follows its aliases.

    Args:
        registry: where the models are.
        engine: what serves them.
        wanted: which of them.
    """

    def __init__(self, registry: Registry, engine: Versions, wanted: Wanted) -> None:
        self._registry, self._engine, self._wanted = registry, engine, wanted
        self._changes: Counter[str] = Counter()
        self._watcher = RegistryWatcher(registry, engine, follow=wanted.follow, on_change=self._changed)

    async def start(self) -> list[str]:
        """Load what is wanted and return a line of words for each model that is served, or why one is not.

        Raises:
            UserError: a model is not in the registry, or nothing of what is wanted can be served.
        """
        models = {model.name: model for model in await in_thread(self._registry.list)}
        self._check(models)
        lines = [await self._pin(key) for key in self._wanted.fixed]
        try:
            await self._watcher.look()
        except BaseException:  # told to end
            self._watcher.end()
            raise
        for (name, alias), key in sorted(self._watcher.serving.items()):
            lines.append(f"Serving {name}@{alias}, now version {key.version} ({self._registry.location})")
        if not lines:
            reasons = [each.message for each in self._watcher.behind] or [self._watcher.unreadable]
            raise UserError("Nothing in the registry can be served.", where="\n".join(filter(None, reasons)))
        return lines + [_warning(each) for each in self._watcher.behind]

    async def run(self) -> None:
        """Follow the aliases until the task is cancelled."""
        await asyncio.sleep(INTERVAL)
        await self._watcher.run()

    def document(self) -> dict[str, Any]:
        """Return how it goes: whether the registry can be read, and which aliases lag behind it, and why."""
        behind = [
            {
                "model": each.wanted.name,
                "alias": each.alias,
                "version": each.wanted.version,
                "serving": None if each.serving is None else each.serving.version,
                "fallback": each.fallback,
                "reason": each.message.splitlines()[0],  # the lines below it name files of this machine
            }
            for each in self._watcher.behind
        ]
        return {"readable": not self._watcher.unreadable, "behind": behind}

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        readable = GaugeMetricFamily("eyas_registry_readable", "Whether the registry can be read")
        readable.add_metric((), float(not self._watcher.unreadable))
        yield readable
        late = GaugeMetricFamily(
            "eyas_registry_behind",
            "Whether an alias of the registry points to a version that can't be served",
            labels=("model", "alias"),
        )
        fallen = GaugeMetricFamily(
            "eyas_registry_fallback",
            "Whether an alias answers with an earlier version because its own can't be served",
            labels=("model", "alias"),
        )
        behind = {(each.wanted.name, each.alias): each for each in self._watcher.behind}
        for at in sorted(behind.keys() | self._watcher.serving.keys()):
            late.add_metric(at, float(at in behind))
            fallen.add_metric(at, float(at in behind and behind[at].fallback))
        yield late
        yield fallen
        changes = CounterMetricFamily(
            "eyas_registry_changes", "Changes made while following the registry", labels=("kind",)
        )
        for kind, count in sorted(self._changes.items()):
            changes.add_metric((kind,), count)
        yield changes

    def _check(self, models: Mapping[str, Model]) -> None:
        follow = self._wanted.follow
        for name in [*(follow or ()), *(key.name for key in self._wanted.fixed)]:
            if name not in models:
                raise UserError(
                    f"The registry has no model '{name}'{suggest(name, models)}.",
                    where=self._registry.location,
                    fix=f"eyas registry add BUNDLE --name {name}",
                )
        for name, aliases in (follow if follow is not None else dict.fromkeys(models, ())).items():
            missing = [alias for alias in aliases if alias not in models[name].aliases]
            if missing or (follow is not None and not models[name].aliases):
                alias = missing[0] if missing else "champion"
                raise UserError(
                    f"The model '{name}' has no alias '{alias}'.",
                    where=self._registry.location,
                    fix=f"eyas registry promote {name} VERSION --alias {alias}",
                )
        if follow is None and not any(model.aliases for model in models.values()):
            raise UserError(
                "No model in the registry has an alias, so there is nothing to serve.",
                where=self._registry.location,
                fix="eyas registry promote NAME VERSION",
            )

    async def _pin(self, key: ModelKey) -> str:
        found = await in_thread(self._registry.resolve, key.name, key.version)
        await self._engine.load(key.name, key.version, found.bundle)
        return f"Serving {key.name}, version {key.version} ({self._registry.location})"

    def _changed(self, change: Change) -> None:
        self._changes[change.kind] += 1
        what = "" if change.key is None else f"{change.key.name}/{change.key.version}"
        if change.kind == "failed":
            _LOG.error("%s of the registry can't be served; the current versions stay: %s", what, change.message)
        elif change.kind == "fallback":
            _LOG.error("@%s answers with %s, an earlier version, because its own can't be served", change.alias, what)
        elif change.kind == "unreadable":
            _LOG.error("the registry can't be read; the current versions stay: %s", change.message)
        elif change.kind == "flipped":
            _LOG.info("@%s points to %s", change.alias, what)
        else:
            _LOG.info("%s: %s", change.kind, what or "the registry")


def _warning(behind: Behind) -> str:
    at, reason = f"{behind.wanted.name}@{behind.alias}", behind.message.splitlines()[0]
    if behind.serving is None:
        return f"warning: {at} is not served: {reason}"
    served = f"version {behind.serving.version}, an earlier one, is served instead"
    return f"warning: {at} is version {behind.wanted.version}, which can't be served, and {served}: {reason}"
