"""The Open Inference Protocol (KServe v2) apart from its transports: tensors in, detections, tensors out."""
