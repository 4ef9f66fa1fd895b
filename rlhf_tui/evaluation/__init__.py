"""What changed, whose taste it is, and what did not change."""
