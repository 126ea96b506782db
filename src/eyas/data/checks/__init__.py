"""Faults that ruin training or flatter evaluation, found before they cost anything."""
