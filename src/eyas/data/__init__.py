"""Datasets on disk and in memory, and the pipeline from files to batches."""
