"""Which numbers INT8 has: ranges from real images, written into the graph in the dialect of its runtime."""
