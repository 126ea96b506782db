"""What lies on disk between two steps: each artefact reads, writes and verifies itself."""
