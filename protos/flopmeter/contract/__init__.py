"""What agent and collector must agree on. Pure: no I/O, no clock, no transport."""
