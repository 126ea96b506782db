"""Rewriting datasets: converting, packing, splitting."""
