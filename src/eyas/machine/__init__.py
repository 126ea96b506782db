"""The machine as this process may use it: its cores, memory, processor, GPUs, and the processes on it."""
