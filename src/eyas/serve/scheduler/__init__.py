"""Who is admitted, who runs when and with whom: a state machine without a clock."""
