"""Datasets written anew: converted, packed, split."""
