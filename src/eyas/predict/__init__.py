"""Offline prediction: everything in folders, archives, videos and parquet files, resumable at any moment."""
