"""The Protocol Buffers of the gRPC services, and what is generated from them by tools/make_protocol.py."""
