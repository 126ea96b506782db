"""From images on disk to batches: read ahead, kept in memory, made by worker processes, in an order that is known."""
