"""Serving past one machine: the same protocols in front of replicas that Ray Serve starts, scales and replaces."""
