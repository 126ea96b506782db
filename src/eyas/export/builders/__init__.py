"""From an exported graph to what a runtime executes, a file each."""
