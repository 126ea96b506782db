"""Models side by side, and servers under load: latency, images a second, memory."""
