"""Benchmarks of models side by side, and of servers under load: latency, images per second, memory."""
