"""The Open Inference Protocol (KServe v2): images in, tensors out, whatever transport, and its way over HTTP."""
