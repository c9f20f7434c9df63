"""What is asked of a fleet: lengths, traces, arrivals, declared limits and texts."""
