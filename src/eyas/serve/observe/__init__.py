"""Observability of the server: metrics, the access log, traces, and the event log for monitoring."""
