"""The workload of a fleet: lengths, traces, arrivals, declared limits and texts."""
