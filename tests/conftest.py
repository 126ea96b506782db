"""What all tests share: one thread, no screen, hypothesis without a clock, and a prepared folder of artefacts."""

from __future__ import annotations

import os

# Before torch, OpenCV or matplotlib are imported: small tensors gain nothing from threads, and workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from hypothesis import HealthCheck, settings

# A loaded machine is slow, which is no fault of the code; and a failure must come back when it is run again.
settings.register_profile("eyas", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("eyas")
