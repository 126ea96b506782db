"""The engine on this machine: versions, their workers, which of them answers what, and how they are swapped."""
