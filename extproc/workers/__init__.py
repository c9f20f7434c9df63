"""A router of several processes: a supervisor, and workers that each serve their own ext_proc endpoint."""
