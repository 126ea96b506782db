"""A load generator for servers: open-loop arrivals on a schedule of their own, whatever the server does."""
