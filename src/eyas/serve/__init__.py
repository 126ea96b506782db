"""Serving: bundles behind REST and gRPC, batched under a latency goal, versions swapped with nothing lost."""
