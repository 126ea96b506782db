"""What the server tells of itself: metrics, the access log, traces, and the event log that monitoring reads."""
