"""The model registry: bundles under names, versions and aliases, kept by MLflow in a folder or on a server."""

from __future__ import annotations

from eyas.registry.base import CHALLENGER, CHAMPION, Event, Model, Registry, Resolved, Version
from eyas.registry.store import open_registry

__all__ = ["CHALLENGER", "CHAMPION", "Event", "Model", "Registry", "Resolved", "Version", "open_registry"]
