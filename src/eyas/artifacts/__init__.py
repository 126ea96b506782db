"""The files passed between two steps: each artefact reads, writes and verifies itself."""
